//! What the name of a tag may be.

use super::printable::is_plain;
use super::time_text::{self, TimeText};

/// Bytes that a tag's name may have.
pub(crate) const TAG_BYTES: usize = 112;

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
}
