//! Stage: a group of points that does not fit a bucket becomes a node with children, recursively.
//!
//! At a node p with share S: k is the level of the farthest point of the *own share*, the part of S
//! that no child has taken. The candidates, own points farther than 2^k, are taken in seeded order,
//! a prefix at a time; a maximal independent set of each prefix become children at level k, and
//! every point of S that is nearer to one of them (and within 2^k) moves there. When no candidate
//! is left k is taken anew; it strictly falls. The split ends when the own share fits the bucket,
//! or when there is no more to be had: nearly every candidate wins, which says that there is no
//! structure at this scale, as in high intrinsic dimension; or the share's credit is spent
//! ([`super::credit`]). Then the node stays *flat*: the own share is its bucket, however large. It
//! is tried again when the bucket has doubled.
//!
//! T2: winners lie in (2^k, 2^(k+1)] from p. T3: a winner is not within 2^k of another of its level
//! by the independent set; nor of an earlier, higher child, because it would have moved there, or
//! is nearer to p, which is farther than 2^k. T4: what stays in the own share was offered to every
//! child.

use std::time::Instant;

use rayon::prelude::*;

use super::batch::Batch;
use super::conflict::{BLOCK, conflicts};
use super::credit::{Credit, Outlook, Pace};
use super::mis::maximal_independent_set;
use super::overlap;
use super::redistribute::{Child, Shares, redistribute};
use super::report::Work;
use super::source::{Moved, Point, Source};
use super::{Context, Stop};
use crate::space::{self, Kernel, Level, Slack};
use crate::tree::columns::Tree;

/// Points and their sums of squares to one center.
#[derive(Default)]
pub(crate) struct Share {
    pub(crate) members: Vec<Point>,
    pub(crate) sums: Vec<f32>,
}

impl Share {
    pub(crate) fn with_capacity(points: usize) -> Self {
        Share { members: Vec::with_capacity(points), sums: Vec::with_capacity(points) }
    }

    pub(crate) fn push(&mut self, point: Point, sum: f32) {
        self.members.push(point);
        self.sums.push(sum);
    }

    /// Takes out the points whose sum is 0. The order of the rest stays.
    fn take_twins(&mut self) -> Vec<Point> {
        let mut twins = Vec::new();
        let mut kept = 0;
        for position in 0..self.members.len() {
            let (point, sum) = (self.members[position], self.sums[position]);
            if sum > 0.0 {
                (self.members[kept], self.sums[kept]) = (point, sum);
                kept += 1;
            } else {
                twins.push(point);
            }
        }
        self.members.truncate(kept);
        self.sums.truncate(kept);
        twins
    }

    /// The largest sum; 0 if there is none.
    pub(crate) fn farthest(&self) -> f32 {
        match self.sums.len() > PARALLEL_SUMS {
            true => self.sums.par_chunks(PARALLEL_SUMS).map(greatest).reduce(|| 0.0, f32::max),
            false => greatest(&self.sums),
        }
    }
}

/// The greatest of some sums; 0 if there are none.
pub(crate) fn greatest(sums: &[f32]) -> f32 {
    // Side by side, because each of a chain would wait for the one before it.
    const TOGETHER: usize = 16;
    let (chunks, rest) = sums.as_chunks::<TOGETHER>();
    let mut most = [0.0_f32; TOGETHER];
    for chunk in chunks {
        for (most, &sum) in most.iter_mut().zip(chunk) {
            *most = if sum > *most { sum } else { *most };
        }
    }
    most.iter().chain(rest).copied().fold(0.0, f32::max)
}

/// What a node holds after a split.
#[derive(Default)]
pub(crate) struct Body {
    /// Sorted by id.
    pub(crate) twins: Vec<Point>,
    /// Every twin equals the center in value.
    pub(crate) twins_equal: bool,
    /// Sorted by distance from the center, then id.
    pub(crate) bucket: Vec<Point>,
    /// Distance of the farthest of the bucket.
    pub(crate) own_radius: f32,
    /// 0 unless flat.
    pub(crate) flat_capacity: u32,
    pub(crate) children: Vec<Branch>,
    /// Points in the node and below.
    pub(crate) points: u32,
    /// Nodes below.
    pub(crate) nodes: u32,
}

/// A new node and all below it.
pub(crate) struct Branch {
    pub(crate) center: Point,
    pub(crate) level: Level,
    pub(crate) radius: f32,
    pub(crate) body: Body,
}

impl Branch {
    /// Replaces every point p by `points[p]`.
    fn renumber(&mut self, points: &[Point]) {
        let Body { twins, bucket, children, .. } = &mut self.body;
        for point in [&mut self.center].into_iter().chain(twins).chain(bucket) {
            *point = points[*point as usize];
        }
        children.iter_mut().for_each(|child| child.renumber(points));
    }
}

impl Body {
    /// The own radius as it is stored (T5). At a leaf it would say what the radius says, and change
    /// whenever that does.
    pub(crate) fn stored_own_radius(&self, is_leaf: bool) -> f32 {
        if is_leaf { f32::INFINITY } else { self.own_radius }
    }

    /// The body with its counts set.
    pub(crate) fn counted(mut self) -> Self {
        let own = (self.twins.len() + self.bucket.len()) as u32;
        self.points = own + self.children.iter().map(|child| child.body.points).sum::<u32>();
        self.nodes = self.children.iter().map(|child| 1 + child.body.nodes).sum();
        self
    }
}

/// Candidates examined at once, and the fewest that say anything about structure.
const PREFIX: std::ops::RangeInclusive<usize> = 64..=1024;
const FLAT_SAMPLE: usize = 8;

/// Nor do they say anything unless one in so many points is as far as they: some outliers far from
/// each other are no sign that the others have no structure.
const FLAT_SHARE: usize = 8;

/// At most so large a part of the credit is charged for one conflict graph: of x candidates x^2
/// / 2.
const CONFLICT_SHARE: u64 = 8;

/// Winners that members are offered to at a time.
const SLICE: usize = 64;

/// When a node's own share is small enough.
#[derive(Clone, Copy)]
pub(crate) struct Goal {
    /// At most so many rows with s > 0.
    pub(crate) rows: usize,
    /// None with a sum above this.
    pub(crate) scope: f32,
}

/// How much of a level has been gone through.
enum Covered {
    /// No own point is beyond it.
    Whole,
    /// There is no structure, or no credit.
    Partly,
}

/// Fewer sums than this are not worth another thread to look for the greatest.
const PARALLEL_SUMS: usize = 1 << 16;

/// Shares above this size are split on several threads.
const PARALLEL_MEMBERS: usize = 2048;

/// Rows are copied side by side where one in every few of a source is wanted, if the source is
/// larger than a cache.
const SCATTERED: usize = 8;
const CACHED_BYTES: usize = 1 << 18;

/// Splits shares of one source.
pub(crate) struct Splitter<'a> {
    pub(crate) source: Source<'a>,
    pub(crate) kernel: Kernel,
    pub(crate) slack: Slack,
    pub(crate) context: &'a Context<'a>,
    /// Rows with s > 0 that a bucket holds.
    pub(crate) bucket_rows: usize,
}

impl<'a> Splitter<'a> {
    pub(crate) fn new(tree: &Tree, context: &'a Context<'a>, source: Source<'a>) -> Self {
        Splitter {
            source,
            kernel: tree.kernel,
            slack: tree.slack,
            context,
            bucket_rows: tree.leaf_capacity as usize - 1,
        }
    }

    /// The share of `center` made of `points`.
    pub(crate) fn share(&self, center: &[f32], points: Vec<Point>, work: &mut Work) -> Share {
        const ROWS: usize = 1024;
        let mut sums = vec![0.0; points.len()];
        points.par_chunks(ROWS).zip(sums.par_chunks_mut(ROWS)).for_each(|(points, sums)| {
            self.context.scratch.with(|scratch| {
                self.source.gather(points.iter().copied(), &mut scratch.rows);
                self.kernel.sums(center, &scratch.rows, sums);
            });
        });
        work.counters.distance_evaluations += points.len() as u64;
        Share { members: points, sums }
    }

    /// A new node around `center` with all of `share`.
    pub(crate) fn branch(
        &self,
        center: Point,
        level: Level,
        share: Share,
        credit: Credit,
        work: &mut Work,
    ) -> Result<Branch, Stop> {
        let radius = space::distance(share.farthest());
        let body = self.body(self.source.row(center), share, self.whole(), credit, work)?;
        Ok(Branch { center, level, radius, body })
    }

    /// True if the rows of a share that will be split lie so far apart that copying them side by
    /// side pays.
    fn is_scattered(&self, share: &Share) -> bool {
        let Source { dim, .. } = self.source;
        let rows = share.members.len();
        rows > self.bucket_rows
            && rows * SCATTERED <= self.source.len()
            && self.source.len() * dim * size_of::<f32>() > CACHED_BYTES
    }

    /// A child's branch, worked out on a copy of its rows: each is read many times, and from memory
    /// only once.
    fn branch_of_copy(
        &self,
        child: Child,
        credit: Credit,
        work: &mut Work,
    ) -> Result<Branch, Stop> {
        let Child { center, level, share: Share { members, sums }, .. } = child;
        let mut points = Vec::with_capacity(members.len() * self.source.dim);
        self.source.gather(members.iter().copied(), &mut points);
        let ids = members.iter().map(|&point| self.source.id(point)).collect();
        let (batch, moved) = (Batch { points: &points, ids }, Moved::default());
        let source = Source { batch: &batch, moved: &moved, ..self.source };
        let splitter = Splitter { source, ..*self };
        let center = members.iter().position(|&point| point == center);
        let center = center.expect("a center is nearest to itself") as Point;
        let share = Share { members: (0..members.len() as Point).collect(), sums };
        let mut branch = splitter.branch(center, level, share, credit, work)?;
        branch.renumber(&members);
        Ok(branch)
    }

    /// What a node around `center` holds when `share` is all that belongs to it and its new
    /// children.
    pub(crate) fn body(
        &self,
        center: &[f32],
        share: Share,
        goal: Goal,
        credit: Credit,
        work: &mut Work,
    ) -> Result<Body, Stop> {
        self.context.check()?;
        let mut own = share;
        let mut twins = own.take_twins();
        let twins_equal = twins.iter().all(|&twin| self.source.row(twin) == center);
        twins.sort_unstable_by_key(|&twin| self.source.id(twin));
        let mut shares = Shares { own, children: Vec::new() };
        let mut credit = credit;
        let flat = self.win_children(&mut shares, goal, &mut credit, work)?;
        let own_radius = space::distance(shares.own.farthest());
        let flat_capacity = if flat { 2 * shares.own.members.len() as u32 } else { 0 };
        let bucket = self.bucket_order(shares.own);
        let children = self.branches(shares.children, credit, work)?;
        let body = Body {
            twins,
            twins_equal,
            bucket,
            own_radius,
            flat_capacity,
            children,
            ..Body::default()
        };
        Ok(body.counted())
    }

    /// Rows of a bucket as they are stored: by distance from the center, then by id.
    pub(crate) fn bucket_order(&self, share: Share) -> Vec<Point> {
        let mut order: Vec<(f32, Point)> = share.sums.into_iter().zip(share.members).collect();
        order.sort_unstable_by(|a, b| {
            a.0.total_cmp(&b.0).then_with(|| self.source.id(a.1).cmp(&self.source.id(b.1)))
        });
        order.into_iter().map(|(_, point)| point).collect()
    }

    /// The bucket of a node that is built takes what fits it, from however far.
    pub(crate) fn whole(&self) -> Goal {
        Goal { rows: self.bucket_rows, scope: f32::INFINITY }
    }

    /// Rounds of candidates until the own share is as the goal says, or the credit is spent. True
    /// if the node is left flat.
    pub(crate) fn win_children(
        &self,
        shares: &mut Shares,
        goal: Goal,
        credit: &mut Credit,
        work: &mut Work,
    ) -> Result<bool, Stop> {
        if shares.own.members.len() > goal.rows {
            work.counters.splits += 1;
        }
        loop {
            let farthest = shares.own.farthest();
            if shares.own.members.len() <= goal.rows && farthest <= goal.scope {
                return Ok(false);
            }
            let level = Level::of_sum(farthest);
            let may_be_flat = farthest <= goal.scope && self.bucket_rows > 0;
            match self.cover(shares, level, may_be_flat, credit, work)? {
                Covered::Whole => {}
                Covered::Partly => return Ok(true),
            }
        }
    }

    /// Rounds of candidates of one level until no own point is beyond it.
    fn cover(
        &self,
        shares: &mut Shares,
        level: Level,
        may_be_flat: bool,
        credit: &mut Credit,
        work: &mut Work,
    ) -> Result<Covered, Stop> {
        let mut may_be_flat = may_be_flat;
        let mut pace = Pace::default();
        loop {
            self.context.check()?;
            let own = shares.own.members.len();
            let (candidates, far) = self.candidates(&shares.own, level, credit);
            if far == 0 {
                return Ok(Covered::Whole);
            }
            if candidates.is_empty() || self.is_hopeless(shares, far, &mut pace, credit, work) {
                return Ok(Covered::Partly);
            }
            let winners = self.winners(&candidates, level, credit, work);
            let structureless = may_be_flat
                && far * FLAT_SHARE >= own
                && candidates.len() >= FLAT_SAMPLE
                && winners.len() * 16 >= candidates.len() * 15;
            if structureless {
                return Ok(Covered::Partly);
            }
            may_be_flat = false;
            // Winners of one round do not conflict: those of the first slices move members out of
            // the way of the later ones.
            for slice in winners.chunks(SLICE) {
                let before = shares.own.members.len();
                let left = far.saturating_sub(own - before);
                if self.is_hopeless(shares, left, &mut pace, credit, work) {
                    return Ok(Covered::Partly);
                }
                let start = Instant::now();
                let won = redistribute(self, shares, level, slice, credit, work);
                work.times.redistribute += start.elapsed();
                pace.note(won, before - shares.own.members.len());
                if won < slice.len() {
                    return Ok(Covered::Partly);
                }
            }
        }
    }

    /// True if going on with a level, `far` candidates of which are left, is of no use.
    fn is_hopeless(
        &self,
        shares: &Shares,
        far: usize,
        pace: &mut Pace,
        credit: &mut Credit,
        work: &mut Work,
    ) -> bool {
        // The textbook's tree, of one point to a node, only ends where it must.
        if self.bucket_rows == 0 {
            return false;
        }
        let charge = overlap::charge(shares);
        match pace.judge(far, shares.own.members.len(), credit) {
            Outlook::Fair => false,
            Outlook::Hopeless => true,
            Outlook::Doubtful if !credit.covers(charge) => true,
            Outlook::Doubtful => {
                let (overlap, evaluations) = overlap::overlap(self, shares);
                work.counters.distance_evaluations += evaluations;
                credit.pay(evaluations);
                overlap
            }
        }
    }

    /// The first own points in seeded order that are farther than 2^k from the center, as many as
    /// can be compared with each other, and how many are as far.
    fn candidates(&self, own: &Share, level: Level, credit: &Credit) -> (Vec<Point>, usize) {
        let reach = level.pow4();
        let is_far = |sum: &f32| *sum > reach;
        let count_far = |sums: &[f32]| sums.iter().map(|sum| usize::from(is_far(sum))).sum();
        let is_large = own.members.len() > PARALLEL_MEMBERS;
        let count: usize = match is_large {
            true => own.sums.par_chunks(PARALLEL_MEMBERS).map(count_far).sum(),
            false => count_far(&own.sums),
        };
        let prefix = (count / 16).clamp(*PREFIX.start(), *PREFIX.end());
        let prefix = prefix.min((credit.evaluations / CONFLICT_SHARE).isqrt() as usize);
        if prefix == 0 {
            return (Vec::new(), count);
        }
        // Priorities are spread evenly, unless somebody has chosen the ids against it: twice as
        // many as are wanted.
        let mut most = match count > 2 * prefix {
            true => (u64::MAX / count as u64) * (2 * prefix) as u64,
            false => u64::MAX,
        };
        let mut far: Vec<(u64, Point)> = Vec::new();
        while far.len() < prefix.min(count) {
            let first = |(members, sums): (&[Point], &[f32])| {
                // Each place is written, and kept if the next is written behind it: near and far
                // come in no order.
                let (mut places, mut kept) = ([0_u32; PARALLEL_MEMBERS], 0);
                for (place, sum) in (0..).zip(sums) {
                    places[kept] = place;
                    kept += usize::from(is_far(sum));
                }
                let points = places[..kept].iter().map(|&place| members[place as usize]);
                let prioritized = points.map(|point| (self.source.priority(point), point));
                prioritized.filter(|&(priority, _)| priority <= most).collect()
            };
            let pieces =
                own.members.par_chunks(PARALLEL_MEMBERS).zip(own.sums.par_chunks(PARALLEL_MEMBERS));
            far = match is_large {
                true => pieces.map(first).collect::<Vec<Vec<_>>>().concat(),
                false => first((&own.members, &own.sums)),
            };
            most = u64::MAX;
        }
        if far.len() > prefix {
            far.select_nth_unstable(prefix);
            far.truncate(prefix);
        }
        far.sort_unstable();
        (far.into_iter().map(|(_, point)| point).collect(), count)
    }

    /// Those of the candidates, in order, that no earlier one keeps from becoming children.
    fn winners(
        &self,
        candidates: &[Point],
        level: Level,
        credit: &mut Credit,
        work: &mut Work,
    ) -> Vec<Point> {
        let dim = self.source.dim;
        self.context.scratch.with(|scratch| {
            scratch.centers.clear();
            let mut winners = Vec::new();
            for candidates in candidates.chunks(BLOCK) {
                let start = Instant::now();
                let mut rows = std::mem::take(&mut scratch.rows);
                self.source.gather(candidates.iter().copied(), &mut rows);
                let graph = conflicts(self.kernel, dim, level, &rows, scratch);
                work.counters.distance_evaluations += graph.evaluations;
                credit.pay(graph.evaluations);
                work.counters.conflict_edges += graph.edges;
                let begun = Instant::now();
                work.times.conflict += begun - start;
                for place in maximal_independent_set(&graph) {
                    winners.push(candidates[place]);
                    scratch.centers.extend_from_slice(&rows[place * dim..][..dim]);
                }
                work.times.mis += begun.elapsed();
                scratch.rows = rows;
            }
            work.counters.mis_rounds += 1;
            winners
        })
    }

    /// Splits the children's shares in their turn, the largest first, with what the node has left
    /// (C2).
    fn branches(
        &self,
        children: Vec<Child>,
        credit: Credit,
        work: &mut Work,
    ) -> Result<Vec<Branch>, Stop> {
        let count = children.len();
        let members: usize = children.iter().map(|child| child.share.members.len()).sum();
        // A share that fits its bucket spends nothing.
        let needs = |child: &Child| match child.share.members.len() > self.bucket_rows {
            true => child.share.members.len(),
            false => 0,
        };
        let needed: usize = children.iter().map(needs).sum();
        let branch = |child: Child, work: &mut Work| {
            let credit = credit.part(needs(&child), needed, count);
            match self.is_scattered(&child.share) {
                true => self.branch_of_copy(child, credit, work),
                false => self.branch(child.center, child.level, child.share, credit, work),
            }
        };
        if members <= PARALLEL_MEMBERS {
            return children.into_iter().map(|child| branch(child, work)).collect();
        }
        let mut order: Vec<(usize, Child)> = children.into_iter().enumerate().collect();
        order.sort_by_key(|(_, child)| std::cmp::Reverse(child.share.members.len()));
        let done: Vec<(usize, Branch, Work)> = order
            .into_par_iter()
            .with_max_len(1)
            .map(|(i, child)| {
                let mut work = Work::default();
                branch(child, &mut work).map(|branch| (i, branch, work))
            })
            .collect::<Result<_, Stop>>()?;
        let mut done = done;
        done.sort_unstable_by_key(|(i, ..)| *i);
        Ok(done
            .into_iter()
            .map(|(_, branch, part)| {
                work.add(&part);
                branch
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::scratch::ScratchPool;
    use super::*;
    use crate::store::Store;
    use crate::values::options::{CreateOptions, OpenOptions};

    /// However the priorities lie, the candidates are the first of those that are far, and all of
    /// those are counted.
    #[test]
    fn candidates_are_the_first_of_those_that_are_far() {
        let store = Store::in_memory(CreateOptions::new(1), OpenOptions::new()).unwrap();
        let snapshot = store.latest().unwrap();
        let (options, scratch) = (OpenOptions::new(), ScratchPool::new(1));
        let context = Context { options: &options, scratch: &scratch, most_rebuilt: u64::MAX };
        let (seed, level) = (snapshot.tree().seed, Level::new(0));
        let credit = Credit::of_build(1 << 30);
        let late = |id: &u64| Source::priority_of(*id, seed) > u64::MAX / 16 * 15;
        for n in [1, 100, PARALLEL_MEMBERS, PARALLEL_MEMBERS + 1, 50_000] {
            for ids in [(0..n as u64).collect::<Vec<u64>>(), (0..).filter(late).take(n).collect()] {
                let points = vec![0.0; n];
                let batch = Batch { points: &points, ids };
                let moved = Moved::default();
                let source = Source { dim: 1, seed, batch: &batch, moved: &moved };
                let splitter = Splitter::new(snapshot.tree(), &context, source);
                // Two in three are far.
                let sums = (0..n).map(|i| (i % 3) as f32 + 0.5).collect();
                let own = Share { members: (0..n as Point).collect(), sums };
                let mut far: Vec<Point> = (0..n as Point).filter(|&point| point % 3 > 0).collect();
                far.sort_unstable_by_key(|&point| source.priority(point));
                let (candidates, count) = splitter.candidates(&own, level, &credit);
                assert_eq!(count, far.len());
                far.truncate((count / 16).clamp(*PREFIX.start(), *PREFIX.end()));
                assert_eq!(candidates, far, "{n}");
            }
        }
    }

    /// Outliers farther from the root than all others, and as far from each other, all win. That
    /// says nothing of the others.
    #[test]
    fn outliers_do_not_hide_the_structure_of_the_others() {
        let mut state = 5_u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let (dim, clusters, outliers) = (24, 50, 12);
        let centers: Vec<f32> = (0..clusters * dim).map(|_| uniform()).collect();
        let mut points = Vec::new();
        for i in 0..5000 {
            let center = &centers[i % clusters * dim..][..dim];
            points.extend(center.iter().map(|x| x + 0.01 * uniform()));
        }
        let queries = points[..100 * dim].to_vec();
        for i in 0..outliers {
            points.extend((0..dim).map(|c| if c == i { 20.0 } else { uniform() }));
        }
        let mut store = Store::in_memory(CreateOptions::new(dim), OpenOptions::new()).unwrap();
        store.insert(&points).unwrap();
        let snapshot = store.latest().unwrap();
        let nodes = snapshot.tree().node_rows();
        assert!(nodes as usize > clusters, "{nodes} nodes");
        let answers = snapshot.knn_batch(&queries, 10).unwrap();
        let evaluations = answers.distance_evaluations() / 100;
        assert!(evaluations < 1000, "{evaluations} of 5,012");
    }
}
