//! Stage: points move to new centers that are nearer than their present ones.
//!
//! A point within 2^k of a new center, and strictly nearer to it than to its present center, moves
//! there; among several to the nearest, and on a tie to the earlier in priority. Distances are
//! blocked tiles, new centers by members, over members gathered side by side: gathering at random
//! costs more than the arithmetic. A member near its present center cannot be nearer to a far one,
//! so each tile takes the new centers from near to far, and members drop out on the way.

use std::sync::Arc;

use rayon::prelude::*;

use super::credit::Credit;
use super::report::Work;
use super::scratch::Scratch;
use super::source::{Point, copy_row};
use super::split::{Share, Splitter};
use crate::space::{self, Kernel, Level, Slack};

/// Members gathered for one tile: as many as fit the first-level cache, within limits.
fn members_per_tile(dim: usize) -> usize {
    (32 * 1024 / (4 * dim)).clamp(16, 1024)
}

/// Members of one task: some tiles.
fn members_per_task(dim: usize) -> usize {
    4 * members_per_tile(dim)
}

/// New centers per tile, so that the tile's sums stay in cache, and members drop out soon.
const CENTERS_PER_TILE: usize = 16;

/// Members drop out of a tile when one in so many can.
const DROP_OUT: usize = 8;

/// Fewer pairs than this are not worth another thread.
const PARALLEL_PAIRS: usize = 1 << 15;

/// The shares of a node that is being split: its own, and those of the children won so far.
pub(crate) struct Shares {
    pub(crate) own: Share,
    pub(crate) children: Vec<Child>,
}

impl Shares {
    /// 0 is the own share, i + 1 that of child i.
    fn get(&self, share: usize) -> &Share {
        match share.checked_sub(1) {
            None => &self.own,
            Some(child) => &self.children[child].share,
        }
    }
}

/// A child in the making.
pub(crate) struct Child {
    pub(crate) center: Point,
    pub(crate) level: Level,
    pub(crate) share: Share,
    /// At least the largest sum in the share.
    pub(crate) reach: f32,
}

/// A piece of work: some members of one share against the new centers that may attract them.
struct Task<'a> {
    /// As [`Shares::get`] numbers them.
    share: usize,
    first: usize,
    members: &'a [Point],
    sums: &'a [f32],
    /// From near to far.
    centers: Arc<Vec<Contact>>,
}

/// A new center that may attract members of a share.
#[derive(Clone, Copy)]
struct Contact {
    center: u32,
    /// Members whose sum to their present center is below this are nearer to that one, or not
    /// within 2^k of this.
    least: f32,
}

/// What becomes of the members of a task, by ascending position.
struct Moves {
    share: usize,
    first: usize,
    moves: Vec<Move>,
}

/// A member that found a nearer center.
#[derive(Clone, Copy, Default)]
struct Move {
    /// In the task.
    position: u32,
    center: u32,
    sum: f32,
}

/// Makes each of `centers` a child at `level` and moves to it what it attracts, from the own share
/// and from earlier children; or only the first of them, as many as the credit pays for (C1).
/// Returns how many.
pub(crate) fn redistribute(
    splitter: &Splitter<'_>,
    shares: &mut Shares,
    level: Level,
    centers: &[Point],
    credit: &mut Credit,
    work: &mut Work,
) -> usize {
    let dim = splitter.source.dim;
    let mut center_rows = Vec::new();
    let centers = &centers[..affordable(shares, centers.len(), credit)];
    splitter.source.gather(centers.iter().copied(), &mut center_rows);
    let (tasks, won) = plan_tasks(splitter, shares, level, &center_rows, credit, work);
    let centers = &centers[..won];
    if centers.is_empty() {
        return 0;
    }
    let pairs: usize = tasks.iter().map(|t| t.members.len() * t.centers.len()).sum();
    let run = |task: &Task<'_>| {
        let find = |scratch: &mut _| find_moves(splitter, task, level, &center_rows, scratch);
        splitter.context.scratch.with(find)
    };
    let (moves, evaluations): (Vec<Moves>, Vec<u64>) = match pairs >= PARALLEL_PAIRS {
        true => tasks.par_iter().map(run).unzip(),
        false => tasks.iter().map(run).unzip(),
    };
    let evaluations = evaluations.iter().sum::<u64>();
    work.counters.distance_evaluations += evaluations;
    credit.pay(evaluations);
    let moved: usize = moves.iter().map(|m| m.moves.len()).sum();
    work.counters.redistributed += moved as u64;
    let gained = gained(shares, &moves, centers.len());
    take_out(shares, &moves, members_per_task(dim));
    for (&center, share) in centers.iter().zip(gained) {
        let reach = share.farthest();
        shares.children.push(Child { center, level, share, reach });
    }
    won
}

/// How many of `count` new centers can be compared with all present ones and with the own share,
/// and have room (C4).
fn affordable(shares: &Shares, count: usize, credit: &Credit) -> usize {
    let children = shares.children.len() as u64;
    let each = children + shares.own.members.len() as u64;
    let room = credit.breadth.saturating_sub(children);
    (credit.evaluations / each.max(1)).min(room).min(count as u64) as usize
}

/// Which new centers can attract members of which share, and how many of the centers the credit
/// pays for. A child's share is skipped for a center so far away that no member can be within 2^k
/// of it, or nearer to it than to its own center.
fn plan_tasks<'a>(
    splitter: &Splitter<'_>,
    shares: &'a Shares,
    level: Level,
    center_rows: &[f32],
    credit: &mut Credit,
    work: &mut Work,
) -> (Vec<Task<'a>>, usize) {
    let dim = splitter.source.dim;
    let count = center_rows.len() / dim;
    let within = space::distance(level.pow4());
    let met = (count * shares.children.len()) as u64;
    work.counters.distance_evaluations += met;
    credit.pay(met);
    let mut nearby = Vec::new();
    let mut charges = vec![shares.own.members.len() as u64; count];
    let mut sums = vec![0.0; count];
    for (i, child) in shares.children.iter().enumerate() {
        splitter.kernel.sums(splitter.source.row(child.center), center_rows, &mut sums);
        let radius = space::distance(child.reach);
        let near: Vec<Contact> = (0..count as u32)
            .zip(&sums)
            .map(|(center, &sum)| (center, space::distance(sum)))
            .filter(|&(_, distance)| !splitter.slack.excludes(distance, radius, within.min(radius)))
            .map(|(center, distance)| Contact {
                center,
                least: least_attracted(splitter.slack, distance, within),
            })
            .collect();
        work.counters.bound_hits += (count - near.len()) as u64;
        for near in &near {
            charges[near.center as usize] += child.share.members.len() as u64;
        }
        if !near.is_empty() {
            nearby.push((i + 1, near));
        }
    }
    let won = paid(&charges, credit);
    let mut tasks = Vec::new();
    if won == 0 {
        return (tasks, won);
    }
    let mut add = |index: usize, share: &'a Share, centers: Vec<Contact>| {
        let per_task = members_per_task(dim);
        let centers = Arc::new(centers);
        let chunks = share.members.chunks(per_task).zip(share.sums.chunks(per_task));
        tasks.extend(chunks.enumerate().map(|(i, (members, sums))| Task {
            share: index,
            first: i * per_task,
            members,
            sums,
            centers: centers.clone(),
        }));
    };
    add(0, &shares.own, (0..won as u32).map(|center| Contact { center, least: 0.0 }).collect());
    for (index, mut near) in nearby {
        near.retain(|near| (near.center as usize) < won);
        near.sort_by(|a, b| a.least.total_cmp(&b.least));
        if !near.is_empty() {
            add(index, shares.get(index), near);
        }
    }
    (tasks, won)
}

/// How many of the first charges can be paid together.
fn paid(charges: &[u64], credit: &Credit) -> usize {
    let mut sum = 0;
    let within_means = |charge: &&u64| {
        sum += **charge;
        credit.covers(sum)
    };
    charges.iter().take_while(within_means).count()
}

/// A sum r^2 such that members whose sum to their present center is below it are not attracted by a
/// new center at `distance` from that one: with D their distance to the new center, D > r or D >
/// `within`.
///
/// [`Slack::excludes`] holds for a member at distance r if e - r > min(`within`, r), where e is
/// `distance` less the slack: if r < e / 2, or r < e - `within`. The factor covers the rounding of
/// squares and roots.
fn least_attracted(slack: Slack, distance: f32, within: f32) -> f32 {
    const MARGIN: f64 = 1.0 - 1.0 / (1 << 20) as f64;
    let e = slack.lower_bound(distance, 0.0);
    let r = (e / 2.0).max(e - f64::from(within)).max(0.0);
    (r * r * MARGIN) as f32
}

/// The moves of a task, and the distances computed.
fn find_moves(
    splitter: &Splitter<'_>,
    task: &Task<'_>,
    level: Level,
    center_rows: &[f32],
    scratch: &mut Scratch,
) -> (Moves, u64) {
    let dim = splitter.source.dim;
    let limit = level.pow4().next_up();
    let Scratch { rows, centers, sums, best, best_center, positions, .. } = scratch;
    centers.clear();
    for near in task.centers.iter() {
        let start = near.center as usize * dim;
        centers.extend_from_slice(&center_rows[start..start + dim]);
    }
    let mut moves = Vec::new();
    let mut evaluations = 0;
    let per_tile = members_per_tile(dim);
    let chunks = task.members.chunks(per_tile).zip(task.sums.chunks(per_tile));
    for (i, (members, owned)) in chunks.enumerate() {
        let least = task.centers[0].least;
        // Each is written, and kept if the next is written behind it: no branch that depends on
        // where a member is.
        positions.clear();
        positions.resize(owned.len(), 0);
        let mut kept = 0;
        for (position, &sum) in (0..).zip(owned) {
            positions[kept] = position;
            kept += usize::from(sum >= least);
        }
        positions.truncate(kept);
        splitter.source.gather(positions.iter().map(|&p| members[p as usize]), rows);
        best.clear();
        best.extend(positions.iter().map(|&p| owned[p as usize].min(limit)));
        best_center.clear();
        best_center.resize(positions.len(), 0);
        let first = (i * per_tile) as u32;
        let moves = &mut moves;
        let mut tile = MemberTile { dim, first, owned, positions, rows, best, best_center, moves };
        let blocks = centers.chunks(CENTERS_PER_TILE * dim);
        for (block_rows, block) in blocks.zip(task.centers.chunks(CENTERS_PER_TILE)) {
            tile.drop_out(block[0].least);
            evaluations += tile.offer(splitter.kernel, block_rows, block, sums);
        }
        tile.take_moves();
    }
    moves.sort_unstable_by_key(|m| m.position);
    (Moves { share: task.share, first: task.first, moves }, evaluations)
}

/// Members that centers are offered to, side by side.
struct MemberTile<'a> {
    dim: usize,
    /// Position of the first member in the task.
    first: u32,
    /// Sums to their present center.
    owned: &'a [f32],
    /// Those of them that are still here, and their rows.
    positions: &'a mut Vec<u32>,
    rows: &'a mut Vec<f32>,
    /// Their least sum so far, and the center that has it: 0 the present one, i + 1 new center i.
    best: &'a mut Vec<f32>,
    best_center: &'a mut Vec<u32>,
    moves: &'a mut Vec<Move>,
}

impl MemberTile<'_> {
    /// Compares members with a block of centers. Returns the distances computed.
    fn offer(
        &mut self,
        kernel: Kernel,
        rows: &[f32],
        centers: &[Contact],
        sums: &mut Vec<f32>,
    ) -> u64 {
        let members = self.positions.len();
        if members == 0 {
            return 0;
        }
        sums.clear();
        sums.resize(centers.len() * members, 0.0);
        kernel.tile(rows, self.rows, self.dim, sums);
        for (near, sums) in centers.iter().zip(sums.chunks_exact(members)) {
            // A tie stays where it is, or goes to the earlier of two new centers.
            kernel.keep_nearest(sums, near.center + 1, self.best, self.best_center);
        }
        sums.len() as u64
    }

    /// Lets members go whose sum is below `least`, if they are many enough to repay moving the
    /// others together.
    fn drop_out(&mut self, least: f32) {
        if least <= 0.0 {
            return;
        }
        let members = self.positions.len();
        let goes = |position: u32| self.owned[position as usize] < least;
        let going = self.positions.iter().filter(|&&position| goes(position)).count();
        if going * DROP_OUT < members.max(1) {
            return;
        }
        // Each is written to where it would stay and to where it would move, and one of the two is
        // written over: there is no branch that depends on where a member goes.
        let mut moved = self.moves.len();
        self.moves.resize(moved + members, Move::default());
        let mut kept = 0;
        for i in 0..members {
            let (position, sum, center) = (self.positions[i], self.best[i], self.best_center[i]);
            let (goes, moves) = (goes(position), center > 0);
            self.moves[moved] =
                Move { position: self.first + position, center: center.wrapping_sub(1), sum };
            moved += usize::from(goes & moves);
            self.positions[kept] = position;
            copy_row(self.rows, self.dim, i, kept);
            self.best[kept] = sum;
            self.best_center[kept] = center;
            kept += usize::from(!goes);
        }
        self.moves.truncate(moved);
        self.positions.truncate(kept);
        self.rows.truncate(kept * self.dim);
        self.best.truncate(kept);
        self.best_center.truncate(kept);
    }

    /// Notes the moves of the members that are left, all of which are done with.
    fn take_moves(&mut self) {
        let mut moved = self.moves.len();
        self.moves.resize(moved + self.positions.len(), Move::default());
        let members = self.positions.iter().zip(&*self.best).zip(&*self.best_center);
        for ((&position, &sum), &center) in members {
            self.moves[moved] =
                Move { position: self.first + position, center: center.wrapping_sub(1), sum };
            moved += usize::from(center > 0);
        }
        self.moves.truncate(moved);
    }
}

/// What each of `centers` new centers gains.
fn gained(shares: &Shares, moves: &[Moves], centers: usize) -> Vec<Share> {
    let mut sizes = vec![0; centers];
    for m in moves.iter().flat_map(|m| &m.moves) {
        sizes[m.center as usize] += 1;
    }
    let mut gained: Vec<Share> = sizes.into_iter().map(Share::with_capacity).collect();
    for task in moves {
        let members = &shares.get(task.share).members[task.first..];
        for m in &task.moves {
            gained[m.center as usize].push(members[m.position as usize], m.sum);
        }
    }
    gained
}

/// Takes out of each share what moves, which is by ascending share and position. The order of the
/// rest stays.
fn take_out(shares: &mut Shares, moves: &[Moves], per_task: usize) {
    let Shares { own, children } = shares;
    let shares = [own].into_iter().chain(children.iter_mut().map(|child| &mut child.share));
    let mut moves = moves;
    for (i, Share { members, sums }) in shares.enumerate() {
        let (here, rest) = moves.split_at(moves.iter().take_while(|m| m.share == i).count());
        moves = rest;
        // A share without tasks, or one that is whole in one, or all pieces in order.
        let kept: Vec<usize> = match here {
            [] => continue,
            [all] => vec![all.take_from(members, sums)],
            _ => {
                let pieces = members.par_chunks_mut(per_task).zip(sums.par_chunks_mut(per_task));
                let pieces = pieces.zip(here);
                pieces.map(|((members, sums), moves)| moves.take_from(members, sums)).collect()
            }
        };
        let mut end = 0;
        for (start, kept) in (0..).step_by(per_task).zip(kept) {
            if start > end {
                members.copy_within(start..start + kept, end);
                sums.copy_within(start..start + kept, end);
            }
            end += kept;
        }
        members.truncate(end);
        sums.truncate(end);
    }
}

impl Moves {
    /// Brings what stays of the task's members to their front. Returns how many.
    fn take_from(&self, members: &mut [Point], sums: &mut [f32]) -> usize {
        let leaving = |i: usize| self.moves.get(i).map_or(usize::MAX, |m| m.position as usize);
        let first = leaving(0).min(members.len());
        let (mut kept, mut left) = (first, 0);
        for position in first..members.len() {
            // Written over if it leaves; no branch depends on that.
            members[kept] = members[position];
            sums[kept] = sums[position];
            let leaves = usize::from(position == leaving(left));
            kept += 1 - leaves;
            left += leaves;
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_drops_out_would_not_have_moved() {
        let mut state = 7_u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let kernel = Kernel::best();
        let mut dropped = 0;
        for (dim, exponent) in [(1, 0), (2, 20), (3, -30), (16, 0), (16, -62), (40, 1)] {
            let scale = 2.0_f32.powi(exponent);
            for _ in 0..2_000 {
                let old: Vec<f32> = (0..dim).map(|_| scale * uniform()).collect();
                let new: Vec<f32> = (0..dim).map(|_| scale * uniform()).collect();
                // About half way between the two, where it is decided.
                let way = 0.5 + uniform() / 100_000.0;
                let member: Vec<f32> =
                    old.iter().zip(&new).map(|(old, new)| old + way * (new - old)).collect();
                let owned = kernel.sum(&member, &old);
                let offered = kernel.sum(&member, &new);
                let distance = space::distance(kernel.sum(&old, &new));
                for within in [0.25 * scale, 1024.0 * scale] {
                    let least = least_attracted(Slack::new(dim), distance, within);
                    if owned < least {
                        dropped += 1;
                        assert!(offered > owned || space::distance(offered) > within);
                    }
                }
            }
        }
        assert!(dropped > 1_000, "{dropped}");
    }
}
