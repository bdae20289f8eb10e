//! The rows that a batch changes in place, collected first and applied in one sweep, array by array
//! and row by row, so that each touched segment is copied once.

use std::collections::BTreeMap;
use std::time::Instant;

use super::report::Work;
use crate::format::rows::{CountRow, LinkRow, NodeRow};
use crate::tree::columns::{Links, ROOT, Tree};
use crate::tree::extent::{self, Extent};
use crate::tree::{LEVELS, level_row};
use crate::values::error::ReadError;

/// Pending changes of existing rows.
#[derive(Default)]
pub(crate) struct Journal {
    /// Node to change of its live count.
    live: BTreeMap<u32, i64>,
    /// Node to the size of its contiguous range of slots; 0 if it has none any more.
    spans: BTreeMap<u32, u32>,
    centers: BTreeMap<u32, Vec<f32>>,
    radii: BTreeMap<u32, f32>,
    links: BTreeMap<u32, LinkRow>,
    /// Node to its later ranges and flags.
    later: BTreeMap<u32, Links>,
    extents: BTreeMap<u32, Extent>,
    nodes: BTreeMap<u32, NodeRow>,
    /// Word to bits that become set.
    tombstones: BTreeMap<u64, u64>,
    /// Level to change of its number of nodes.
    levels: BTreeMap<i16, i64>,
}

impl Journal {
    /// Changes the live count of a node and of all above it.
    pub(crate) fn add_live(&mut self, tree: &Tree, node: u32, delta: i64) -> Result<(), ReadError> {
        let mut node = Some(node);
        while let Some(n) = node {
            *self.live.entry(n).or_insert(0) += delta;
            node = tree.parent(n)?;
        }
        Ok(())
    }

    /// The slots of a node and of those above it are no longer one range: no flat scan.
    pub(crate) fn unpack(&mut self, tree: &Tree, node: u32) -> Result<(), ReadError> {
        let mut node = Some(node);
        while let Some(n) = node {
            // Above a node that is unpacked already, all are.
            let known = self.spans.insert(n, 0) == Some(0);
            if known || tree.counts.get(n as u64)?.span == 0 {
                break;
            }
            node = tree.parent(n)?;
        }
        Ok(())
    }

    pub(crate) fn set_span(&mut self, node: u32, span: u32) {
        self.spans.insert(node, span);
    }

    pub(crate) fn set_center(&mut self, node: u32, center: Vec<f32>) {
        self.centers.insert(node, center);
    }

    pub(crate) fn set_radius(&mut self, node: u32, radius: f32) {
        self.radii.insert(node, radius);
    }

    pub(crate) fn set_extent(&mut self, node: u32, extent: Extent) {
        self.extents.insert(node, extent);
    }

    pub(crate) fn set_links(&mut self, node: u32, links: Links) {
        self.links.insert(node, links.row);
        self.later.insert(node, links);
    }

    /// The row of a node as it will be, to be changed further.
    pub(crate) fn node(&mut self, tree: &Tree, node: u32) -> Result<&mut NodeRow, ReadError> {
        Ok(match self.nodes.entry(node) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(tree.nodes.get(node as u64)?)
            }
        })
    }

    /// Marks a slot as holding no live point.
    pub(crate) fn bury(&mut self, slot: u32) {
        *self.tombstones.entry(slot as u64 / 64).or_insert(0) |= 1 << (slot % 64);
    }

    pub(crate) fn add_level(&mut self, level: i16, delta: i64) {
        *self.levels.entry(level).or_insert(0) += delta;
    }

    /// Applies everything.
    pub(crate) fn apply(self, tree: &mut Tree, work: &mut Work) -> Result<(), ReadError> {
        let start = Instant::now();
        let entries = self.live.len()
            + self.spans.len()
            + self.centers.len()
            + self.radii.len()
            + self.links.len()
            + self.later.len()
            + self.extents.len()
            + self.nodes.len()
            + self.tombstones.len();
        work.counters.journal_entries += entries as u64;
        for (node, delta) in self.live {
            let mut row = tree.counts.get(node as u64)?;
            row.live = u32::try_from(row.live as i64 + delta)
                .map_err(|_| ReadError::row("counts", node as u64, "live count out of range"))?;
            tree.counts.set(node as u64, row)?;
        }
        for (node, span) in self.spans {
            let row = tree.counts.get(node as u64)?;
            tree.counts.set(node as u64, CountRow { span, ..row })?;
        }
        for (node, Links { run_start, run_count, flags, .. }) in self.later {
            let row = tree.counts.get(node as u64)?;
            tree.counts.set(node as u64, CountRow { run_start, run_count, flags, ..row })?;
        }
        for (node, center) in self.centers {
            tree.centers.edit(node as u64)?.copy_from_slice(&center);
        }
        for (node, radius) in self.radii {
            tree.radii.set(node as u64, radius)?;
        }
        for (node, extent) in self.extents {
            if tree.extent(node)? != extent {
                let (row, lane) = extent::place(node);
                extent.write(tree.boxes.edit(row)?, lane);
            }
        }
        for (node, row) in self.links {
            tree.links.set(node as u64, row)?;
        }
        for (node, row) in self.nodes {
            tree.nodes.set(node as u64, row)?;
        }
        for (word, bits) in self.tombstones {
            let row = tree.tombstones.get(word)?;
            tree.tombstones.set(word, row | bits)?;
        }
        work.times.build_cow += start.elapsed();
        let start = Instant::now();
        let levels = LEVELS.count() as u64;
        if tree.level_counts.len() < levels && !self.levels.is_empty() {
            let missing = vec![0; (levels - tree.level_counts.len()) as usize];
            tree.level_counts.push(&missing)?;
        }
        for (level, delta) in self.levels.into_iter().filter(|&(_, delta)| delta != 0) {
            let invalid = || ReadError::row("nodes", ROOT as u64, "level out of range");
            let row = level_row(level).ok_or_else(invalid)?;
            let count = tree.level_counts.get(row)?.checked_add_signed(delta);
            tree.level_counts.set(row, count.ok_or_else(invalid)?)?;
            work.counters.level_delta_nonzeros += 1;
        }
        work.times.level_prefix += start.elapsed();
        Ok(())
    }
}
