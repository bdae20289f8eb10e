//! Stage: points move to new centers that are nearer than their present ones.
//!
//! A point within 2^k of a new center, and strictly nearer to it than to its present center, moves there; among several
//! to the nearest, and on a tie to the earlier in priority. Distances are blocked tiles, new centers by members, over
//! members gathered side by side: gathering at random costs more than the arithmetic.

use rayon::prelude::*;

use super::report::Work;
use super::scratch::Scratch;
use super::source::Point;
use super::split::{Share, Splitter};
use crate::metric::{self, Level};

/// Members gathered for one tile: as many as fit the first-level cache, within limits.
fn members_per_tile(dim: usize) -> usize {
    (32 * 1024 / (4 * dim)).clamp(16, 1024)
}

/// New centers per tile, so that the tile's sums stay in cache.
const CENTERS_PER_TILE: usize = 64;

/// Fewer pairs than this are not worth another thread.
const PARALLEL_PAIRS: usize = 1 << 15;

/// The shares of a node that is being split: its own, and those of the children won so far.
pub(crate) struct Shares {
    pub(crate) own: Share,
    pub(crate) children: Vec<Child>,
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
    /// 0 is the own share, i + 1 that of child i.
    share: usize,
    first: usize,
    members: &'a [Point],
    sums: &'a [f32],
    centers: std::sync::Arc<Vec<u32>>,
}

/// A member that found a nearer center.
struct Move {
    position: u32,
    center: u32,
    sum: f32,
}

/// Makes each of `centers` a child at `level` and moves to it what it attracts, from the own share and from earlier
/// children.
pub(crate) fn redistribute(
    splitter: &Splitter<'_>,
    shares: &mut Shares,
    level: Level,
    centers: &[Point],
    work: &mut Work,
) {
    let dim = splitter.source.dim;
    let mut center_rows = Vec::new();
    splitter.source.gather(centers, &mut center_rows);
    let tasks = plan_tasks(splitter, shares, level, &center_rows, work);
    let pairs: usize = tasks.iter().map(|t| t.members.len() * t.centers.len()).sum();
    work.counters.distance_evaluations += pairs as u64;
    let run = |task: &Task<'_>| {
        splitter
            .context
            .scratch
            .with(|scratch| find_moves(splitter, task, level, &center_rows, scratch))
    };
    let moves: Vec<Vec<Move>> = match pairs >= PARALLEL_PAIRS {
        true => tasks.par_iter().map(run).collect(),
        false => tasks.iter().map(run).collect(),
    };
    let moves: Vec<(usize, usize, Vec<Move>)> =
        tasks.iter().zip(moves).map(|(task, moves)| (task.share, task.first, moves)).collect();
    drop(tasks);
    debug_assert_eq!(center_rows.len(), centers.len() * dim);

    let mut gained: Vec<Share> = centers.iter().map(|_| Share::default()).collect();
    let mut start = 0;
    while start < moves.len() {
        let share = moves[start].0;
        let end = start + moves[start..].iter().take_while(|m| m.0 == share).count();
        let from = match share {
            0 => &mut shares.own,
            i => &mut shares.children[i - 1].share,
        };
        let here = moves[start..end].iter().flat_map(|(_, first, moves)| {
            moves.iter().map(move |m| (first + m.position as usize, m))
        });
        work.counters.redistributed += take_out(from, here, &mut gained);
        start = end;
    }
    for (&center, share) in centers.iter().zip(gained) {
        let reach = share.sums.iter().copied().fold(0.0, f32::max);
        shares.children.push(Child { center, level, share, reach });
    }
}

/// Which new centers can attract members of which share. A child's share is skipped for a center so far away that no
/// member can be within 2^k of it, or nearer to it than to its own center.
fn plan_tasks<'a>(
    splitter: &Splitter<'_>,
    shares: &'a Shares,
    level: Level,
    center_rows: &[f32],
    work: &mut Work,
) -> Vec<Task<'a>> {
    let dim = splitter.source.dim;
    let count = center_rows.len() / dim;
    let within = metric::distance(level.pow4());
    let mut tasks = Vec::new();
    let mut add = |index: usize, share: &'a Share, centers: Vec<u32>| {
        let per_task = members_per_tile(dim) * 4;
        let centers = std::sync::Arc::new(centers);
        let chunks = share.members.chunks(per_task).zip(share.sums.chunks(per_task));
        tasks.extend(chunks.enumerate().map(|(i, (members, sums))| Task {
            share: index,
            first: i * per_task,
            members,
            sums,
            centers: centers.clone(),
        }));
    };
    add(0, &shares.own, (0..count as u32).collect());
    let mut sums = vec![0.0; count];
    for (i, child) in shares.children.iter().enumerate() {
        splitter.kernel.sums(splitter.source.row(child.center), center_rows, &mut sums);
        work.counters.distance_evaluations += count as u64;
        let radius = metric::distance(child.reach);
        let near: Vec<u32> = (0..count as u32)
            .filter(|&c| {
                let distance = metric::distance(sums[c as usize]);
                !splitter.slack.excludes(distance, radius, within.min(radius))
            })
            .collect();
        work.counters.bound_hits += (count - near.len()) as u64;
        if !near.is_empty() {
            add(i + 1, &child.share, near);
        }
    }
    tasks
}

fn find_moves(
    splitter: &Splitter<'_>,
    task: &Task<'_>,
    level: Level,
    center_rows: &[f32],
    scratch: &mut Scratch,
) -> Vec<Move> {
    let dim = splitter.source.dim;
    let tile = members_per_tile(dim);
    let limit = level.pow4().next_up();
    let Scratch { rows, centers, sums, best, best_center, .. } = scratch;
    let all = task.centers.len() * dim == center_rows.len();
    if !all {
        centers.clear();
        for &center in task.centers.iter() {
            let start = center as usize * dim;
            centers.extend_from_slice(&center_rows[start..start + dim]);
        }
    }
    let center_rows = if all { center_rows } else { centers };
    let mut moves = Vec::new();
    for (i, (members, owned)) in task.members.chunks(tile).zip(task.sums.chunks(tile)).enumerate() {
        splitter.source.gather(members, rows);
        best.clear();
        best.extend(owned.iter().map(|&sum| sum.min(limit)));
        best_center.clear();
        best_center.resize(members.len(), u32::MAX);
        for (block, block_rows) in center_rows.chunks(CENTERS_PER_TILE * dim).enumerate() {
            let count = block_rows.len() / dim;
            sums.clear();
            sums.resize(count * members.len(), 0.0);
            splitter.kernel.tile(block_rows, rows, dim, sums);
            for (c, sums) in sums.chunks_exact(members.len()).enumerate() {
                let center = (block * CENTERS_PER_TILE + c) as u32;
                for ((best, best_center), &sum) in best.iter_mut().zip(&mut *best_center).zip(sums)
                {
                    // A tie stays where it is.
                    if sum < *best {
                        *best = sum;
                        *best_center = center;
                    }
                }
            }
        }
        for (j, &center) in best_center.iter().enumerate().filter(|&(_, &c)| c != u32::MAX) {
            let position = (i * tile + j) as u32;
            moves.push(Move { position, center: task.centers[center as usize], sum: best[j] });
        }
    }
    moves
}

/// Moves members (ascending positions) out of a share; the order of the rest stays.
fn take_out<'a>(
    from: &mut Share,
    moves: impl Iterator<Item = (usize, &'a Move)>,
    to: &mut [Share],
) -> u64 {
    let mut moves = moves.peekable();
    if moves.peek().is_none() {
        return 0;
    }
    let before = from.members.len();
    let first = moves.peek().map_or(before, |(position, _)| *position);
    let mut kept = first;
    for position in first..before {
        if let Some((_, m)) = moves.next_if(|(at, _)| *at == position) {
            to[m.center as usize].push(from.members[position], m.sum);
        } else {
            from.members[kept] = from.members[position];
            from.sums[kept] = from.sums[position];
            kept += 1;
        }
    }
    from.members.truncate(kept);
    from.sums.truncate(kept);
    (before - kept) as u64
}
