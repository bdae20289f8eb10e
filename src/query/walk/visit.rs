//! What every walk does at a node, and what walks count.

use crate::arena::pressure::Pressure;
use crate::query::scan::scan;
use crate::query::sink::Sink;
use crate::space::{self, Near};
use crate::tree::columns::{Links, Range, Tree};
use crate::tree::visit_limit::VisitLimit;
use crate::values::error::ReadError;

/// One walk, and what it works with. Each file beside this one says how it goes, for buffers `B` of
/// its own.
pub(super) struct Walk<'a, S, B> {
    pub(super) tree: &'a Tree,
    pub(super) query: &'a [f32],
    pub(super) sink: &'a mut S,
    pub(super) buffers: &'a mut B,
    pub(super) visits: &'a mut Visits,
}

/// What walks have taken, and what all of them need.
#[derive(Default)]
pub(in crate::query) struct Visits {
    /// Canonical distances computed; boxes count as one each.
    pub(in crate::query) evaluations: u64,
    /// Nodes visited by walks that go to the nearest first.
    pub(in crate::query) visits: u64,
    pub(super) found: Vec<Near>,
    pub(super) pressure: Pressure,
    pub(super) met: VisitLimit,
}

impl Visits {
    /// A search begins.
    pub(super) fn begin(&mut self) {
        self.forget();
        self.pressure.step();
    }

    /// Nothing has been met.
    pub(super) fn forget(&mut self) {
        self.met = VisitLimit::default();
    }

    /// Offers every point of a range of slots.
    pub(super) fn scan(
        &mut self,
        tree: &Tree,
        query: &[f32],
        range: Range,
        sink: &mut impl Sink,
    ) -> Result<(), ReadError> {
        self.met.slots(tree, range)?;
        self.evaluations += u64::from(range.count);
        scan(tree, query, range, sink, &mut self.found)
    }

    /// Offers the points of a node's own twin list and bucket. `distance`: from the query to its
    /// center.
    pub(super) fn own_points(
        &mut self,
        tree: &Tree,
        query: &[f32],
        node: u32,
        links: &Links,
        distance: f32,
        sink: &mut impl Sink,
    ) -> Result<(), ReadError> {
        if !links.twins_equal() {
            tree.for_twins(node, links, |range| self.scan(tree, query, range, sink))?;
        } else if distance <= sink.reach() {
            tree.for_twins(node, links, |range| {
                self.met.slots(tree, range)?;
                sink.offer_twins(tree, distance, range)
            })?;
        }
        if !tree.slack.excludes(distance, links.row.own_radius, sink.reach()) {
            tree.for_bucket(node, links, |range| self.scan(tree, query, range, sink))?;
        }
        Ok(())
    }

    /// The child with the nearest center, and its distance.
    #[inline]
    pub(super) fn nearest_child(
        &mut self,
        tree: &Tree,
        query: &[f32],
        node: u32,
        links: &Links,
    ) -> Result<Option<Near>, ReadError> {
        let mut nearest = Near::NONE;
        self.met.runs(tree, node, links)?;
        tree.for_children(node, links, |block| {
            self.met.children(tree, node, block)?;
            self.evaluations += u64::from(block.count);
            tree.centers.for_chunks(block.start.into(), block.count.into(), |first, centers| {
                let (place, sum) = tree.kernel.nearest(query, centers);
                let child = Near::new(space::distance(sum), first as u32 + place as u32);
                nearest = nearest.min(child);
            })
        })?;
        Ok(Some(nearest).filter(|&child| child != Near::NONE))
    }
}

/// Asks for the links of a node that may be visited.
#[inline]
pub(super) fn prefetch_links(tree: &Tree, node: u32) {
    tree.links.prefetch(node.into(), 1);
    tree.counts.prefetch(node.into(), 1);
}

/// Whether a node has no children and no later ranges.
#[inline]
pub(super) fn is_leaf(links: &Links) -> bool {
    links.row.child_count == 0 && links.run_count == 0
}

/// The slots of a subtree that is packed and has at most `rows` of them: a scan costs less than a
/// descent then.
#[inline]
pub(super) fn small_subtree(links: &Links, rows: u32) -> Option<Range> {
    links.packed().filter(|range| range.count <= rows)
}
