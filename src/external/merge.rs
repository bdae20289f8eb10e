//! Inserting more points than fit into memory into a tree that holds still more.
//!
//! They are located first, and sorted by the node that each belongs to. In a packed tree
//! neighbouring nodes have neighbouring numbers, so the batches that they are then inserted in
//! touch one neighbourhood after the other.

use super::{Resources, Spooled};
use crate::external::spill::{Key, Sorter};
use crate::insert;
use crate::insert::batch::Batch;
use crate::insert::locate::locate;
use crate::insert::report::Work;
use crate::tree::columns::Tree;
use crate::values::budget::Budget;
use crate::values::error::InsertError;
use crate::version::early::Early;

/// Inserts the points, batch by batch.
pub(super) fn merge(
    tree: &mut Tree,
    means: &Resources<'_>,
    early: &mut Option<Early>,
    budget: Budget,
    spooled: Spooled,
    work: &mut Work,
) -> Result<(), InsertError> {
    let Spooled { mut chains, chain, points: total } = spooled;
    let mut sorter = Sorter::new(means.folder, tree.dim, budget.spill);
    let mut taken = chains.take(chain);
    let (mut ids, mut points) = (Vec::new(), Vec::new());
    while chains.next(&mut taken, budget.chunk_rows, &mut ids, &mut points)? > 0 {
        means.context.check()?;
        let batch = Batch { points: &points, ids: std::mem::take(&mut ids) };
        let placements = locate(tree, means.context, &batch, work)?;
        let rows = points.chunks_exact(tree.dim);
        for ((&node, &id), row) in placements.nodes.iter().zip(&batch.ids).zip(rows) {
            sorter.push(Key::wide_last(node, id), row)?;
        }
        points.clear();
        means.context.options.report("2/3 locate", sorter.count(), total);
    }
    drop((taken, chains));
    let mut sorted = sorter.finish()?;
    let mut done = 0;
    loop {
        points.clear();
        let mut ids = Vec::new();
        while ids.len() < budget.scattered_rows {
            let Some((key, row)) = sorted.next()? else { break };
            ids.push(key.as_wide_last().1);
            points.extend_from_slice(row);
        }
        if ids.is_empty() {
            return Ok(());
        }
        done += ids.len() as u64;
        insert::insert(tree, means.context, &Batch { points: &points, ids }, work)?;
        if tree.changed_bytes() > budget.changed {
            means.flush(early, tree)?;
        }
        means.context.options.report("3/3 insert", done, total);
    }
}
