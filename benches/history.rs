//! What keeping, losing, comparing and copying versions costs: one `figure,value` per line on
//! stdout.
//!
//! A store takes the same number of points in each of many durable versions. Then versions are
//! opened, old ones expire, more are inserted under a saved rule, two versions of a large
//! bulk-built store are compared, and the store is backed up and received. Bytes read are those
//! that the system counts for this process, pages touched through the map left out.
//!
//! Run by anything but `cargo bench` (by `cargo test --benches`, say) it only shows that it works.

mod support;

use std::error::Error;
use std::fs;
use std::io::{BufWriter, Cursor};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use support::flags::Flags;
use support::made::Made;
use support::median;
use treering::{CreateOptions, Durability, OpenOptions, Retention, Store, VersionId};

const USAGE: &str =
    "cargo bench --bench history -- [--versions N] [--batch N] [--large N] [--dir DIR]
  --versions N   versions of the store, 1000 unless given
  --batch N      points per version, 1000 unless given
  --large N      points of the store whose versions are compared, 1000000 unless given
  --group N      versions of one point that share their syncs, 10000 unless given
  --dir DIR      where the files lie";

const SEED: u64 = 42;
const KEPT: u64 = 10;

fn say(figure: &str, value: impl std::fmt::Display) {
    println!("{figure},{value}");
}

/// Bytes that this process has read, as far as the system tells.
fn bytes_read() -> u64 {
    let told = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = told.lines().find_map(|line| line.strip_prefix("rchar: "));
    line.and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
}

fn disk_bytes(path: &Path) -> std::io::Result<u64> {
    Ok(fs::metadata(path)?.blocks() * 512)
}

fn main() -> Result<(), Box<dyn Error>> {
    let flags = Flags::read(&["versions", "batch", "large", "group", "dir"], &["bench"], USAGE);
    let full = flags.has("bench");
    let versions: u64 = flags.number("versions", if full { 1000 } else { 20 });
    let batch: usize = flags.number("batch", if full { 1000 } else { 50 });
    let large: usize = flags.number("large", if full { 1_000_000 } else { 5_000 });
    let group: u32 = flags.number("group", if full { 10_000 } else { 50 });
    let dir = tempfile::tempdir_in(flags.text("dir").map_or(std::env::temp_dir(), Into::into))?;
    let path = dir.path().join("history.tre");
    let made = Made::Uniform { dim: 3 };
    let points = made.rows(2 * versions as usize * batch, SEED, 0);
    let mut batches = points.chunks_exact(3 * batch);

    let mut store = Store::create(&path, CreateOptions::new(3))?;
    let start = Instant::now();
    let mut written = Vec::new();
    for points in batches.by_ref().take(versions as usize) {
        written.push(store.insert(points)?.bytes_written as f64);
    }
    say("seconds_to_insert", start.elapsed().as_secs_f64());
    say("file_bytes", store.file_bytes());
    let most = written.iter().copied().fold(0.0, f64::max);
    say("bytes_written_median", median(written.clone()));
    say("bytes_written_most_over_median", most / median(written));
    drop(store);

    let (mut slowest, mut most_read) = (0.0f64, 0);
    for version in (1..=versions).step_by((versions / 20).max(1) as usize) {
        let (start, before) = (Instant::now(), bytes_read());
        let store = Store::open_with(&path, OpenOptions::new().read_only(true))?;
        let snapshot = store.at(VersionId(version))?;
        slowest = slowest.max(start.elapsed().as_secs_f64() * 1e3);
        most_read = most_read.max(bytes_read() - before);
        assert_eq!(snapshot.len(), version * batch as u64);
    }
    say("open_any_version_ms_most", slowest);
    say("open_any_version_bytes_read_most", most_read);

    let mut store = Store::open(&path)?;
    let start = Instant::now();
    store.unique_bytes()?;
    say("unique_bytes_of_all_seconds", start.elapsed().as_secs_f64());
    let query = [0.5; 3];
    let answers = store.at(VersionId(versions - KEPT + 1))?.brute_knn(&query, 20)?;
    let before = disk_bytes(&path)?;
    let start = Instant::now();
    let report = store.expire(Retention::new().keep_last(KEPT))?;
    say("expire_seconds", start.elapsed().as_secs_f64());
    say("expired", report.expired.len());
    say("expire_bytes_freed", report.bytes_freed);
    let returned = before - disk_bytes(&path)?;
    say("expire_returned_over_freed", returned as f64 / report.bytes_freed as f64);
    assert!(store.at(VersionId(versions - KEPT + 1))?.knn(&query, 20)? == answers);

    store.set_retention(Retention::new().keep_last(KEPT))?;
    say("disk_bytes_before_more", disk_bytes(&path)?);
    let start = Instant::now();
    for points in batches {
        store.insert(points)?;
    }
    say("seconds_to_insert_under_a_rule", start.elapsed().as_secs_f64());
    say("file_bytes_under_a_rule", store.file_bytes());
    say("disk_bytes_under_a_rule", disk_bytes(&path)?);

    let start = Instant::now();
    let mut stream = Vec::new();
    store.backup(None, BufWriter::new(&mut stream))?;
    say("backup_seconds", start.elapsed().as_secs_f64());
    say("backup_bytes", stream.len());
    let start = Instant::now();
    let copy = dir.path().join("copy.tre");
    Store::receive(&copy, Cursor::new(&stream), OpenOptions::new())?;
    say("receive_seconds", start.elapsed().as_secs_f64());
    drop(store);

    let points = made.rows(large + batch, SEED, 1);
    let (first, second) = points.split_at(3 * large);
    let path = dir.path().join("large.tre");
    let (mut store, _) =
        Store::build(&path, CreateOptions::new(3), OpenOptions::new(), first, None, "")?;
    store.insert(second)?;
    let segments = store.verify(treering::VerifyOptions::all())?.segments_checked;
    let start = Instant::now();
    let diff = store.diff(VersionId(1), VersionId(2))?;
    say("diff_seconds", start.elapsed().as_secs_f64());
    assert_eq!((diff.added.len(), diff.removed.len()), (batch, 0));
    say("diff_segments_read", diff.segments_read);
    say("diff_segments_over_all", diff.segments_read as f64 / segments as f64);
    one_point_versions(dir.path(), group)
}

/// Versions of one point each, one by one and in a group: how fast, and how long the file gets.
fn one_point_versions(dir: &Path, group: u32) -> Result<(), Box<dyn Error>> {
    let points = Made::Uniform { dim: 3 }.rows(group as usize, SEED, 2);
    let mut bytes = Vec::new();
    for (name, durability) in
        [("full", Durability::Full), ("deferred", Durability::Deferred { versions: group })]
    {
        let path = dir.join(format!("{name}.tre"));
        let open = OpenOptions::new().durability(durability);
        let mut store = Store::create_with(&path, CreateOptions::new(3), open)?;
        let start = Instant::now();
        for point in points.chunks_exact(3) {
            store.insert(point)?;
        }
        store.sync()?;
        let rate = f64::from(group) / start.elapsed().as_secs_f64();
        say(&format!("one_point_versions_a_second_{name}"), rate);
        bytes.push(store.file_bytes() as f64);
        assert_eq!(store.versions()?.len(), group as usize);
    }
    say("one_point_versions_file_bytes_deferred_over_full", bytes[1] / bytes[0]);
    Ok(())
}
