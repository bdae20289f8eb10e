//! Writing finished segments before the commit, so that a transaction can be larger than memory.
//!
//! They go where the commit would put them: into space to which none of the last two commits
//! refers. Nothing refers to them until the commit's slot does. Should it never come, the file is
//! cut back to its old length; what lies in holes is free space as before.

use std::sync::Arc;

use rayon::prelude::*;

use super::column::{ChangedColumn, EarlyColumn, Written};
use super::commit_plan::writable_space;
use super::database::{Database, cut_back};
use crate::arena::free_space::FreeSpace;
use crate::arena::{Arena, Piece};
use crate::format::checksum::Origin;
use crate::values::error::{CommitError, StorageError};

/// The space that a transaction has taken so far.
pub(crate) struct Early {
    arena: Arc<Arena>,
    /// Number of the commit that the transaction will be.
    commit: u64,
    /// As of the newest commit, less what was written since.
    space: FreeSpace,
    /// Length of the file before.
    old_len: u64,
    bytes_written: u64,
    reserved: u64,
    kept: bool,
}

impl Early {
    /// Nothing written yet. Until the transaction ends there must be no other commit.
    pub(crate) fn new(db: &Database) -> Result<Self, CommitError> {
        let (commit, space) = writable_space(db)?;
        // It lies where this grows, and goes with what is cut off.
        db.forget_reserve();
        let old_len = db.arena.storage().len()?;
        let arena = db.arena.clone();
        Ok(Early {
            arena,
            commit,
            space,
            old_len,
            bytes_written: 0,
            reserved: old_len,
            kept: false,
        })
    }

    /// Writes the changed segments of `columns` that are full, and drops them from memory. An error
    /// leaves memory as it was.
    pub(crate) fn flush(
        &mut self,
        columns: &mut [&mut dyn EarlyColumn],
    ) -> Result<(), CommitError> {
        let mut places: Vec<Vec<(u64, u64)>> = Vec::with_capacity(columns.len());
        for column in columns.iter() {
            let spec = column.table().spec;
            let mut changed = column.changed();
            changed.retain(|&s| spec.rows_in(s, column.rows()) == spec.rows_per_segment);
            if let Some(written) = column.written() {
                for place in changed.iter().filter_map(|segment| written.get(segment)) {
                    self.space.free(place.address, place.bytes as u64);
                }
            }
            let stored = spec.stored_bytes(spec.rows_per_segment);
            let place = |segment| (segment, self.space.allocate(stored, spec.class));
            places.push(changed.into_iter().map(place).collect());
        }
        self.reserve()?;
        let mut settled: Vec<Vec<(u64, Written)>> = Vec::with_capacity(columns.len());
        let mut pieces = Vec::new();
        for (column, places) in columns.iter().zip(&places) {
            let spec = column.table().spec;
            let stored = spec.stored_bytes(spec.rows_per_segment);
            let first = pieces.len();
            pieces.extend(places.iter().map(|&(segment, address)| Piece {
                address,
                bytes: column.bytes(segment),
                stored,
            }));
            let written = |(&(segment, address), piece): (&(u64, u64), &Piece<'_>)| {
                let origin = Origin::segment(spec.array, segment);
                let crc = origin.checksum(self.commit, piece.bytes, stored);
                (segment, Written { address, birth: self.commit, crc, bytes: stored as u32 })
            };
            settled.push(places.par_iter().zip(&pieces[first..]).map(written).collect());
            self.bytes_written += (stored * places.len()) as u64;
        }
        self.arena.write_pieces(pieces)?;
        for (column, written) in columns.iter_mut().zip(settled) {
            column.settle(written);
        }
        Ok(())
    }

    /// Gives back what columns that will not be committed have written.
    pub(crate) fn forget(&mut self, columns: &[&dyn ChangedColumn]) {
        for place in columns.iter().filter_map(|column| column.written()).flat_map(|w| w.values()) {
            self.space.free(place.address, place.bytes as u64);
        }
    }

    /// Lets the file grow, so that a full disk shows here.
    fn reserve(&mut self) -> Result<(), CommitError> {
        let needed = self.space.used_end();
        if needed > self.reserved {
            // If somebody has cut the file, growth would hide it.
            self.arena.check_reach(self.reserved)?;
            let more = needed - self.reserved;
            self.arena.storage().allocate(self.reserved, more).map_err(|e| full(e, more))?;
            self.reserved = needed;
        }
        Ok(())
    }

    /// Number of the commit that was announced when the first segment was written.
    pub(super) fn commit(&self) -> u64 {
        self.commit
    }

    /// The map of space as it is now.
    pub(super) fn map(&self) -> FreeSpace {
        self.space.clone()
    }

    /// Length that the file must have.
    pub(super) fn reserved(&self) -> u64 {
        self.reserved
    }

    /// Bytes written so far.
    pub(super) fn bytes_written(&self) -> u64 {
        self.bytes_written
    }

    /// The file keeps its length.
    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Early {
    fn drop(&mut self) {
        if !self.kept && self.reserved > self.old_len {
            // If it fails, the next writer drops it.
            let _ = cut_back(self.arena.storage(), self.old_len);
        }
    }
}

fn full(e: StorageError, needed: u64) -> CommitError {
    match e.is_disk_full() {
        true => CommitError::DiskFull { needed, source: e },
        false => CommitError::Storage(e),
    }
}
