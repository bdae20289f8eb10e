//! The row of a tag: a name for a version.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::values::tag_name::{TAG_BYTES, check_stored_name};

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
    /// The row of a tag whose name has passed [`crate::values::tag_name::check_name`].
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

    /// Checks what does not depend on other records. Every tag names one of the versions 1 to
    /// `newest`.
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

#[cfg(test)]
mod tests {
    use super::*;

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
