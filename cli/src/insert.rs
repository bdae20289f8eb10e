//! `insert`: one input becomes one new version.

use std::path::Path;
use std::time::Instant;

use crate::args::{Insert, OnDuplicate};
use crate::context::Context;
use crate::failure::{About, Failure};
use crate::ingest::IdSource;
use crate::made;
use crate::progress::Bar;
use treering::{PointId, PointSource, PointsError, Transaction};

pub(super) fn run(context: &Context, args: &Insert) -> Result<(), Failure> {
    let started = Instant::now();
    let bar = Bar::new(context.quiet);
    let mut store = context.open_writer_within(&args.store, &args.memory, &bar)?;
    let (replaced, mut points) = match args.on_duplicate {
        OnDuplicate::Error => (None, args.input.open(context, &args.store, &args.memory, &bar)?),
        OnDuplicate::Replace => {
            args.input.open_with_ids(context, &args.store, &args.memory, &bar)?
        }
    };
    context.check_interrupt()?;
    let fail = |source| Failure::Insert { input: args.input.name(), source };
    if points.dim() != store.dim() {
        // Told before anything is made room for.
        let source = PointsError::Dimension { expected: store.dim(), found: points.dim() };
        return Err(fail(source.into()));
    }
    let mut transaction = store.begin();
    transaction.message(&args.message.text);
    if let Some(ids) = replaced {
        make_room(&mut transaction, ids, &args.store)?;
    }
    transaction.insert_from(&mut points).map_err(fail)?;
    let report = transaction.commit().about(&args.store)?;
    drop((bar, store));
    made::print_points(context, &report, &points.precision(), started)
}

/// Deletes those of the ids that are live. An id that appears twice is left for the insertion to
/// report, which names rows.
fn make_room(
    transaction: &mut Transaction<'_>,
    mut source: Box<dyn IdSource>,
    store: &Path,
) -> Result<(), Failure> {
    const IDS: usize = 1 << 16;
    let mut ids = Vec::new();
    while source.read(IDS, &mut ids)? > 0 {
        let mut live: Vec<PointId> = Vec::new();
        for &id in &ids {
            if transaction.contains(id).about(store)? {
                live.push(id);
            }
        }
        live.sort_unstable();
        live.dedup();
        if !live.is_empty() {
            transaction.delete(&live).about(store)?;
        }
        ids.clear();
    }
    Ok(())
}
