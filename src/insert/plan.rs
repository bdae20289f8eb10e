//! Stage: what becomes of each node that receives points.
//!
//! The batch comes grouped by target node ([`super::group`]). A group that fits the bucket, in
//! number and in distance ([`super::scope`]), is appended as a run; one that does not is split
//! together with the bucket, or with all below the node if that is to be rebuilt. Groups are
//! independent of each other, hence planned in parallel, the largest first.

use std::time::Instant;

use rayon::prelude::*;

use super::batch::Batch;
use super::credit::Credit;
use super::group::{Group, group};
use super::locate::Placements;
use super::report::Work;
use super::root::choose_root;
use super::scope::{bucket_scope, justify_children};
use super::source::{Moved, Point, Source};
use super::split::{Body, Branch, Goal, Share, Splitter};
use super::{Context, Stop};
use crate::format::rows::{
    COUNT_UNEQUAL_TWINS, LinkRow, RUN_BUCKET, RUN_CHILDREN, RUN_TWINS, RunRow,
};
use crate::space::{self, Level};
use crate::tree::columns::{Links, ROOT, Range, Tree};
use crate::tree::root_level;
use crate::tree::visit_limit::VisitLimit;
use crate::values::error::ReadError;
use crate::values::memory;

/// What becomes of a node's present rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// They stay; the body is appended.
    All,
    /// Twins and children stay; the bucket is replaced by the body's.
    TwinsAndChildren,
    /// The body replaces the whole subtree.
    Nothing,
}

/// The change of one node.
pub(crate) struct Change {
    pub(crate) node: u32,
    pub(crate) keep: Keep,
    /// Points of the batch that it takes in.
    pub(crate) added: u32,
    /// Later ranges that stay, oldest first.
    pub(crate) kept_runs: Vec<RunRow>,
    /// Slots whose live points are in `moved`.
    pub(crate) retired: Vec<Range>,
    pub(crate) moved: Moved,
    pub(crate) body: Body,
    /// Radius of a rebuilt node.
    pub(crate) radius: Option<f32>,
    /// Center and level of a rebuilt root: with other points another makes a better one.
    pub(crate) root: Option<(Vec<f32>, Level)>,
    /// Levels of the nodes that a rebuild drops.
    pub(crate) dropped: Vec<i16>,
}

/// The plan for a batch.
pub(crate) enum Changes {
    /// The tree was empty: its root.
    Root(Branch),
    /// Ascending by node; none is below another.
    Nodes(Vec<Change>),
}

pub(crate) fn plan(
    tree: &Tree,
    context: &Context<'_>,
    batch: &Batch<'_>,
    placements: &Placements,
    work: &mut Work,
) -> Result<Changes, Stop> {
    let nothing = Moved::default();
    let source = Source { dim: tree.dim, seed: tree.seed, batch, moved: &nothing };
    let mut split = Work::default();
    let start = Instant::now();
    let changes = if tree.node_rows() == 0 {
        split.counters.groups = 1;
        let mut credit = Credit::of_build(source.len() as u64);
        let splitter = Splitter::new(tree, context, source);
        let (center, evaluations) = choose_root(tree.kernel, &source);
        split.counters.distance_evaluations += evaluations;
        let points = (0..source.len() as Point).collect();
        let share = splitter.share(source.row(center), points, &mut split);
        credit.pay(split.counters.distance_evaluations);
        let farthest = share.farthest();
        let level = root_level(farthest);
        Changes::Root(splitter.branch(center, level, share, credit, &mut split)?)
    } else {
        let groups = group(tree, placements, context.most_rebuilt)?;
        work.times.group += start.elapsed();
        Changes::Nodes(plan_groups(tree, context, batch, placements, groups, &mut split)?)
    };
    share_wall_time(&mut split, start.elapsed().saturating_sub(work.times.group));
    work.add(&split);
    Ok(changes)
}

/// Turns processor time per stage into shares of the wall time of the whole section.
fn share_wall_time(work: &mut Work, wall: std::time::Duration) {
    let times = &mut work.times;
    let total = (times.conflict + times.mis + times.redistribute).as_secs_f64();
    if total > 0.0 {
        let scale = wall.as_secs_f64() / total;
        for time in [&mut times.conflict, &mut times.mis, &mut times.redistribute] {
            *time = time.mul_f64(scale);
        }
    } else {
        times.group += wall;
    }
}

fn plan_groups(
    tree: &Tree,
    context: &Context<'_>,
    batch: &Batch<'_>,
    placements: &Placements,
    groups: Vec<Group>,
    work: &mut Work,
) -> Result<Vec<Change>, Stop> {
    work.counters.groups += groups.len() as u64;
    let mut groups = groups;
    groups.sort_by_key(|group| std::cmp::Reverse((group.rebuild, group.points.len())));
    let parts: Vec<(Change, Work)> = groups
        .into_par_iter()
        .map(|group| {
            context.check()?;
            let mut work = Work::default();
            let planner = Planner { tree, context, batch, placements };
            let change = match group.rebuild {
                true => planner.rebuild(group, &mut work)?,
                false => planner.add(group, &mut work)?,
            };
            Ok((change, work))
        })
        .collect::<Result<_, Stop>>()?;
    let mut changes = Vec::with_capacity(parts.len());
    for (change, part) in parts {
        work.add(&part);
        changes.push(change);
    }
    changes.sort_unstable_by_key(|change| change.node);
    Ok(changes)
}

#[derive(Clone, Copy)]
struct Planner<'a> {
    tree: &'a Tree,
    context: &'a Context<'a>,
    batch: &'a Batch<'a>,
    placements: &'a Placements,
}

/// What a change takes out of its place.
struct Retired {
    /// Slots: of twins, then of the bucket.
    ranges: Vec<Range>,
    /// The live rows in them, in this order.
    moved: Moved,
    /// How many of those are twins.
    twins: usize,
}

impl Planner<'_> {
    /// Up to where rows belong into the bucket of a node, if the farthest of a group justify
    /// children of their own; otherwise everywhere.
    fn scope(
        &self,
        node: u32,
        link: &Links,
        far: &[Point],
        center: &[f32],
        work: &mut Work,
    ) -> Result<f32, Stop> {
        let scope = bucket_scope(self.tree, node, link)?;
        let is_stranger = |&&point: &&Point| self.placements.sums[point as usize] > scope;
        let strangers = far.iter().filter(is_stranger).count();
        let justify = strangers > 0
            && justify_children(self.tree, node, link, center, strangers, scope, work)?;
        Ok(if justify { scope } else { f32::INFINITY })
    }

    /// Appends a group to its node, or splits the bucket together with it.
    fn add(&self, group: Group, work: &mut Work) -> Result<Change, Stop> {
        let tree = self.tree;
        let node = group.node;
        let link = tree.link(node)?;
        let mut runs = tree.later_runs(&link)?;
        let sums = |&point: &Point| self.placements.sums[point as usize];
        let added = group.points.len() as u32;
        let (far, twins): (Vec<Point>, Vec<Point>) =
            group.points.into_iter().partition(|p| sums(p) > 0.0);
        let of_kind = |runs: &[RunRow], kind| -> u64 {
            runs.iter().filter(|r| r.kind == kind).map(|r| r.count as u64).sum()
        };
        let in_bucket = link.row.bucket_count as u64 + of_kind(&runs, RUN_BUCKET);
        let flat = tree.nodes.get(node as u64)?.flat_capacity as u64;
        let capacity = flat.max(tree.leaf_capacity as u64 - 1);
        let center = center(tree, node)?;
        let scope = match far.is_empty() || flat > 0 {
            // A flat bucket is scanned by nearly every query, however far its rows are, and too
            // large to be read again for a few rows that come from farther away.
            true => f32::INFINITY,
            false => self.scope(node, &link, &far, center, work)?,
        };
        let splits =
            !far.is_empty() && (scope < f32::INFINITY || in_bucket + far.len() as u64 > capacity);

        let Retired { ranges: retired, moved, twins: old_twins } =
            retire(tree, &link, &mut runs, (twins.len(), far.len()), splits)?;
        let source = Source { dim: tree.dim, seed: tree.seed, batch: self.batch, moved: &moved };
        let splitter = Splitter::new(tree, self.context, source);
        let first_moved = self.batch.ids.len();
        let old = |range: std::ops::Range<usize>| {
            range.map(|i| (first_moved + i) as Point).collect::<Vec<Point>>()
        };
        // The rest of the bucket, old and new, with its sums.
        let mut share = splitter.share(center, old(old_twins..moved.ids.len()), work);
        for point in far {
            share.push(point, sums(&point));
        }
        let mut body = match splits {
            true => {
                let goal = Goal { rows: splitter.bucket_rows, scope };
                let mut credit = self.credit(share.members.len(), Some(node))?;
                credit.pay(work.counters.distance_evaluations);
                splitter.body(center, share, goal, credit, work)?
            }
            false => Body {
                own_radius: space::distance(share.farthest()),
                bucket: splitter.bucket_order(share),
                twins_equal: true,
                ..Body::default()
            },
        };
        let mut all_twins = old(0..old_twins);
        all_twins.extend(twins);
        body.twins_equal &= all_twins.iter().all(|&twin| source.row(twin) == center);
        body.twins.extend(all_twins);
        body.twins.sort_unstable_by_key(|&twin| source.id(twin));
        Ok(Change {
            node,
            keep: if splits { Keep::TwinsAndChildren } else { Keep::All },
            added,
            kept_runs: runs,
            retired,
            body: body.counted(),
            moved,
            radius: None,
            root: None,
            dropped: Vec::new(),
        })
    }

    /// The credit of a split of so many rows; `above`: the lowest node whose children stay on the
    /// paths to them (C4).
    fn credit(&self, rows: usize, above: Option<u32>) -> Result<Credit, ReadError> {
        let mut credit = Credit::of_build(rows as u64);
        let points = self.tree.live()? + self.batch.ids.len() as u64;
        credit.breadth = Credit::of_build(points).breadth;
        let mut node = above;
        while let Some(n) = node {
            let link = self.tree.link(n)?;
            self.tree.for_children(n, &link, |block| {
                credit.breadth = credit.breadth.saturating_sub(u64::from(block.count));
                Ok(())
            })?;
            node = self.tree.parent(n)?;
        }
        Ok(credit)
    }

    /// Splits everything below a node anew, under the same center and level unless it is the root.
    fn rebuild(&self, group: Group, work: &mut Work) -> Result<Change, Stop> {
        let tree = self.tree;
        let mut moved = Moved::default();
        let mut retired = Vec::new();
        let mut dropped = Vec::new();
        let mut pending = vec![group.node];
        let mut met = VisitLimit::default();
        while let Some(node) = pending.pop() {
            let link = tree.link(node)?;
            met.runs(tree, node, &link)?;
            tree.for_twins(node, &link, |range| {
                met.slots(tree, range)?;
                retired.push(range);
                Ok(())
            })?;
            tree.for_bucket(node, &link, |range| {
                met.slots(tree, range)?;
                retired.push(range);
                Ok(())
            })?;
            tree.for_children(node, &link, |block| {
                met.children(tree, node, block)?;
                for child in block.start..block.start + block.count {
                    dropped.push(tree.nodes.get(child as u64)?.level);
                    pending.push(child);
                }
                Ok(())
            })?;
        }
        for &range in &retired {
            gather_live(tree, range, &mut moved)?;
        }
        let source = Source { dim: tree.dim, seed: tree.seed, batch: self.batch, moved: &moved };
        let splitter = Splitter::new(tree, self.context, source);
        let first_moved = self.batch.ids.len() as Point;
        let added = group.points.len() as u32;
        let mut points = group.points;
        points.extend(first_moved..first_moved + moved.ids.len() as Point);
        let mut credit = self.credit(points.len(), tree.parent(group.node)?)?;
        let center = match group.node {
            ROOT => {
                let (center, evaluations) = choose_root(tree.kernel, &source);
                work.counters.distance_evaluations += evaluations;
                source.row(center)
            }
            node => center(tree, node)?,
        };
        let share: Share = splitter.share(center, points, work);
        credit.pay(work.counters.distance_evaluations);
        let farthest = share.farthest();
        let root = (group.node == ROOT).then(|| (center.to_vec(), root_level(farthest)));
        let body = splitter.body(center, share, splitter.whole(), credit, work)?;
        Ok(Change {
            node: group.node,
            keep: Keep::Nothing,
            added,
            kept_runs: Vec::new(),
            retired,
            body,
            moved,
            radius: Some(space::distance(farthest)),
            root,
            dropped,
        })
    }
}

/// Takes the newest runs of a kind out of `runs` while they are not longer than what has been
/// gathered already, so that a node links few runs and a row is rewritten O(log n) times. Returns
/// how many were taken.
fn absorb(runs: &mut Vec<RunRow>, kind: u32, new: usize, retired: &mut Vec<Range>) -> usize {
    if new == 0 {
        return 0;
    }
    let mut gathered = new as u64;
    let mut taken = 0;
    while let Some(at) = runs.iter().rposition(|run| run.kind == kind)
        && runs[at].count as u64 <= gathered
    {
        let run = runs.remove(at);
        gathered += run.count as u64;
        retired.push(Range { start: run.start, count: run.count });
        taken += 1;
    }
    taken
}

fn bucket_ranges(runs: &[RunRow]) -> impl Iterator<Item = Range> {
    let bucket = runs.iter().filter(|run| run.kind == RUN_BUCKET);
    bucket.map(|run| Range { start: run.start, count: run.count })
}

/// Takes out what new twins and rows are to lie beside, or, if the node is split, its whole bucket.
fn retire(
    tree: &Tree,
    link: &Links,
    runs: &mut Vec<RunRow>,
    (twins, far): (usize, usize),
    splits: bool,
) -> Result<Retired, Stop> {
    let mut ranges = Vec::new();
    let twin_ranges = absorb(runs, RUN_TWINS, twins, &mut ranges);
    debug_assert_eq!(twin_ranges, ranges.len());
    if splits {
        if link.row.bucket_count > 0 {
            let start = link.row.slot_start.wrapping_add(link.row.twin_count);
            ranges.push(Range { start, count: link.row.bucket_count });
        }
        ranges.extend(bucket_ranges(runs));
        runs.retain(|run| run.kind != RUN_BUCKET);
    } else {
        absorb(runs, RUN_BUCKET, far, &mut ranges);
    }
    let mut met = VisitLimit::default();
    ranges.iter().try_for_each(|&range| met.slots(tree, range))?;
    let mut moved = Moved::default();
    let (of_twins, of_bucket) = ranges.split_at(twin_ranges);
    of_twins.iter().try_for_each(|&range| gather_live(tree, range, &mut moved))?;
    let twins = moved.ids.len();
    of_bucket.iter().try_for_each(|&range| gather_live(tree, range, &mut moved))?;
    Ok(Retired { ranges, moved, twins })
}

/// Reads the live rows of a range of slots.
fn gather_live(tree: &Tree, range: Range, moved: &mut Moved) -> Result<(), ReadError> {
    let first = range.start as u64;
    let mut live = Vec::with_capacity(range.count.min(tree.slots()) as usize);
    for slot in range.start..range.start.saturating_add(range.count) {
        live.push(tree.is_live(slot)?);
    }
    let count = live.iter().filter(|&&live| live).count();
    memory::reserve(&mut moved.ids, count, "ids")?;
    memory::reserve(&mut moved.rows, count.saturating_mul(tree.dim), "points")?;
    tree.ids.copy_chunks(first, range.count as u64, |row, chunk| {
        let at = (row - first) as usize;
        moved
            .ids
            .extend(chunk.iter().zip(&live[at..]).filter(|(_, live)| **live).map(|(id, _)| id));
    })?;
    tree.coordinates.copy_chunks(first, range.count as u64, |row, chunk| {
        let at = (row - first) as usize;
        for (point, _) in chunk.chunks_exact(tree.dim).zip(&live[at..]).filter(|(_, live)| **live) {
            moved.rows.extend_from_slice(point);
        }
    })?;
    // Squares of what no store takes overflow, and a split of them would never end.
    let limit = space::domain_limit(tree.dim);
    let rows = moved.rows.iter().rev().take(live.len() * tree.dim);
    match rows.copied().all(|x| x.abs() <= limit) {
        true => Ok(()),
        false => Err(ReadError::row("coordinates", first, "a row that is no point of the store")),
    }
}

/// The center of a node that is to be split.
fn center(tree: &Tree, node: u32) -> Result<&[f32], ReadError> {
    let center = tree.centers.row(node as u64)?;
    let limit = space::domain_limit(tree.dim);
    match center.iter().all(|x| x.abs() <= limit) {
        true => Ok(center),
        false => Err(ReadError::row("centers", node as u64, "a center that is no point")),
    }
}

/// The links of a node after a change, given where the change's own rows and children went.
pub(crate) fn new_link(
    old: &Links,
    change: &Change,
    slots: Range,
    children: Range,
    runs: &mut Vec<RunRow>,
) -> Links {
    let twins = change.body.twins.len() as u32;
    let mut link = match change.keep {
        Keep::All => *old,
        Keep::TwinsAndChildren => Links { row: LinkRow { bucket_count: 0, ..old.row }, ..*old },
        Keep::Nothing => Links {
            row: LinkRow {
                child_start: children.start,
                child_count: children.count,
                slot_start: slots.start,
                twin_count: twins,
                bucket_count: slots.count - twins,
                own_radius: change.body.stored_own_radius(children.count == 0),
            },
            span: change.body.points,
            run_start: 0,
            run_count: 0,
            flags: 0,
        },
    };
    if change.keep != Keep::Nothing {
        runs.extend_from_slice(&change.kept_runs);
        let mut add = |start: u32, count: u32, kind: u32| {
            if count > 0 {
                runs.push(RunRow { start, count, kind });
            }
        };
        add(slots.start, twins, RUN_TWINS);
        add(slots.start + twins, slots.count - twins, RUN_BUCKET);
        if children.count == 0 {
            // A leaf stays what it is, and its row is not copied.
        } else if link.row.child_count == 0 {
            link.row.child_start = children.start;
            link.row.child_count = children.count;
        } else {
            add(children.start, children.count, RUN_CHILDREN);
        }
    }
    if !change.body.twins_equal {
        link.flags |= COUNT_UNEQUAL_TWINS;
    }
    link
}
