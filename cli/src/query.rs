//! `query`: nearest neighbours, or all points within a radius, of each row of an input.
//!
//! The input is read and answered in pieces, so neither it nor its answers need to fit into memory;
//! text that comes down a pipe is answered as it comes. The tree and brute force differ only in how
//! [`Search::answer`] gets its answers; everything that is printed goes the same way.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use rayon::prelude::*;
use serde_json::json;

use crate::args::Query;
use crate::context::Context;
use crate::failure::Failure;
use crate::human;
use crate::ingest::{self, RowSource};
use crate::output::{self, AnswerWriter, CsvAnswers, JsonAnswers, NpyAnswers, OutputFormat, Sink};
use crate::pace::Pace;
use crate::progress::Bar;
use treering::{Neighbor, NeighborTable, PointsError, QueryError, Snapshot};

/// Coordinates, and answers of `-k`, that a piece may hold: 4 and 16 bytes each.
const PIECE_VALUES: usize = 1 << 22;
/// Queries of a piece of a radius search, whose answers cannot be counted beforehand, at most.
const MOST_RADIUS: usize = 1 << 12;

pub(super) fn run(context: &Context, args: &Query) -> Result<(), Failure> {
    let started = Instant::now();
    let format = args.output.as_deref().map(OutputFormat::of).transpose()?;
    if format == Some(OutputFormat::Npy) && args.radius.is_some() {
        let why = "a radius gives each query a different number of answers; write them as .csv";
        return Err(Failure::Usage(why.to_owned()));
    }
    let bar = Bar::new(context.quiet);
    let store = context.open_reader(&args.store, &bar)?;
    let snapshot = context.snapshot(&store, &args.store, &args.at)?;
    let mut reading = args.text.reading(context.cancel());
    reading.csv.one_by_one = true;
    let mut source = ingest::open(&args.queries, &reading)?;
    let search = Search::new(context, args, &snapshot)?;
    search.check_dim(source.dim())?;
    let mut writer = search.writer(context, args, format)?;
    let queries = search.all(context, source.as_mut(), writer.as_mut(), &bar)?;
    writer.finish()?;
    drop(bar);
    match &args.output {
        Some(path) if path.as_os_str() != "-" => {
            let names = match format {
                Some(OutputFormat::Npy) => vec![path.clone(), output::beside(path, "distances")],
                _ => vec![path.clone()],
            };
            summary(context, &search, queries, &names, started)
        }
        _ => Ok(()),
    }
}

/// What is asked of each query.
#[derive(Clone, Copy)]
enum Ask {
    Nearest(usize),
    Within(f32),
}

/// One way of answering queries against one version.
struct Search<'a> {
    snapshot: &'a Snapshot,
    ask: Ask,
    brute_force: bool,
    input: String,
    /// For radius searches, which the library answers one at a time.
    pool: rayon::ThreadPool,
}

/// The answers to some queries.
enum Answers {
    Table(NeighborTable),
    /// `None` where those before had so many answers that no more are held.
    Lists(Vec<Option<Vec<Neighbor>>>),
}

impl<'a> Search<'a> {
    fn new(context: &Context, args: &Query, snapshot: &'a Snapshot) -> Result<Self, Failure> {
        let ask = match (args.k, args.radius) {
            (Some(k), _) => Ask::Nearest(k),
            (None, Some(radius)) => Ask::Within(radius),
            (None, None) => unreachable!("the arguments require one of the two"),
        };
        let threads = if args.radius.is_some() { context.threads() } else { 1 };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool =
            pool.map_err(|e| Failure::System { what: "start threads", why: e.to_string() })?;
        let input = ingest::label(&args.queries);
        Ok(Search { snapshot, ask, brute_force: args.brute_force, input, pool })
    }

    fn fail(&self, source: QueryError) -> Failure {
        Failure::Query { input: self.input.clone(), source }
    }

    fn check_dim(&self, found: usize) -> Result<(), Failure> {
        let expected = self.snapshot.dim();
        if found == expected {
            return Ok(());
        }
        Err(self.fail(PointsError::Dimension { expected, found }.into()))
    }

    /// Answers per query of `-k`.
    fn per_query(&self) -> usize {
        match self.ask {
            Ask::Nearest(k) => k.min(usize::try_from(self.snapshot.len()).unwrap_or(usize::MAX)),
            Ask::Within(_) => 0,
        }
    }

    fn writer(
        &self,
        context: &Context,
        args: &Query,
        format: Option<OutputFormat>,
    ) -> Result<Box<dyn AnswerWriter>, Failure> {
        let to_stdout = |path: &Path| path.as_os_str() == "-";
        let mut outputs = context.outputs().input(&args.store).input(&args.queries);
        Ok(match &args.output {
            Some(path) if !to_stdout(path) => match format {
                Some(OutputFormat::Npy) => {
                    Box::new(NpyAnswers::create(&mut outputs, path, self.per_query())?)
                }
                _ => Box::new(CsvAnswers::new(Sink::new(outputs.create(path)?))?),
            },
            _ if context.json => {
                let ask = match self.ask {
                    Ask::Nearest(k) => format!("\"k\":{k}"),
                    // Infinity is no number in JSON.
                    Ask::Within(radius) if radius.is_infinite() => "\"radius\":null".to_owned(),
                    Ask::Within(radius) => format!("\"radius\":{radius}"),
                };
                let fields = format!(
                    "\"version\":{},\"points\":{},\"dim\":{},{ask}",
                    self.snapshot.version(),
                    self.snapshot.len(),
                    self.snapshot.dim(),
                );
                Box::new(JsonAnswers::new(Sink::new(outputs.standard_output()?), &fields)?)
            }
            _ => Box::new(CsvAnswers::new(Sink::new(outputs.standard_output()?))?),
        })
    }

    /// Answers all of `source` and says how many queries there were.
    fn all(
        &self,
        context: &Context,
        source: &mut dyn RowSource,
        writer: &mut dyn AnswerWriter,
        bar: &Bar,
    ) -> Result<u64, Failure> {
        let mut pace = Pace::new(match self.ask {
            Ask::Nearest(_) => PIECE_VALUES / source.dim().max(4 * self.per_query()),
            Ask::Within(_) => MOST_RADIUS,
        });
        let total = source.remaining().unwrap_or(0) as u64;
        let (mut values, mut ids) = (Vec::new(), Vec::new());
        let mut done = 0;
        loop {
            bar.stage("query", done, total);
            context.check_interrupt()?;
            values.clear();
            ids.clear();
            let rows = source.read_ready(pace.rows(), &mut values, &mut ids)?;
            if rows == 0 {
                return Ok(done);
            }
            pace.start();
            let answers = self.answer(&values, done)?;
            pace.end(rows);
            match answers {
                Answers::Table(table) => table.iter().try_for_each(|row| writer.answers(row))?,
                Answers::Lists(lists) => {
                    for (row, list) in lists.into_iter().enumerate() {
                        context.check_interrupt()?;
                        let list = list.map_or_else(|| self.one_of(&values, row, done), Ok)?;
                        writer.answers(&list)?;
                    }
                }
            }
            if source.is_piped() {
                writer.flow()?;
            }
            done += rows as u64;
        }
    }

    /// Answers the rows `queries`, the first of which is number `first` of the input.
    fn answer(&self, queries: &[f32], first: u64) -> Result<Answers, Failure> {
        let answers = match self.ask {
            Ask::Nearest(k) if self.brute_force => {
                self.snapshot.brute_knn_batch(queries, k).map(Answers::Table)
            }
            Ask::Nearest(k) => self.snapshot.knn_batch(queries, k).map(Answers::Table),
            Ask::Within(_) => self.within(queries).map(Answers::Lists),
        };
        answers.map_err(|e| self.fail(shift(e, first as usize)))
    }

    /// The points within the radius of each query, as long as all of them together are not more
    /// than a piece may hold.
    fn within(&self, queries: &[f32]) -> Result<Vec<Option<Vec<Neighbor>>>, QueryError> {
        let held = AtomicUsize::new(0);
        let one = |query: &[f32]| {
            if held.load(Ordering::Relaxed) > PIECE_VALUES / 4 {
                return Ok(None);
            }
            let list = self.one_within(query)?;
            held.fetch_add(list.len(), Ordering::Relaxed);
            Ok(Some(list))
        };
        let rows = queries.par_chunks_exact(self.snapshot.dim());
        let lists: Vec<_> = self.pool.install(|| rows.map(one).collect());
        // In order, so that the first bad row is the one that is named.
        let numbered = lists.into_iter().enumerate();
        numbered.map(|(row, list)| list.map_err(|e| shift(e, row))).collect()
    }

    fn one_within(&self, query: &[f32]) -> Result<Vec<Neighbor>, QueryError> {
        let Ask::Within(radius) = self.ask else { unreachable!("only a radius has lists") };
        match self.brute_force {
            true => self.snapshot.brute_within(query, radius),
            false => self.snapshot.within(query, radius),
        }
    }

    /// The list of one row of a piece, which was left out of it.
    fn one_of(&self, queries: &[f32], row: usize, first: u64) -> Result<Vec<Neighbor>, Failure> {
        let dim = self.snapshot.dim();
        let list = self.one_within(&queries[row * dim..(row + 1) * dim]);
        list.map_err(|e| self.fail(shift(e, first as usize + row)))
    }
}

/// Counts the row that an error names from the beginning of the input, not of the piece.
fn shift(error: QueryError, by: usize) -> QueryError {
    QueryError::Query(match error {
        QueryError::Query(PointsError::NotFinite { row, column, value }) => {
            PointsError::NotFinite { row: row + by, column, value }
        }
        QueryError::Query(PointsError::OutOfDomain { row, column, value, limit }) => {
            PointsError::OutOfDomain { row: row + by, column, value, limit }
        }
        other => return other,
    })
}

/// Says where the answers are.
fn summary(
    context: &Context,
    search: &Search<'_>,
    queries: u64,
    files: &[PathBuf],
    started: Instant,
) -> Result<(), Failure> {
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    let seconds = started.elapsed().as_secs_f64();
    let version = search.snapshot.version();
    if context.json {
        return output::print_json(&json!({
            "version": version.0,
            "queries": queries,
            "seconds": seconds,
            "files": names,
        }));
    }
    if context.quiet {
        return Ok(());
    }
    output::print(&format!(
        "version {version}: {} queries answered in {seconds:.3} s, to {}\n",
        human::count(queries),
        names.join(" and ")
    ))
}
