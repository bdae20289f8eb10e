//! A walk over a whole tree that checks the invariants T1 to T8 of [`crate::tree`] and everything
//! that refers to slots and nodes from outside: owners, the id index, level counts. Costs O(n x
//! depth) distance evaluations; for a tree that shares most of its nodes with one that was found
//! sound, see [`Sound`], only as much as differs.

mod rules;

use std::collections::BTreeMap;

use super::columns::{Links, ROOT, Range, Tree};
use super::extent::Extent;
use super::id_index;
use super::level_row;
use super::sharing::{self, Shared};
use super::visit_limit::VisitLimit;
use crate::format::rows::{CountRow, NodeRow};
use crate::space::Level;
use crate::values::error::{Corruption, Defect, Invariant, Place, ReadError};
use crate::values::memory;

/// More violations than this are not listed.
const LISTED: usize = 20;

/// A tree without violations, and what the check has met in it.
pub(crate) struct Sound {
    tree: Tree,
    seen: Vec<bool>,
    levels: BTreeMap<i16, u64>,
}

/// What a check has found.
pub(crate) struct Checked {
    pub(crate) violations: Vec<Corruption>,
    /// True if all of the tree was walked, and not only what differs from the one before.
    pub(crate) whole: bool,
    /// To begin the next check with, if there are no violations.
    pub(crate) sound: Option<Sound>,
}

/// Checks a tree. An error means that it could not be read; violations are listed.
pub(crate) fn check(tree: &Tree) -> Result<Vec<Corruption>, ReadError> {
    Ok(whole(tree)?.violations)
}

/// Checks a tree. What it shares with `before`, which has been found sound, is not walked again.
pub(crate) fn check_after(before: Option<Sound>, tree: Tree) -> Result<Checked, ReadError> {
    let differing = match before {
        Some(before) => differing(before, &tree)?,
        None => None,
    };
    // What is wrong is told by a walk over everything.
    let differing = differing.filter(|found| found.violations.is_empty());
    let is_whole = differing.is_none();
    let found = match differing {
        Some(found) => found,
        None => whole(&tree)?,
    };
    let Found { violations, seen, levels } = found;
    let sound = violations.is_empty().then_some(Sound { tree, seen, levels });
    Ok(Checked { violations, whole: is_whole, sound })
}

/// What a walk over a tree has found.
struct Found {
    violations: Vec<Corruption>,
    seen: Vec<bool>,
    levels: BTreeMap<i16, u64>,
}

/// Walks all of a tree.
fn whole(tree: &Tree) -> Result<Found, ReadError> {
    let seen = memory::zeroed(tree.slots() as usize, "the slots of a version")?;
    let mut checker = Checker::new(tree, seen, BTreeMap::new(), None);
    if tree.node_rows() > 0 {
        checker.node(ROOT, &mut Vec::new(), true)?;
    }
    for slot in 0..tree.slots() {
        checker.slot(slot)?;
    }
    checker.owners(0)?;
    checker.level_counts()?;
    Ok(checker.found())
}

/// Walks what differs from a sound tree. `None` if that cannot be told.
fn differing(before: Sound, tree: &Tree) -> Result<Option<Found>, ReadError> {
    let Sound { tree: old, mut seen, levels } = before;
    let Some(shared) = Shared::new(&old, tree)? else {
        return Ok(None);
    };
    let more = (tree.slots() as usize).saturating_sub(seen.len());
    memory::reserve(&mut seen, more, "the slots of a version")?;
    seen.resize(tree.slots() as usize, false);
    let mut checker = Checker::new(tree, seen, levels, Some(&shared));
    checker.forget_touched()?;
    checker.node(ROOT, &mut Vec::new(), false)?;
    let forgotten = std::mem::take(&mut checker.forgotten);
    let changed = forgotten.iter().chain(&shared.slots).copied();
    for slot in changed.chain(old.slots()..tree.slots()) {
        checker.slot(slot)?;
    }
    let mut ids = Vec::new();
    id_index::for_changed_runs(&old, tree, |id| ids.push(id))?;
    for id in ids {
        if let Some(slot) = id_index::find_live(&old, id)?
            && tree.is_live(slot)?
        {
            checker.slot(slot)?;
        }
    }
    checker.owners(old.owners.len().saturating_sub(1))?;
    checker.level_counts()?;
    Ok(Some(checker.found()))
}

/// A node on the path from the root: what points below it are measured against.
struct Ancestor {
    node: u32,
    center: Vec<f32>,
    radius: f32,
    extent: Option<Extent>,
}

/// What belongs to a node itself.
#[derive(Default)]
struct Parts {
    twins: Vec<Range>,
    bucket: Vec<Range>,
    children: Vec<u32>,
}

/// How a node relates to the sound tree that this one shares with.
#[derive(Default)]
struct Before {
    /// Everything below it must be walked.
    whole: bool,
    was_there: bool,
    old_children: Vec<u32>,
}

/// What a subtree turned out to hold.
struct Subtree {
    live: u64,
    /// Slots, dead ones included, if they are one range.
    range: Option<Range>,
}

struct Checker<'a> {
    tree: &'a Tree,
    violations: Vec<Corruption>,
    /// Slots that a bucket or twin list holds.
    seen: Vec<bool>,
    levels: BTreeMap<i16, u64>,
    met: VisitLimit,
    sums: Vec<f32>,
    /// What a sound tree has in common with this one.
    shared: Option<&'a Shared<'a>>,
    /// Slots that nodes had in the sound tree which are walked again.
    forgotten: Vec<u32>,
}

impl<'a> Checker<'a> {
    fn new(
        tree: &'a Tree,
        seen: Vec<bool>,
        levels: BTreeMap<i16, u64>,
        shared: Option<&'a Shared<'a>>,
    ) -> Self {
        Checker {
            tree,
            violations: Vec::new(),
            seen,
            levels,
            met: VisitLimit::default(),
            sums: Vec::new(),
            shared,
            forgotten: Vec::new(),
        }
    }

    fn found(self) -> Found {
        Found { violations: self.violations, seen: self.seen, levels: self.levels }
    }

    /// Forgets what was met in the sound tree at nodes that differ, and below those that are not
    /// there any more.
    fn forget_touched(&mut self) -> Result<(), ReadError> {
        let Some(shared) = self.shared else { return Ok(()) };
        let mut pending = Vec::from_iter(shared.is_touched(ROOT).then_some(ROOT));
        while let Some(node) = pending.pop() {
            self.forget_node(node)?;
            let now = sharing::children(self.tree, node)?;
            for child in shared.old_children(node)? {
                match (shared.is_touched(child), now.binary_search(&child)) {
                    (true, _) => pending.push(child),
                    (false, Ok(_)) => {}
                    (false, Err(_)) => self.forget_subtree(child)?,
                }
            }
        }
        Ok(())
    }

    /// Forgets what was met in the sound tree at a node and below.
    fn forget_subtree(&mut self, node: u32) -> Result<(), ReadError> {
        let Some(shared) = self.shared else { return Ok(()) };
        let mut pending = vec![node];
        while let Some(node) = pending.pop() {
            self.forget_node(node)?;
            pending.extend(shared.old_children(node)?);
        }
        Ok(())
    }

    fn forget_node(&mut self, node: u32) -> Result<(), ReadError> {
        let Some(Shared { old, .. }) = self.shared else { return Ok(()) };
        let count = self.levels.entry(old.nodes.get(node.into())?.level).or_insert(0);
        *count = count.saturating_sub(1);
        let link = old.link(node)?;
        let mut forget = |range: Range| {
            for slot in range.start..range.start + range.count {
                self.seen[slot as usize] = false;
                self.forgotten.push(slot);
            }
            Ok(())
        };
        old.for_twins(node, &link, &mut forget)?;
        old.for_bucket(node, &link, &mut forget)
    }

    /// How a child of `node` is walked: not at all if it is as it was in the sound tree, and so is
    /// what bounds it.
    fn walk_of(
        &mut self,
        node: u32,
        child: u32,
        was_there: bool,
        old_children: &[u32],
    ) -> Result<Walk, ReadError> {
        let Some(shared) = self.shared else { return Ok(Walk::Whole) };
        let was_child = was_there && old_children.binary_search(&child).is_ok();
        if shared.is_touched(child) {
            return Ok(if was_child { Walk::Differing } else { Walk::Whole });
        }
        if !was_child {
            return Ok(Walk::Whole);
        }
        // A subtree without a range of its own may have no slots at all: that takes a walk, if it
        // is asked.
        let span = |node: u32| Ok::<u32, ReadError>(self.tree.counts.get(node.into())?.span);
        match span(child)? == 0 && span(node)? > 0 {
            true => {
                self.forget_subtree(child)?;
                Ok(Walk::Whole)
            }
            false => Ok(Walk::Nothing),
        }
    }

    fn expect(
        &mut self,
        holds: bool,
        node: u32,
        invariant: Invariant,
        what: impl FnOnce() -> String,
    ) {
        if !holds && self.violations.len() < LISTED {
            self.violations.push(Corruption {
                at: Place::Row { array: "links", row: node as u64 },
                what: Defect::Invariant { invariant, what: what() },
            });
        }
    }

    /// The slots and children of a node, each of which is met once.
    fn parts(&mut self, node: u32, link: &Links) -> Result<Parts, ReadError> {
        let tree = self.tree;
        let mut parts = Parts::default();
        self.met.runs(tree, node, link)?;
        tree.for_twins(node, link, |range| {
            self.met.slots(tree, range)?;
            parts.twins.push(range);
            Ok(())
        })?;
        tree.for_bucket(node, link, |range| {
            self.met.slots(tree, range)?;
            parts.bucket.push(range);
            Ok(())
        })?;
        tree.for_children(node, link, |block| {
            self.met.children(tree, node, block)?;
            parts.children.extend(block.start..block.start + block.count);
            Ok(())
        })?;
        Ok(parts)
    }

    /// What is known of a node from the sound tree that this one shares with.
    fn before(&mut self, node: u32, whole: bool, children: &[u32]) -> Result<Before, ReadError> {
        let mut before = Before { whole, ..Before::default() };
        let Some(shared) = self.shared.filter(|_| !whole) else { return Ok(before) };
        // Walked this way, the node is one of the sound tree.
        before.was_there = node < shared.old.node_rows();
        if before.was_there {
            before.old_children = shared.old_children(node)?;
        }
        if !before.was_there || !shared.still_bounds(node)? {
            before.whole = true;
            for &child in &before.old_children {
                if !shared.is_touched(child) && children.contains(&child) {
                    self.forget_subtree(child)?;
                }
            }
        }
        Ok(before)
    }

    /// Checks a node and what is below. `whole`: nothing of it is taken as it was in the sound
    /// tree.
    fn node(
        &mut self,
        node: u32,
        path: &mut Vec<Ancestor>,
        whole: bool,
    ) -> Result<Subtree, ReadError> {
        let tree = self.tree;
        let NodeRow { level, flat_capacity, .. } = tree.nodes.get(node as u64)?;
        *self.levels.entry(level).or_insert(0) += 1;
        let link = tree.link(node)?;
        let radius = tree.radii.get(node as u64)?;
        let extent = if tree.has_boxes() { Some(tree.extent(node)?) } else { None };
        let center = tree.centers.row(node as u64)?.to_vec();
        self.plain(node, &link, radius)?;
        path.push(Ancestor { node, center: center.clone(), radius, extent });

        let mut ranges = Vec::new();
        let Parts { twins, bucket, children } = self.parts(node, &link)?;

        let mut live = 0;
        for &range in &twins {
            live += self.twins(node, &center, link.twins_equal(), range)?;
            self.rows_below(path, range)?;
            ranges.push(range);
        }
        for &range in &bucket {
            live += self.bucket(node, Level::new(level), link.row.own_radius, &center, range)?;
            self.nearest(node, &center, range, &children)?;
            self.rows_below(path, range)?;
            ranges.push(range);
        }
        let rows: u64 = bucket.iter().map(|range| range.count as u64).sum();
        let capacity = (tree.leaf_capacity as u64 - 1).max(flat_capacity as u64);
        self.expect(rows <= capacity, node, Invariant::Capacity, || {
            format!("{rows} rows in a bucket of node {node}, which may hold {capacity}")
        });
        self.children(node, level, &center, &children)?;

        let Before { whole, was_there, old_children } = self.before(node, whole, &children)?;
        for &child in &children {
            // So no path is longer than there are levels, whatever the links say. What breaks this
            // has been told above.
            let below = tree.nodes.get(child as u64)?.level;
            if below >= level || level_row(below).is_none() {
                continue;
            }
            let walk = match whole {
                true => Walk::Whole,
                false => self.walk_of(node, child, was_there, &old_children)?,
            };
            let found = match walk {
                Walk::Nothing => self.as_before(child)?,
                Walk::Differing => self.node(child, path, false)?,
                Walk::Whole => self.node(child, path, true)?,
            };
            live += found.live;
            match found.range {
                Some(range) => ranges.push(range),
                // Not one range: neither is this node's.
                None => ranges.push(Range { start: u32::MAX, count: 1 }),
            }
        }
        path.pop();
        self.counts(node, link.row.slot_start, live, ranges)
    }

    /// A subtree of the sound tree that is the same in this one.
    fn as_before(&self, node: u32) -> Result<Subtree, ReadError> {
        let CountRow { live, span, .. } = self.tree.counts.get(node.into())?;
        let start = self.tree.links.get(node.into())?.slot_start;
        let range = (span > 0).then_some(Range { start, count: span });
        Ok(Subtree { live: live.into(), range })
    }
}

/// How much of a child is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Walk {
    /// It is as it was in the sound tree.
    Nothing,
    /// What differs from the sound tree.
    Differing,
    Whole,
}
