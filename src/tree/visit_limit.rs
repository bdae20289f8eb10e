//! The bound on a walk over a damaged tree: a search, a check, a plan.
//!
//! A sound tree has no node below two others, no slot in two of them, and no later range that two
//! have. So a walk that meets more of any than there are has been led astray, and whatever damaged
//! links say, work and lists stay in proportion to the tree. What is met is counted before anything
//! is done with it.

use super::columns::too_many_runs;
use crate::tree::columns::{Links, Range, Tree, too_many_nodes, too_many_slots};
use crate::values::error::ReadError;

/// How much of a tree a walk has met.
#[derive(Default)]
pub(crate) struct VisitLimit {
    children: u64,
    slots: u64,
    runs: u64,
}

/// So often a walk may look through the later ranges of one node: for children, bucket and twins,
/// on the way down and back.
const LOOKS: u64 = 4;

impl VisitLimit {
    /// Notes a block of children of `node`.
    #[inline]
    pub(crate) fn children(
        &mut self,
        tree: &Tree,
        node: u32,
        block: Range,
    ) -> Result<(), ReadError> {
        self.children += u64::from(block.count);
        match self.children <= u64::from(tree.node_rows()) {
            true => Ok(()),
            false => Err(too_many_nodes(node)),
        }
    }

    /// Notes that the later ranges of a node are about to be looked through.
    #[inline]
    pub(crate) fn runs(&mut self, tree: &Tree, node: u32, links: &Links) -> Result<(), ReadError> {
        if links.run_count == 0 {
            return Ok(());
        }
        self.runs += u64::from(links.run_count);
        match self.runs <= LOOKS * tree.runs.len() {
            true => Ok(()),
            false => Err(too_many_runs(node)),
        }
    }

    /// Forgets the children, which are met once more on the way back.
    pub(crate) fn reset_children(&mut self) {
        self.children = 0;
    }

    /// Notes a range of slots that one node has.
    #[inline]
    pub(crate) fn slots(&mut self, tree: &Tree, range: Range) -> Result<(), ReadError> {
        self.slots += u64::from(range.count);
        match self.slots <= u64::from(tree.slots()) {
            true => Ok(()),
            false => Err(too_many_slots(range.start)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::rows::{self, CountRow, LinkRow, RunRow};
    use crate::query::{ball, knn, walk};
    use crate::store::Store;
    use crate::values::options::{CreateOptions, OpenOptions};

    /// A search of a tree whose rows have been changed is refused before it has cost much.
    fn search_damaged(dim: usize, damage: impl Fn(&mut Tree, u32, &mut LinkRow, &mut CountRow)) {
        let mut state = 11_u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32
        };
        let points: Vec<f32> = (0..6000 * dim).map(|_| uniform()).collect();
        let mut store = Store::in_memory(CreateOptions::new(dim), OpenOptions::new()).unwrap();
        store.insert(&points).unwrap();
        let (version, _pin) = store.core.db.newest_version().unwrap();
        let mut tree = Tree::open(&store.core.db, &version.roots).unwrap();
        for node in 0..tree.node_rows() {
            let mut link = tree.links.get(node.into()).unwrap();
            let mut count = tree.counts.get(node.into()).unwrap();
            damage(&mut tree, node, &mut link, &mut count);
            tree.links.set(node.into(), link).unwrap();
            tree.counts.set(node.into(), count).unwrap();
        }
        let most = 3 * u64::from(tree.node_rows()) + u64::from(tree.slots());
        for query in points.chunks_exact(dim).take(10) {
            let mut scratch = knn::Scratch::default();
            assert!(knn::knn(&tree, query, 5, &mut scratch).is_err());
            assert!(scratch.evaluations() <= most, "{} of {most}", scratch.evaluations());
            let mut scratch = walk::Scratch::default();
            assert!(ball::within(&tree, query, 1e30, &mut scratch, &mut Vec::new()).is_err());
            assert!(scratch.evaluations() <= most, "{} of {most}", scratch.evaluations());
        }
    }

    #[test]
    fn nodes_below_several_others_are_an_error() {
        for dim in [3, 12] {
            search_damaged(dim, |tree, node, link, count| {
                (link.child_start, link.child_count) = (node + 1, tree.node_rows() - node - 1);
                count.span = 0;
            });
        }
    }

    #[test]
    fn later_ranges_of_several_nodes_are_an_error() {
        for dim in [3, 12] {
            search_damaged(dim, |tree, node, _, count| {
                if node == 0 {
                    let run = RunRow { start: 0, count: 1, kind: rows::RUN_BUCKET };
                    tree.runs.push(&[run; 1000]).unwrap();
                }
                (count.run_start, count.run_count, count.span) = (0, 1000, 0);
            });
        }
    }

    #[test]
    fn slots_of_several_nodes_are_an_error() {
        for dim in [3, 12] {
            search_damaged(dim, |tree, _, link, count| {
                (link.slot_start, link.twin_count) = (0, 0);
                (link.bucket_count, link.own_radius) = (tree.slots(), f32::INFINITY);
                count.span = 0;
            });
        }
    }
}
