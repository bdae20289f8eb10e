//! The top of a tree that is larger than memory: nodes in memory, each with the points that belong
//! to it, and to none of its children, in temporary files.
//!
//! A point belongs where [`crate::insert::locate`] would find it. As nodes gain children, points
//! that are spilled already may belong elsewhere; they are located again when they are read, and
//! move on. New children are placed behind the old ones, and a node is gone through after its
//! parent and before its children, in order. So a point that moves on always goes to a node that is
//! still to come.

use rayon::prelude::*;

use super::account::MOST_DEPTH;
use crate::external::spill::{ChainId, Chains};
use crate::insert::source::Source;
use crate::insert::split::Branch;
use crate::space::{self, Kernel, Level, Slack};
use crate::tree::extent::Extent;
use crate::values::error::TemporaryError;
use crate::values::ids::PointId;

/// A node of the top tree, by position.
pub(crate) type TopId = usize;

/// The root.
pub(crate) const TOP: TopId = 0;

/// A node.
pub(crate) struct TopNode {
    pub(crate) parent: Option<TopId>,
    /// Which of the parent's children it is.
    index: usize,
    pub(crate) level: Level,
    pub(crate) children: Vec<TopId>,
    /// Their centers, side by side.
    child_centers: Vec<f32>,
    /// So many of the first children were there when points below this node were spilled first.
    settled: usize,
    /// Steps from the root.
    pub(crate) depth: usize,
    /// At least the children on any path from here down.
    pub(crate) widest: u64,
    /// Points that belong to the node; those that coincide with the center are apart.
    pub(crate) own: ChainId,
    twins: Option<ChainId>,
    /// Largest sum of squares of a point in `own`.
    reach: f32,
    /// Largest sum of squares of a point that has been placed below.
    pub(crate) farthest: f32,
    /// Its number in the tree.
    pub(crate) number: u32,
    /// Points placed below.
    pub(crate) live: u32,
    /// Bounds of these (T8).
    pub(crate) extent: Extent,
}

/// The nodes, and the points that are not placed yet.
pub(crate) struct Top {
    pub(crate) dim: usize,
    kernel: Kernel,
    slack: Slack,
    root_center: Vec<f32>,
    pub(crate) nodes: Vec<TopNode>,
    pub(crate) chains: Chains,
}

/// Where a point belongs, and its sum of squares to that node's center.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) node: TopId,
    pub(crate) sum: f32,
}

/// What has to be looked at to tell whether the points of a node still belong there.
pub(crate) struct Route {
    /// From the root to the node.
    path: Vec<TopId>,
    path_centers: Vec<f32>,
    /// For each step of the path: children that came later and may attract some point of the node,
    /// and their centers.
    newcomers: Vec<(Vec<TopId>, Vec<f32>)>,
    /// Evaluations for each point, at most.
    pub(crate) charge: u64,
}

impl Route {
    /// The same way, which points leave for no newcomer.
    pub(crate) fn without_newcomers(mut self) -> Self {
        self.newcomers.clear();
        self.charge = self.path.len() as u64;
        self
    }
}

/// Rows located by one task.
const ROWS_PER_TASK: usize = 128;

impl Top {
    pub(crate) fn new(kernel: Kernel, slack: Slack, dim: usize, chains: Chains) -> Self {
        Top { dim, kernel, slack, root_center: Vec::new(), nodes: Vec::new(), chains }
    }

    /// Adds a node behind the children of `parent`.
    pub(crate) fn add(&mut self, parent: Option<TopId>, center: &[f32], level: Level) -> TopId {
        let id = self.nodes.len();
        let mut index = 0;
        match parent {
            Some(parent) => {
                index = self.nodes[parent].children.len();
                self.nodes[parent].children.push(id);
                self.nodes[parent].child_centers.extend_from_slice(center);
            }
            None => self.root_center = center.to_vec(),
        }
        self.nodes.push(TopNode {
            parent,
            index,
            level,
            depth: parent.map_or(0, |parent| self.nodes[parent].depth + 1),
            widest: 0,
            children: Vec::new(),
            child_centers: Vec::new(),
            settled: 0,
            own: self.chains.add(),
            twins: None,
            reach: 0.0,
            farthest: 0.0,
            number: 0,
            live: 0,
            extent: Extent::EMPTY,
        });
        id
    }

    /// Adds what a split of a sample of a node's points has found, down to the greatest depth.
    pub(crate) fn add_branches(&mut self, parent: TopId, branches: &[Branch], source: &Source<'_>) {
        let first = self.nodes[parent].children.is_empty();
        for branch in branches {
            let node = self.add(Some(parent), source.row(branch.center), branch.level);
            if self.nodes[node].depth < MOST_DEPTH {
                self.add_branches(node, &branch.body.children, source);
            }
        }
        self.widen(parent);
        if first {
            self.nodes[parent].settled = branches.len();
        }
    }

    /// Counts the children below a node again, because it has got more, and those above.
    pub(crate) fn widen(&mut self, node: TopId) {
        let mut node = Some(node);
        while let Some(at) = node {
            let TopNode { children, parent, .. } = &self.nodes[at];
            let below = children.iter().map(|&child| self.nodes[child].widest).max();
            let widest = children.len() as u64 + below.unwrap_or(0);
            node = *parent;
            self.nodes[at].widest = widest.max(self.nodes[at].widest);
        }
    }

    /// The children of the nodes above a node, and the most on a path below it.
    pub(crate) fn breadth(&self, node: TopId) -> u64 {
        let mut breadth = self.nodes[node].widest;
        let mut above = self.nodes[node].parent;
        while let Some(at) = above {
            breadth += self.nodes[at].children.len() as u64;
            above = self.nodes[at].parent;
        }
        breadth
    }

    /// Appends a point to where it belongs.
    pub(crate) fn push(
        &mut self,
        found: Found,
        id: PointId,
        row: &[f32],
    ) -> Result<(), TemporaryError> {
        let node = &mut self.nodes[found.node];
        node.reach = node.reach.max(found.sum);
        let chain = match found.sum > 0.0 {
            true => node.own,
            false => *node.twins.get_or_insert_with(|| self.chains.add()),
        };
        self.chains.push(chain, id, row)
    }

    /// Points that belong to a node itself, as far as is known.
    pub(crate) fn rows(&self, node: TopId) -> u64 {
        self.chains_of(node).map(|chain| self.chains.rows(chain)).sum()
    }

    /// Where those are.
    pub(crate) fn chains_of(&self, node: TopId) -> impl Iterator<Item = ChainId> + use<> {
        let TopNode { own, twins, .. } = self.nodes[node];
        std::iter::once(own).chain(twins)
    }

    /// The center of a node.
    pub(crate) fn center(&self, node: TopId) -> &[f32] {
        let TopNode { parent, index, .. } = self.nodes[node];
        match parent {
            Some(parent) => &self.nodes[parent].child_centers[index * self.dim..][..self.dim],
            None => &self.root_center,
        }
    }

    /// Forgets where the children of a node are: everything below it has been placed.
    pub(crate) fn close(&mut self, node: TopId) {
        let node = &mut self.nodes[node];
        node.child_centers = Vec::new();
        node.children = Vec::new();
    }

    /// The way to a node, with what has come up beside it.
    pub(crate) fn route(&self, node: TopId) -> Route {
        let mut path = vec![node];
        while let Some(parent) = self.nodes[path[path.len() - 1]].parent {
            path.push(parent);
        }
        path.reverse();
        let radius = space::distance(self.nodes[node].reach);
        let center = self.center(node);
        let newcomers: Vec<(Vec<TopId>, Vec<f32>)> = path
            .windows(2)
            .map(|step| {
                let above = &self.nodes[step[0]];
                let mut near = Vec::new();
                let mut centers = Vec::new();
                for &child in above.children[above.settled..].iter().filter(|&&c| c != step[1]) {
                    let new = &self.nodes[child];
                    let distance = space::distance(self.kernel.sum(center, self.center(child)));
                    let within = space::distance(new.level.pow4());
                    if !self.slack.excludes(distance, radius, within) {
                        near.push(child);
                        centers.extend_from_slice(self.center(child));
                    }
                }
                (near, centers)
            })
            .collect();
        let path_centers = path.iter().flat_map(|&n| self.center(n)).copied().collect();
        let met = newcomers.iter().flat_map(|(near, _)| near);
        let below = met.clone().map(|&near| self.nodes[near].widest).max().unwrap_or(0);
        let charge = path.len() as u64 + met.count() as u64 + below;
        Route { path, path_centers, newcomers, charge }
    }

    /// Where points that were spilled at the end of `route` belong now; with `below`, its children
    /// are looked at too. Points that stay at the end of the route raise `farthest` along it.
    /// Returns the number of distance evaluations.
    pub(crate) fn locate(
        &mut self,
        route: &Route,
        below: bool,
        points: &[f32],
        found: &mut Vec<Found>,
    ) -> u64 {
        let this = &*self;
        let end = route.path[route.path.len() - 1];
        let parts: Vec<(Vec<Found>, Vec<f32>, u64)> = points
            .par_chunks(ROWS_PER_TASK * self.dim)
            .map(|points| {
                let mut part = Vec::with_capacity(points.len() / this.dim);
                let mut farthest = vec![0.0f32; route.path.len()];
                let mut evaluations = 0;
                let mut sums = vec![0.0; route.path.len()];
                let mut scratch = Vec::new();
                for row in points.chunks_exact(this.dim) {
                    this.kernel.sums(row, &route.path_centers, &mut sums);
                    evaluations += sums.len() as u64;
                    let one = this.follow(route, below, row, &sums, &mut scratch, &mut evaluations);
                    if one.node == end {
                        farthest.iter_mut().zip(&sums).for_each(|(far, &sum)| *far = far.max(sum));
                    }
                    part.push(one);
                }
                (part, farthest, evaluations)
            })
            .collect();
        let mut evaluations = 0;
        for (part, farthest, count) in parts {
            found.extend(part);
            evaluations += count;
            for (&node, far) in route.path.iter().zip(farthest) {
                self.nodes[node].farthest = self.nodes[node].farthest.max(far);
            }
        }
        evaluations
    }

    fn follow(
        &self,
        route: &Route,
        below: bool,
        row: &[f32],
        path_sums: &[f32],
        scratch: &mut Vec<f32>,
        evaluations: &mut u64,
    ) -> Found {
        for (i, (near, centers)) in route.newcomers.iter().enumerate() {
            let stays = Found { node: route.path[i + 1], sum: path_sums[i + 1] };
            let best = self.nearest(near, centers, row, stays, scratch);
            *evaluations += near.len() as u64;
            if best.node != stays.node {
                return self.descend(best, row, scratch, evaluations);
            }
        }
        let last = route.path.len() - 1;
        let end = Found { node: route.path[last], sum: path_sums[last] };
        match below {
            true => self.descend(end, row, scratch, evaluations),
            false => end,
        }
    }

    /// From a node to where the point belongs.
    fn descend(
        &self,
        mut found: Found,
        row: &[f32],
        scratch: &mut Vec<f32>,
        evaluations: &mut u64,
    ) -> Found {
        while found.sum > 0.0 {
            let node = &self.nodes[found.node];
            let next = self.nearest(&node.children, &node.child_centers, row, found, scratch);
            *evaluations += node.children.len() as u64;
            if next.node == found.node {
                break;
            }
            found = next;
        }
        found
    }

    /// The nearest of `nodes` that covers the point and is nearer than `best`, else `best`; the
    /// first of equals.
    fn nearest(
        &self,
        nodes: &[TopId],
        centers: &[f32],
        row: &[f32],
        mut best: Found,
        sums: &mut Vec<f32>,
    ) -> Found {
        sums.clear();
        sums.resize(nodes.len(), 0.0);
        self.kernel.sums(row, centers, sums);
        for (&node, &sum) in nodes.iter().zip(&*sums) {
            if sum < best.sum && self.nodes[node].level.covers(sum) {
                best = Found { node, sum };
            }
        }
        best
    }
}
