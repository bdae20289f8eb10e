//! Lies for hostile stores, and everything that a store can be asked and told while it lies. Each
//! lie is one that no checksum gives away; [`super::forge`] writes it down. What a store answers
//! need not be right then: it must not panic, hang, or take more memory than what is stored calls
//! for.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use treering::{OpenOptions, Retention, Store, VerifyOptions, VersionId};

use super::forge::Forge;
use crate::common::{Random, threads};
use crate::format::Spec;

/// Where files of tests lie: in memory, if there is a place for that, because each of them is
/// synced again and again.
pub(crate) fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    match memory.is_dir() {
        true => tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir()),
        false => tempfile::tempdir(),
    }
    .expect("a folder")
}

pub(crate) fn spec() -> &'static Spec {
    static SPEC: OnceLock<Spec> = OnceLock::new();
    SPEC.get_or_init(Spec::parse)
}

/// The file of a store that `make` fills.
pub(crate) fn real(options: treering::CreateOptions, make: impl FnOnce(&mut Store)) -> Vec<u8> {
    let dir = folder();
    let path = dir.path().join("s");
    let mut store = Store::create_with(&path, options, threads(1)).unwrap();
    make(&mut store);
    drop(store);
    std::fs::read(&path).unwrap()
}

/// Stores with something of everything: versions, deleted points, tags, an expired version, one
/// that was gone back to.
fn bases() -> &'static [Vec<u8>] {
    static BASES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    BASES.get_or_init(|| {
        let shapes = [(2, 4, 128), (3, 32, 256), (12, 8, 256)];
        let made = shapes.map(|(dim, leaf_capacity, block)| {
            let options = treering::CreateOptions::new(dim)
                .leaf_capacity(leaf_capacity)
                .block_bytes(block)
                .topology_segment_bytes(2 * block)
                .coordinate_segment_bytes(4 * block);
            real(options, |store| {
                let mut random = Random(dim as u64);
                for batch in 0..6u64 {
                    let mut points = random.points(60, dim);
                    points.copy_within(0..5 * dim, 20 * dim);
                    let ids: Vec<u64> = (0..60).map(|i| batch * 1000 + i * (1 + batch)).collect();
                    store.insert_with_ids(&points, &ids).unwrap();
                    store.delete(&ids[10..14]).unwrap();
                }
                store.tag("one", VersionId(3)).unwrap();
                store.tag("two", VersionId(8)).unwrap();
                store.restore(VersionId(5)).unwrap();
                store.insert(&random.points(3, dim)).unwrap();
                store.expire(Retention::new().keep_last(9)).unwrap();
            })
        });
        made.to_vec()
    })
}

/// Numbers that lie well, of which some depend on how many rows there are.
fn lie(random: &mut Random, rows: u64, now: u64) -> u64 {
    match random.below(16) {
        0 => 0,
        1 => 1,
        2 => rows,
        3 => rows.wrapping_sub(1),
        4 => rows + 1,
        5 => u64::MAX,
        6 => u64::from(u32::MAX),
        7 => u64::from(u32::MAX) - 1,
        8 => 1 << 31,
        9 => 1 << 63,
        10 => u64::from(u16::MAX),
        11 => now.wrapping_add(1),
        12 => now.wrapping_sub(1),
        13 => now ^ 1 << random.below(64),
        14 => random.next(),
        _ => random.below(rows.max(1)),
    }
}

/// A field of a row of some array.
fn lie_in_a_row(forge: &mut Forge<'_>, random: &mut Random) {
    let spec = forge.spec;
    let version = random.below(forge.versions.len() as u64) as usize;
    let array = random.below(spec.data_arrays() as u64) as usize;
    let name = spec.array_name(array).to_string();
    let rows = forge.rows(version, &name);
    if rows == 0 {
        return;
    }
    // Much hangs on the first rows: they are the root's.
    let row = match random.below(3) {
        0 => 0,
        1 => rows - 1,
        _ => random.below(rows as u64) as usize,
    };
    match spec.record_of(array) {
        Some(record) => {
            let field = &record.fields[random.below(record.fields.len() as u64) as usize];
            let now = forge.get(version, &name, row, &field.name);
            // Numbers in one array are of rows in another.
            let others = ["ids", "links", "runs", "index_slots", "index_keys", "index_pieces"];
            let of = forge.rows(version, others[random.below(6) as usize]) as u64;
            let value = lie(random, of, now);
            forge.set(version, &name, row, &field.name, value);
        }
        None => {
            let bytes = forge.row(version, &name, row);
            let at = random.below(bytes.len() as u64 / 4) as usize * 4;
            let value = lie(random, rows as u64, 0) as u32;
            let value = [value, f32::NAN.to_bits(), f32::INFINITY.to_bits(), 0x7F7F_FFFF];
            let value = value[random.below(4) as usize];
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
    }
}

/// A row in the place of another of its array: subtrees that two nodes have, pieces that overlap,
/// runs out of order.
fn lie_by_copying(forge: &mut Forge<'_>, random: &mut Random) {
    let version = random.below(forge.versions.len() as u64) as usize;
    let names = ["links", "counts", "nodes", "runs", "index_pieces", "index_runs", "owners", "ids"];
    let name = names[random.below(names.len() as u64) as usize];
    let rows = forge.rows(version, name) as u64;
    if rows > 1 {
        let from = forge.row(version, name, random.below(rows) as usize).to_vec();
        let to = random.below(rows) as usize;
        forge.row(version, name, to).copy_from_slice(&from);
    }
}

/// A node whose list of later ranges is long, each range being everything there is, or nearly.
pub(crate) fn lie_by_runs(
    forge: &mut Forge<'_>,
    version: usize,
    node: usize,
    count: u64,
    kind: u64,
) {
    let of = if kind == 0 { forge.rows(version, "links") } else { forge.rows(version, "ids") };
    let start = if kind == 0 { node as u64 + 1 } else { 0 };
    let record = forge.spec.record_of(forge.spec.number_of("runs")).expect("runs are records");
    let mut run = vec![0; record.bytes];
    super::forge::put(record, "start", &mut run, start);
    super::forge::put(record, "count", &mut run, (of as u64).saturating_sub(start));
    super::forge::put(record, "kind", &mut run, kind);
    let first = forge.rows(version, "runs") as u64;
    let number = forge.spec.number_of("runs");
    let mut runs = forge.versions[version].arrays[number].clone();
    runs.extend(run.repeat(count as usize));
    forge.fill(version, "runs", runs);
    forge.set(version, "counts", node, "run_start", first);
    forge.set(version, "counts", node, "run_count", count);
}

/// How a table lies.
fn lie_in_a_table(forge: &mut Forge<'_>, random: &mut Random) {
    let arrays = forge.spec.number_of("tags") as u64 + 1;
    let array = random.below(arrays) as usize;
    let name = forge.spec.array_name(array).to_string();
    let version = random.below(forge.versions.len() as u64) as usize;
    let rows = match array < forge.spec.data_arrays() {
        true => forge.rows(version, &name) as u64,
        false => 4,
    };
    let table = forge.table(version, &name);
    table.aliased = random.below(2) == 0;
    table.rows = Some(match random.below(4) {
        0 => rows + random.below(5000),
        1 => random.below(rows + 1),
        2 => rows * (2 + random.below(300)),
        _ => lie(random, rows, rows),
    });
    if random.below(4) == 0 {
        table.birth = Some(lie(random, 5, 1));
    }
}

/// A number of a version's row or of the slot.
fn lie_in_the_state(forge: &mut Forge<'_>, random: &mut Random) {
    let slot = ["commit", "time_ns", "oldest_version", "keep_last", "keep_for_ns", "first_commit"];
    let versions = forge.versions.len() as u64;
    if random.below(3) == 0 {
        let value = lie(random, versions, versions);
        forge.slot_lies.push((slot[random.below(slot.len() as u64) as usize], value));
        return;
    }
    let row = ["parent", "commit", "time_ns", "points", "held", "added", "next_id", "expired_ns"];
    let version = random.below(versions) as usize;
    let value = lie(random, versions, version as u64);
    forge.set_version(version, row[random.below(row.len() as u64) as usize], value);
}

/// A store with some lies, which follow from `seed`.
pub(crate) fn forged(seed: u64) -> super::forge::Forgery {
    let mut random = Random(seed);
    let bases = bases();
    let mut forge = Forge::of(spec(), &bases[(seed % bases.len() as u64) as usize]);
    for _ in 0..=random.below(4) {
        match random.below(10) {
            0..4 => lie_in_a_row(&mut forge, &mut random),
            4..6 => lie_by_copying(&mut forge, &mut random),
            6 => {
                let version = forge.versions.len() - 1;
                let nodes = forge.rows(version, "links") as u64;
                let node = random.below(nodes.min(3)) as usize;
                let count = 1 + random.below(300);
                lie_by_runs(&mut forge, version, node, count, random.below(4));
            }
            7 => lie_in_a_table(&mut forge, &mut random),
            _ => lie_in_the_state(&mut forge, &mut random),
        }
    }
    forge.write()
}

/// Asks everything of every version of a store that is open for reading.
fn ask(store: &Store) {
    let _ = store.verify(VerifyOptions::all().deep(true));
    let _ = (store.tags(), store.retention(), store.unique_bytes());
    let versions = store.versions().unwrap_or_default();
    for info in &versions {
        let Ok(snapshot) = store.at(info.version) else { continue };
        let query = vec![0.5; snapshot.dim()];
        let _ = (snapshot.knn(&query, 4), snapshot.within(&query, 0.5), snapshot.get(3));
        let _ = (snapshot.brute_knn(&query, 4), snapshot.count_within(&query, 0.5));
        let _ = snapshot.knn_batch(&query.repeat(40), 3);
        let _ = (snapshot.for_each(|_, _| ()), store.stats(&snapshot));
        let _ = store.diff(VersionId(info.version.0 - 1), info.version);
    }
    if let (Some(first), Some(last)) = (versions.first(), versions.last()) {
        let _ = store.diff(first.version, last.version);
        let _ = store.as_of(last.time);
    }
}

/// Changes a store in every way. What is acknowledged must be a new version, and be there
/// afterwards.
fn tell(path: &Path, options: &OpenOptions) {
    let Ok(mut store) = Store::open_with(path, options.clone()) else { return };
    let row = vec![0.25; store.dim()];
    let mut made = Vec::new();
    made.extend(store.insert(&row).map(|report| report.version));
    made.extend(store.insert_with_ids(&row.repeat(50), &Vec::from_iter(40..90)).map(|r| r.version));
    made.extend(store.delete(&[3]).map(|report| report.version));
    let live = store.latest().ok().and_then(|snapshot| {
        let mut ids = Vec::new();
        snapshot.for_each(|id, _| ids.push(id)).ok()?;
        Some(ids)
    });
    if let Some(ids) = live {
        made.extend(store.delete(&ids[..ids.len() / 2]).map(|report| report.version));
    }
    let _ = store.tag("new", VersionId(1));
    made.extend(store.restore(VersionId(2)).map(|report| report.version));
    made.extend(store.insert(&row.repeat(40)).map(|report| report.version));
    made.extend(store.compact().map(|report| report.version));
    assert!(made.windows(2).all(|pair| pair[0] < pair[1]), "a version twice: {made:?}");
    drop(store);
    let Some(&newest) = made.last() else { return };
    let store = Store::open_with(path, options.clone().read_only(true));
    let found = store.and_then(|store| Ok(store.versions()?));
    if let Ok(versions) = found {
        assert!(versions.iter().any(|info| info.version == newest), "{newest} has gone");
    }
    let Ok(mut store) = Store::open_with(path, options.clone()) else { return };
    let _ = store.expire(Retention::new().keep_last(2));
    let _ = (store.insert(&row), store.expire(Retention::new().keep_last(1)));
    let _ = store.verify(VerifyOptions::all().deep(true));
}

/// Sends a store, and receives what was sent.
fn copy(store: &Store, folder: &Path, options: &OpenOptions) {
    let stream = folder.join("stream");
    let mut out = BufWriter::new(File::create(&stream).expect("a new file"));
    let sent = store.backup(None, &mut out).is_ok() && out.flush().is_ok();
    let copied = folder.join("copy");
    let input = || BufReader::new(File::open(&stream).expect("there"));
    if Store::receive(&copied, input(), options.clone()).is_ok() && sent {
        if let Ok(store) = Store::open_with(&copied, options.clone().read_only(true)) {
            let _ = store.verify(VerifyOptions::all().deep(true));
        }
        let _ = Store::receive(&copied, input(), options.clone());
    }
}

/// Everything, in this order: reading, sending, receiving, recovering, changing.
pub(crate) fn exercise(path: &Path) {
    let folder: PathBuf = path.parent().expect("a folder").to_path_buf();
    let options = threads(1);
    if let Ok(store) = Store::open_with(path, options.clone().read_only(true)) {
        ask(&store);
        copy(&store, &folder, &options);
    }
    let _ = Store::recover(path, Some(&folder.join("rescued")), options.clone());
    tell(path, &options);
}

/// For the fuzz target: the seed is the input.
#[cfg_attr(test, expect(dead_code, reason = "tests choose their seeds themselves"))]
pub(crate) fn store(data: &[u8]) {
    let seed = data.iter().take(8).fold(0, |seed, &byte| seed << 8 | u64::from(byte));
    let dir = folder();
    let path = dir.path().join("s");
    forged(seed).save(&path);
    exercise(&path);
}
