//! `insert`: one input becomes one new version.

use std::path::Path;
use std::time::Instant;

use super::args::{Insert, OnDuplicate};
use super::context::Context;
use super::failure::{About, Failure};
use super::made;
use super::progress::Bar;
use crate::{PointId, PointsError, Transaction};

pub(super) fn run(context: &Context, args: &Insert) -> Result<(), Failure> {
    let started = Instant::now();
    let bar = Bar::new(context.quiet);
    let mut store = context.open_writer(&args.store, &bar)?;
    let (rows, ids) = args.input.read(&bar)?;
    context.check_interrupt()?;
    let fail = |source| Failure::Insert { input: args.input.name(), source };
    if rows.dim != store.dim() {
        // Its values might still make whole rows of the store's dimension.
        let source = PointsError::Dimension { expected: store.dim(), found: rows.dim };
        return Err(fail(source.into()));
    }
    let mut transaction = store.begin();
    transaction.message(&args.message.text);
    match &ids {
        Some(ids) => {
            if args.on_duplicate == OnDuplicate::Replace && ids.len() == rows.rows() {
                make_room(&mut transaction, ids, &args.store)?;
            }
            transaction.insert_with_ids(&rows.values, ids).map_err(fail)?;
        }
        None => {
            transaction.insert(&rows.values).map_err(fail)?;
        }
    }
    let report = transaction.commit().about(&args.store)?;
    drop((bar, store));
    made::print(context, &report, started)
}

/// Deletes those of `ids` that are live. An id that stands twice is left for the insertion to report, which names rows.
fn make_room(
    transaction: &mut Transaction<'_>,
    ids: &[PointId],
    store: &Path,
) -> Result<(), Failure> {
    let mut live = Vec::new();
    for &id in ids {
        if transaction.contains(id).about(store)? {
            live.push(id);
        }
    }
    live.sort_unstable();
    live.dedup();
    if !live.is_empty() {
        transaction.delete(&live).about(store)?;
    }
    Ok(())
}
