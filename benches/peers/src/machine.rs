//! The machine and this process: what it can do at most, and what it has used.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde_json::{Value, json};

use crate::scan::{FLOP_PER_VALUE, Isa};

/// Values that the arithmetic loop works through in one measurement.
const ARITHMETIC_VALUES: u64 = 1 << 31;
/// Measurements of each limit; the fastest counts.
const REPEATS: usize = 15;

/// Limits that a scan runs into.
pub(crate) struct Machine {
    pub(crate) isa: Isa,
    /// Bytes read from memory per second, on one thread and on two.
    pub(crate) read: [f64; 2],
    /// Bytes read and written per second by a copy, on one thread.
    copy: f64,
    /// Operations per second of subtract, square and add in registers, on one thread.
    pub(crate) arithmetic: f64,
}

impl Machine {
    /// Takes a second or two and 256 MiB; `quick` a sixteenth of both.
    pub(crate) fn measure(quick: bool, fused: bool) -> Self {
        let isa = Isa::best(fused);
        let scale = if quick { 16 } else { 1 };
        let words = vec![1u64; (256 << 20) / 8 / scale];
        let bytes = (words.len() * 8) as f64;
        let read = [1, 2].map(|threads| {
            let share = words.len().div_ceil(threads);
            bytes
                / fastest(|| {
                    std::thread::scope(|scope| {
                        for share in words.chunks(share) {
                            scope.spawn(|| black_box(sum(share)));
                        }
                    });
                })
        });
        let (from, to) = (&words[..words.len() / 2], &mut vec![0u64; words.len() / 2]);
        let copy = bytes / fastest(|| black_box(&mut *to).copy_from_slice(black_box(from)));
        let values = ARITHMETIC_VALUES / scale as u64;
        let seconds = fastest(|| _ = black_box(isa.arithmetic(values)));
        let arithmetic = (values * FLOP_PER_VALUE) as f64 / seconds;
        Machine { isa, read, copy, arithmetic }
    }

    /// The machine, its state, and how this program was compiled.
    pub(crate) fn line(&self, dir: &Path) -> Value {
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let gigabytes = |rate: f64| round(rate / 1e9);
        json!({
            "kind": "machine",
            "cpu": model.unwrap_or_default().trim_start_matches(['\t', ' ', ':']),
            "cores": std::thread::available_parallelism().map_or(1, usize::from),
            "kernel": kernel.trim(),
            "load_average": load.split(' ').next(),
            "instructions_of_the_scan": self.isa.name(),
            "compiled_with_avx2": cfg!(target_feature = "avx2"),
            "compiled_with_avx512f": cfg!(target_feature = "avx512f"),
            "read_gb_s": gigabytes(self.read[0]),
            "read_gb_s_2_threads": gigabytes(self.read[1]),
            "copy_gb_s": gigabytes(self.copy),
            "subtract_square_add_gflop_s": gigabytes(self.arithmetic),
            "dir": dir.display().to_string(),
            "file_system": file_system(dir),
        })
    }
}

/// Three digits after the point.
pub(crate) fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// Six digits after the point: seconds to the microsecond.
pub(crate) fn round_seconds(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

fn fastest(mut run: impl FnMut()) -> f64 {
    let time = |_| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    (0..REPEATS).map(time).fold(f64::INFINITY, f64::min)
}

fn sum(words: &[u64]) -> u64 {
    words.iter().fold(0, |sum, word| sum.wrapping_add(*word))
}

/// The type of the file system that holds `dir`; "tmpfs" would mean that nothing is durable.
fn file_system(dir: &Path) -> Option<String> {
    let dir = fs::canonicalize(dir).ok()?;
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let mount = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?.to_string(), fields.next()?.to_string()))
    };
    let holding = mounts.lines().filter_map(mount).filter(|(at, _)| dir.starts_with(at));
    Some(holding.max_by_key(|(at, _)| at.len())?.1)
}

/// Processor time of this process, all threads.
pub(crate) fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("the process may ask about itself");
    let time = |t: TimeVal| Duration::new(t.tv_sec() as u64, t.tv_usec() as u32 * 1000);
    time(usage.user_time()) + time(usage.system_time())
}

/// Forgets the peak of the resident set. Linux; elsewhere nothing.
pub(crate) fn reset_peak() {
    _ = fs::write("/proc/self/clear_refs", "5");
}

/// The resident set in MB, mapped files included: now, or with `peak` at most since [`reset_peak`].
/// Linux.
pub(crate) fn resident_mb(peak: bool) -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let field = if peak { "VmHWM:" } else { "VmRSS:" };
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}
