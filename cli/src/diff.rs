//! `diff`: which ids, or which answers, changed between two versions.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::args::Diff;
use crate::context::Context;
use crate::failure::{About, Failure};
use crate::ingest;
use crate::output::{self, Sink};
use crate::pace::Pace;
use crate::progress::Bar;
use treering::{Neighbor, PointId, PointsError, Snapshot, Store};

/// Coordinates and answers of a piece of the queries.
const PIECE_VALUES: usize = 1 << 20;

pub(super) fn run(context: &Context, args: &Diff) -> Result<(), Failure> {
    let store = context.open_reader(&args.store, &Bar::new(true))?;
    match (&args.queries, args.k) {
        (Some(_), Some(k)) => answers(context, args, &store, k),
        _ => ids(context, args, &store),
    }
}

fn ids(context: &Context, args: &Diff, store: &Store) -> Result<(), Failure> {
    let from = store.find(&args.from).about(&args.store)?;
    let to = store.find(&args.to).about(&args.store)?;
    let diff = store.diff(from, to).about(&args.store)?;
    let lists: [(&str, &[PointId]); 3] =
        [("added", &diff.added), ("removed", &diff.removed), ("replaced", &diff.replaced)];
    if context.json {
        let mut object = json!({ "from": from.0, "to": to.0, "segments_read": diff.segments_read });
        for (change, ids) in lists {
            object[change] = if args.count { ids.len().into() } else { ids.into() };
        }
        return output::print_json(&object);
    }
    let mut sink = Sink::stdout();
    if args.count {
        sink.write(b"change,count\n")?;
        for (change, ids) in lists {
            sink.write(format!("{change},{}\n", ids.len()).as_bytes())?;
        }
        return sink.finish();
    }
    sink.write(b"change,id\n")?;
    for (change, ids) in lists {
        ids.iter().try_for_each(|id| sink.write(format!("{change},{id}\n").as_bytes()))?;
    }
    sink.finish()
}

fn answers(context: &Context, args: &Diff, store: &Store, k: usize) -> Result<(), Failure> {
    let queries = args.queries.as_deref().expect("asked for by the caller");
    let open = |when| store.find(when).and_then(|version| store.at(version)).about(&args.store);
    let (from, to) = (open(&args.from)?, open(&args.to)?);
    let mut source = ingest::open(queries, &args.text.reading(context.cancel()))?;
    let fail = |source| Failure::Query { input: ingest::label(queries), source };
    let (expected, found) = (from.dim(), source.dim());
    if expected != found {
        return Err(fail(PointsError::Dimension { expected, found }.into()));
    }
    let mut pace = Pace::new(PIECE_VALUES / expected.max(4 * k.min(PIECE_VALUES)));
    let sides = [from.version().0, to.version().0];
    let mut told = Told::new(context.json, args.count, sides)?;
    let (mut values, mut ids, mut done) = (Vec::new(), Vec::new(), 0u64);
    loop {
        context.check_interrupt()?;
        values.clear();
        ids.clear();
        let rows = source.read(pace.rows(), &mut values, &mut ids)?;
        if rows == 0 {
            break;
        }
        pace.start();
        let [old, new] = [&from, &to].map(|side: &Snapshot| side.knn_batch(&values, k));
        let (old, new) = (old.map_err(fail)?, new.map_err(fail)?);
        pace.end(rows);
        for (i, (old, new)) in old.iter().zip(new.iter()).enumerate() {
            if old != new {
                told.changed(done + i as u64, [old, new])?;
            }
        }
        done += rows as u64;
    }
    told.finish(k, done)
}

/// Answers that changed, on their way to standard output. Only one JSON object needs them all in
/// memory.
struct Told {
    sides: [u64; 2],
    changed: u64,
    text: Option<Sink>,
    answers: Option<Vec<Value>>,
    is_json: bool,
    line: String,
}

impl Told {
    fn new(json: bool, count: bool, sides: [u64; 2]) -> Result<Self, Failure> {
        let text = (!json && !count).then(|| {
            let mut sink = Sink::stdout();
            sink.write(b"query,version,rank,id,distance\n").map(|()| sink)
        });
        let answers = (json && !count).then(Vec::new);
        Ok(Told {
            sides,
            changed: 0,
            text: text.transpose()?,
            answers,
            is_json: json,
            line: String::new(),
        })
    }

    /// The answer to a query, old and new.
    fn changed(&mut self, query: u64, answers: [&[Neighbor]; 2]) -> Result<(), Failure> {
        self.changed += 1;
        if let Some(list) = &mut self.answers {
            let [old, new] = answers.map(side);
            list.push(json!({ "query": query, "old": old, "new": new }));
        }
        let Some(sink) = &mut self.text else {
            return Ok(());
        };
        self.line.clear();
        for (version, side) in self.sides.iter().zip(answers) {
            for (rank, Neighbor { id, distance }) in side.iter().enumerate() {
                writeln!(self.line, "{query},{version},{rank},{id},{distance}")
                    .expect("a String takes anything");
            }
        }
        sink.write(self.line.as_bytes())
    }

    fn finish(self, k: usize, queries: u64) -> Result<(), Failure> {
        let Told { sides: [from, to], changed, text, answers, is_json, .. } = self;
        match (text, answers) {
            (Some(sink), _) => sink.finish(),
            (None, Some(answers)) => output::print_json(&json!({
                "from": from, "to": to, "k": k, "queries": queries, "changed": changed,
                "answers": answers,
            })),
            (None, None) if is_json => output::print_json(&json!({
                "from": from, "to": to, "k": k, "queries": queries, "changed": changed,
            })),
            (None, None) => output::print(&format!("queries,changed\n{queries},{changed}\n")),
        }
    }
}

fn side(neighbors: &[Neighbor]) -> Value {
    let ids: Vec<PointId> = neighbors.iter().map(|n| n.id).collect();
    let distances: Vec<f32> = neighbors.iter().map(|n| n.distance).collect();
    json!({ "ids": ids, "distances": distances })
}
