//! Stage: the plan is written into the columns: new rows at the tail, laid out by
//! [`super::layout`], changed rows through the journal.

use std::time::Instant;

use super::batch::Batch;
use super::journal::Journal;
use super::layout::Layout;
use super::locate::Placements;
use super::plan::{Change, Changes, Keep, new_link};
use super::report::Work;
use super::source::{Moved, Source};
use crate::format::rows::NONE;
use crate::tree::columns::{Links, ROOT, Tree};
use crate::tree::extent::Extent;
use crate::tree::id_index;
use crate::values::error::{InsertError, ReadError};
use crate::values::ids::PointId;
use crate::values::seeded_bug::SeededBug;

/// Applies a plan. New points must be counted where they were placed; moved ones are counted there
/// already.
pub(crate) fn apply(
    tree: &mut Tree,
    batch: &Batch<'_>,
    placements: &Placements,
    changes: Changes,
    work: &mut Work,
) -> Result<(), InsertError> {
    let mut journal = Journal::default();
    match changes {
        Changes::Root(root) => {
            let nothing = Moved::default();
            let source = Source { dim: tree.dim, seed: tree.seed, batch, moved: &nothing };
            let mut layout = Layout::behind(tree);
            layout.root(&root);
            let write = || -> Result<(), ReadError> {
                layout.write(tree, &source, &mut journal)?;
                layout.write_boxes(tree, &[])?;
                Ok(())
            };
            let slots_of_points = || {
                let mut slots = vec![0; batch.ids.len()];
                layout.slots().for_each(|(point, slot)| slots[point as usize] = slot);
                slots
            };
            let (written, slots) = rayon::join(write, slots_of_points);
            written?;
            work.counters.splice_count += 1;
            journal.apply(tree, work)?;
            index(tree, batch.ids.iter().copied().zip(slots.iter().copied()), work)?;
            // Letting go of many small pieces takes its time; the commit, which waits for the disk,
            // need not wait for it.
            rayon::spawn(move || drop(root));
            Ok(())
        }
        Changes::Nodes(changes) => {
            let mut entries = Vec::new();
            check_slots(tree, batch, &changes)?;
            let forgotten = SeededBug::ForgetAncestorRadii.is_planted();
            for (&node, &distance) in placements.radii.iter().filter(|_| !forgotten) {
                journal.set_radius(node, distance.max(tree.radii.get(node as u64)?));
            }
            for (&node, extent) in &placements.extents {
                let mut grown = tree.extent(node)?;
                grown.merge(extent);
                journal.set_extent(node, grown);
            }
            let root = tree.nodes.get(ROOT as u64)?;
            if placements.root_level.get() > root.level {
                journal.node(tree, ROOT)?.level = placements.root_level.get();
                journal.add_level(root.level, -1);
                journal.add_level(placements.root_level.get(), 1);
            }
            for change in &changes {
                journal.add_live(tree, change.node, change.added as i64)?;
                apply_change(tree, batch, change, &mut journal, &mut entries, work)?;
            }
            journal.apply(tree, work)?;
            index(tree, entries.iter().copied(), work)
        }
    }
}

fn index(
    tree: &mut Tree,
    entries: impl ExactSizeIterator<Item = (PointId, u32)> + Clone,
    work: &mut Work,
) -> Result<(), InsertError> {
    let start = Instant::now();
    id_index::insert(tree, entries)?;
    work.times.build_cow += start.elapsed();
    Ok(())
}

fn check_slots(tree: &Tree, batch: &Batch<'_>, changes: &[Change]) -> Result<(), InsertError> {
    let moved: u64 = changes.iter().map(|change| change.moved.ids.len() as u64).sum();
    let slots = tree.slots() as u64 + batch.ids.len() as u64 + moved;
    // A change adds at most three ranges to those it keeps.
    let runs: u64 = changes.iter().map(|change| change.kept_runs.len() as u64 + 3).sum();
    let needed = slots.max(tree.runs.len() + runs);
    let limit = NONE as u64 - 1;
    match needed > limit {
        true => Err(InsertError::SlotsExhausted { needed, limit }),
        false => Ok(()),
    }
}

/// Appends the rows of a change, and what lies below its node. The node's links to them, and their
/// box.
fn write_rows(
    tree: &mut Tree,
    batch: &Batch<'_>,
    change: &Change,
    old: &Links,
    journal: &mut Journal,
    entries: &mut Vec<(PointId, u32)>,
    work: &mut Work,
) -> Result<(Links, Extent), ReadError> {
    let node = change.node;
    let source = Source { dim: tree.dim, seed: tree.seed, batch, moved: &change.moved };
    let mut layout = Layout::behind(tree);
    let slots = layout.own_rows(node, &change.body);
    let children = layout.children(node, &change.body.children);
    layout.write(tree, &source, journal)?;
    entries.extend(layout.slots().map(|(point, slot)| (source.id(point), slot)));
    let extent = layout.write_boxes(tree, &[(slots, children)])?[0];
    if children.count > 0 {
        work.counters.splice_count += 1;
    }
    let mut runs = Vec::new();
    let mut link = new_link(old, change, slots, children, &mut runs);
    if change.keep != Keep::Nothing {
        // The node's later ranges are kept side by side, so they are written as a whole.
        link.run_start = tree.runs.len() as u32;
        link.run_count = u16::try_from(runs.len())
            .map_err(|_| ReadError::row("links", node as u64, "too many runs at one node"))?;
        tree.runs.push(&runs)?;
    }
    Ok((link, extent))
}

fn apply_change(
    tree: &mut Tree,
    batch: &Batch<'_>,
    change: &Change,
    journal: &mut Journal,
    entries: &mut Vec<(PointId, u32)>,
    work: &mut Work,
) -> Result<(), ReadError> {
    let node = change.node;
    for range in &change.retired {
        for slot in range.start..range.start + range.count {
            journal.bury(slot);
        }
    }
    let old = tree.link(node)?;
    let built = {
        let mut has_children = false;
        tree.for_children(node, &old, |_| {
            has_children = true;
            Ok(())
        })?;
        change.keep == Keep::Nothing || !has_children
    };
    let (mut link, extent) = write_rows(tree, batch, change, &old, journal, entries, work)?;
    for &level in &change.dropped {
        journal.add_level(level, -1);
    }

    // T5: the own radius bounds the whole bucket, old rows included if they stay.
    let own_radius = change.body.stored_own_radius(link.row.child_count == 0);
    link.row.own_radius = match change.keep {
        Keep::All => old.row.own_radius.max(own_radius),
        _ => own_radius,
    };
    journal.set_links(node, link);
    if let Some(radius) = change.radius {
        // Everything below was built anew.
        journal.set_radius(node, radius);
        if tree.has_boxes() {
            journal.set_extent(node, extent);
        }
    }

    if let Some((center, level)) = &change.root {
        journal.set_center(node, center.clone());
        let row = journal.node(tree, node)?;
        let before = std::mem::replace(&mut row.level, level.get());
        journal.add_level(before, -1);
        journal.add_level(level.get(), 1);
    }

    count(tree, change, built, journal)
}

/// Counts what lies below a node that has changed. `built`: all of it was built anew.
fn count(
    tree: &Tree,
    change: &Change,
    built: bool,
    journal: &mut Journal,
) -> Result<(), ReadError> {
    let node = change.node;
    let points = change.body.points;
    if change.keep != Keep::All {
        let flat_capacity = change.body.flat_capacity;
        // Without earlier children this was a build of the whole subtree.
        let live = match change.keep {
            Keep::Nothing => points,
            _ => {
                let live = tree.counts.get(node as u64)?.live.checked_add(change.added);
                live.ok_or_else(|| {
                    ReadError::row("counts", node as u64, "live count out of range")
                })?
            }
        };
        let row = journal.node(tree, node)?;
        row.flat_capacity = flat_capacity;
        row.built = if built { live } else { row.built };
    }
    match (change.keep, tree.parent(node)?) {
        (Keep::Nothing, parent) => {
            if let Some(parent) = parent {
                journal.unpack(tree, parent)?;
            }
            journal.set_span(node, points);
        }
        _ => journal.unpack(tree, node)?,
    }
    Ok(())
}
