//! A store many times larger than the memory that it is built and asked in. Takes long, and says
//! what it measured.

use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use crate::limits::{
    MIB, Made, MemoryGroup, Sheets, folder_with, names, ok, run_within, write_npy,
};

const LIMIT: u64 = 512 * MIB;
const QUERIES: usize = 10_000;

/// Processor time of all ended children of this process, in seconds.
fn children_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // Fields 16 and 17 of proc(5), in hundredths of a second; the first after the name is field 3.
    let ticks: u64 = fields[13..15].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    ticks as f64 / 100.0
}

/// Runs the command within so many MiB, page cache included. Returns what it printed and its most
/// anonymous memory.
fn timed(folder: &Path, mib: u64, line: &str) -> (String, u64) {
    let (start, before) = (Instant::now(), children_seconds());
    let (ended, out) = run_within(folder, mib * MIB, line).unwrap();
    assert!(ended.status.success(), "{line}: {:?}", ended.status);
    eprintln!(
        "{mib} MiB: {line}: {:.1} s, {:.1} s of processor time, {} MiB anonymous",
        start.elapsed().as_secs_f64(),
        children_seconds() - before,
        ended.anonymous_peak / MIB
    );
    (out, ended.anonymous_peak)
}

/// Makes the system forget the pages of a file, as far as it listens.
fn forget_pages(path: &Path) {
    use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
    let file = std::fs::File::open(path).unwrap();
    file.sync_all().unwrap();
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
}

#[test]
#[ignore = "eight million points of 128 dimensions: 15 GB of disk and half an hour"]
fn sixteen_times_as_many_points_as_memory() {
    if let Err(why) = MemoryGroup::new(MIB) {
        eprintln!("skipped: {why}");
        return;
    }
    let points = match std::env::var("TREERING_POINTS") {
        Ok(points) => points.parse().unwrap(),
        Err(_) => 8_000_000,
    };
    let made = Made::Sheets(Sheets::new(100, 128, 8, 0.01, 42));
    let (_guard, folder) = folder_with(&made, points, QUERIES);
    write_npy(&folder.join("one.npy"), &made, 1, 1);

    let (out, peak) = timed(&folder, 1024, "build s x.npy --memory-limit 512MiB --json");
    eprintln!("{out}");
    assert!(peak <= LIMIT, "{} MiB of anonymous memory", peak / MIB);
    assert_eq!(names(&folder), ["one.npy", "out", "q.npy", "s", "x.npy"]);
    let bytes = std::fs::metadata(folder.join("s")).unwrap().len();
    eprintln!("{:.1} bytes per point", bytes as f64 / points as f64);

    let (out, _) = timed(&folder, 256, "bench s q.npy -k 10 --json");
    eprintln!("{out}");
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(told["mismatches"], 0);
    // What a query costs that cannot be pruned.
    timed(&folder, 256, "query s one.npy -k 10 --brute-force --json");

    // Ninety-nine versions more, of which opening must read nothing.
    for version in 2..=100 {
        write_npy(&folder.join("more.npy"), &made, 1000, version);
        ok(&folder, "insert s more.npy --quiet");
    }
    forget_pages(&folder.join("s"));
    let bytes = std::fs::metadata(folder.join("s")).unwrap().len();
    eprintln!("100 versions, {} MiB", bytes / MIB);
    timed(&folder, 64, "get s 0 --at 50");

    let (out, _) = timed(&folder, 1024, "verify s --at 1 --deep --json");
    let verified: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(verified["ok"], true);

    // Without a limit: the same answers, and what the limit has cost.
    let before = ok(&folder, "query s q.npy -k 10 --at 1");
    std::fs::remove_file(folder.join("s")).unwrap();
    let (_, peak) = timed(&folder, 1 << 20, "build s x.npy --json");
    assert!(peak > LIMIT, "the test shows nothing: {} MiB", peak / MIB);
    assert_eq!(ok(&folder, "query s q.npy -k 10"), before);
}
