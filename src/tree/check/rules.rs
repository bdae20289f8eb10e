//! What must hold at one node: each of T1 to T8, and what refers to slots and nodes.

use super::{Ancestor, Checker, Subtree};
use crate::format::rows::{COUNT_UNEQUAL_TWINS, CountRow};
use crate::space::{self, Level};
use crate::tree::columns::{Links, ROOT, Range};
use crate::tree::{id_index, level_row};
use crate::values::error::{Invariant, ReadError};

impl Checker<'_> {
    /// No field of a node has what no writer writes.
    pub(super) fn plain(&mut self, node: u32, link: &Links, radius: f32) -> Result<(), ReadError> {
        let row = self.tree.nodes.get(node as u64)?;
        let plain = row.reserved == 0
            && link.flags & !COUNT_UNEQUAL_TWINS == 0
            && level_row(row.level).is_some()
            && radius >= 0.0
            && link.row.own_radius >= 0.0;
        self.expect(plain, node, Invariant::Other, || {
            format!("node {node} has a field that no writer writes")
        });
        Ok(())
    }

    /// T7: what is counted is there, and a range that a node claims is all that it has.
    pub(super) fn counts(
        &mut self,
        node: u32,
        start: u32,
        live: u64,
        ranges: Vec<Range>,
    ) -> Result<Subtree, ReadError> {
        let is_empty = ranges.iter().all(|range| range.count == 0);
        let range = one_range(ranges);
        let CountRow { live: counted, span, .. } = self.tree.counts.get(node as u64)?;
        self.expect(counted as u64 == live, node, Invariant::Count, || {
            format!("node {node} counts {counted} live points, {live} are there")
        });
        let spans =
            span == 0 || range.is_some_and(|range| range.count == span && range.start == start);
        self.expect(spans, node, Invariant::Count, || {
            format!("node {node} claims a range of {span} slots")
        });
        // Where there are no slots, they are one range.
        let nothing = is_empty.then_some(Range { start: 0, count: 0 });
        Ok(Subtree { live, range: if span > 0 { range } else { nothing } })
    }

    /// T2 and T3 for the children of a node.
    pub(super) fn children(
        &mut self,
        node: u32,
        level: i16,
        center: &[f32],
        children: &[u32],
    ) -> Result<(), ReadError> {
        let tree = self.tree;
        let mut rows = Vec::with_capacity(children.len() * tree.dim);
        let mut levels = Vec::with_capacity(children.len());
        for &child in children {
            rows.extend_from_slice(tree.centers.row(child as u64)?);
            let row = tree.nodes.get(child as u64)?;
            self.expect(row.parent == node, child, Invariant::Reference, || {
                format!("node {child} is a child of {node} and names parent {}", row.parent)
            });
            levels.push(row.level);
        }
        let mut sums = vec![0.0; children.len()];
        tree.kernel.sums(center, &rows, &mut sums);
        for ((&child, &child_level), &sum) in children.iter().zip(&levels).zip(&sums) {
            let l = Level::new(child_level);
            let falls = child_level < level && level_row(child_level).is_some();
            self.expect(falls && l.covers_child(sum), child, Invariant::Cover, || {
                format!("node {child} of level {child_level} is not covered by its parent")
            });
            self.expect(!l.covers(sum), child, Invariant::Separation, || {
                format!("node {child} is not separated from its parent")
            });
        }
        for i in 1..children.len() {
            let row = &rows[i * tree.dim..(i + 1) * tree.dim];
            tree.kernel.sums(row, &rows[..i * tree.dim], &mut sums[..i]);
            for j in 0..i {
                let l = Level::new(levels[i].min(levels[j]));
                let (a, b) = (children[i], children[j]);
                self.expect(!l.covers(sums[j]), a, Invariant::Separation, || {
                    format!("siblings {a} and {b} are not separated")
                });
            }
        }
        Ok(())
    }

    /// Twins are at s = 0, sorted by id, and equal if the node says so. Returns how many are live.
    pub(super) fn twins(
        &mut self,
        node: u32,
        center: &[f32],
        equal: bool,
        range: Range,
    ) -> Result<u64, ReadError> {
        let tree = self.tree;
        let mut before = None;
        for slot in range.start..range.start + range.count {
            let row = tree.coordinates.row(slot as u64)?;
            let zero = tree.kernel.sum(row, center) == 0.0;
            self.expect(zero, node, Invariant::Capacity, || {
                format!("slot {slot} is no twin of node {node}")
            });
            self.expect(!equal || row == center, node, Invariant::Capacity, || {
                format!("slot {slot} differs from the center of node {node}")
            });
            let id = tree.ids.get(slot as u64)?;
            self.expect(before < Some(id), node, Invariant::Capacity, || {
                format!("twins of node {node} are not sorted by id at slot {slot}")
            });
            before = Some(id);
        }
        self.visit(node, range)
    }

    /// T2, T5 (own radius) and T6 for a range of a bucket. Returns how many are live.
    pub(super) fn bucket(
        &mut self,
        node: u32,
        level: Level,
        own_radius: f32,
        center: &[f32],
        range: Range,
    ) -> Result<u64, ReadError> {
        let tree = self.tree;
        let mut sums = std::mem::take(&mut self.sums);
        tree.sums(&tree.coordinates, range, center, &mut sums)?;
        for (slot, &sum) in (range.start..).zip(&sums) {
            if tree.is_live(slot)? {
                self.expect(sum > 0.0, node, Invariant::Capacity, || {
                    format!("slot {slot} is a twin in the bucket of node {node}")
                });
                self.expect(level.covers(sum), node, Invariant::Cover, || {
                    format!("slot {slot} is not covered by its node {node}")
                });
                self.expect(space::distance(sum) <= own_radius, node, Invariant::Bound, || {
                    format!("slot {slot} is outside the own radius of node {node}")
                });
            }
        }
        self.sums = sums;
        self.visit(node, range)
    }

    /// T4 for a range of a bucket.
    pub(super) fn nearest(
        &mut self,
        node: u32,
        center: &[f32],
        range: Range,
        children: &[u32],
    ) -> Result<(), ReadError> {
        let tree = self.tree;
        let mut own = Vec::new();
        tree.sums(&tree.coordinates, range, center, &mut own)?;
        let mut sums = std::mem::take(&mut self.sums);
        for &child in children {
            let level = Level::new(tree.nodes.get(child as u64)?.level);
            let row = tree.centers.row(child as u64)?;
            tree.sums(&tree.coordinates, range, row, &mut sums)?;
            for (i, (&sum, &own)) in sums.iter().zip(&own).enumerate() {
                let slot = range.start + i as u32;
                if level.covers(sum) && sum < own && tree.is_live(slot)? {
                    self.expect(false, node, Invariant::Nearest, || {
                        format!("slot {slot} of node {node} is nearer to child {child}")
                    });
                }
            }
        }
        self.sums = sums;
        Ok(())
    }

    /// T1, T5 and T8 for a range of slots and every node above.
    pub(super) fn rows_below(&mut self, path: &[Ancestor], range: Range) -> Result<(), ReadError> {
        let tree = self.tree;
        let root_level = Level::new(tree.nodes.get(ROOT as u64)?.level);
        let mut sums = std::mem::take(&mut self.sums);
        for above in path {
            tree.sums(&tree.coordinates, range, &above.center, &mut sums)?;
            for (slot, &sum) in (range.start..).zip(&sums) {
                if let Some(extent) = above.extent
                    && !extent.covers(tree.coordinates.row(slot as u64)?)
                    && tree.is_live(slot)?
                {
                    let node = above.node;
                    self.expect(false, node, Invariant::Box, || {
                        format!("slot {slot} is outside the box of node {node}")
                    });
                }
                let near = space::distance(sum) <= above.radius;
                let covered = above.node != ROOT || root_level.covers(sum);
                if !(near && covered) && tree.is_live(slot)? {
                    let node = above.node;
                    self.expect(near, node, Invariant::Bound, || {
                        format!("slot {slot} is outside the radius of node {node}")
                    });
                    self.expect(covered, node, Invariant::Root, || {
                        format!("slot {slot} is not covered by the root")
                    });
                }
            }
        }
        self.sums = sums;
        Ok(())
    }

    /// T7: each slot belongs to one node, which is its owner. Returns how many are live.
    pub(super) fn visit(&mut self, node: u32, range: Range) -> Result<u64, ReadError> {
        for slot in range.start..range.start + range.count {
            let again = std::mem::replace(&mut self.seen[slot as usize], true);
            self.expect(!again, node, Invariant::Count, || format!("slot {slot} is in two places"));
            if self.tree.is_live(slot)? {
                let owner = self.tree.owner(slot)?;
                self.expect(owner == node, node, Invariant::Reference, || {
                    format!("slot {slot} lies in node {node} and names owner {owner}")
                });
            }
        }
        self.tree.live_in(range)
    }

    /// T7: a live slot was met, and the id index finds it.
    pub(super) fn slot(&mut self, slot: u32) -> Result<(), ReadError> {
        if self.tree.is_live(slot)? {
            let seen = self.seen[slot as usize];
            self.expect(seen, ROOT, Invariant::Count, || format!("live slot {slot} is in no node"));
            let id = self.tree.ids.get(slot as u64)?;
            let found = id_index::find_live(self.tree, id)?;
            self.expect(found == Some(slot), ROOT, Invariant::Reference, || {
                format!("the id index has id {id} at {found:?}, it is at slot {slot}")
            });
        }
        Ok(())
    }

    /// Rows of owners from `first` on ascend.
    pub(super) fn owners(&mut self, first: u64) -> Result<(), ReadError> {
        let mut before = None;
        for row in first..self.tree.owners.len() {
            let start = self.tree.owners.get(row)?.start;
            self.expect(before < Some(start), ROOT, Invariant::Reference, || {
                format!("row {row} of owners does not begin behind the one before")
            });
            before = Some(start);
        }
        Ok(())
    }

    pub(super) fn level_counts(&mut self) -> Result<(), ReadError> {
        for row in 0..self.tree.level_counts.len() {
            let counted = self.tree.level_counts.get(row)?;
            let found = self.levels.iter().find(|(level, _)| level_row(**level) == Some(row));
            let there = found.map_or(0, |(_, &count)| count);
            self.expect(counted == there, ROOT, Invariant::Reference, || {
                format!("level row {row} counts {counted} nodes, {there} are there")
            });
        }
        Ok(())
    }
}

/// The one range that `ranges` make up side by side, in any order.
fn one_range(mut ranges: Vec<Range>) -> Option<Range> {
    ranges.retain(|range| range.count > 0);
    ranges.sort_unstable_by_key(|range| range.start);
    let adjacent = |pair: &[Range]| pair[0].start.checked_add(pair[0].count) == Some(pair[1].start);
    let first = ranges.first()?;
    let count = ranges.iter().map(|range| range.count as u64).sum::<u64>();
    let whole = ranges.windows(2).all(adjacent) && ranges.iter().all(|r| r.start != u32::MAX);
    whole.then_some(Range { start: first.start, count: count as u32 })
}
