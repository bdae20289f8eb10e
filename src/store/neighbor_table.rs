//! The answers to many queries.

use crate::query::Neighbor;

/// The neighbours of many queries: one row each, as long as the query has neighbours.
#[derive(Clone, Debug, PartialEq)]
pub struct NeighborTable {
    /// Where each row begins, and where the last one ends.
    offsets: Vec<usize>,
    neighbors: Vec<Neighbor>,
    evaluations: u64,
}

impl NeighborTable {
    /// A table of nothing, with room for the offsets of so many queries.
    pub(super) fn with_room(queries: usize) -> Self {
        let mut offsets = Vec::with_capacity(queries + 1);
        offsets.push(0);
        NeighborTable { offsets, neighbors: Vec::new(), evaluations: 0 }
    }

    /// A table of rows that are equally long.
    pub(super) fn of_equal_rows(
        queries: usize,
        per_query: usize,
        neighbors: Vec<Neighbor>,
        evaluations: u64,
    ) -> Self {
        assert_eq!(neighbors.len(), queries * per_query, "rows are whole");
        let offsets = (0..=queries).map(|query| query * per_query).collect();
        NeighborTable { offsets, neighbors, evaluations }
    }

    /// Adds rows of these lengths.
    pub(super) fn extend(
        &mut self,
        mut neighbors: Vec<Neighbor>,
        lengths: &[usize],
        evaluations: u64,
    ) {
        let mut end = self.neighbors.len();
        self.offsets.extend(lengths.iter().map(|length| {
            end += length;
            end
        }));
        match self.neighbors.is_empty() {
            true => self.neighbors = neighbors,
            false => self.neighbors.append(&mut neighbors),
        }
        assert_eq!(self.neighbors.len(), end, "rows are whole");
        self.evaluations += evaluations;
    }

    /// Of each row, which is in order, what is at most `radius` away.
    pub(super) fn within(&self, radius: f32) -> Self {
        let mut cut = NeighborTable::with_room(self.queries());
        cut.evaluations = self.evaluations;
        for row in self.iter() {
            let near = &row[..row.partition_point(|neighbor| neighbor.distance <= radius)];
            cut.neighbors.extend_from_slice(near);
            cut.offsets.push(cut.neighbors.len());
        }
        cut
    }

    /// Number of queries.
    pub fn queries(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The neighbours of query `query`, in the order (distance, id), unless they were asked for
    /// unsorted.
    ///
    /// # Panics
    ///
    /// If there is no such query.
    pub fn row(&self, query: usize) -> &[Neighbor] {
        assert!(query < self.queries(), "there are {} queries", self.queries());
        &self.neighbors[self.offsets[query]..self.offsets[query + 1]]
    }

    /// The rows, query by query.
    pub fn iter(&self) -> impl Iterator<Item = &[Neighbor]> {
        self.offsets.windows(2).map(|row| &self.neighbors[row[0]..row[1]])
    }

    /// Where each row begins among [`NeighborTable::neighbors`], and where the last one ends: one
    /// more than there are queries.
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// The rows, one after the other.
    pub fn neighbors(&self) -> &[Neighbor] {
        &self.neighbors
    }

    /// The rows, one after the other.
    pub(super) fn into_neighbors(self) -> Vec<Neighbor> {
        self.neighbors
    }

    /// Canonical distances computed for the whole table.
    pub fn distance_evaluations(&self) -> u64 {
        self.evaluations
    }
}
