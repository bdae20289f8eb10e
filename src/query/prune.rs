//! Which children of a node may hold what a query looks for: by their boxes where there are any, else by their balls.

use super::heap::KBest;
use crate::error::ReadError;
use crate::metric::{self, BOX_GROUP, Found};
use crate::tree::columns::{ROOT, Range, Tree};
use crate::tree::extent;

/// Centers asked for ahead: after these the processor has seen where this goes.
const PREFETCHED_CENTERS: u32 = 12;

/// How far a query still looks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    /// Canonical distance.
    pub(crate) distance: f32,
    /// No row with a larger canonical sum is at that distance.
    pub(crate) sum: f32,
}

impl Reach {
    pub(crate) const EVERYTHING: Reach = Reach { distance: f32::INFINITY, sum: f32::INFINITY };

    /// Not at all: what is at distance 0.
    pub(crate) const HERE: Reach = Reach { distance: 0.0, sum: 0.0 };

    /// As far as the worst of the best.
    #[inline]
    pub(crate) fn of(best: &KBest) -> Self {
        Reach { distance: best.radius(), sum: best.sum_limit() }
    }
}

/// No distance is this.
const UNKNOWN: f32 = -1.0;

/// A node that may be worth a visit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) node: u32,
    /// A lower bound on what is below, in units that [`Prune::limit`] explains. Not negative.
    pub(crate) bound: f32,
    /// Canonical distance from the query to the center; [`UNKNOWN`] if it was not computed.
    distance: f32,
}

/// A way of bounding what is below a node from below.
pub(crate) trait Prune {
    /// Whether children met on the way down are weighed anew on the way back, when the reach is known, because that
    /// costs less than remembering them all.
    const SWEEPS_TWICE: bool;

    /// Whether the rows of a leaf are scanned together, rather than twins and bucket weighed by the distance to the center.
    const SCANS_LEAVES: bool;

    /// What a bound must not exceed.
    fn limit(tree: &Tree, reach: Reach) -> f32;

    fn root(tree: &Tree, query: &[f32]) -> Result<Candidate, ReadError>;

    /// Appends the children of one block that may hold something within reach, in order.
    fn sweep(
        tree: &Tree,
        query: &[f32],
        block: Range,
        reach: Reach,
        found: &mut Vec<Found>,
        out: &mut Vec<Candidate>,
    ) -> Result<(), ReadError>;

    /// Below which of `candidates` something near is found soonest, most likely.
    fn nearest(
        tree: &Tree,
        query: &[f32],
        candidates: &mut [Candidate],
    ) -> Result<Option<usize>, ReadError>;

    /// Asks for what a sweep of the children will read.
    fn prefetch_children(tree: &Tree, block: Range);

    /// Asks the system for it.
    fn ask_for_children(tree: &Tree, block: Range);

    /// Canonical distance from the query to the center of a candidate.
    fn distance(tree: &Tree, query: &[f32], candidate: Candidate) -> Result<f32, ReadError>;
}

/// By distance to the center less the radius, with the slack that makes it exact (B1). Bounds are distances.
pub(crate) struct Balls;

impl Prune for Balls {
    const SWEEPS_TWICE: bool = false;
    const SCANS_LEAVES: bool = false;

    #[inline]
    fn limit(_: &Tree, reach: Reach) -> f32 {
        reach.distance
    }

    fn root(tree: &Tree, query: &[f32]) -> Result<Candidate, ReadError> {
        let sum = tree.kernel.sum(query, tree.centers.row(ROOT as u64)?);
        Ok(Candidate { node: ROOT, bound: 0.0, distance: metric::distance(sum) })
    }

    fn sweep(
        tree: &Tree,
        query: &[f32],
        block: Range,
        reach: Reach,
        found: &mut Vec<Found>,
        out: &mut Vec<Candidate>,
    ) -> Result<(), ReadError> {
        let end = block.start as u64 + block.count as u64;
        let mut first = block.start as u64;
        while first < end {
            let centers = tree.centers.chunk(first, end - first)?;
            let radii = tree.radii.chunk(first, (centers.len() / tree.dim) as u64)?;
            let centers = &centers[..radii.len() * tree.dim];
            found.clear();
            tree.kernel.near_balls(query, centers, radii, tree.slack, reach.distance, found);
            for &Found { index, sum } in &*found {
                let distance = metric::distance(sum);
                let bound = tree.slack.lower_bound(distance, radii[index as usize]);
                if bound <= reach.distance as f64 {
                    // Rounded down.
                    let bound = (bound as f32).next_down().max(0.0);
                    out.push(Candidate { node: first as u32 + index, bound, distance });
                }
            }
            first += radii.len() as u64;
        }
        Ok(())
    }

    #[inline]
    fn nearest(
        _: &Tree,
        _: &[f32],
        candidates: &mut [Candidate],
    ) -> Result<Option<usize>, ReadError> {
        let mut nearest = None;
        let mut least = f32::INFINITY;
        for (i, candidate) in candidates.iter().enumerate() {
            if candidate.distance < least {
                least = candidate.distance;
                nearest = Some(i);
            }
        }
        Ok(nearest)
    }

    #[inline]
    fn prefetch_children(tree: &Tree, block: Range) {
        tree.radii.prefetch(block.start as u64, block.count as u64);
        tree.centers.prefetch(block.start as u64, block.count.min(PREFETCHED_CENTERS) as u64);
    }

    fn ask_for_children(tree: &Tree, block: Range) {
        tree.radii.will_need(block.start.into(), block.count.into());
        tree.centers.will_need(block.start.into(), block.count.into());
    }

    #[inline]
    fn distance(_: &Tree, _: &[f32], candidate: Candidate) -> Result<f32, ReadError> {
        Ok(candidate.distance)
    }
}

/// The rows of the boxes of a block: the first, and how many.
#[inline]
fn groups(block: Range) -> (u64, u64) {
    let last = block.start.saturating_add(block.count).saturating_sub(1);
    let (first, last) = (extent::place(block.start).0, extent::place(last).0);
    (first, last.saturating_sub(first) + 1)
}

/// By the gap between query and box. Bounds are filter sums (B3).
pub(crate) struct Boxes;

impl Prune for Boxes {
    const SWEEPS_TWICE: bool = true;
    const SCANS_LEAVES: bool = true;

    #[inline]
    fn limit(tree: &Tree, reach: Reach) -> f32 {
        tree.slack.filter_limit(reach.sum)
    }

    fn root(_: &Tree, _: &[f32]) -> Result<Candidate, ReadError> {
        Ok(Candidate { node: ROOT, bound: 0.0, distance: UNKNOWN })
    }

    fn sweep(
        tree: &Tree,
        query: &[f32],
        block: Range,
        reach: Reach,
        found: &mut Vec<Found>,
        out: &mut Vec<Candidate>,
    ) -> Result<(), ReadError> {
        if block.count == 0 {
            return Ok(());
        }
        let limit = Self::limit(tree, reach);
        let end = block.start + block.count;
        let (first, last) = (extent::place(block.start).0, extent::place(end - 1).0);
        tree.boxes.for_chunks(first, last - first + 1, |row, groups| {
            found.clear();
            tree.kernel.near_boxes(query, groups, limit, found);
            for &Found { index, sum } in &*found {
                let node = row as u32 * BOX_GROUP as u32 + index;
                if (block.start..end).contains(&node) {
                    out.push(Candidate { node, bound: sum, distance: UNKNOWN });
                }
            }
        })
    }

    /// Boxes overlap: where several hold the query, the one with the nearest center.
    #[inline]
    fn nearest(
        tree: &Tree,
        query: &[f32],
        candidates: &mut [Candidate],
    ) -> Result<Option<usize>, ReadError> {
        let mut nearest = None;
        let mut least = (f32::INFINITY, f32::INFINITY);
        for (i, candidate) in candidates.iter_mut().enumerate() {
            if candidate.bound <= least.0 {
                let distance = Self::distance(tree, query, *candidate)?;
                candidate.distance = distance;
                if (candidate.bound, distance) < least {
                    least = (candidate.bound, distance);
                    nearest = Some(i);
                }
            }
        }
        Ok(nearest)
    }

    #[inline]
    fn prefetch_children(tree: &Tree, block: Range) {
        let (first, count) = groups(block);
        tree.boxes.prefetch(first, count);
    }

    fn ask_for_children(tree: &Tree, block: Range) {
        let (first, count) = groups(block);
        tree.boxes.will_need(first, count);
    }

    fn distance(tree: &Tree, query: &[f32], candidate: Candidate) -> Result<f32, ReadError> {
        if candidate.distance != UNKNOWN {
            return Ok(candidate.distance);
        }
        let sum = tree.kernel.sum(query, tree.centers.row(candidate.node as u64)?);
        Ok(metric::distance(sum))
    }
}
