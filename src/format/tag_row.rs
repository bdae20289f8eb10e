//! The row of a tag: a name for a version. Also what a name may be.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::printable::is_plain;
use crate::time_text::{self, TimeText};

/// Bytes that a tag's name may have.
pub(crate) const TAG_BYTES: usize = 112;

/// The tag record: see `format-spec.md`, section "Tags".
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct TagRow {
    pub(crate) version: u64,
    name_bytes: u16,
    reserved: [u8; 6],
    name: [u8; TAG_BYTES],
}

const _: () = assert!(size_of::<TagRow>() == 128);

impl TagRow {
    /// The row of a tag whose name has passed [`check_name`].
    pub(crate) fn new(name: &str, version: u64) -> Self {
        let mut row = TagRow {
            version,
            name_bytes: name.len() as u16,
            reserved: [0; 6],
            name: [0; TAG_BYTES],
        };
        row.name[..name.len()].copy_from_slice(name.as_bytes());
        row
    }

    /// The name; empty if it is not text, which [`TagRow::check`] reports.
    pub(crate) fn name(&self) -> &str {
        let bytes = (self.name_bytes as usize).min(TAG_BYTES);
        std::str::from_utf8(&self.name[..bytes]).unwrap_or("")
    }

    /// Checks what does not depend on other records. Every tag names one of the versions 1 to `newest`.
    pub(crate) fn check(&self, newest: u64) -> Result<(), &'static str> {
        let bytes = self.name_bytes as usize;
        if bytes > TAG_BYTES || self.name.iter().skip(bytes).any(|&b| b != 0) {
            return Err("length of a tag's name does not fit the name");
        }
        if check_stored_name(self.name()).is_err() {
            return Err("a tag has a name that no tag may have");
        }
        if self.version == 0 || self.version > newest {
            return Err("a tag names a version that does not exist");
        }
        match self.reserved == [0; 6] {
            true => Ok(()),
            false => Err("reserved bytes of a tag are not zero"),
        }
    }
}

/// What means the newest version, and is no tag's name.
pub(crate) const LATEST: &str = "latest";

/// Says what is wrong with a name that a tag in a file has. Only what bytes alone decide: a rule
/// that follows the tables of Unicode or the grammar of times, which both change, must not make a
/// store unreadable.
pub(crate) fn check_stored_name(name: &str) -> Result<(), &'static str> {
    match name.len() {
        _ if name.contains('\0') => Err("it has a zero byte"),
        0 => Err("it is empty"),
        1..=TAG_BYTES => Ok(()),
        _ => Err("it has more than 112 bytes"),
    }
}

/// Says what is wrong with a name, if it is not to be given to a tag. A name that could be read as
/// a version number or a time is refused, so that what is written in their place always means one
/// thing; and one that a terminal would show as another.
pub(crate) fn check_name(name: &str) -> Result<(), &'static str> {
    check_stored_name(name)?;
    if !name.chars().all(is_plain) {
        return Err("it has characters that do not show, or that change how others show");
    }
    if name == LATEST {
        return Err("it is reserved for the newest version");
    }
    if name.trim() != name {
        return Err("it begins or ends with a space");
    }
    if name.bytes().all(|b| b.is_ascii_digit()) {
        return Err("it would be read as a version number");
    }
    if time_text::read(name) != TimeText::Other {
        return Err("it has the form of a time");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_refused() {
        let long = "x".repeat(TAG_BYTES + 1);
        for name in [
            "",
            "17",
            "a\nb",
            "\u{7f}",
            " a",
            "a ",
            &long,
            "2026-11-25T22:00:00Z",
            "2026-11-25 22:00:00+01",
            "2026-11-25",
            "2026-02-30T00:00:00Z",
            "2026-11-25T24:00",
            "9999-12-31T23:59:59Z",
            "latest",
            "a\u{202e}b",
            "a\u{2028}b",
            "a\u{a0}b",
            "\u{3164}",
            "a\u{200d}b",
        ] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        for name in
            ["a", "v17", "-1", "release 2", "größer", "Latest", "日本", &long[1..], "2026-11"]
        {
            assert_eq!(check_name(name), Ok(()), "{name:?}");
        }
    }

    /// A changed bit is refused, or makes another tag.
    #[test]
    fn each_bit_of_a_tag_counts() {
        let good = TagRow::new("before the move", 3);
        for (byte, changed) in crate::format::with_one_bit_changed(&good) {
            if changed.check(7).is_ok() {
                let other = (changed.name(), changed.version) != (good.name(), good.version);
                assert!(other && changed == TagRow::new(changed.name(), changed.version));
                assert!(!(8..16).contains(&byte), "byte {byte}");
            }
        }
    }

    #[test]
    fn each_rejection() {
        let good = TagRow::new("before the move", 3);
        assert_eq!((good.check(3), good.name()), (Ok(()), "before the move"));
        assert!(good.check(2).is_err());
        for change in [
            |row: &mut TagRow| row.version = 0,
            |row: &mut TagRow| row.name_bytes = 0,
            |row: &mut TagRow| row.name_bytes = 4,
            |row: &mut TagRow| row.name_bytes = 113,
            |row: &mut TagRow| row.name[0] = 0xFF,
            |row: &mut TagRow| row.name[20] = b'x',
            |row: &mut TagRow| row.reserved[5] = 1,
        ] {
            let mut row = good;
            change(&mut row);
            assert!(row.check(3).is_err());
        }
    }
}
