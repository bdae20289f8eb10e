//! The row of a version: what it holds and where its arrays begin.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::arrays::{ArrayRoot, DATA_ARRAYS};
use super::rows::NONE;

/// Bytes kept of a version's message.
pub(crate) const MESSAGE_BYTES: usize = 256;

/// Number of counters kept with a version, in the order of [`crate::Counters`].
pub(crate) const COUNTERS: usize = 15;

/// `VersionRow::kind`: only inserts.
pub(crate) const KIND_INSERT: u8 = 1;
/// `VersionRow::kind`: only deletes.
pub(crate) const KIND_DELETE: u8 = 2;
/// `VersionRow::kind`: inserts and deletes.
pub(crate) const KIND_MIXED: u8 = 3;
/// `VersionRow::kind`: the points of the version before, packed.
pub(crate) const KIND_COMPACT: u8 = 4;
/// `VersionRow::kind`: the points of its parent, an older version.
pub(crate) const KIND_RESTORE: u8 = 5;

/// The version record: see `format-spec.md`, section "Version row".
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct VersionRow {
    pub(crate) version: u64,
    pub(crate) parent: u64,
    pub(crate) commit: u64,
    pub(crate) commit_lineage: [u8; 16],
    pub(crate) time_ns: u64,
    /// Live points.
    pub(crate) points: u64,
    /// Points held, deleted ones included.
    pub(crate) held: u64,
    pub(crate) added: u64,
    pub(crate) removed: u64,
    pub(crate) bytes_written: u64,
    /// The next automatic id.
    pub(crate) next_id: u64,
    /// 1 if `next_id` has passed the end of `u64`.
    pub(crate) ids_exhausted: u8,
    pub(crate) kind: u8,
    pub(crate) message_bytes: u16,
    pub(crate) reserved: [u8; 4],
    pub(crate) counters: [u64; COUNTERS],
    pub(crate) message: [u8; MESSAGE_BYTES],
    pub(crate) roots: [ArrayRoot; DATA_ARRAYS],
    /// When the version expired; 0 if it is retained. An expired version has no roots.
    pub(crate) expired_ns: u64,
    /// The rule by which it expired, as in the slot.
    pub(crate) expired_keep_last: u64,
    pub(crate) expired_keep_for_ns: u64,
    pub(crate) reserved_tail: [u8; 8],
}

const _: () = assert!(size_of::<VersionRow>() == 1024);

impl VersionRow {
    /// The row of version 0: no points, no arrays.
    pub(crate) fn empty() -> Self {
        VersionRow {
            version: 0,
            parent: 0,
            commit: 0,
            commit_lineage: [0; 16],
            time_ns: 0,
            points: 0,
            held: 0,
            added: 0,
            removed: 0,
            bytes_written: 0,
            next_id: 0,
            ids_exhausted: 0,
            kind: 0,
            message_bytes: 0,
            reserved: [0; 4],
            counters: [0; COUNTERS],
            message: [0; MESSAGE_BYTES],
            roots: [ArrayRoot::default(); DATA_ARRAYS],
            expired_ns: 0,
            expired_keep_last: 0,
            expired_keep_for_ns: 0,
            reserved_tail: [0; 8],
        }
    }

    /// Checks what does not depend on other records.
    pub(crate) fn check(&self, version: u64) -> Result<(), &'static str> {
        if self.version != version {
            return Err("version row of another version");
        }
        if self.parent >= version {
            return Err("parent is not an older version");
        }
        if !(KIND_INSERT..=KIND_RESTORE).contains(&self.kind) {
            return Err("unknown kind of version");
        }
        if self.ids_exhausted > 1 || self.reserved != [0; 4] || self.reserved_tail != [0; 8] {
            return Err("reserved bytes of a version row are not zero");
        }
        let no_roots = [ArrayRoot::default(); DATA_ARRAYS];
        let rule = (self.expired_keep_last, self.expired_keep_for_ns);
        match self.is_expired() {
            true if self.roots != no_roots => return Err("an expired version has roots"),
            false if rule != (0, 0) => return Err("a retained version has a rule of its end"),
            _ => {}
        }
        if self.points > self.held || self.held >= u64::from(NONE) {
            return Err("a version has more points than slots, or more than there can be");
        }
        let bytes = self.message_bytes as usize;
        if self.message.iter().skip(bytes).any(|&b| b != 0) {
            return Err("length of a version's message does not fit the message");
        }
        if bytes > MESSAGE_BYTES || std::str::from_utf8(&self.message[..bytes]).is_err() {
            return Err("message of a version is not text");
        }
        Ok(())
    }

    /// True if the version can no longer be opened.
    pub(crate) fn is_expired(&self) -> bool {
        self.expired_ns != 0
    }

    /// The row once the version has expired: what it was, without what it held.
    pub(crate) fn expired(&self, time_ns: u64, keep_last: u64, keep_for_ns: u64) -> Self {
        VersionRow {
            roots: [ArrayRoot::default(); DATA_ARRAYS],
            expired_ns: time_ns,
            expired_keep_last: keep_last,
            expired_keep_for_ns: keep_for_ns,
            ..*self
        }
    }

    /// The message; empty if it is not text, which [`VersionRow::check`] reports.
    pub(crate) fn message(&self) -> &str {
        let bytes = (self.message_bytes as usize).min(MESSAGE_BYTES);
        std::str::from_utf8(&self.message[..bytes]).unwrap_or("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A changed bit is refused, or is one of a field that says something.
    #[test]
    fn each_bit_of_a_version_row_counts() {
        use std::mem::offset_of;
        let mut good =
            VersionRow { version: 3, parent: 2, kind: KIND_INSERT, ..VersionRow::empty() };
        good.message[..5].copy_from_slice(b"first");
        good.message_bytes = 5;
        let bytes = |start: usize, len: usize| start..start + len;
        let refused = [
            bytes(offset_of!(VersionRow, version), 8),
            bytes(offset_of!(VersionRow, reserved), 4),
            bytes(offset_of!(VersionRow, message) + 5, MESSAGE_BYTES - 5),
            bytes(offset_of!(VersionRow, expired_keep_last), 16),
            bytes(offset_of!(VersionRow, reserved_tail), 8),
        ];
        // Refused for some values only.
        let partly = [
            bytes(offset_of!(VersionRow, parent), 8),
            bytes(offset_of!(VersionRow, points), 16),
            bytes(offset_of!(VersionRow, ids_exhausted), 4),
            bytes(offset_of!(VersionRow, message), 5),
        ];
        for (byte, changed) in crate::format::with_one_bit_changed(&good) {
            let is_in =
                |ranges: &[std::ops::Range<usize>]| ranges.iter().any(|r| r.contains(&byte));
            match changed.check(3) {
                Ok(()) => assert!(!is_in(&refused), "byte {byte} is ignored"),
                Err(e) => assert!(is_in(&refused) || is_in(&partly), "byte {byte}: {e}"),
            }
        }
        // One that has expired has no roots.
        let expired = good.expired(9, 1, 0);
        assert_eq!(expired.check(3), Ok(()));
        let roots = bytes(offset_of!(VersionRow, roots), size_of_val(&good.roots));
        for (byte, changed) in crate::format::with_one_bit_changed(&expired) {
            assert!(!roots.contains(&byte) || changed.check(3).is_err(), "byte {byte}");
        }
    }

    #[test]
    fn each_rejection() {
        let good = VersionRow { version: 3, parent: 2, kind: KIND_INSERT, ..VersionRow::empty() };
        assert_eq!(good.check(3), Ok(()));
        assert!(good.check(2).is_err());
        for change in [
            |row: &mut VersionRow| row.parent = 3,
            |row: &mut VersionRow| row.kind = 0,
            |row: &mut VersionRow| row.kind = 9,
            |row: &mut VersionRow| row.points = row.held + 1,
            |row: &mut VersionRow| row.held = u64::from(NONE),
            |row: &mut VersionRow| row.reserved[0] = 1,
            |row: &mut VersionRow| row.reserved_tail[7] = 1,
            |row: &mut VersionRow| row.expired_keep_last = 3,
            |row: &mut VersionRow| {
                row.expired_ns = 1;
                row.roots[3].rows = 1;
            },
            |row: &mut VersionRow| row.ids_exhausted = 2,
            |row: &mut VersionRow| row.message_bytes = 300,
            |row: &mut VersionRow| {
                row.message_bytes = 1;
                row.message[0] = 0xFF;
            },
        ] {
            let mut row = good;
            change(&mut row);
            assert!(row.check(3).is_err());
        }
    }
}
