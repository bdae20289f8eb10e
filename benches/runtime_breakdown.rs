//! Where the time of a batch goes: CSV on stdout, one row per size of store and kind of batch.
//!
//! `bulk` is `Store::build`, durable, of n uniform 3-d points; the other kinds insert 1, 100, 1,000
//! and 10,000 points into a copy of the built file. A row is the median, column by column, of
//! several batches; the batches of one kind go into the same copy, one after the other, so the
//! store grows by their sum.
//!
//! Columns that are not the library's own figures:
//!
//! - `journal_size`: rows that the journal changed in place.
//! - `pool_reuse_ratio`: the share of the scratch memory held after the batch that was there before
//!   it.
//! - `traversal_bound_hit_rate`: center-share sweeps that a bound spared, by those and the
//!   distances computed.
//! - `cpu_utilisation`: processor time of all threads by wall time, over all batches of the row: 2
//!   is two cores.
//! - `rss_delta_mb`: growth of the resident set, mapped file included. It and the one above need
//!   Linux.
//!
//! Run by anything but `cargo bench` (by `cargo test --benches`, say) it only shows that it works.

mod support;

use std::error::Error;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use support::flags::Flags;
use support::made::Made;
use support::median;
use treering::{CreateOptions, OpenOptions, Report, Store};

const USAGE: &str = "cargo bench --bench runtime_breakdown -- [--max-n N] [--threads T] [--dir DIR]
  --max-n N      largest store, 2097152 unless given
  --threads T    threads of the store's pool, one per core unless given
  --dir DIR      where the files lie: on a disk, or the times of commits say nothing";

const SIZES: [(&str, usize); 7] = [
    ("2k", 1 << 11),
    ("8k", 1 << 13),
    ("32k", 1 << 15),
    ("128k", 1 << 17),
    ("512k", 1 << 19),
    ("1M", 1_000_000),
    ("2M", 1 << 21),
];
/// Points per batch into the built store, and how many such batches.
const BATCHES: [(usize, usize); 4] = [(1, 11), (100, 11), (1_000, 7), (10_000, 5)];
const DIM: usize = 3;
const SEED: u64 = 42;
const MIB: f64 = (1 << 20) as f64;

fn main() -> Result<(), Box<dyn Error>> {
    let flags = Flags::read(&["max-n", "threads", "dir"], &["bench"], USAGE);
    let (most, most_batch) = match flags.has("bench") {
        true => (flags.number("max-n", usize::MAX), usize::MAX),
        false => (1 << 11, 100),
    };
    let open = OpenOptions::new().threads(flags.number("threads", 0));
    let dir = tempfile::tempdir_in(flags.text("dir").map_or(std::env::temp_dir(), Into::into))?;
    let built = dir.path().join("built.tre");
    let grown = dir.path().join("grown.tre");
    print_header();
    for (label, n) in SIZES.into_iter().filter(|&(_, n)| n <= most) {
        print_row(label, "bulk", &bulk(&built, &open, n)?);
        for (points, count) in BATCHES.into_iter().filter(|&(points, _)| points <= most_batch) {
            copy_durably(&built, &grown)?;
            let batches = batches(&grown, &open, points, count)?;
            print_row(label, &points.to_string(), &batches);
        }
    }
    Ok(())
}

/// One batch, measured.
struct Batch {
    report: Report,
    wall: Duration,
    cpu: Option<Duration>,
    rss_delta: Option<f64>,
    pool_bytes: u64,
}

/// Builds a store of `n` points at `path`, several times if it is small; the last one stays.
fn bulk(path: &Path, open: &OpenOptions, n: usize) -> Result<Vec<Batch>, Box<dyn Error>> {
    let points = Made::Uniform { dim: DIM }.rows(n, SEED, 0);
    let builds = if n <= 1 << 17 { 5 } else { 3 };
    (0..builds)
        .map(|_| {
            remove(path)?;
            measure(&mut 0, || {
                let options = CreateOptions::new(DIM);
                let (store, report) =
                    Store::build(path, options, open.clone(), &points, None, "bulk")?;
                // Kept until the resident set has been read.
                Ok((report, Some(store)))
            })
        })
        .collect()
}

/// Inserts `count` batches of `points` points each into the store at `path`.
fn batches(
    path: &Path,
    open: &OpenOptions,
    points: usize,
    count: usize,
) -> Result<Vec<Batch>, Box<dyn Error>> {
    let rows = Made::Uniform { dim: DIM }.rows(points * count, SEED, 1 + points as u64);
    let mut store = Store::open_with(path, open.clone())?;
    let mut pool_bytes = 0;
    rows.chunks_exact(points * DIM)
        .map(|batch| measure(&mut pool_bytes, || Ok((store.insert(batch)?, None))))
        .collect()
}

/// Runs one batch. `pool_bytes`: scratch memory that the store holds, as far as reports have told.
fn measure(
    pool_bytes: &mut u64,
    run: impl FnOnce() -> Result<(Report, Option<Store>), Box<dyn Error>>,
) -> Result<Batch, Box<dyn Error>> {
    let (rss, cpu, start) = (resident_bytes(), cpu_time(), Instant::now());
    let (report, store) = run()?;
    let wall = start.elapsed();
    // The threads of a store end with it, and their times are no longer listed: read first.
    let cpu = cpu_time().zip(cpu).map(|(after, before)| after.saturating_sub(before));
    let rss_delta = resident_bytes().zip(rss).map(|(after, before)| after - before);
    drop(store);
    *pool_bytes += report.counters.pool_grow_bytes;
    Ok(Batch { report, wall, cpu, rss_delta, pool_bytes: *pool_bytes })
}

fn copy_durably(from: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    remove(to)?;
    fs::copy(from, to)?;
    // Or the first commit would pay for the copy.
    File::open(to)?.sync_all()?;
    Ok(())
}

fn remove(path: &Path) -> Result<(), Box<dyn Error>> {
    match path.exists() {
        true => Ok(fs::remove_file(path)?),
        false => Ok(()),
    }
}

fn print_header() {
    println!(
        "n,batch,locate_ms,group_ms,conflict_ms,mis_ms,redistribute_ms,splice_ms,level_prefix_ms,build_cow_ms,\
         commit_ms,total_ms,journal_size,cow_segments,cow_bytes,bytes_written,pool_reuse_ratio,\
         traversal_bound_hit_rate,distance_evaluations,cpu_utilisation,rss_delta_mb"
    );
}

fn print_row(label: &str, kind: &str, batches: &[Batch]) {
    let middle = |of: &dyn Fn(&Batch) -> f64| median(batches.iter().map(of).collect());
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let mut fields = vec![label.to_string(), kind.to_string()];
    let stages = batches[0].report.times.iter().count();
    for stage in 0..stages {
        let of = |batch: &Batch| batch.report.times.iter().nth(stage).map_or(0.0, |(_, t)| ms(t));
        fields.push(format!("{:.3}", middle(&of)));
    }
    fields.push(format!("{:.3}", middle(&|batch| ms(batch.wall))));
    let counts: [&dyn Fn(&Batch) -> u64; 4] = [
        &|batch| batch.report.counters.journal_entries,
        &|batch| batch.report.counters.cow_segments,
        &|batch| batch.report.counters.cow_bytes_copied,
        &|batch| batch.report.bytes_written,
    ];
    fields.extend(counts.map(|of| format!("{}", middle(&|batch| of(batch) as f64))));
    fields.push(format!("{:.4}", middle(&pool_reuse_ratio)));
    fields.push(format!("{:.4}", middle(&bound_hit_rate)));
    let evaluations = middle(&|batch| batch.report.counters.distance_evaluations as f64);
    fields.push(format!("{evaluations}"));
    let wall: Duration = batches.iter().map(|batch| batch.wall).sum();
    let cpu: Option<Duration> = batches.iter().map(|batch| batch.cpu).sum();
    let utilisation = cpu.map(|cpu| cpu.as_secs_f64() / wall.as_secs_f64());
    fields.push(utilisation.map_or(String::new(), |cores| format!("{cores:.2}")));
    let deltas: Option<Vec<f64>> = batches.iter().map(|batch| batch.rss_delta).collect();
    fields.push(deltas.map_or(String::new(), |all| format!("{:.2}", median(all) / MIB)));
    println!("{}", fields.join(","));
}

fn pool_reuse_ratio(batch: &Batch) -> f64 {
    let grown = batch.report.counters.pool_grow_bytes as f64;
    match batch.pool_bytes {
        0 => 1.0,
        held => 1.0 - grown / held as f64,
    }
}

fn bound_hit_rate(batch: &Batch) -> f64 {
    let counters = &batch.report.counters;
    match counters.bound_hits {
        0 => 0.0,
        hits => hits as f64 / (hits + counters.distance_evaluations) as f64,
    }
}

/// Processor time of the threads that live now, from the scheduler's nanoseconds.
fn cpu_time() -> Option<Duration> {
    let mut nanoseconds = 0;
    for task in fs::read_dir("/proc/self/task").ok()?.flatten() {
        // A thread may end between the listing and the reading.
        let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else {
            continue;
        };
        nanoseconds += text.split(' ').next()?.parse::<u64>().ok()?;
    }
    (nanoseconds > 0).then(|| Duration::from_nanos(nanoseconds))
}

/// The resident set in bytes.
fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024.0)
}
