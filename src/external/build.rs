//! A packed tree built from more points than fit into memory.
//!
//! The nodes of the [`Top`] are gone through as in any walk of the tree: a node after its parent,
//! then its children in order, each with all below it. A node with so many points that they do not
//! fit is first given children found in a sample of them, and its points move on to where they
//! belong. A node whose points fit, and that has no children yet, is split in memory like any
//! other; one that has some wins further children from what is its own. Rows are appended in the
//! order of this walk, which is packed order, and finished segments are written on the way.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::Resources;
use super::account::{Account, MOST_DEPTH};
use super::top::{Found, TOP, Top, TopId, TopNode};
use crate::external::spill::{ChainId, Key, Sorter, Taken};
use crate::format::rows::{COUNT_UNEQUAL_TWINS, CountRow, LinkRow, NONE, NodeRow, OwnerRow};
use crate::insert::batch::Batch;
use crate::insert::credit::Credit;
use crate::insert::journal::Journal;
use crate::insert::layout::Layout;
use crate::insert::report::Work;
use crate::insert::root::choose_root;
use crate::insert::source::{Moved, Point, Source};
use crate::insert::split::{Body, Branch, Share, Splitter};
use crate::space::{self, BOX_GROUP, Level};
use crate::tree::columns::{ROOT, Range, Tree};
use crate::tree::extent;
use crate::tree::root_level;
use crate::values::budget::Budget;
use crate::values::error::InsertError;
use crate::values::ids::PointId;
use crate::version::early::Early;

/// Rows appended at a time from a sorter.
const ROWS: usize = 4096;

/// One in so many evaluations that a node's points may spend are for the split of a sample of them.
const SAMPLE_SHARE: u64 = 4;

/// Builds a tree.
pub(super) struct Builder<'a> {
    tree: &'a mut Tree,
    means: &'a Resources<'a>,
    early: &'a mut Option<Early>,
    budget: Budget,
    account: Account,
    top: Top,
    journal: Journal,
    /// Id and slot of each point.
    entries: Sorter,
    /// Points in all.
    points: u64,
    work: &'a mut Work,
}

/// Points in memory.
#[derive(Default)]
struct Loaded {
    ids: Vec<PointId>,
    points: Vec<f32>,
    sums: Vec<f32>,
}

/// The points of a node itself, by distance and then by id.
struct Own {
    sorter: Sorter,
    /// Points with s > 0.
    bucket: u64,
    is_flat: bool,
}

impl<'a> Builder<'a> {
    pub(super) fn new(
        tree: &'a mut Tree,
        means: &'a Resources<'a>,
        early: &'a mut Option<Early>,
        budget: Budget,
        top: Top,
        points: u64,
        work: &'a mut Work,
    ) -> Self {
        let entries = Sorter::new(means.folder, 0, budget.sort);
        let journal = Journal::default();
        let account = Account::of_build(points);
        Builder { tree, means, early, budget, account, top, journal, entries, points, work }
    }

    /// Builds the tree, which must be empty, from the points of `all`. Returns their ids and slots.
    pub(super) fn build(mut self, all: ChainId) -> Result<Sorter, InsertError> {
        self.work.counters.groups += 1;
        self.plant(all)?;
        self.append_nodes(&[TOP])?;
        self.visit(TOP)?;
        let root = &self.top.nodes[TOP];
        assert_eq!(
            root.live as u64, self.points,
            "a point that moves on goes to a node still to come"
        );
        let level = root_level(root.farthest);
        let row = self.tree.nodes.get(ROOT as u64)?;
        self.tree.nodes.set(ROOT as u64, NodeRow { level: level.get(), ..row })?;
        let mut levels: BTreeMap<i16, i64> = BTreeMap::new();
        for node in &self.top.nodes[TOP + 1..] {
            *levels.entry(node.level.get()).or_insert(0) += 1;
        }
        levels.into_iter().for_each(|(level, count)| self.journal.add_level(level, count));
        self.journal.add_level(level.get(), 1);
        self.journal.apply(self.tree, self.work)?;
        Ok(self.entries)
    }

    fn splitter<'b>(&'b self, source: Source<'b>) -> Splitter<'b> {
        Splitter::new(self.tree, self.means.context, source)
    }

    /// Counts distances computed, which were charged beforehand.
    fn spend(&mut self, evaluations: u64) {
        self.work.counters.distance_evaluations += evaluations;
        self.account.pay(evaluations);
    }

    /// Counts the work of splits, whose credit was a part of the account.
    fn add_work(&mut self, work: &Work) {
        self.account.pay(work.counters.distance_evaluations);
        self.work.add(work);
    }

    fn check(&self) -> Result<(), InsertError> {
        Ok(self.means.context.check()?)
    }

    /// Makes the root from a sample, with the children found in it, and moves all points to where
    /// they belong.
    fn plant(&mut self, all: ChainId) -> Result<(), InsertError> {
        let sample = self.sample(all)?;
        let nothing = Moved::default();
        let batch = Batch { points: &sample.points, ids: sample.ids };
        let source =
            Source { dim: self.top.dim, seed: self.tree.seed, batch: &batch, moved: &nothing };
        // Mostly what would be chosen of all, because the sample is a prefix of the order that is
        // taken from.
        let (center, evaluations) = choose_root(self.tree.kernel, &source);
        self.spend(evaluations);
        self.top.add(None, source.row(center), Level::MIN);
        self.grow(TOP, &source, self.top.chains.rows(all))?;
        self.distribute(TOP, all)
    }

    /// Gives a node whose points do not fit further children, found in a sample, and moves its
    /// points to where they belong. False if that did not help.
    fn extend(&mut self, node: TopId) -> Result<bool, InsertError> {
        let own = self.top.nodes[node].own;
        let before = self.top.chains.rows(own);
        let sample = self.sample(own)?;
        let nothing = Moved::default();
        let batch = Batch { points: &sample.points, ids: sample.ids };
        let source =
            Source { dim: self.top.dim, seed: self.tree.seed, batch: &batch, moved: &nothing };
        if !self.grow(node, &source, before)? {
            return Ok(false);
        }
        drop(batch);
        self.distribute(node, own)?;
        Ok(self.top.chains.rows(own) < before - before / 16)
    }

    /// The points of a chain that come first in the order in which centers are chosen, about as
    /// many as a sample has.
    fn sample(&mut self, chain: ChainId) -> Result<Loaded, InsertError> {
        let rows = self.top.chains.rows(chain);
        let share = self.budget.sample_rows as f64 / rows as f64;
        let limit = if share >= 1.0 { u64::MAX } else { (share * u64::MAX as f64) as u64 };
        let mut taken = self.top.chains.look(chain)?;
        let mut sample = Loaded::default();
        let mut piece = Loaded::default();
        while self.next(&mut taken, &mut piece)? {
            for (&id, row) in piece.ids.iter().zip(piece.points.chunks_exact(self.top.dim)) {
                if Source::priority_of(id, self.tree.seed) <= limit {
                    sample.ids.push(id);
                    sample.points.extend_from_slice(row);
                }
            }
        }
        if sample.ids.is_empty() {
            // Ids that somebody chose against the order: any points will do.
            let mut taken = self.top.chains.look(chain)?;
            self.next(&mut taken, &mut sample)?;
        }
        Ok(sample)
    }

    /// The next piece of a chain; false at its end.
    fn next(&self, taken: &mut Taken, piece: &mut Loaded) -> Result<bool, InsertError> {
        self.check()?;
        piece.ids.clear();
        piece.points.clear();
        piece.sums.clear();
        let Loaded { ids, points, .. } = piece;
        Ok(self.top.chains.next(taken, self.budget.chunk_rows, ids, points)? > 0)
    }

    /// Splits a sample of `rows` points of a node, coarsely, and takes over the children. False if
    /// there are none.
    fn grow(&mut self, node: TopId, source: &Source<'_>, rows: u64) -> Result<bool, InsertError> {
        let sampled = source.batch.ids.len();
        let mut credit = self.account.part(rows);
        let enough = Credit::of_build(sampled as u64).evaluations;
        credit.evaluations = enough.min(credit.evaluations / SAMPLE_SHARE);
        credit.breadth = credit.breadth.saturating_sub(self.top.breadth(node));
        let is_deep = self.top.nodes[node].depth >= MOST_DEPTH;
        if sampled == 0 || is_deep || !credit.covers(sampled as u64) {
            return Ok(false);
        }
        let mut work = Work::default();
        let body = {
            let mut splitter = self.splitter(*source);
            // So that about half of what fits belongs to a node.
            let share = self.budget.cluster_rows as f64 / 2.0 / rows as f64;
            let bucket = (share * sampled as f64) as usize;
            splitter.bucket_rows = bucket.max(splitter.bucket_rows.min(sampled / 8));
            let center = self.top.center(node).to_vec();
            let share = splitter.share(&center, (0..sampled as Point).collect(), &mut work);
            credit.pay(work.counters.distance_evaluations);
            splitter.body(&center, share, splitter.whole(), credit, &mut work)?
        };
        self.add_work(&work);
        let each =
            self.top.route(node).charge + widest(&body.children) + self.top.nodes[node].widest;
        if body.children.is_empty() || !self.account.part(rows).covers(rows.saturating_mul(each)) {
            return Ok(false);
        }
        self.top.add_branches(node, &body.children, source);
        Ok(true)
    }

    /// Moves the points of a chain to where they belong, from `node` on.
    fn distribute(&mut self, node: TopId, chain: ChainId) -> Result<(), InsertError> {
        let route = self.top.route(node);
        let mut taken = self.top.chains.take(chain);
        let total = taken.rows();
        let each = route.charge + self.top.nodes[node].widest;
        let below = self.account.part(total).covers(total.saturating_mul(each));
        let route = if below { route } else { route.without_newcomers() };
        let mut piece = Loaded::default();
        let mut found = Vec::new();
        while self.next(&mut taken, &mut piece)? {
            found.clear();
            let evaluations = self.top.locate(&route, below, &piece.points, &mut found);
            self.spend(evaluations);
            let rows = piece.points.chunks_exact(self.top.dim);
            for ((&found, &id), row) in found.iter().zip(&piece.ids).zip(rows) {
                self.top.push(found, id, row)?;
            }
            // What moves on later is part of the building.
            if node == TOP {
                self.means.context.options.report("2/3 spread", total - taken.rows(), total);
            }
        }
        Ok(())
    }

    /// Takes the points of a chain of `node`: those that belong there still go to `keep`, the
    /// others move on.
    fn draw(
        &mut self,
        node: TopId,
        chain: ChainId,
        mut keep: impl FnMut(PointId, &[f32], f32) -> Result<(), InsertError>,
    ) -> Result<(), InsertError> {
        let route = self.top.route(node);
        let mut taken = self.top.chains.take(chain);
        let total = taken.rows();
        let route = match self.account.part(total).covers(total.saturating_mul(route.charge)) {
            true => route,
            false => route.without_newcomers(),
        };
        let mut piece = Loaded::default();
        let mut found: Vec<Found> = Vec::new();
        while self.next(&mut taken, &mut piece)? {
            found.clear();
            let evaluations = self.top.locate(&route, false, &piece.points, &mut found);
            self.spend(evaluations);
            let rows = piece.points.chunks_exact(self.top.dim);
            for ((&found, &id), row) in found.iter().zip(&piece.ids).zip(rows) {
                match found.node == node {
                    true => keep(id, row, found.sum)?,
                    false => self.top.push(found, id, row)?,
                }
            }
        }
        Ok(())
    }

    /// Builds everything below a node, whose own row is there already.
    fn visit(&mut self, node: TopId) -> Result<(), InsertError> {
        self.check()?;
        let own = self.top.nodes[node].own;
        while self.top.chains.rows(own) > self.budget.cluster_rows as u64 {
            if !self.extend(node)? {
                break;
            }
        }
        let own = self.own_points(node)?;
        let mut link = self.append_own(node, own)?;
        let children = self.top.nodes[node].children.clone();
        let block = self.append_nodes(&children)?;
        (link.row.child_start, link.row.child_count) = (block.start, block.count);
        let mut next = 0;
        while next < children.len() {
            let mut rows = 0;
            let leaves = children[next..].iter().take_while(|&&child| {
                rows += self.top.rows(child);
                self.top.nodes[child].children.is_empty() && rows <= self.budget.cluster_rows as u64
            });
            let count = leaves.count();
            match count {
                0 => self.visit(children[next])?,
                _ => self.build_leaves(&children[next..next + count])?,
            }
            next += count.max(1);
        }
        for &child in &children {
            let (live, extent) = (self.top.nodes[child].live, self.top.nodes[child].extent);
            let node = &mut self.top.nodes[node];
            node.live += live;
            node.extent.merge(&extent);
        }
        self.top.close(node);
        if !children.is_empty() {
            self.work.counters.splice_count += 1;
        } else {
            link.row.own_radius = f32::INFINITY;
        }
        self.finish(node, link)
    }

    /// Settles which points are a node's own: those that its further children do not win.
    fn own_points(&mut self, node: TopId) -> Result<Own, InsertError> {
        let own = self.top.nodes[node].own;
        let mut sorter = Sorter::new(self.means.folder, self.top.dim, self.budget.sort);
        let fits = self.top.chains.rows(own) <= self.budget.cluster_rows as u64;
        let mut is_flat = false;
        if fits {
            let mut loaded = Loaded::default();
            self.draw(node, own, |id, row, sum| {
                loaded.ids.push(id);
                loaded.points.extend_from_slice(row);
                loaded.sums.push(sum);
                Ok(())
            })?;
            is_flat = self.win_children(node, loaded, &mut sorter)?;
        } else {
            // There is nothing to be split: the sample has shown it.
            self.draw(node, own, |id, row, sum| {
                Ok(sorter.push(Key::wide_last(sum.to_bits(), id), row)?)
            })?;
        }
        let bucket = sorter.count();
        // What is left are the twins.
        for twins in self.top.chains_of(node).skip(1) {
            self.draw(node, twins, |id, row, sum| {
                Ok(sorter.push(Key::wide_last(sum.to_bits(), id), row)?)
            })?;
        }
        Ok(Own { sorter, bucket, is_flat: is_flat || !fits })
    }

    /// Lets children win what they attract of a node's own points; the rest goes to `rest`. True if
    /// that is flat.
    fn win_children(
        &mut self,
        node: TopId,
        loaded: Loaded,
        rest: &mut Sorter,
    ) -> Result<bool, InsertError> {
        let nothing = Moved::default();
        let batch = Batch { points: &loaded.points, ids: loaded.ids };
        let source =
            Source { dim: self.top.dim, seed: self.tree.seed, batch: &batch, moved: &nothing };
        let members = (0..batch.ids.len() as Point).collect();
        let mut work = Work::default();
        let own = Share { members, sums: loaded.sums };
        let mut shares = crate::insert::redistribute::Shares { own, children: Vec::new() };
        let splitter = self.splitter(source);
        let mut credit = self.account.part(batch.ids.len() as u64);
        credit.breadth = credit.breadth.saturating_sub(self.top.breadth(node));
        if self.top.nodes[node].depth >= MOST_DEPTH {
            credit.breadth = 0;
        }
        let is_flat =
            splitter.win_children(&mut shares, splitter.whole(), &mut credit, &mut work)?;
        self.add_work(&work);
        for child in shares.children {
            let new = self.top.add(Some(node), source.row(child.center), child.level);
            for (&point, &sum) in child.share.members.iter().zip(&child.share.sums) {
                self.top.push(Found { node: new, sum }, source.id(point), source.row(point))?;
            }
        }
        self.top.widen(node);
        for (&point, &sum) in shares.own.members.iter().zip(&shares.own.sums) {
            rest.push(Key::wide_last(sum.to_bits(), source.id(point)), source.row(point))?;
        }
        Ok(is_flat)
    }

    /// Appends the points of a node itself.
    fn append_own(&mut self, node: TopId, own: Own) -> Result<Filled, InsertError> {
        let Own { sorter, bucket, is_flat } = own;
        let total = sorter.count();
        let start = self.tree.slots();
        let flat_capacity = if is_flat { u32::try_from(2 * bucket).unwrap_or(u32::MAX) } else { 0 };
        let mut filled = Filled { flat_capacity, ..Filled::default() };
        filled.row.slot_start = start;
        filled.row.twin_count = (total - bucket) as u32;
        filled.row.bucket_count = bucket as u32;
        let mut sorted = sorter.finish()?;
        let (mut ids, mut points) = (Vec::new(), Vec::new());
        let center = self.top.center(node).to_vec();
        loop {
            ids.clear();
            points.clear();
            while ids.len() < ROWS {
                let Some((key, row)) = sorted.next()? else { break };
                let (sum, id) = key.as_wide_last();
                filled.row.own_radius = space::distance(f32::from_bits(sum));
                filled.unequal_twins |= sum == 0 && *row != center[..];
                if self.tree.has_boxes() {
                    self.top.nodes[node].extent.include(row);
                }
                ids.push(id);
                points.extend_from_slice(row);
            }
            if ids.is_empty() {
                break;
            }
            self.append_rows(&ids, &points)?;
        }
        if total > 0 {
            let owner = self.top.nodes[node].number;
            self.tree.owners.push(&[OwnerRow { start, owner }])?;
        }
        self.top.nodes[node].live = total as u32;
        self.account.place(total);
        Ok(filled)
    }

    fn append_rows(&mut self, ids: &[PointId], points: &[f32]) -> Result<(), InsertError> {
        let tree = &mut *self.tree;
        for (slot, &id) in (tree.slots()..).zip(ids) {
            self.entries.push(Key::wide_first(id, slot), &[])?;
        }
        tree.coordinates.push(points)?;
        tree.ids.push(ids)?;
        let words = (tree.slots() as u64).div_ceil(64) - tree.tombstones.len();
        tree.tombstones.push(&vec![0; words as usize])?;
        self.settle()
    }

    /// Writes finished segments if there are many, and reports progress.
    fn settle(&mut self) -> Result<(), InsertError> {
        self.means.context.options.report("3/3 build", self.tree.slots() as u64, self.points);
        match self.tree.changed_bytes() > self.budget.changed {
            true => self.means.flush(self.early, self.tree),
            false => Ok(()),
        }
    }

    /// Appends rows for nodes whose content comes later.
    fn append_nodes(&mut self, nodes: &[TopId]) -> Result<Range, InsertError> {
        let tree = &mut *self.tree;
        let block = Range { start: tree.node_rows(), count: nodes.len() as u32 };
        for (number, &node) in (block.start..).zip(nodes) {
            self.top.nodes[node].number = number;
            let TopNode { parent, level, .. } = self.top.nodes[node];
            let parent = parent.map_or(NONE, |parent| self.top.nodes[parent].number);
            tree.centers.push(self.top.center(node))?;
            tree.radii.push(&[0.0])?;
            let level = level.get();
            tree.nodes.push(&[NodeRow { parent, level, ..NodeRow::default() }])?;
            tree.links.push(&[LinkRow::default()])?;
            tree.counts.push(&[CountRow::default()])?;
        }
        if tree.has_boxes() {
            let groups = tree.box_groups(tree.links.len()) - tree.boxes.len();
            tree.boxes.push(&vec![0.0; groups as usize * 2 * BOX_GROUP * tree.dim])?;
        }
        Ok(block)
    }

    /// Splits nodes that have no children yet and whose points fit together, side by side, and
    /// appends all below them.
    fn build_leaves(&mut self, leaves: &[TopId]) -> Result<(), InsertError> {
        let mut loaded = Loaded::default();
        let mut shares = Vec::with_capacity(leaves.len());
        for &leaf in leaves {
            let mut share = Share::default();
            for chain in self.top.chains_of(leaf) {
                self.draw(leaf, chain, |id, row, sum| {
                    share.push(loaded.ids.len() as Point, sum);
                    loaded.ids.push(id);
                    loaded.points.extend_from_slice(row);
                    Ok(())
                })?;
            }
            shares.push(share);
        }
        let nothing = Moved::default();
        let batch = Batch { points: &loaded.points, ids: loaded.ids };
        let source =
            Source { dim: self.top.dim, seed: self.tree.seed, batch: &batch, moved: &nothing };
        let bodies = self.split_leaves(leaves, shares, source)?;

        let mut layout = Layout::behind(self.tree);
        let mut places = Vec::with_capacity(leaves.len());
        for (&leaf, body) in leaves.iter().zip(&bodies) {
            let number = self.top.nodes[leaf].number;
            let slots = layout.own_rows(number, body);
            places.push((slots, layout.children(number, &body.children)));
        }
        layout.write(self.tree, &source, &mut self.journal)?;
        let extents = layout.write_boxes(self.tree, &places)?;
        for (point, slot) in layout.slots() {
            self.entries.push(Key::wide_first(source.id(point), slot), &[])?;
        }
        for (i, (&leaf, body)) in leaves.iter().zip(&bodies).enumerate() {
            let (slots, children) = places[i];
            let twins = body.twins.len() as u32;
            let row = LinkRow {
                child_start: children.start,
                child_count: children.count,
                slot_start: slots.start,
                twin_count: twins,
                bucket_count: slots.count - twins,
                own_radius: body.stored_own_radius(children.count == 0),
            };
            let node = &mut self.top.nodes[leaf];
            (node.live, node.extent) = (body.points, extents[i]);
            let (flat_capacity, unequal_twins) = (body.flat_capacity, !body.twins_equal);
            self.finish(leaf, Filled { row, flat_capacity, unequal_twins })?;
        }
        self.account.place(batch.ids.len() as u64);
        drop((bodies, batch));
        drop(loaded.points);
        self.settle()
    }

    fn split_leaves(
        &mut self,
        leaves: &[TopId],
        shares: Vec<Share>,
        source: Source<'_>,
    ) -> Result<Vec<Body>, InsertError> {
        let splitter = self.splitter(source);
        let mut order: Vec<(usize, Share)> = shares.into_iter().enumerate().collect();
        order.sort_by_key(|(_, share)| std::cmp::Reverse(share.members.len()));
        let mut bodies = order
            .into_par_iter()
            .with_max_len(1)
            .map(|(i, share)| {
                let mut work = Work::default();
                let center = self.top.center(leaves[i]);
                let mut credit = self.account.part(share.members.len() as u64);
                credit.breadth = credit.breadth.saturating_sub(self.top.breadth(leaves[i]));
                Ok((i, splitter.body(center, share, splitter.whole(), credit, &mut work)?, work))
            })
            .collect::<Result<Vec<(usize, Body, Work)>, InsertError>>()?;
        bodies.sort_unstable_by_key(|(i, ..)| *i);
        let done = bodies.into_iter().map(|(_, body, work)| {
            self.add_work(&work);
            body
        });
        Ok(done.collect())
    }

    /// Writes the rows of a node that is complete.
    fn finish(&mut self, node: TopId, filled: Filled) -> Result<(), InsertError> {
        let Filled { row, flat_capacity, unequal_twins } = filled;
        let TopNode { live, extent, farthest, number, .. } = self.top.nodes[node];
        let tree = &mut *self.tree;
        let number = number as u64;
        tree.radii.set(number, space::distance(farthest))?;
        let before = tree.nodes.get(number)?;
        tree.nodes.set(number, NodeRow { built: live, flat_capacity, ..before })?;
        tree.links.set(number, row)?;
        let flags = if unequal_twins { COUNT_UNEQUAL_TWINS } else { 0 };
        tree.counts.set(number, CountRow { live, span: live, flags, ..CountRow::default() })?;
        if tree.has_boxes() {
            let (row, lane) = extent::place(number as u32);
            extent.write(tree.boxes.edit(row)?, lane);
        }
        Ok(())
    }
}

/// The most children on a path down.
fn widest(branches: &[Branch]) -> u64 {
    let below = branches.iter().map(|branch| widest(&branch.body.children)).max();
    branches.len() as u64 + below.unwrap_or(0)
}

/// What a node turned out to hold.
#[derive(Clone, Copy, Default)]
struct Filled {
    row: LinkRow,
    flat_capacity: u32,
    unequal_twins: bool,
}
