//! Times as people write them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::civil::{DateTime, Time};
use jiff::fmt::temporal::Pieces;

/// What a text that looks like a time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeText {
    /// A moment.
    At(SystemTime),
    /// A time without its offset from UTC.
    SomewhereAt,
    /// None that there is.
    Impossible,
    /// It does not look like a time.
    Other,
}

/// Reads a time in RFC 3339 with its offset, from the year 1 to the end of 9999.
pub(crate) fn read(text: &str) -> TimeText {
    match Pieces::parse(text) {
        Ok(pieces) => {
            let Some(offset) = pieces.to_numeric_offset() else { return TimeText::SomewhereAt };
            let civil =
                DateTime::from_parts(pieces.date(), pieces.time().unwrap_or(Time::midnight()));
            let since = civil.duration_since(DateTime::constant(1970, 1, 1, 0, 0, 0, 0));
            let seconds = since.as_secs() - i64::from(offset.seconds());
            let nanos = since.subsec_nanos();
            // The two have one sign, or one of them is zero.
            let whole = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
            let distance = Duration::from_nanos_u128(whole.unsigned_abs());
            let time = match whole < 0 {
                true => UNIX_EPOCH.checked_sub(distance),
                false => UNIX_EPOCH.checked_add(distance),
            };
            time.map_or(TimeText::Impossible, TimeText::At)
        }
        Err(_) if has_the_shape(text) => TimeText::Impossible,
        Err(_) => TimeText::Other,
    }
}

/// A date at the beginning, with or without its strokes, and no letter or digit directly after it
/// but a `T`.
fn has_the_shape(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let shapes = ["dddd-dd-dd", "dddddd-dd-dd", "ddddddddT", "dddd-ddT", "dd:dd"];
    let fits = |shape: &str| {
        unsigned.len() >= shape.len()
            && shape.bytes().zip(unsigned.bytes()).all(|(wanted, found)| match wanted {
                b'd' => found.is_ascii_digit(),
                b'T' => found.eq_ignore_ascii_case(&b'T'),
                other => other == found,
            })
    };
    shapes.iter().any(|shape| {
        let next = unsigned.as_bytes().get(shape.len());
        fits(shape)
            && (shape.ends_with('T')
                || next.is_none_or(|c| !c.is_ascii_alphanumeric() || c.eq_ignore_ascii_case(&b'T')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_time() {
        let at = |seconds: u64| TimeText::At(UNIX_EPOCH + Duration::from_secs(seconds));
        for (text, found) in [
            ("1970-01-01T00:00:00Z", at(0)),
            ("2026-11-25T22:00:00+01:00", at(1_795_640_400)),
            ("2026-11-25 21:00:00Z", at(1_795_640_400)),
            ("9999-12-31T23:59:59Z", at(253_402_300_799)),
            ("2026-11-25T22:00:00", TimeText::SomewhereAt),
            ("2026-11-25", TimeText::SomewhereAt),
            ("2026-02-30T00:00:00Z", TimeText::Impossible),
            ("2026-02-30T..", TimeText::Impossible),
            ("2026-11-25T24:00", TimeText::Impossible),
            ("2026-13-01", TimeText::Impossible),
            ("2026-11-25T25:00:00Z", TimeText::Impossible),
            ("20260230T000000Z", TimeText::Impossible),
            ("23:59", TimeText::Impossible),
            ("release", TimeText::Other),
            ("2026", TimeText::Other),
            ("2026-11-25a", TimeText::Other),
            ("v2026-11-25", TimeText::Other),
            ("2026-11", TimeText::Other),
        ] {
            assert_eq!(read(text), found, "{text}");
        }
        let before = read("1969-12-31T23:59:59.5Z");
        assert_eq!(before, TimeText::At(UNIX_EPOCH - Duration::from_millis(500)));
        let nanos = read("2023-11-14T22:13:20.000000120Z");
        assert_eq!(nanos, TimeText::At(UNIX_EPOCH + Duration::new(1_700_000_000, 120)));
    }
}
