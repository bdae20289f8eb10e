//! A point in a store's history, as people write it: a version number, a tag or a time; and the
//! tags themselves.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use crate::values::ids::VersionId;
use crate::values::printable::Printable;
use crate::values::tag_name::{LATEST, check_stored_name};
use crate::values::time_text::{self, TimeText};

/// A point in a store's history.
///
/// Written, it is a version number, `latest`, a time in RFC 3339 with its offset from UTC, or else
/// the name of a tag.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use treering::{VersionId, When};
/// assert_eq!("17".parse::<When>()?, When::Version(VersionId(17)));
/// assert_eq!("release".parse::<When>()?, When::Tag("release".to_string()));
/// assert!(matches!("2026-11-25T22:00:00+01:00".parse::<When>()?, When::Time(_)));
/// assert!("2026-11-25T22:00:00".parse::<When>().is_err()); // where?
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// The version with this number.
    Version(VersionId),
    /// The version that has this tag.
    Tag(String),
    /// The newest version not after this time.
    Time(SystemTime),
    /// The newest version.
    Latest,
}

/// Why a text is not a point in a store's history.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a version number, tag or time: {why}", Printable(.text))]
pub struct WhenError {
    /// The text.
    pub text: String,
    /// What it lacks.
    pub why: &'static str,
}

impl FromStr for When {
    type Err = WhenError;

    fn from_str(text: &str) -> Result<Self, WhenError> {
        let refuse = |why| Err(WhenError { text: text.to_string(), why });
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return match text.parse() {
                Ok(number) => Ok(When::Version(VersionId(number))),
                Err(_) => refuse("the number is too large"),
            };
        }
        if text == LATEST {
            return Ok(When::Latest);
        }
        match time_text::read(text) {
            TimeText::At(time) => return Ok(When::Time(time)),
            TimeText::SomewhereAt => {
                return refuse("a time needs its offset from UTC, as in 2026-11-25T22:00:00Z");
            }
            TimeText::Impossible => {
                return refuse("it has the form of a time, and there is no such time");
            }
            TimeText::Other => {}
        }
        match check_stored_name(text) {
            Ok(()) => Ok(When::Tag(text.to_string())),
            Err(why) => refuse(why),
        }
    }
}

impl From<VersionId> for When {
    fn from(version: VersionId) -> Self {
        When::Version(version)
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            When::Version(version) => write!(f, "version {version}"),
            When::Tag(name) => write!(f, "tag `{}`", Printable(name)),
            When::Time(time) => f.write_str(&rfc3339(*time)),
            When::Latest => f.write_str(LATEST),
        }
    }
}

/// A name for a version.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tag {
    /// The name.
    pub name: String,
    /// The version that has it.
    pub version: VersionId,
}

/// RFC 3339 in UTC with all nine digits, so that it can be given back exactly.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    match jiff::Timestamp::try_from(time) {
        Ok(timestamp) => format!("{timestamp:.9}"),
        // Beyond the year 9999: a clock that is badly wrong, and still no reason to fail.
        Err(_) => format!("{time:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_keep_every_nanosecond() {
        let at = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 120);
        assert_eq!(rfc3339(at), "2023-11-14T22:13:20.000000120Z");
        assert_eq!(rfc3339(at).parse(), Ok(When::Time(at)));
    }

    #[test]
    fn what_is_written_means_one_thing() {
        assert_eq!("007".parse(), Ok(When::Version(VersionId(7))));
        for text in ["", "99999999999999999999", "2026-11-25", "2026-11-25T22:00"] {
            assert!(text.parse::<When>().is_err(), "{text:?}");
        }
    }
}
