//! All points within a radius, or their number.

use super::Neighbor;
use crate::space;
use crate::tree::columns::{ROOT, Range, Tree};
use crate::tree::visit_limit::VisitLimit;
use crate::values::error::ReadError;

/// Buffers of a query, reused from one to the next.
#[derive(Default)]
pub(crate) struct Scratch {
    /// Node, canonical distance to its center.
    pending: Vec<(u32, f32)>,
    sums: Vec<f32>,
    /// Canonical distances computed since the scratch was made.
    pub(crate) evaluations: u64,
}

/// What to do with what lies within the radius.
trait Collect {
    fn point(&mut self, tree: &Tree, slot: u32, distance: f32) -> Result<(), ReadError>;
    /// Twins that all are at `distance`.
    fn twins(&mut self, tree: &Tree, range: Range, distance: f32) -> Result<(), ReadError>;
    /// Takes a subtree that lies wholly within the radius; false if it must be descended into.
    fn subtree(&mut self, tree: &Tree, node: u32) -> Result<bool, ReadError>;
}

struct List<'a>(&'a mut Vec<Neighbor>);

impl Collect for List<'_> {
    fn point(&mut self, tree: &Tree, slot: u32, distance: f32) -> Result<(), ReadError> {
        if tree.is_live(slot)? {
            self.0.push(Neighbor { id: tree.ids.get(slot as u64)?, distance });
        }
        Ok(())
    }

    fn twins(&mut self, tree: &Tree, range: Range, distance: f32) -> Result<(), ReadError> {
        (range.start..range.start + range.count)
            .try_for_each(|slot| self.point(tree, slot, distance))
    }

    fn subtree(&mut self, _: &Tree, _: u32) -> Result<bool, ReadError> {
        Ok(false)
    }
}

struct Count(u64);

impl Collect for Count {
    fn point(&mut self, tree: &Tree, slot: u32, _: f32) -> Result<(), ReadError> {
        self.0 += tree.is_live(slot)? as u64;
        Ok(())
    }

    fn twins(&mut self, tree: &Tree, range: Range, _: f32) -> Result<(), ReadError> {
        self.0 += tree.live_in(range)?;
        Ok(())
    }

    fn subtree(&mut self, tree: &Tree, node: u32) -> Result<bool, ReadError> {
        self.0 += tree.counts.get(node as u64)?.live as u64;
        Ok(true)
    }
}

/// All live points with canonical distance at most `radius`, in the order (distance, id), into
/// `out`.
pub(crate) fn within(
    tree: &Tree,
    query: &[f32],
    radius: f32,
    scratch: &mut Scratch,
    out: &mut Vec<Neighbor>,
) -> Result<(), ReadError> {
    within_unsorted(tree, query, radius, scratch, out)?;
    out.sort_unstable_by(Neighbor::order);
    Ok(())
}

/// The same in any order.
pub(crate) fn within_unsorted(
    tree: &Tree,
    query: &[f32],
    radius: f32,
    scratch: &mut Scratch,
    out: &mut Vec<Neighbor>,
) -> Result<(), ReadError> {
    out.clear();
    search(tree, query, radius, scratch, &mut List(out))
}

/// How many live points have canonical distance at most `radius`. Subtrees wholly inside are not
/// descended into.
pub(crate) fn count_within(
    tree: &Tree,
    query: &[f32],
    radius: f32,
    scratch: &mut Scratch,
) -> Result<u64, ReadError> {
    let mut count = Count(0);
    search(tree, query, radius, scratch, &mut count)?;
    Ok(count.0)
}

fn search(
    tree: &Tree,
    query: &[f32],
    radius: f32,
    scratch: &mut Scratch,
    collect: &mut impl Collect,
) -> Result<(), ReadError> {
    let Scratch { pending, sums, evaluations } = scratch;
    pending.clear();
    if tree.node_rows() > 0 {
        let sum = tree.kernel.sum(query, tree.centers.row(ROOT as u64)?);
        *evaluations += 1;
        pending.push((ROOT, space::distance(sum)));
    }
    let mut met = VisitLimit::default();
    while let Some((node, distance)) = pending.pop() {
        let subtree = tree.radii.get(node as u64)?;
        if tree.slack.excludes(distance, subtree, radius) {
            continue;
        }
        if tree.slack.includes(distance, subtree, radius) && collect.subtree(tree, node)? {
            continue;
        }
        let link = tree.link(node)?;
        met.runs(tree, node, &link)?;
        let mut scan = |range: Range| -> Result<(), ReadError> {
            met.slots(tree, range)?;
            tree.sums(&tree.coordinates, range, query, sums)?;
            *evaluations += range.count as u64;
            for (i, &sum) in sums.iter().enumerate() {
                let distance = space::distance(sum);
                if distance <= radius {
                    collect.point(tree, range.start + i as u32, distance)?;
                }
            }
            Ok(())
        };
        if !tree.slack.excludes(distance, link.row.own_radius, radius) {
            tree.for_bucket(node, &link, &mut scan)?;
        }
        if !link.twins_equal() {
            tree.for_twins(node, &link, &mut scan)?;
        } else if distance <= radius {
            tree.for_twins(node, &link, |range| {
                met.slots(tree, range)?;
                collect.twins(tree, range, distance)
            })?;
        }
        tree.for_children(node, &link, |block| {
            met.children(tree, node, block)?;
            tree.sums(&tree.centers, block, query, sums)?;
            *evaluations += block.count as u64;
            let numbers = block.start..block.start + block.count;
            pending.extend(numbers.zip(sums.iter().map(|&sum| space::distance(sum))));
            Ok(())
        })?;
    }
    Ok(())
}
