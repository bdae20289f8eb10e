//! How the space of a file is used, as of one commit: in the file, or in memory while commits wait.

use std::collections::BTreeMap;

use super::database::{Database, History};
use super::space_check;
use super::space_ledger::SpaceLedger;
use crate::arena::free_space::FreeSpace;
use crate::format::DATA_START;
use crate::format::arrays::{Array, Entry};
use crate::format::checksum::Origin;
use crate::format::rows::FreedRow;
use crate::format::slot::CommitSlot;
use crate::values::error::ReadError;
use crate::values::memory;

/// Everything that says how space is used, as of one commit.
pub(super) struct Accounts {
    pub(super) slot: CommitSlot,
    pub(super) history: History,
    pub(super) map: FreeSpace,
    pub(super) retired: Vec<FreedRow>,
    /// The pieces of the store state.
    pub(super) state: Vec<(Origin, Entry)>,
}

impl Database {
    /// What the ledger of this handle says, while it has one, and as of which commit.
    fn ledger_says<T>(&self, of: impl Fn(&SpaceLedger) -> T) -> Option<(u64, T)> {
        let writer = self.writer.as_ref().filter(|_| !self.pins.is_reader())?;
        let writer = writer.lock().expect("unpoisoned");
        let ledger = writer.ledger.as_ref()?;
        Some((self.newest.get().commit, of(ledger)))
    }

    /// Everything that says how space is used: in the file, or, while commits wait, in memory.
    pub(super) fn accounts(&self) -> Result<Accounts, ReadError> {
        loop {
            let known = self.ledger_says(|ledger| (ledger.map(), ledger.retired()));
            let accounts = self.with_pins(|slot| {
                let Some(history) = self.history_of(slot)? else { return Ok(None) };
                let (map, retired) = match &known {
                    Some((_, known)) => known.clone(),
                    None => self.load_space(slot)?,
                };
                let state = space_check::state_pieces(self, slot)?;
                Ok(Some(Accounts { slot: *slot, history, map, retired, state }))
            })?;
            // Another thread may have committed since the ledger was asked.
            if known.is_none_or(|(commit, _)| commit == accounts.slot.commit) {
                return Ok(accounts);
            }
        }
    }

    /// Bytes of the file that are in use, and bytes that the next commits may reuse.
    pub(crate) fn space(&self) -> Result<(u64, u64), ReadError> {
        loop {
            let known = self.ledger_says(SpaceLedger::bytes);
            let (commit, used, file_bytes) = self.with_newest(|slot| {
                let (used, retired) = match known {
                    Some((_, bytes)) => bytes,
                    None => {
                        let (space, retired) = self.load_space(slot)?;
                        (space.used_bytes(), retired.iter().map(|row| row.bytes).sum())
                    }
                };
                Ok((slot.commit, used - retired, slot.file_bytes))
            })?;
            if known.is_none_or(|(as_of, _)| as_of == commit) {
                return Ok((used, file_bytes.saturating_sub(used)));
            }
        }
    }

    /// The words of the free map of a commit.
    fn free_map(&self, slot: &CommitSlot) -> Result<Vec<u64>, ReadError> {
        let table = self.state_table(slot, Array::FreeMap);
        table.check_claim()?;
        // A map of a file that was longer once is mostly zeros, which cost nothing.
        let rows = usize::try_from(table.root.rows).unwrap_or(usize::MAX);
        if !self.arena.has_stored(table.root.rows.saturating_mul(8))? {
            return Err(memory::refused::<u64>(rows, "the free map"));
        }
        let mut words = memory::zeroed(rows, "the free map")?;
        table.for_segments(|first, rows: &[u64]| {
            if rows.iter().any(|&word| word != 0) {
                words[first as usize..][..rows.len()].copy_from_slice(rows);
            }
            Ok(())
        })?;
        Ok(words)
    }

    /// The free map and the freed list of a commit.
    pub(crate) fn load_space(
        &self,
        slot: &CommitSlot,
    ) -> Result<(FreeSpace, Vec<FreedRow>), ReadError> {
        let words = self.free_map(slot)?;
        let space = FreeSpace::new(self.header.block_bytes, words, DATA_START);
        let block = self.header.block_bytes as u64;
        let mut freed = Vec::new();
        // By address, so that a range that is met twice is seen at once: the list cannot grow
        // beyond what is stored.
        let mut ends: BTreeMap<u64, u64> = BTreeMap::new();
        self.state_table(slot, Array::Freed).for_segments(|first, rows: &[FreedRow]| {
            memory::reserve(&mut freed, rows.len(), "the list of freed space")?;
            for (row, i) in rows.iter().zip(first..).filter(|(row, _)| row.bytes > 0) {
                let end = row.address.checked_add(row.bytes);
                let fits = end.is_some_and(|end| end <= slot.file_bytes)
                    && row.address >= DATA_START
                    && row.address % block == 0
                    && row.bytes % block == 0;
                let Some(end) = end.filter(|_| fits) else {
                    return Err(ReadError::row("freed", i, "range outside the file"));
                };
                let before = ends.range(..end).next_back();
                if before.is_some_and(|(_, &before)| before > row.address)
                    || !space.is_range_used(row.address, row.bytes)
                {
                    return Err(ReadError::row("freed", i, "ranges overlap, or are free already"));
                }
                ends.insert(row.address, end);
                freed.push(*row);
            }
            Ok(())
        })?;
        if space.used_end() > slot.file_bytes {
            return Err(ReadError::row("free_map", 0, "blocks in use beyond the end of the file"));
        }
        Ok((space, freed))
    }
}
