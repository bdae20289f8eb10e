//! How cost grows with the number of points, and what a memory limit costs: CSV, a plot, and growth
//! exponents.
//!
//! Each measurement is a process of its own, so that its memory is its own. Points are written to a
//! file first; a build reads them from there. A build is measured without a limit and with one,
//! which is an eighth of the points' size (at least 96 MiB). The store that was built within the
//! limit is then asked twice: warm, and in a memory control group that holds a sixteenth of the
//! store (at least 24 MiB), if there may be one.
//!
//! Columns of the CSV:
//!
//! | column | meaning |
//! |---|---|
//! | `data`, `points`, `dim`, `limit_mib` | what was built; `limit_mib` is empty where there was no limit |
//! | `build_s` | seconds from the first byte read to the store's name |
//! | `cpu_s_per_million` | processor seconds of the building process, the system's work for it included |
//! | `evaluations_per_point` | distances computed by the build |
//! | `bytes_per_point` | of the store, coordinates included |
//! | `anonymous_mib` | most anonymous memory of the building process |
//! | `qps` | queries per second of a batch on all cores, warm, k = 10 |
//! | `p50_us`, `p99_us` | one query at a time, warm |
//! | `evaluations_per_query` | distances computed for a query of the batch |
//! | `group_mib` | what the control group of the rest holds |
//! | `cold_p50_us`, `cold_p99_us`, `cold_pages` | one query at a time there; pages of 4 KiB read for each |
//! | `cold_batch_qps`, `cold_batch_reads` | a batch of 10,000 there; bytes read over the bytes of the store |
//! | `cold_scan_qps` | full scans per second there |
//! | `mismatches` | answers of a sample that differ from a full scan's: must be 0 |

#[path = "../support/mod.rs"]
mod support;

mod case;
mod plot;

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use case::{Build, Case, Query};
use support::flags::{Flags, fail};
use support::group::MemoryGroup;
use support::made::{Made, ROWS_PER_CHUNK, Sheets};

const USAGE: &str = "cargo bench --bench large_n -- [--data NAMES] [--min-n N] [--max-n N] [--limit-mib M] \
[--group-mib M] [--dir DIR] [--out FILE] [--make FILE]
  --data NAMES    of uniform3, sheets16, sheets128; all unless given
  --min-n N       smallest number of points, 100000 unless given; each next one is sqrt(10) times as large
  --max-n N       largest, 10000000 unless given (1000000 for sheets128); 100000000 takes a night
  --limit-mib M   memory limit of every limited build
  --group-mib M   size of every control group
  --dir DIR       where the files lie: twice to four times the points' size is needed
  --out FILE      CSV, with a plot beside it; benches/results/large_n.csv unless given
  --make FILE     only write max-n points of one kind to FILE, as .npy";

const SEED: u64 = 42;
const NAMES: &str = "uniform3,sheets16,sheets128";

fn made(name: &str) -> Made {
    match name {
        "uniform3" => Made::Uniform { dim: 3 },
        "sheets16" => Made::Sheets(Sheets::new(100, 16, 4, 0.01, SEED)),
        "sheets128" => Made::Sheets(Sheets::new(100, 128, 8, 0.01, SEED)),
        other => fail(&format!("--data: {other} is none of {NAMES}")),
    }
}

/// Writes rows of a stream piece by piece.
fn write_rows(out: &mut impl Write, made: &Made, rows: usize, stream: u64) -> std::io::Result<()> {
    const CHUNKS: usize = 64;
    let piece = CHUNKS * ROWS_PER_CHUNK;
    for (i, first) in (0..rows).step_by(piece).enumerate() {
        let values = made.rows_from((i * CHUNKS) as u64, piece.min(rows - first), SEED, stream);
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        out.write_all(&bytes)?;
    }
    out.flush()
}

fn write_npy(path: &Path, made: &Made, rows: usize, stream: u64) -> Result<(), Box<dyn Error>> {
    let mut out = BufWriter::new(File::create(path)?);
    let shape = format!("({rows}, {})", made.dim());
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
    let padded = format!("{header:<117}\n");
    out.write_all(b"\x93NUMPY\x01\x00")?;
    out.write_all(&(padded.len() as u16).to_le_bytes())?;
    out.write_all(padded.as_bytes())?;
    Ok(write_rows(&mut out, made, rows, stream)?)
}

/// Runs a case in a process of its own, in a group if there is one, and returns what it printed.
fn run<C: Case>(case: &C, group: Option<&MemoryGroup>) -> Result<C::Result, Box<dyn Error>> {
    let program = std::env::current_exe()?;
    let mut command = match group {
        Some(group) => group.command(&program),
        None => Command::new(program),
    };
    let output = command.args(case.to_args()).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("{:?} failed: {}", case.to_args(), output.status).into());
    }
    C::parse(std::str::from_utf8(&output.stdout)?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == case::CASE) {
        return case::main(&words[1..]);
    }
    let names = ["data", "min-n", "max-n", "limit-mib", "group-mib", "dir", "out", "make"];
    let flags = Flags::read(&names, &["bench"], USAGE);
    let full = flags.has("bench");
    let data = flags.list("data", NAMES);
    if let Some(path) = flags.text("make") {
        return write_npy(Path::new(path), &made(&data[0]), flags.number("max-n", 1000), 0);
    }
    let folder = tempfile::tempdir_in(flags.text("dir").map_or(std::env::temp_dir(), Into::into))?;
    let out = match (flags.text("out"), full) {
        (Some(out), _) => PathBuf::from(out),
        (None, true) => Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/results/large_n.csv"),
        (None, false) => folder.path().join("large_n.csv"),
    };
    let mut rows: Vec<Row> = Vec::new();
    for name in &data {
        let most = if name == "sheets128" { 1_000_000 } else { 10_000_000 };
        let most = flags.number("max-n", if full { most } else { 3000 });
        let least = flags.number("min-n", if full { 100_000 } else { 3000 });
        let steps = (0..).map(|i| (least as f64 * 10f64.powf(i as f64 / 2.0)).round() as usize);
        for points in steps.take_while(|&n| n <= most + most / 100) {
            let measured = measure(name, points, &flags, folder.path())?;
            for row in &measured {
                println!("{row}");
            }
            rows.extend(measured);
            write_csv(&out, &rows)?;
        }
    }
    plot::plot(&out.with_extension("svg"), &rows)?;
    for fit in plot::fits(&rows) {
        println!("{fit}");
    }
    Ok(())
}

/// A row of the CSV.
pub(crate) struct Row {
    pub(crate) data: String,
    pub(crate) points: usize,
    pub(crate) dim: usize,
    pub(crate) limit_mib: Option<u64>,
    pub(crate) build: case::Built,
    pub(crate) warm: case::Answered,
    pub(crate) group_mib: Option<u64>,
    pub(crate) cold: Option<case::Answered>,
}

const HEADER: &str = "data,points,dim,limit_mib,build_s,cpu_s_per_million,evaluations_per_point,bytes_per_point,\
anonymous_mib,qps,p50_us,p99_us,evaluations_per_query,group_mib,cold_p50_us,cold_p99_us,cold_pages,cold_batch_qps,\
cold_batch_reads,cold_scan_qps,mismatches";

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Row { data, points, dim, limit_mib, build, warm, group_mib, cold } = self;
        let n = *points as f64;
        let or_empty = |value: Option<f64>, digits: usize| {
            value.map_or(String::new(), |value| format!("{value:.digits$}"))
        };
        let (limit, group) = (limit_mib.map(|m| m as f64), group_mib.map(|m| m as f64));
        write!(
            f,
            "{data},{points},{dim},{},{:.2},{:.2},{:.1},{:.1},{:.1},{:.0},{:.1},{:.1},{:.1},{}",
            or_empty(limit, 0),
            build.seconds,
            build.cpu_seconds / n * 1e6,
            build.evaluations / n,
            build.file_bytes / n,
            build.anonymous_bytes / 1048576.0,
            warm.batch_qps,
            warm.p50_us,
            warm.p99_us,
            warm.evaluations,
            or_empty(group, 0),
        )?;
        for (value, digits) in [
            (cold.as_ref().map(|c| c.p50_us), 1),
            (cold.as_ref().map(|c| c.p99_us), 1),
            (cold.as_ref().map(|c| c.pages), 1),
            (cold.as_ref().map(|c| c.batch_qps), 1),
            (cold.as_ref().map(|c| c.batch_reads), 2),
            (cold.as_ref().map(|c| c.scan_qps), 3),
        ] {
            write!(f, ",{}", or_empty(value, digits))?;
        }
        let cold = cold.as_ref().map_or(0.0, |cold| cold.mismatches);
        write!(f, ",{:.0}", warm.mismatches + cold)
    }
}

fn write_csv(path: &Path, rows: &[Row]) -> std::io::Result<()> {
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    std::fs::write(path, format!("{HEADER}\n{lines}"))
}

/// Builds and asks without a limit, and with one.
fn measure(
    name: &str,
    points: usize,
    flags: &Flags,
    folder: &Path,
) -> Result<Vec<Row>, Box<dyn Error>> {
    let made = made(name);
    let dim = made.dim();
    let (input, queries, store) =
        (folder.join("points.f32"), folder.join("queries.f32"), folder.join("large.tre"));
    write_rows(&mut BufWriter::new(File::create(&input)?), &made, points, 0)?;
    write_rows(&mut BufWriter::new(File::create(&queries)?), &made, 10_000, 1)?;
    let bytes = (points * dim * 4) as u64;
    let limit = flags.number("limit-mib", ((bytes / 8) >> 20).max(96));
    let mut rows = Vec::new();
    for limit_mib in [None, Some(limit)] {
        let (store, input, queries) = (store.clone(), input.clone(), queries.clone());
        let build = run(&Build { store: store.clone(), input, dim, limit_mib }, None)?;
        let query = |most| Query { store: store.clone(), queries: queries.clone(), dim, most };
        let warm = run(&query(10_000), None)?;
        // The store that was built without a limit is no different.
        let group_mib = flags.number("group-mib", ((build.file_bytes as u64 / 16) >> 20).max(24));
        let group = match limit_mib {
            Some(_) => MemoryGroup::new(group_mib << 20),
            None => Err(String::new()),
        };
        let cold = match &group {
            Ok(group) => {
                drop_cache(&store)?;
                Some(run(&query(1000), Some(group))?)
            }
            Err(why) => {
                if !why.is_empty() {
                    eprintln!("not asked in little memory: {why}");
                }
                None
            }
        };
        std::fs::remove_file(&store)?;
        let group_mib = cold.is_some().then_some(group_mib);
        let data = name.to_string();
        rows.push(Row { data, points, dim, limit_mib, build, warm, group_mib, cold });
    }
    std::fs::remove_file(&input)?;
    Ok(rows)
}

/// Makes the system forget a file's pages, as far as it listens: they would be charged to whoever
/// read them first.
fn drop_cache(store: &Path) -> std::io::Result<()> {
    use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
    let file = File::open(store)?;
    file.sync_all()?;
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    Ok(())
}
