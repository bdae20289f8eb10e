//! What is measured in a process of its own: a build, or queries.

use std::error::Error;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use treering::{CreateOptions, OpenOptions, PointId, PointSource, SourceError, Store};

/// First word of the command line of such a process.
pub(crate) const CASE: &str = "--case";

const K: usize = 10;

/// Something to be measured.
pub(crate) trait Case {
    type Result;
    fn to_args(&self) -> Vec<String>;
    fn parse(output: &str) -> Result<Self::Result, Box<dyn Error>>;
}

/// A build from a file of f32.
pub(crate) struct Build {
    pub(crate) store: PathBuf,
    pub(crate) input: PathBuf,
    pub(crate) dim: usize,
    pub(crate) limit_mib: Option<u64>,
}

/// What a build took.
pub(crate) struct Built {
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) evaluations: f64,
    pub(crate) file_bytes: f64,
    pub(crate) anonymous_bytes: f64,
}

/// Queries from a file of f32, up to `most` of them one at a time.
pub(crate) struct Query {
    pub(crate) store: PathBuf,
    pub(crate) queries: PathBuf,
    pub(crate) dim: usize,
    pub(crate) most: usize,
}

/// How queries were answered.
pub(crate) struct Answered {
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Read for a query, of 4 KiB.
    pub(crate) pages: f64,
    pub(crate) batch_qps: f64,
    /// Bytes read for the batch over those of the file.
    pub(crate) batch_reads: f64,
    pub(crate) evaluations: f64,
    pub(crate) scan_qps: f64,
    pub(crate) mismatches: f64,
}

fn numbers<const N: usize>(output: &str) -> Result<[f64; N], Box<dyn Error>> {
    let numbers: Result<Vec<f64>, _> = output.split_whitespace().map(str::parse).collect();
    Ok(numbers?.try_into().map_err(|_| format!("{output}: not {N} numbers"))?)
}

impl Case for Build {
    type Result = Built;

    fn to_args(&self) -> Vec<String> {
        let limit = self.limit_mib.map_or("none".to_string(), |mib| mib.to_string());
        [CASE, "build", &self.store.to_string_lossy(), &self.input.to_string_lossy()]
            .map(str::to_string)
            .into_iter()
            .chain([self.dim.to_string(), limit])
            .collect()
    }

    fn parse(output: &str) -> Result<Built, Box<dyn Error>> {
        let [seconds, cpu_seconds, evaluations, file_bytes, anonymous_bytes] = numbers(output)?;
        Ok(Built { seconds, cpu_seconds, evaluations, file_bytes, anonymous_bytes })
    }
}

impl Case for Query {
    type Result = Answered;

    fn to_args(&self) -> Vec<String> {
        [CASE, "query", &self.store.to_string_lossy(), &self.queries.to_string_lossy()]
            .map(str::to_string)
            .into_iter()
            .chain([self.dim.to_string(), self.most.to_string()])
            .collect()
    }

    fn parse(output: &str) -> Result<Answered, Box<dyn Error>> {
        let [p50_us, p99_us, pages, batch_qps, batch_reads, evaluations, scan_qps, mismatches] =
            numbers(output)?;
        Ok(Answered {
            p50_us,
            p99_us,
            pages,
            batch_qps,
            batch_reads,
            evaluations,
            scan_qps,
            mismatches,
        })
    }
}

/// Runs the case that the words of a command line describe.
pub(crate) fn main(words: &[String]) -> Result<(), Box<dyn Error>> {
    let [kind, store, file, dim, number] = words else {
        return Err("a case has five words".into());
    };
    let (store, dim) = (PathBuf::from(store), dim.parse()?);
    match kind.as_str() {
        "build" => build(store, file, dim, number.parse().ok()),
        _ => query(store, file, dim, number.parse()?),
    }
}

/// A file of f32 as points.
struct Floats {
    file: File,
    dim: usize,
    left: u64,
    buffer: Vec<u8>,
}

impl PointSource for Floats {
    fn dim(&self) -> usize {
        self.dim
    }

    fn remaining(&self) -> Option<u64> {
        Some(self.left)
    }

    fn read(
        &mut self,
        at_most: usize,
        points: &mut Vec<f32>,
        _: &mut Vec<PointId>,
    ) -> Result<usize, SourceError> {
        let rows = self.left.min(at_most as u64) as usize;
        self.buffer.resize(rows * self.dim * 4, 0);
        self.file.read_exact(&mut self.buffer)?;
        points.extend(self.buffer.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)));
        self.left -= rows as u64;
        Ok(rows)
    }
}

fn build(
    store: PathBuf,
    input: &str,
    dim: usize,
    limit_mib: Option<u64>,
) -> Result<(), Box<dyn Error>> {
    let done = Arc::new(AtomicBool::new(false));
    let watch = {
        let done = done.clone();
        std::thread::spawn(move || {
            let mut peak = 0.0f64;
            while !done.load(Ordering::Relaxed) {
                peak = peak.max(anonymous_bytes());
                std::thread::sleep(Duration::from_millis(5));
            }
            peak
        })
    };
    let start = Instant::now();
    let file = File::open(input)?;
    let left = file.metadata()?.len() / (4 * dim as u64);
    let mut source = Floats { file, dim, left, buffer: Vec::new() };
    let mut open = OpenOptions::new();
    if let Some(mib) = limit_mib {
        open = open.memory_limit(mib << 20);
    }
    let options = CreateOptions::new(dim);
    let (store, report) = Store::build_from(&store, options, open, &mut source, "large_n")?;
    let seconds = start.elapsed().as_secs_f64();
    done.store(true, Ordering::Relaxed);
    let peak = watch.join().expect("it does not panic");
    let evaluations = report.counters.distance_evaluations;
    println!("{seconds} {} {evaluations} {} {peak}", cpu_seconds()?, store.file_bytes());
    Ok(())
}

/// Processor time of this process, the system's work for it included.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    use nix::sys::resource::{UsageWho, getrusage};
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

fn anonymous_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    kib.map_or(0.0, |kib: f64| kib * 1024.0)
}

/// Bytes that the system has read from disks for this process, through the map or otherwise.
fn bytes_read() -> f64 {
    let told = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = told.lines().find_map(|line| line.strip_prefix("read_bytes: "));
    line.and_then(|bytes| bytes.parse().ok()).unwrap_or(0.0)
}

fn query(store: PathBuf, queries: &str, dim: usize, most: usize) -> Result<(), Box<dyn Error>> {
    let bytes = std::fs::read(queries)?;
    let values: Vec<f32> =
        bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    let rows = values.len() / dim;
    let store = Store::open_with(store, OpenOptions::new().read_only(true))?;
    let snapshot = store.latest()?;
    let mut searcher = snapshot.searcher();

    // One at a time. The first hundred are not counted: they read the top of the tree.
    let spread = |i: usize, count: usize| &values[i * rows / count * dim..][..dim];
    let count = most.min(rows);
    let warmed = count.min(100);
    for i in 0..warmed {
        searcher.knn(&values[(rows - 1 - i) * dim..][..dim], K)?;
    }
    let mut latencies = Vec::with_capacity(count);
    let before = bytes_read();
    for i in 0..count {
        let start = Instant::now();
        searcher.knn(spread(i, count), K)?;
        latencies.push(start.elapsed().as_secs_f64() * 1e6);
    }
    let pages = (bytes_read() - before) / 4096.0 / count as f64;
    latencies.sort_unstable_by(f64::total_cmp);
    let percentile = |p: usize| latencies[(latencies.len() - 1) * p / 100];

    let before = bytes_read();
    let start = Instant::now();
    let table = snapshot.knn_batch(&values, K)?;
    let batch_qps = rows as f64 / start.elapsed().as_secs_f64();
    let batch_reads = (bytes_read() - before) / store.file_bytes() as f64;
    let evaluations = table.distance_evaluations() as f64 / rows as f64;

    // Scans for a few seconds, each of which reads all points, one query to a scan.
    let start = Instant::now();
    let (mut scans, mut mismatches) = (0, 0);
    while scans < 20.min(count) && (scans == 0 || start.elapsed().as_secs() < 10) {
        let exact = snapshot.brute_knn(spread(scans, 20.min(count)), K)?;
        let at = scans * rows / 20.min(count);
        mismatches += (table.row(at) != exact) as u32;
        scans += 1;
    }
    let scan_qps = scans as f64 / start.elapsed().as_secs_f64();
    println!(
        "{} {} {pages} {batch_qps} {batch_reads} {evaluations} {scan_qps} {mismatches}",
        percentile(50),
        percentile(99)
    );
    Ok(())
}
