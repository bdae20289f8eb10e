//! Numbers and tables as people read them.

use std::time::{Duration, SystemTime};

use treering::printable::Printable;
use treering::{ClockLeap, When};

/// `1234567` as `1,234,567`.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Bytes in the largest unit that leaves at least 1: `1.3 MiB`.
pub(super) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Bytes as people write them: `2GiB`, `512MiB`, `1.5 GiB`, `64M` (the same as `64MiB`), `100MB`,
/// `4096`.
pub(super) fn parse_bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 13] = [
        ("kib", 1 << 10),
        ("mib", 1 << 20),
        ("gib", 1 << 30),
        ("tib", 1 << 40),
        ("kb", 1000),
        ("mb", 1_000_000),
        ("gb", 1_000_000_000),
        ("tb", 1_000_000_000_000),
        ("b", 1),
        // As most commands have them.
        ("k", 1 << 10),
        ("m", 1 << 20),
        ("g", 1 << 30),
        ("t", 1 << 40),
    ];
    let lower = text.trim().to_ascii_lowercase();
    let unit = UNITS.iter().find_map(|(name, bytes)| Some((lower.strip_suffix(name)?, *bytes)));
    let (number, unit) = unit.unwrap_or((&lower, 1));
    let bytes = number.trim_end().parse::<f64>().ok().map(|number| number * unit as f64);
    match bytes {
        Some(bytes) if bytes >= 1.0 && bytes < 2f64.powi(62) => Ok(bytes as u64),
        _ => {
            Err("a size is a number of bytes, KiB, MiB or GiB: 512MiB, 64M, 0.5G, 100MB".to_owned())
        }
    }
}

/// A length of time: `2h 5m 3s`, `64y 27d`.
pub(super) fn duration(duration: Duration) -> String {
    const UNITS: [(&str, u64); 5] =
        [("y", 365 * 86_400), ("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];
    let mut left = duration.as_secs();
    let mut parts = Vec::new();
    for (name, seconds) in UNITS {
        if left >= seconds {
            parts.push(format!("{}{name}", left / seconds));
            left %= seconds;
        }
    }
    parts.truncate(2);
    match parts.is_empty() {
        true => "less than a second".to_owned(),
        false => parts.join(" "),
    }
}

/// Why a rule of retention keeps what is too old by the calendar.
pub(super) fn leap(leap: &ClockLeap) -> String {
    format!(
        "the clock has gone from {} to {} in one step, longer than a month and than the rule keeps versions: for their age this step does not count, and versions from before it stay",
        time(leap.from),
        time(leap.to),
    )
}

/// RFC 3339 in UTC with all nine digits, so that it can be given back exactly.
pub(super) fn time(time: SystemTime) -> String {
    When::Time(time).to_string()
}

/// Text from a store or from elsewhere with all escaped that could disturb a terminal or deceive
/// who reads it.
pub(super) fn printable(text: &str) -> String {
    Printable(text).to_string()
}

/// Rows as aligned columns, right-justified but for those whose heading begins with `<`.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let names: Vec<&str> = headings.iter().map(|h| h.trim_start_matches('<')).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([names[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..names.len()).map(width).collect();
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut row = String::new();
        for (column, cell) in cells.enumerate() {
            let width = widths[column];
            let gap = if column == 0 { "" } else { "  " };
            row += &if headings[column].starts_with('<') {
                format!("{gap}{cell:<width$}")
            } else {
                format!("{gap}{cell:>width$}")
            };
        }
        text += row.trim_end();
        text.push('\n');
    };
    line(&mut names.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    text
}

/// `key value` lines with the values aligned.
pub(super) fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    pairs.iter().map(|(key, value)| format!("{key:<width$}  {value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_bytes("512MiB"), Ok(512 << 20));
        assert_eq!(parse_bytes("1.5 gib"), Ok(3 << 29));
        assert_eq!(parse_bytes("100MB"), Ok(100_000_000));
        assert_eq!(parse_bytes("4096"), Ok(4096));
        for wrong in ["", "MiB", "-1", "12 parsecs", "nan", "1e99", "0"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lengths_of_time() {
        let say = |seconds| duration(Duration::from_secs(seconds));
        assert_eq!([say(0), say(59), say(3723)], ["less than a second", "59s", "1h 2m"]);
        assert_eq!(say(64 * 365 * 86_400 + 27 * 86_400 + 5), "64y 27d");
    }

    #[test]
    fn numbers() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0, 1023, 1024, 1_048_575, 1 << 40].map(bytes),
            ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "1.0 TiB"]
        );
    }

    #[test]
    fn times_keep_every_nanosecond() {
        let at = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 120);
        assert_eq!(time(at), "2023-11-14T22:13:20.000000120Z");
        let back: jiff::Timestamp = time(at).parse().unwrap();
        assert_eq!(SystemTime::from(back), at);
    }

    #[test]
    fn tables_are_aligned() {
        let rows = [vec!["1".to_owned(), "x".to_owned()], vec!["22".to_owned(), String::new()]];
        assert_eq!(table(&["n", "<name"], &rows), " n  name\n 1  x\n22\n");
        assert_eq!(pairs(&[("a", "1".into()), ("bcd", "2".into())]), "a    1\nbcd  2\n");
    }
}
