//! Whether the children that a node has won so far tell points apart.
//!
//! Where distances concentrate, children overlap: a point is about as far from the centers of all
//! of them as from its own neighbours, no child can be left out when its neighbours are looked for,
//! and to win more children is of no use. That shows in a sample: one member of a child, its
//! nearest of some others there, and the children that a query for that would skip. It decides only
//! whether a split goes on, so it may be wrong, and need not be rounded with care.

use super::redistribute::Shares;
use super::source::Point;
use super::split::{Share, Splitter};
use crate::space;

/// Members asked for their neighbours, at most, each of another child.
const SAMPLES: usize = 64;

/// Others of the same child that are looked at.
const OTHERS: usize = 32;

/// Children overlap if one in so many points of theirs, or fewer, would be skipped.
const SKIPPED_SHARE: u64 = 8;

/// Evaluations that [`overlap`] takes, at most.
pub(super) fn charge(shares: &Shares) -> u64 {
    let children = shares.children.len();
    (children.min(SAMPLES) * (children + OTHERS)) as u64
}

/// True if the children overlap, and the evaluations that it took to tell.
pub(super) fn overlap(splitter: &Splitter<'_>, shares: &Shares) -> (bool, u64) {
    let Splitter { kernel, source, .. } = splitter;
    let children = &shares.children;
    let stride = children.len().div_ceil(SAMPLES).max(1);
    let (mut met, mut skipped, mut evaluations) = (0, 0, 0);
    splitter.context.scratch.with(|scratch| {
        let centers = children.iter().map(|child| child.center);
        source.gather(centers, &mut scratch.centers);
        for (own, child) in children.iter().enumerate().step_by(stride) {
            let Share { members, sums } = &child.share;
            // A center alone says nothing of its neighbours.
            if members.len() < 2 {
                continue;
            }
            let sample = members.len() / 2;
            let row = source.row(members[sample]);
            let others: Vec<Point> = others(members.len(), sample).map(|i| members[i]).collect();
            source.gather(others.iter().copied(), &mut scratch.rows);
            scratch.sums.resize(others.len().max(children.len()), 0.0);
            let to_others = &mut scratch.sums[..others.len()];
            kernel.sums(row, &scratch.rows, to_others);
            let nearest = to_others.iter().copied().fold(sums[sample], f32::min);
            let nearest = space::distance(nearest);
            let to_centers = &mut scratch.sums[..children.len()];
            kernel.sums(row, &scratch.centers, to_centers);
            evaluations += (others.len() + children.len()) as u64;
            for (i, (child, &sum)) in children.iter().zip(&*to_centers).enumerate() {
                if i != own {
                    let points = child.share.members.len() as u64;
                    let gap = space::distance(sum) - space::distance(child.reach);
                    met += points;
                    skipped += if gap > nearest { points } else { 0 };
                }
            }
        }
    });
    (skipped * SKIPPED_SHARE <= met, evaluations)
}

/// Positions spread over `members`, without that of the sample.
fn others(members: usize, sample: usize) -> impl Iterator<Item = usize> {
    let count = members.min(OTHERS);
    (0..count).map(move |i| i * members / count).filter(move |&i| i != sample)
}
