//! `diff`: which ids, or which answers, changed between two versions.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::args::Diff;
use crate::context::Context;
use crate::failure::{About, Failure};
use crate::ingest;
use crate::output;
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
    let mut text = if args.count { "change,count\n" } else { "change,id\n" }.to_owned();
    for (change, ids) in lists {
        if args.count {
            writeln!(text, "{change},{}", ids.len()).expect("a String takes anything");
            continue;
        }
        for id in ids {
            writeln!(text, "{change},{id}").expect("a String takes anything");
        }
    }
    output::print(&text)
}

/// A query whose answer changed.
struct Changed {
    query: u64,
    old: Vec<Neighbor>,
    new: Vec<Neighbor>,
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
    let piece = (PIECE_VALUES / expected.max(4 * k.min(PIECE_VALUES))).max(1);
    let (mut changed, mut values, mut ids, mut done) = (Vec::new(), Vec::new(), Vec::new(), 0u64);
    loop {
        context.check_interrupt()?;
        values.clear();
        ids.clear();
        let rows = source.read(piece, &mut values, &mut ids)?;
        if rows == 0 {
            break;
        }
        let [old, new] = [&from, &to].map(|side: &Snapshot| side.knn_batch(&values, k));
        let (old, new) = (old.map_err(fail)?, new.map_err(fail)?);
        for (i, (old, new)) in old.iter().zip(new.iter()).enumerate() {
            if old != new {
                let query = done + i as u64;
                changed.push(Changed { query, old: old.to_vec(), new: new.to_vec() });
            }
        }
        done += rows as u64;
    }
    let sides = [from.version().0, to.version().0];
    if context.json {
        let mut object = json!({ "from": sides[0], "to": sides[1], "k": k, "queries": done, "changed": changed.len() });
        if !args.count {
            object["answers"] = changed.iter().map(change).collect();
        }
        return output::print_json(&object);
    }
    if args.count {
        return output::print(&format!("queries,changed\n{done},{}\n", changed.len()));
    }
    let mut text = "query,version,rank,id,distance\n".to_owned();
    for Changed { query, old, new } in &changed {
        for (version, side) in sides.iter().zip([old, new]) {
            for (rank, Neighbor { id, distance }) in side.iter().enumerate() {
                writeln!(text, "{query},{version},{rank},{id},{distance}")
                    .expect("a String takes anything");
            }
        }
    }
    output::print(&text)
}

fn change(changed: &Changed) -> Value {
    let side = |neighbors: &[Neighbor]| {
        let ids: Vec<PointId> = neighbors.iter().map(|n| n.id).collect();
        let distances: Vec<f32> = neighbors.iter().map(|n| n.distance).collect();
        json!({ "ids": ids, "distances": distances })
    };
    json!({ "query": changed.query, "old": side(&changed.old), "new": side(&changed.new) })
}
