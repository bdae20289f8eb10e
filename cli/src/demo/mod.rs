//! `demo`: the whole story on built-in data, in a temporary folder that is removed at the end.
//!
//! A store is built, grows and shrinks over eight versions, is closed and opened again; then every
//! version is asked, and its answers are compared with brute force and with those it gave when it
//! was the newest.

mod data;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

use super::context::Context;
use super::failure::{About, Failure};
use super::progress::Bar;
use super::{human, output};
use data::{DIM, DemoData};
use treering::{
    CreateOptions, NeighborTable, PointId, QueryError, Report, Snapshot, Store, VersionId,
};

const FIRST: usize = 60_000;
const BATCH: usize = 12_000;
const K: usize = 10;
const QUERIES: usize = 4_000;
/// Of the queries, so many are compared; they come first.
const SAMPLE: usize = 200;
const INPUT: &str = "the built-in data";

/// What happens in one version after the first.
struct Step {
    insert: usize,
    /// Ids to delete, as start, step and number.
    delete: (PointId, PointId, u64),
    message: &'static str,
}

const STEPS: [Step; 7] = [
    Step { insert: BATCH, delete: (0, 1, 0), message: "the second delivery" },
    Step {
        insert: 0,
        delete: (0, 12, 5_000),
        message: "every twelfth point of the first was wrong",
    },
    Step { insert: BATCH, delete: (0, 1, 0), message: "the third delivery" },
    Step { insert: BATCH, delete: (1, 15, 4_000), message: "in with the new, out with the old" },
    Step { insert: BATCH, delete: (0, 1, 0), message: "the fifth delivery" },
    Step { insert: 0, delete: (60_000, 6, 3_000), message: "a part of the second recalled" },
    Step { insert: BATCH, delete: (0, 1, 0), message: "the last delivery" },
];

/// What the table says of a version.
struct Row {
    version: VersionId,
    points: u64,
    added: u64,
    removed: u64,
    bytes_written: u64,
    file_bytes: u64,
    queries_per_second: f64,
    mismatches: usize,
}

pub(super) fn run(context: &Context) -> Result<(), Failure> {
    let started = Instant::now();
    let bar = Bar::new(context.quiet);
    let folder = tempfile::tempdir()
        .map_err(|e| Failure::System { what: "make a temporary folder", why: e.to_string() })?;
    let path = folder.path().join("demo.tree");
    let queries = DemoData::new(2).rows(QUERIES);
    let sample = &queries[..SAMPLE * DIM];
    let (mut rows, then) = write(context, &path, sample, &bar)?;
    let wrote = started.elapsed().as_secs_f64();

    let opening = Instant::now();
    let store = context.open_reader(&path, &bar)?;
    let opened_ms = opening.elapsed().as_secs_f64() * 1e3;
    for (row, then) in rows.iter_mut().zip(&then) {
        context.check_interrupt()?;
        bar.stage("ask", row.version.0, 1 + STEPS.len() as u64);
        let snapshot = store.at(row.version).about(&path)?;
        let asked = ask(&snapshot, &queries, then);
        (row.queries_per_second, row.mismatches) = asked.map_err(query_failure)?;
    }
    drop((bar, store));
    let story = Story { path, rows, wrote, opened_ms, seconds: started.elapsed().as_secs_f64() };
    if context.json {
        output::print_json(&story.object())?;
    } else {
        output::print(&story.text())?;
    }
    match story.mismatches() {
        0 => Ok(()),
        queries => Err(Failure::Mismatches { queries, sample: SAMPLE * story.rows.len() }),
    }
}

/// Makes all versions, and asks each the sample while it is the newest.
fn write(
    context: &Context,
    path: &Path,
    sample: &[f32],
    bar: &Bar,
) -> Result<(Vec<Row>, Vec<NeighborTable>), Failure> {
    let mut source = DemoData::new(1);
    let mut rows = Vec::new();
    let mut then = Vec::new();
    let mut note = |store: &Store, report: &Report| {
        let snapshot = store.latest().about(path)?;
        then.push(snapshot.knn_batch(sample, K).map_err(query_failure)?);
        rows.push(Row {
            version: report.version,
            points: report.points,
            added: report.added,
            removed: report.removed,
            bytes_written: report.bytes_written,
            file_bytes: store.file_bytes(),
            queries_per_second: 0.0,
            mismatches: 0,
        });
        Ok::<(), Failure>(())
    };
    let (options, open) = (CreateOptions::new(DIM), context.open_options(bar));
    let points = source.rows(FIRST);
    let (mut store, report) =
        Store::build(path, options, open, &points, None, "the first delivery")
            .map_err(|source| Failure::Create { input: INPUT.to_owned(), source })?;
    note(&store, &report)?;
    for step in &STEPS {
        let mut transaction = store.begin();
        transaction.message(step.message);
        let (start, stride, count) = step.delete;
        if count > 0 {
            let ids: Vec<PointId> = (0..count).map(|i| start + i * stride).collect();
            transaction.delete(&ids).about(path)?;
        }
        if step.insert > 0 {
            let points = source.rows(step.insert);
            let fail = |source| Failure::Insert { input: INPUT.to_owned(), source };
            transaction.insert(&points).map_err(fail)?;
        }
        let report = transaction.commit().about(path)?;
        note(&store, &report)?;
    }
    Ok((rows, then))
}

/// Queries a second, and how many of the sample differ from brute force or from what was answered
/// then.
fn ask(
    snapshot: &Snapshot,
    queries: &[f32],
    then: &NeighborTable,
) -> Result<(f64, usize), QueryError> {
    snapshot.knn_batch(queries, K)?;
    let started = Instant::now();
    let table = snapshot.knn_batch(queries, K)?;
    let queries_per_second = QUERIES as f64 / started.elapsed().as_secs_f64();
    let truth = snapshot.brute_knn_batch(&queries[..SAMPLE * DIM], K)?;
    let differs = |&query: &usize| {
        let now = table.row(query);
        now != truth.row(query) || now != then.row(query)
    };
    Ok((queries_per_second, (0..SAMPLE).filter(differs).count()))
}

fn query_failure(source: QueryError) -> Failure {
    Failure::Query { input: INPUT.to_owned(), source }
}

/// What there is to tell in the end.
struct Story {
    path: PathBuf,
    rows: Vec<Row>,
    wrote: f64,
    opened_ms: f64,
    seconds: f64,
}

impl Story {
    fn mismatches(&self) -> usize {
        self.rows.iter().map(|row| row.mismatches).sum()
    }

    fn object(&self) -> Value {
        let version = |row: &Row| {
            json!({
                "version": row.version.0,
                "points": row.points,
                "added": row.added,
                "removed": row.removed,
                "bytes_written": row.bytes_written,
                "file_bytes": row.file_bytes,
                "queries_per_second": row.queries_per_second,
                "mismatches": row.mismatches,
            })
        };
        json!({
            "dim": DIM,
            "k": K,
            "queries": QUERIES,
            "sample": SAMPLE,
            "versions": self.rows.iter().map(version).collect::<Vec<_>>(),
            "mismatches": self.mismatches(),
            "open_ms": self.opened_ms,
            "seconds": self.seconds,
        })
    }

    fn text(&self) -> String {
        let inserted: u64 = self.rows.iter().map(|row| row.added).sum();
        let mut text = format!(
            "treering keeps points in one file; every batch makes a version, and every version can be asked for ever.\n\
             {} points in {DIM} dimensions went into {} in {} versions, in {:.2} s, each version on disk\n\
             before the next began. Then the file was closed, opened again in {:.1} ms, and every version was asked for\n\
             the {K} nearest neighbours of {} queries.\n\n",
            human::count(inserted),
            self.path.display(),
            self.rows.len(),
            self.wrote,
            self.opened_ms,
            human::count(QUERIES as u64),
        );
        let headings = [
            "version",
            "added",
            "removed",
            "points",
            "bytes written",
            "file bytes",
            "queries/s",
            "mismatches",
        ];
        let cells = |row: &Row| {
            let counts = [row.added, row.removed, row.points, row.bytes_written, row.file_bytes];
            let mut cells = vec![row.version.to_string()];
            cells.extend(counts.map(human::count));
            cells.push(human::count(row.queries_per_second as u64));
            cells.push(row.mismatches.to_string());
            cells
        };
        text += &human::table(&headings, &self.rows.iter().map(cells).collect::<Vec<_>>());
        let written: u64 = self.rows.iter().map(|row| row.bytes_written).sum();
        writeln!(
            text,
            "\nA version writes only the segments that its batch touched and shares the others with the versions before\n\
             it: {} for all {}. A mismatch would be a query, of {SAMPLE} compared per version, whose answer differs in\n\
             any bit from a scan of all points of that version, or from the answer that version gave when it was new.",
            human::bytes(written),
            self.rows.len(),
        )
        .expect("a String takes anything");
        writeln!(text, "{} mismatches; {:.2} s in all.", self.mismatches(), self.seconds)
            .expect("a String takes anything");
        text
    }
}
