//! `bench`: how fast a version answers, and whether it answers right.
//!
//! The whole batch is asked once to warm up, then again and again for half a second on all threads;
//! then queries are asked one by one on this thread; last, a sample is compared with brute force.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::args::Bench;
use crate::context::Context;
use crate::failure::Failure;
use crate::ingest::{self, Rows};
use crate::progress::Bar;
use crate::{human, output};
use treering::{PointsError, QueryError, Snapshot};

/// The batch is repeated for at least this long.
const BATCHES: Duration = Duration::from_millis(500);
/// Single queries are asked for at most this long.
const SINGLES: Duration = Duration::from_secs(5);
/// Single queries asked at most.
const MAX_SINGLES: usize = 10_000;
/// Queries compared with brute force.
const SAMPLE: usize = 100;

pub(super) fn run(context: &Context, args: &Bench) -> Result<(), Failure> {
    let bar = Bar::new(context.quiet);
    let store = context.open_reader(&args.store, &bar)?;
    let snapshot = context.snapshot(&store, &args.store, &args.at)?;
    bar.stage("read", 0, 0);
    let rows = ingest::read_all(&args.queries, &args.text.reading(context.cancel()))?;
    let fail = |source| Failure::Query { input: ingest::label(&args.queries), source };
    if rows.dim != snapshot.dim() {
        let source = PointsError::Dimension { expected: snapshot.dim(), found: rows.dim };
        return Err(fail(source.into()));
    }
    if rows.rows() == 0 {
        let why = format!("{}: no queries to measure with", ingest::label(&args.queries));
        return Err(Failure::Usage(why));
    }
    let stopped = || context.check_interrupt().is_err();
    let measured = measure(&snapshot, &rows, args.k, &bar, stopped).map_err(fail)?;
    context.check_interrupt()?;
    drop(bar);
    print(context, &measured, args.k)?;
    match measured.mismatches {
        0 => Ok(()),
        queries => Err(Failure::Mismatches { queries, sample: measured.sample }),
    }
}

struct Measured {
    version: u64,
    queries: usize,
    queries_per_second: f64,
    p50_us: f64,
    p99_us: f64,
    evaluations: f64,
    /// Of the first batch, the later ones, and the single queries.
    pages_per_query: Option<[f64; 3]>,
    sample: usize,
    mismatches: usize,
}

fn measure(
    snapshot: &Snapshot,
    rows: &Rows,
    k: usize,
    bar: &Bar,
    stopped: impl Fn() -> bool,
) -> Result<Measured, QueryError> {
    let queries = rows.rows();
    let mut pages = vec![pages_read()];
    bar.stage("warm up", 0, 0);
    let table = snapshot.knn_batch(&rows.values, k)?;
    pages.push(pages_read());
    bar.stage("batches", 0, 0);
    let started = Instant::now();
    let mut asked = 0;
    while asked == 0 || (started.elapsed() < BATCHES && !stopped()) {
        snapshot.knn_batch(&rows.values, k)?;
        asked += queries;
    }
    let queries_per_second = asked as f64 / started.elapsed().as_secs_f64();

    pages.push(pages_read());
    bar.stage("singles", 0, 0);
    let mut searcher = snapshot.searcher();
    let mut latencies = Vec::new();
    let started = Instant::now();
    let singles = sample(queries, MAX_SINGLES);
    for query in singles {
        if !latencies.is_empty() && (started.elapsed() > SINGLES || stopped()) {
            break;
        }
        let begun = Instant::now();
        searcher.knn(rows.row(query), k)?;
        latencies.push(begun.elapsed());
    }
    pages.push(pages_read());
    let pages: Option<Vec<u64>> = pages.into_iter().collect();
    let pages_per_query = pages.map(|pages| {
        let asked = [queries, asked, latencies.len()];
        std::array::from_fn(|i| (pages[i + 1] - pages[i]) as f64 / asked[i] as f64)
    });
    latencies.sort_unstable();

    bar.stage("compare", 0, 0);
    let chosen: Vec<usize> = sample(queries, SAMPLE).collect();
    let values: Vec<f32> = chosen.iter().flat_map(|&query| rows.row(query)).copied().collect();
    let truth = snapshot.brute_knn_batch(&values, k)?;
    let numbered = chosen.iter().enumerate();
    let mismatches = numbered.filter(|&(at, &query)| table.row(query) != truth.row(at)).count();

    Ok(Measured {
        version: snapshot.version().0,
        queries,
        queries_per_second,
        p50_us: percentile(&latencies, 50),
        p99_us: percentile(&latencies, 99),
        evaluations: table.distance_evaluations() as f64 / queries as f64,
        pages_per_query,
        sample: chosen.len(),
        mismatches,
    })
}

/// Pages of 4 KiB that the system has read from disks for this process, through the map or
/// otherwise; `None` where it does not say.
fn pages_read() -> Option<u64> {
    let told = std::fs::read_to_string("/proc/self/io").ok()?;
    let bytes = told.lines().find_map(|line| line.strip_prefix("read_bytes: "))?;
    Some(bytes.parse::<u64>().ok()? / 4096)
}

/// Up to `at_most` numbers below `n`, evenly spread.
fn sample(n: usize, at_most: usize) -> impl Iterator<Item = usize> {
    let count = n.min(at_most);
    (0..count).map(move |i| (i as u128 * n as u128 / count as u128) as usize)
}

/// The nearest-rank percentile in microseconds of sorted times.
fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted[rank - 1].as_secs_f64() * 1e6
}

fn print(context: &Context, measured: &Measured, k: usize) -> Result<(), Failure> {
    if context.json {
        return output::print_json(&json!({
            "version": measured.version,
            "queries": measured.queries,
            "k": k,
            "threads": context.threads(),
            "queries_per_second": measured.queries_per_second,
            "latency_us": { "p50": measured.p50_us, "p99": measured.p99_us },
            "distance_evaluations_per_query": measured.evaluations,
            "pages_read_per_query": measured.pages_per_query.map(|[first_batch, batch, single]| {
                json!({ "first_batch": first_batch, "batch": batch, "single": single })
            }),
            "sample": measured.sample,
            "mismatches": measured.mismatches,
        }));
    }
    let pages = measured.pages_per_query.map_or("unknown".to_owned(), |pages| {
        let [first, batch, single] = pages.map(|pages| format!("{pages:.1}"));
        format!("{single} of a single query, {batch} of a batch, {first} of the first batch")
    });
    output::print(&human::pairs(&[
        ("version", measured.version.to_string()),
        ("queries", human::count(measured.queries as u64)),
        ("k", k.to_string()),
        ("threads", context.threads().to_string()),
        ("queries_per_second", human::count(measured.queries_per_second as u64)),
        ("latency p50", format!("{:.1} us", measured.p50_us)),
        ("latency p99", format!("{:.1} us", measured.p99_us)),
        ("distance_evaluations_per_query", format!("{:.1}", measured.evaluations)),
        ("pages_read_per_query", pages),
        ("mismatches", format!("{} of {} compared", measured.mismatches, measured.sample)),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_and_percentiles() {
        assert_eq!(sample(3, 10).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(sample(1000, 4).collect::<Vec<_>>(), [0, 250, 500, 750]);
        let times: Vec<Duration> = (1..=200).map(Duration::from_micros).collect();
        assert_eq!((percentile(&times, 50), percentile(&times, 99)), (100.0, 198.0));
        assert_eq!(percentile(&times[..1], 50), 1.0);
    }
}
