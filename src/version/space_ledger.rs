//! The space ledger: which blocks of the file may be written, and when. All rules of reuse are
//! here.
//!
//! A block is *live* while the newest commit reaches it, through a retained version or the store
//! state; *retired* when a commit has taken it out of that; *reusable* when nothing that may still
//! be opened needs it. It is about the writer's view alone: that versions share pieces only with
//! their neighbours is for [`super::sharing_graph`], and whether the ledger is right is for
//! [`super::space_check`].
//!
//! A commit that *waits* ([`crate::Durability::Deferred`]) is visible to this handle only; the
//! newest *durable* commit is what the disk has. Invariants:
//!
//! - **C1** The map marks exactly the preamble, what is live, and what is retired.
//! - **C2** What is retired lies behind the preamble, is marked, and is retired once.
//! - **C3** A commit writes only to blocks that the map does not mark as the commit before it left
//!   it; so not to what it makes reusable itself.
//! - **C4** What a durable commit T retires it lists in the file; the next durable commit U makes
//!   it reusable; the one after U may write to it. So while a commit is written, the states of the
//!   last two durable ones are whole.
//! - **C5** What a waiting commit retires that a durable one wrote is held: it stays marked, in
//!   memory, until the commit that makes the group durable lists it. From there on it goes the way
//!   of C4.
//! - **C6** What a waiting commit retires that the same group wrote is needed by nothing on the
//!   disk: it passes, and the next commit makes it reusable. (One commit longer than the disk asks
//!   for, because threads of this handle may be reading the state before.)

use std::collections::BTreeMap;

use crate::arena::free_space::FreeSpace;
use crate::format::arrays::Entry;
use crate::format::rows::FreedRow;
use crate::values::error::ReadError;
use crate::values::seeded_bug::SeededBug;

/// The accounts of space as of the newest commit.
pub(super) struct SpaceLedger {
    /// What is marked (C1).
    map: FreeSpace,
    /// Retired by the newest durable commit, and listed by it (C4).
    listed: Vec<FreedRow>,
    /// Retired by waiting commits, written by durable ones (C5): address to length, no two
    /// adjacent.
    held: BTreeMap<u64, u64>,
    /// Retired by the newest commit, which waits, and written by its own group (C6).
    passing: Vec<FreedRow>,
}

/// What a commit retires.
pub(super) enum Retired<'a> {
    /// Of a durable commit: what it lists.
    Listed(Vec<FreedRow>),
    /// Of one that waits: the pieces that it replaces.
    Waiting(&'a [Entry]),
}

impl SpaceLedger {
    /// As a durable commit has it in its free map and its list.
    pub(super) fn new(map: FreeSpace, listed: Vec<FreedRow>) -> Self {
        SpaceLedger { map, listed, held: BTreeMap::new(), passing: Vec::new() }
    }

    /// The map, for a commit to allocate from (C3): low, if the file is much longer than what is in
    /// use.
    pub(super) fn map(&self) -> FreeSpace {
        let mut map = self.map.clone();
        map.fill_holes();
        map.leave_tail();
        map
    }

    /// See [`FreeSpace::tail`].
    pub(super) fn tail(&self) -> Option<u64> {
        self.map.tail()
    }

    /// Bytes in use, and bytes retired among them.
    pub(super) fn bytes(&self) -> (u64, u64) {
        let listed = self.listed.iter().chain(&self.passing).map(|row| row.bytes);
        (self.map.used_bytes(), listed.sum::<u64>() + self.held.values().sum::<u64>())
    }

    /// Whether a commit may write to a range (C3).
    pub(super) fn may_be_written(&self, address: u64, bytes: u64) -> bool {
        SeededBug::ReuseAtOnce.is_planted() || self.map.is_range_free(address, bytes)
    }

    /// What is retired.
    pub(super) fn retired(&self) -> Vec<FreedRow> {
        let mut all = self.listed.clone();
        all.extend_from_slice(&self.passing);
        all.extend(self.held());
        all
    }

    /// What the next commit makes reusable.
    pub(super) fn released(&self, waits: bool) -> Vec<FreedRow> {
        match waits {
            true => self.passing.clone(),
            false => [&self.listed[..], &self.passing].concat(),
        }
    }

    /// What the next durable commit lists besides what it retires itself (C5).
    pub(super) fn held(&self) -> Vec<FreedRow> {
        self.held.iter().map(|(&address, &bytes)| FreedRow { address, bytes }).collect()
    }

    /// Goes on with a commit, which left `map`. `durable`: the newest commit on the disk before it.
    pub(super) fn follow(&mut self, map: FreeSpace, retired: Retired<'_>, durable: u64) {
        let pieces = match retired {
            Retired::Listed(rows) => {
                let apart = |pair: &[FreedRow]| pair[0].address + pair[0].bytes <= pair[1].address;
                assert!(rows.windows(2).all(apart), "C2: a block is retired once");
                *self = SpaceLedger::new(map, rows);
                return;
            }
            Retired::Waiting(pieces) => pieces,
        };
        self.map = map;
        self.passing.clear();
        for piece in pieces {
            let row = FreedRow { address: piece.address, bytes: piece.bytes.into() };
            if SeededBug::ReuseBeforeDurable.is_planted() || piece.birth > durable {
                self.passing.push(row);
            } else {
                self.hold(row);
            }
        }
    }

    fn hold(&mut self, FreedRow { mut address, mut bytes }: FreedRow) {
        let after = self.held.remove(&(address + bytes));
        bytes += after.unwrap_or(0);
        if let Some((&start, &len)) = self.held.range(..address).next_back() {
            assert!(start + len <= address, "C2: a block is retired once");
            if start + len == address {
                (address, bytes) = (start, len + bytes);
            }
        }
        let twice = self.held.range(address + 1..address + bytes).next().is_some();
        assert!(!twice && self.map.is_range_used(address, bytes), "C2: retired once, and marked");
        self.held.insert(address, bytes);
    }
}

/// Sorts ranges and joins those that touch. Two that overlap are damage (C2): something would be
/// retired twice.
pub(super) fn coalesce(ranges: &mut Vec<FreedRow>) -> Result<(), ReadError> {
    ranges.sort_unstable_by_key(|range| range.address);
    let mut joined: Vec<FreedRow> = Vec::with_capacity(ranges.len());
    // By differences: bytes of a file may say that a range goes beyond all addresses.
    for range in ranges.drain(..) {
        match joined.last_mut() {
            Some(last) if range.address - last.address < last.bytes => {
                return Err(ReadError::row("versions", 0, "two versions own the same block"));
            }
            Some(last) if range.address - last.address == last.bytes => last.bytes += range.bytes,
            _ => joined.push(range),
        }
    }
    *ranges = joined;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::arrays::Class;

    fn row(address: u64, bytes: u64) -> FreedRow {
        FreedRow { address, bytes }
    }

    fn piece(address: u64, bytes: u32, birth: u64) -> Entry {
        Entry { address, birth, crc: 0, bytes }
    }

    /// A ledger of blocks of 4096 bytes, the first twenty of which are in use.
    fn ledger() -> SpaceLedger {
        let mut map = FreeSpace::new(4096, Vec::new(), 4096);
        map.allocate(19 * 4096, Class::Topology);
        SpaceLedger::new(map, vec![row(2 * 4096, 4096)])
    }

    #[test]
    fn what_waits_is_held_or_passes_by_its_birth() {
        let mut ledger = ledger();
        let pieces = [
            piece(5 * 4096, 4096, 9),
            piece(7 * 4096, 4096, 10),
            piece(6 * 4096, 4096, 3),
            piece(12 * 4096, 8192, 11),
        ];
        ledger.follow(ledger.map(), Retired::Waiting(&pieces), 10);
        assert_eq!(ledger.held(), [row(5 * 4096, 3 * 4096)], "joined, whatever the order");
        assert_eq!(ledger.released(true), [row(12 * 4096, 8192)]);
        assert_eq!(ledger.released(false), [row(2 * 4096, 4096), row(12 * 4096, 8192)]);
        assert_eq!(ledger.bytes(), (20 * 4096, 6 * 4096));

        ledger.follow(ledger.map(), Retired::Waiting(&[piece(8 * 4096, 4096, 10)]), 10);
        assert_eq!(ledger.held(), [row(5 * 4096, 4 * 4096)], "goes on growing");
        assert!(ledger.released(true).is_empty(), "what passed has passed");

        ledger.follow(ledger.map(), Retired::Listed(vec![row(4096, 4096)]), 10);
        assert!(ledger.held().is_empty());
        assert_eq!(ledger.released(false), [row(4096, 4096)]);
    }

    #[test]
    #[should_panic(expected = "C2")]
    fn nothing_is_retired_twice() {
        let mut ledger = ledger();
        let pieces = [piece(5 * 4096, 8192, 1), piece(6 * 4096, 4096, 1)];
        ledger.follow(ledger.map(), Retired::Waiting(&pieces), 10);
    }

    #[test]
    #[should_panic(expected = "C2")]
    fn nothing_is_retired_that_is_not_in_use() {
        let mut ledger = ledger();
        ledger.follow(ledger.map(), Retired::Waiting(&[piece(50 * 4096, 4096, 1)]), 10);
    }

    #[test]
    fn ranges_are_joined_and_overlaps_are_damage() {
        let mut ranges = vec![row(8192, 4096), row(0, 4096), row(4096, 4096), row(20_480, 4096)];
        coalesce(&mut ranges).unwrap();
        assert_eq!(ranges, [row(0, 12_288), row(20_480, 4096)]);
        assert!(coalesce(&mut vec![row(0, 8192), row(4096, 4096)]).is_err());
        let far = u64::MAX - 4095;
        assert!(coalesce(&mut vec![row(far, 8192), row(far, 4096)]).is_err());
        coalesce(&mut vec![row(far - 4096, 4096), row(far, 8192)]).unwrap();
    }
}
