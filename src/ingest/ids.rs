//! Lists of ids: text with one number a line, or `.npy`.
//!
//! Blank lines and blanks around a number do not matter. That no id stands twice is for the library to see.

use std::io::{BufRead, BufReader};
use std::path::Path;

use super::error::quote;
use super::{IngestError, Input, npy};

/// Reads the ids of `path`: `.npy` by its ending, text otherwise; `-` is text on standard input.
pub(crate) fn read_ids(path: &Path) -> Result<Vec<u64>, IngestError> {
    let input = Input::open(path)?;
    if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("npy")) {
        npy::read_ids(input)
    } else {
        read_text(input)
    }
}

fn read_text(input: Input) -> Result<Vec<u64>, IngestError> {
    let Input { label, bytes, .. } = input;
    let mut reader = BufReader::with_capacity(1 << 16, bytes);
    let mut ids = Vec::new();
    let mut buffer = Vec::new();
    for line in 1.. {
        buffer.clear();
        let length = reader
            .read_until(b'\n', &mut buffer)
            .map_err(|source| IngestError::Read { file: label.clone(), source })?;
        if length == 0 {
            break;
        }
        let text = buffer.trim_ascii();
        if text.is_empty() {
            continue;
        }
        let id = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        ids.push(id.ok_or_else(|| IngestError::Id {
            file: label.clone(),
            line,
            text: quote(text),
        })?);
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<u64>, IngestError> {
        read_text(Input::from_bytes("ids.txt", text.as_bytes().to_vec()))
    }

    #[test]
    fn one_number_a_line() {
        assert_eq!(read("3\n\n 18446744073709551615 \r\n0").unwrap(), [3, u64::MAX, 0]);
        assert_eq!(read("").unwrap(), [0u64; 0]);
    }

    #[test]
    fn faults_are_named_by_line() {
        for text in ["1\n2.5\n", "1\n-1\n", "1\n18446744073709551616\n", "1\n2,3\n", "1\n\u{e9}\n"]
        {
            let message = read(text).unwrap_err().to_string();
            assert!(message.starts_with("ids.txt: line 2: `"), "{message}");
        }
    }
}
