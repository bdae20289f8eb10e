//! Random histories, in memory and in tiny segments: what expires is gone, what stays answers as it
//! did, and exactly what no retained version reaches is free.

use std::collections::{BTreeMap, BTreeSet};

use crate::format::DATA_START;
use crate::format::arrays::{Array, DATA_ARRAYS};
use crate::{AtError, CreateOptions, OpenOptions, Retention, Snapshot, Store, VersionId};

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % limit
    }
}

type Points = BTreeMap<u64, f32>;

fn listing(snapshot: &Snapshot) -> Points {
    let mut points = Points::new();
    let mut add = |id, point: &[f32]| {
        points.insert(id, point[0]);
    };
    snapshot.for_each(&mut add).unwrap();
    points
}

/// The oracle: the blocks that the newest slot and the retained versions reach, and those listed as
/// freed, are in use, and no others.
fn assert_space(store: &Store, what: &str) {
    let db = &store.core.db;
    let slot = db.newest().unwrap();
    let (space, freed) = db.load_space(&slot).unwrap();
    let mut reached: BTreeMap<u64, u64> = BTreeMap::from([(0, DATA_START)]);
    let mut add = |address: u64, bytes: u64| {
        let before = reached.insert(address, bytes);
        assert!(before.is_none_or(|before| before == bytes), "{what}: two lengths at {address}");
    };
    let rows = db.versions().unwrap();
    let state = Array::ALL[DATA_ARRAYS..].iter().map(|&array| db.state_table(&slot, array));
    let data = rows.iter().flat_map(|row| {
        Array::ALL[..DATA_ARRAYS].iter().map(|&array| db.data_table(array, &row.roots))
    });
    for table in state.chain(data) {
        let mut visit = |entry: &crate::format::arrays::Entry, _| {
            add(entry.address, entry.bytes as u64);
            true
        };
        table.walk(&mut visit, &mut |e| panic!("{what}: {e}"));
    }
    freed.iter().for_each(|range| add(range.address, range.bytes));
    let mut end = 0;
    let mut free = Vec::new();
    for (address, bytes) in reached {
        assert!(address >= end, "{what}: block {address} belongs to two");
        if address > end {
            free.push((end, address - end));
        }
        end = address + bytes;
    }
    assert_eq!(space.free_runs(0, end), free, "{what}: what is free");
    assert_eq!((space.used_end(), slot.file_bytes), (end, end), "{what}");
}

/// What `log` and `stats` say of space is what the file spends: every block in use belongs to the
/// state, to one version alone, or to several.
fn assert_accounts(store: &Store, what: &str) {
    let db = &store.core.db;
    let mut users: BTreeMap<u64, (u64, BTreeSet<u64>)> = BTreeMap::new();
    let rows = db.versions().unwrap();
    for row in &rows {
        for &array in &Array::ALL[..DATA_ARRAYS] {
            let mut visit = |entry: &crate::format::arrays::Entry, _| {
                let user =
                    users.entry(entry.address).or_insert((entry.bytes as u64, BTreeSet::new()));
                user.1.insert(row.version);
                true
            };
            db.data_table(array, &row.roots).walk(&mut visit, &mut |e| panic!("{what}: {e}"));
        }
    }
    let unique = store.unique_bytes().unwrap();
    for (row, (version, bytes)) in rows.iter().zip(&unique) {
        let alone = |users: &BTreeSet<u64>| *users == BTreeSet::from([row.version]);
        let expected: u64 = users.values().filter(|user| alone(&user.1)).map(|user| user.0).sum();
        assert_eq!((version.0, *bytes), (row.version, expected), "{what}: unique to a version");
        let stats = store.stats(&store.at(*version).unwrap()).unwrap();
        let held = users.values().filter(|user| user.1.contains(&row.version));
        let held: u64 = held.map(|user| user.0).sum();
        assert_eq!((stats.unique_bytes, stats.shared_bytes), (expected, held - expected), "{what}");
        let sum = stats.live_bytes + stats.pinned_bytes + stats.reclaimable_bytes;
        assert_eq!((stats.file_bytes, sum), (store.file_bytes(), store.file_bytes()), "{what}");
        let others: u64 = users.values().map(|user| user.0).sum::<u64>() - held;
        assert_eq!(stats.pinned_bytes, others, "{what}: what other versions keep");
    }
}

/// The difference of two versions is that of their points.
fn assert_diff(store: &Store, versions: &[Points], from: u64, to: u64, what: &str) {
    let diff = store.diff(VersionId(from), VersionId(to)).unwrap();
    let (old, new) = (&versions[from as usize], &versions[to as usize]);
    let only = |a: &Points, b: &Points| -> Vec<u64> {
        a.keys().copied().filter(|id| !b.contains_key(id)).collect()
    };
    assert_eq!(diff.added, only(new, old), "{what}: added from {from} to {to}");
    assert_eq!(diff.removed, only(old, new), "{what}: removed from {from} to {to}");
    let replaced = old.iter().filter(|(id, x)| new.get(id).is_some_and(|y| y != *x));
    let replaced: Vec<u64> = replaced.map(|(id, _)| *id).collect();
    assert_eq!(diff.replaced, replaced, "{what}: replaced from {from} to {to}");
}

/// One history of inserts, deletes, packings, restores, tags, pins, expiries and rules.
fn history(seed: u64) {
    let mut random = Random(seed);
    let options = CreateOptions::new(1)
        .leaf_capacity(2)
        .block_bytes(128)
        .topology_segment_bytes(128)
        .coordinate_segment_bytes(128);
    let mut store = Store::in_memory(options, OpenOptions::new().threads(1)).unwrap();
    let mut versions: Vec<Points> = vec![Points::new()];
    let mut gone: BTreeSet<u64> = BTreeSet::new();
    let mut tags: BTreeMap<String, u64> = BTreeMap::new();
    let mut pins: Vec<Snapshot> = Vec::new();
    let mut next_id = 0;
    for step in 0..8 + random.below(20) {
        let what = format!("history {seed}, step {step}");
        let newest = versions.len() as u64 - 1;
        let any = random.below(newest + 1);
        let mut points = versions[newest as usize].clone();
        match random.below(12) {
            0..4 => {
                let batch: Vec<f32> =
                    (0..1 + random.below(6)).map(|_| random.below(50) as f32).collect();
                store.insert(&batch).unwrap();
                for value in batch {
                    points.insert(next_id, value);
                    next_id += 1;
                }
                versions.push(points);
            }
            4 if random.below(2) == 0 && !points.is_empty() => {
                // The same ids with other values.
                let ids: Vec<u64> =
                    points.keys().copied().filter(|_| random.below(3) == 0).collect();
                let batch: Vec<f32> = ids.iter().map(|_| random.below(50) as f32).collect();
                let mut transaction = store.begin();
                transaction.delete(&ids).unwrap();
                transaction.insert_with_ids(&batch, &ids).unwrap();
                let report = transaction.commit().unwrap();
                points.extend(ids.into_iter().zip(batch));
                if report.is_new {
                    versions.push(points);
                }
            }
            4 => {
                let ids: Vec<u64> =
                    points.keys().copied().filter(|_| random.below(3) == 0).collect();
                let report = store.delete(&ids).unwrap();
                assert_eq!(report.is_new, !ids.is_empty(), "{what}");
                points.retain(|id, _| !ids.contains(id));
                if report.is_new {
                    versions.push(points);
                }
            }
            5 if random.below(2) == 0 => {
                store.compact().unwrap();
                versions.push(points);
            }
            5 | 6 => match store.restore(VersionId(any)) {
                Ok(_) => versions.push(versions[any as usize].clone()),
                Err(_) => assert!(gone.contains(&any), "{what}"),
            },
            7 if any > 0 && !gone.contains(&any) => {
                let name = format!("t{}", random.below(3));
                store.tag(&name, VersionId(any)).unwrap();
                tags.insert(name, any);
            }
            7 => {
                if let Some((name, _)) = tags.pop_first() {
                    store.delete_tag(&name).unwrap();
                }
            }
            8 => match store.at(VersionId(any)) {
                Ok(snapshot) => pins.push(snapshot),
                Err(AtError::Expired { oldest, .. }) => {
                    assert!(gone.contains(&any) && !gone.contains(&oldest.0), "{what}");
                }
                Err(e) => panic!("{what}: {e}"),
            },
            9 => drop(pins.pop()),
            10 if random.below(4) == 0 => {
                let rule = match random.below(3) {
                    0 => Retention::new(),
                    _ => Retention::new().keep_last(1 + random.below(4)),
                };
                store.set_retention(rule).unwrap();
            }
            _ => {
                let rule = Retention::new().keep_last(1 + random.below(5));
                let preview = store.expire_preview(rule).unwrap();
                let report = store.expire(rule).unwrap();
                assert_eq!(preview.expired, report.expired, "{what}");
                assert_eq!(preview.bytes_freed, report.bytes_freed, "{what}");
                assert!(pins.iter().all(|pin| !report.expired.contains(&pin.version())), "{what}");
                assert_eq!(store.core.db.arena.storage().len().unwrap(), store.file_bytes());
            }
        }
        let newest = versions.len() as u64 - 1;
        let left: BTreeSet<u64> = store.versions().unwrap().iter().map(|v| v.version.0).collect();
        for version in 1..=newest {
            if !left.contains(&version) {
                gone.insert(version);
            }
            assert_ne!(left.contains(&version), gone.contains(&version), "{what}: came back");
        }
        assert!(newest == 0 || left.contains(&newest), "{what}: the newest stays");
        assert!(
            tags.values().all(|version| left.contains(version)),
            "{what}: tagged versions stay"
        );
        assert_space(&store, &what);
    }
    let what = format!("history {seed}");
    assert_accounts(&store, &what);
    let left: Vec<u64> = (0..versions.len() as u64).filter(|v| !gone.contains(v)).collect();
    for _ in 0..8 {
        let [from, to] = [0; 2].map(|_| left[random.below(left.len() as u64) as usize]);
        assert_diff(&store, &versions, from, to, &what);
    }
    for version in 1..versions.len() as u64 {
        if !gone.contains(&version) {
            let snapshot = store.at(VersionId(version)).unwrap();
            assert_eq!(listing(&snapshot), versions[version as usize], "history {seed}: {version}");
        }
    }
    for pin in pins {
        assert_eq!(listing(&pin), versions[pin.version().0 as usize], "history {seed}: pinned");
    }
}

#[test]
fn exactly_the_unreachable_is_freed() {
    (0..2000).for_each(history);
}
