//! Long histories: what each thing costs when there are ten times as many versions and tags, and
//! the last commit numbers.
//!
//! Costs are operations of a simulated disk, so the same on every machine; times are printed beside
//! them. What one commit, one opening or one look costs must not grow with the history; what goes
//! through all of it may grow as it does.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use treering::{CreateOptions, Durability, Retention, Store, VerifyOptions, VersionId, simulation};

use super::disk::{Disk, Event};
use super::preamble::small;
use super::workload::options;
use crate::common::crc32;
use crate::common::{Random, threads};
use crate::format::Spec;

/// Commits over whose cost a mean is taken.
const SAMPLE: u64 = 20;

/// Operations of the disk, bytes written, and time, of one of its kind.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    operations: f64,
    bytes: f64,
    time: Duration,
}

/// A store that grows, and what it cost to do things to it.
struct Growing {
    disk: Disk,
    store: Store,
    costs: BTreeMap<&'static str, Cost>,
    random: Random,
}

impl Growing {
    /// Does something `times` times and notes what one of them cost.
    fn measure(&mut self, what: &'static str, times: u64, mut act: impl FnMut(&mut Self, u64)) {
        self.disk.take_record();
        let (before, start) = (self.disk.operations(), Instant::now());
        (0..times).for_each(|number| act(self, number));
        let bytes: usize = self.disk.take_record().iter().map(Event::bytes).sum();
        let cost = Cost {
            operations: (self.disk.operations() - before) as f64 / times as f64,
            bytes: bytes as f64 / times as f64,
            time: start.elapsed() / times as u32,
        };
        self.costs.insert(what, cost);
    }

    fn insert(&mut self) {
        let point = self.random.points(1, 2);
        self.store.insert(&point).unwrap();
    }
}

fn geometry() -> CreateOptions {
    CreateOptions::new(2)
        .block_bytes(256)
        .topology_segment_bytes(1024)
        .coordinate_segment_bytes(1024)
}

/// Costs with a history of so many versions of one point each, and so many tags.
fn costs(versions: u64, tags: u64) -> BTreeMap<&'static str, Cost> {
    let disk = Disk::default();
    simulation::format(disk.handle(), &geometry(), &options()).unwrap();
    let store = simulation::open(disk.handle(), options()).unwrap();
    let mut growing = Growing { disk, store, costs: BTreeMap::new(), random: Random(versions) };
    for _ in 0..versions - 2 * SAMPLE {
        growing.insert();
        growing.disk.take_record();
    }
    growing.measure("insert", SAMPLE, |g, _| g.insert());
    let newest = VersionId(versions - SAMPLE);
    for number in 0..tags {
        if number + SAMPLE == tags {
            growing.measure("tag", SAMPLE, |g, n| {
                g.store.tag(&format!("last {n}"), newest).unwrap();
            });
            break;
        }
        growing.store.tag(&format!("tag {number}"), newest).unwrap();
        growing.disk.take_record();
    }
    look(&mut growing, versions);
    change(&mut growing, versions);
    growing.costs
}

/// What only reads.
fn look(growing: &mut Growing, versions: u64) {
    growing.measure("open", 3, |g, _| {
        g.store = simulation::open(g.disk.handle(), options()).unwrap();
        g.store.latest().unwrap();
    });
    growing.measure("at", SAMPLE, |g, n| {
        let version = VersionId(1 + (versions / 2 + n) % (versions - SAMPLE));
        g.store.at(version).unwrap();
    });
    growing.measure("as of a time", SAMPLE, |g, _| {
        let time =
            g.store.at(VersionId(versions / 3)).unwrap().info().expect("it is a version").time;
        g.store.as_of(time).unwrap();
    });
    growing.measure("at a tag", SAMPLE, |g, n| {
        g.store.at_tag(&format!("last {n}")).unwrap();
    });
    growing.measure("versions", 1, |g, _| drop(g.store.versions().unwrap()));
    growing.measure("tags", 1, |g, _| drop(g.store.tags().unwrap()));
    growing.measure("unique bytes", 1, |g, _| drop(g.store.unique_bytes().unwrap()));
    growing.measure("backup", 1, |g, _| {
        g.store.backup(None, std::io::sink()).unwrap();
    });
    growing.measure("verify", 1, |g, _| {
        assert!(g.store.verify(VerifyOptions::all()).unwrap().is_ok());
    });
}

/// What changes the store as a whole, or comes after that.
fn change(growing: &mut Growing, versions: u64) {
    growing.measure("insert among tags", SAMPLE, |g, _| g.insert());
    growing.measure("take a tag away", SAMPLE, |g, n| {
        g.store.delete_tag(&format!("last {n}")).unwrap();
    });
    growing.measure("save a rule", 1, |g, _| {
        g.store.set_retention(Retention::new().keep_last(10 * versions)).unwrap();
    });
    growing.measure("insert under a rule", SAMPLE, |g, _| g.insert());
    growing.store.set_retention(Retention::new()).unwrap();
    growing.measure("expire half", 1, |g, _| {
        g.store.expire(Retention::new().keep_last(versions / 2)).unwrap();
    });
    growing.measure("insert after expiry", SAMPLE, |g, _| g.insert());
    growing.measure("restore", 1, |g, _| {
        g.store.restore(VersionId(versions - 2)).unwrap();
    });
    growing.measure("verify half", 1, |g, _| {
        let report = g.store.verify(VerifyOptions::all()).unwrap();
        assert!(report.is_ok(), "{:?}", report.problems.first());
    });
}

/// What goes through all versions or tags: its cost may grow as they do, and a little for tables
/// that are higher.
const THROUGH_ALL: [&str; 8] = [
    "versions",
    "tags",
    "unique bytes",
    "backup",
    "verify",
    "save a rule",
    "expire half",
    "verify half",
];

/// What goes through all of them and need not: each of these is known, and wants to be taken off
/// this list.
const THROUGH_ALL_SO_FAR: [&str; 4] = ["tag", "take a tag away", "at a tag", "insert under a rule"];

/// Compares a history with one ten times as long. Returns what grows more than it may.
fn grown(versions: u64, tags: u64) -> Vec<String> {
    let (short, long) = (costs(versions, tags), costs(10 * versions, 10 * tags));
    let mut worse = Vec::new();
    let (most, many) = (10 * versions, 10 * tags);
    println!("{most} versions, {many} tags: operations of the disk, bytes written, time;");
    println!("in brackets how many times those of a tenth of it");
    for (what, cost) in &long {
        let before = short[what];
        let linear = THROUGH_ALL.contains(what) || THROUGH_ALL_SO_FAR.contains(what);
        let limit = if linear { 30.0 } else { 2.5 };
        let operations = cost.operations / before.operations.max(1.0);
        // A few blocks more or less are no growth.
        let bytes = cost.bytes / before.bytes.max(4096.0);
        let (time, ms) = (cost.time.as_secs_f64() / before.time.as_secs_f64(), 1e3);
        let line = format!(
            "{what:>20}: {:>9.1} ({operations:.2}) {:>9.0} B ({bytes:.2}) {:>10.3} ms ({time:.2})",
            cost.operations,
            cost.bytes,
            cost.time.as_secs_f64() * ms,
        );
        println!("{line}");
        if operations > limit || bytes > limit {
            worse.push(line);
        }
    }
    worse
}

#[test]
fn ten_times_the_history_does_not_cost_ten_times_as_much() {
    let worse = grown(200, 200);
    assert!(worse.is_empty(), "{worse:#?}");
}

/// `cargo test --release --test it hundred_thousand -- --ignored --nocapture`;
/// `TREERING_VERSIONS=n` for another number.
#[test]
#[ignore = "takes minutes and gigabytes"]
fn a_hundred_thousand_versions() {
    let versions = std::env::var("TREERING_VERSIONS").ok();
    let versions: u64 = versions.map_or(100_000, |text| text.parse().expect("a number"));
    let worse = grown(versions / 10, versions / 100);
    assert!(worse.is_empty(), "{worse:#?}");
}

/// Versions of one point that share their syncs, 10,000 at a time: bytes of the file, and time.
#[test]
#[ignore = "takes minutes"]
fn groups_of_ten_thousand() {
    for (versions, group) in [(1_000, 1), (1_000, 10_000), (10_000, 1), (10_000, 10_000)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.tre");
        let open = threads(1).durability(Durability::Deferred { versions: group });
        let mut store = Store::create_with(&path, CreateOptions::new(2), open).unwrap();
        let (mut random, start) = (Random(1), Instant::now());
        for _ in 0..versions {
            store.insert(&random.points(1, 2)).unwrap();
        }
        store.sync().unwrap();
        let (bytes, seconds) = (store.file_bytes(), start.elapsed().as_secs_f64());
        println!("{versions} versions, {group} to a sync: {bytes} bytes, {seconds:.2} s");
    }
}

/// Gives the newest commit of a closed store a number of the same slot place, and everything that
/// knows its number the same.
fn renumber(path: &std::path::Path, commit: u64) {
    const COMMIT: usize = 8;
    const FIRST_COMMIT: usize = 224;
    let spec = Spec::parse();
    let mut bytes = std::fs::read(path).unwrap();
    let number =
        |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let old = number(&bytes, spec.hint_page() + COMMIT);
    assert_eq!(old % 4, commit % 4);
    let seal = |bytes: &mut [u8], at: usize, len: usize| {
        let crc = crc32(&bytes[at..at + len - 4]);
        bytes[at + len - 4..at + len].copy_from_slice(&crc.to_le_bytes());
    };
    for copy in 0..2 {
        let at = spec.slot_page(old, copy);
        for field in [COMMIT, FIRST_COMMIT] {
            assert_eq!(number(&bytes, at + field), old, "the fields lie where they did");
            bytes[at + field..at + field + 8].copy_from_slice(&commit.to_le_bytes());
        }
        seal(&mut bytes, at, 256);
    }
    let at = spec.hint_page();
    bytes[at + COMMIT..at + COMMIT + 8].copy_from_slice(&commit.to_le_bytes());
    seal(&mut bytes, at, 64);
    std::fs::write(path, bytes).unwrap();
}

/// As the specification's table of limits has it.
const LAST_COMMIT: u64 = 1 << 62;

/// Commit numbers end. What is acknowledged before is there, once; what comes after is refused.
#[test]
fn after_the_last_commit_number_nothing_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    let mut store = Store::create_with(&path, small(), threads(1)).unwrap();
    for _ in 0..4 {
        store.insert(&[1.0, 2.0]).unwrap();
    }
    drop(store);
    renumber(&path, LAST_COMMIT - 8);
    let mut newest = 4;
    let mut refused = 0;
    for round in 0..3 {
        let mut store = Store::open_with(&path, threads(1)).unwrap();
        for _ in 0..8 {
            match store.insert(&[newest as f32, 1.0]) {
                Ok(report) => {
                    newest += 1;
                    assert_eq!(report.version.0, newest, "round {round}");
                }
                Err(_) => refused += 1,
            }
        }
        drop(store);
        let store = Store::open_with(&path, threads(1)).unwrap();
        assert_eq!(store.versions().unwrap().len() as u64, newest, "round {round}");
        assert_eq!(store.latest().unwrap().len(), newest, "round {round}");
        let report = store.verify(VerifyOptions::all().deep(true)).unwrap();
        assert!(report.is_ok(), "{:?}", report.problems);
    }
    assert!(refused > 8, "{refused} refused, {newest} versions");
}
