//! Everything within a reach that does not shrink: each node that may have some of it is visited,
//! in any order.

use super::visit::Walk;
use crate::query::sink::Sink;
use crate::space;
use crate::tree::columns::ROOT;
use crate::values::error::ReadError;

/// Buffers, reused from one walk to the next.
#[derive(Default)]
pub(super) struct Buffers {
    /// Node, canonical distance to its center.
    pending: Vec<(u32, f32)>,
    sums: Vec<f32>,
}

impl<S: Sink> Walk<'_, S, Buffers> {
    /// Offers all that is within reach.
    pub(super) fn run(self) -> Result<(), ReadError> {
        let Walk { tree, query, sink, buffers: Buffers { pending, sums }, visits } = self;
        pending.clear();
        if tree.node_rows() > 0 {
            let sum = tree.kernel.sum(query, tree.centers.row(ROOT.into())?);
            visits.evaluations += 1;
            pending.push((ROOT, space::distance(sum)));
        }
        while let Some((node, distance)) = pending.pop() {
            let (radius, reach) = (tree.radii.get(node.into())?, sink.reach());
            if tree.slack.excludes(distance, radius, reach) {
                continue;
            }
            if tree.slack.includes(distance, radius, reach) && sink.offer_subtree(tree, node)? {
                continue;
            }
            let links = tree.link(node)?;
            visits.met.runs(tree, node, &links)?;
            visits.own_points(tree, query, node, &links, distance, sink)?;
            tree.for_children(node, &links, |block| {
                visits.met.children(tree, node, block)?;
                visits.evaluations += u64::from(block.count);
                tree.sums(&tree.centers, block, query, sums)?;
                let numbers = block.start..block.start + block.count;
                pending.extend(numbers.zip(sums.iter().map(|&sum| space::distance(sum))));
                Ok(())
            })?;
        }
        Ok(())
    }
}
