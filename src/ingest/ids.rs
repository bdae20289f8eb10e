//! Lists of ids: text with one number a line, or `.npy`.
//!
//! Blank lines and blanks around a number do not matter. That no id stands twice is for the library to see.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::error::quote;
use super::{Format, IngestError, Input, npy};

/// Ids that are read as they are asked for.
pub(crate) trait IdSource: Send {
    /// Appends up to `at_most` ids to `into` and says how many; 0 means that there are no more.
    fn read(&mut self, at_most: usize, into: &mut Vec<u64>) -> Result<usize, IngestError>;
}

/// Opens the ids of `path`: `.npy` by its ending, text otherwise; `-` is text on standard input.
pub(crate) fn open_ids(path: &Path) -> Result<Box<dyn IdSource>, IngestError> {
    let is_npy = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("npy"));
    ids_of(Input::open(path)?, if is_npy { Format::Npy } else { Format::Csv })
}

/// CSV of one column is text with one number a line.
pub(super) fn ids_of(input: Input, format: Format) -> Result<Box<dyn IdSource>, IngestError> {
    match format {
        Format::Npy => npy::open_ids(input),
        Format::Csv => Ok(Box::new(Lines::new(input))),
    }
}

/// Ids that have been read already.
pub(crate) fn ids_at_hand(ids: Vec<u64>) -> Box<dyn IdSource> {
    Box::new(ids.into_iter())
}

impl IdSource for std::vec::IntoIter<u64> {
    fn read(&mut self, at_most: usize, into: &mut Vec<u64>) -> Result<usize, IngestError> {
        let before = into.len();
        into.extend(self.take(at_most));
        Ok(into.len() - before)
    }
}

/// Reads all ids of `path`.
pub(crate) fn read_ids(path: &Path) -> Result<Vec<u64>, IngestError> {
    const PIECE: usize = 1 << 16;
    let mut source = open_ids(path)?;
    let mut ids = Vec::new();
    while source.read(PIECE, &mut ids)? > 0 {}
    Ok(ids)
}

/// Ids in text.
struct Lines {
    label: String,
    reader: BufReader<Box<dyn Read + Send>>,
    /// The line that was read last, from 1.
    line: u64,
    buffer: Vec<u8>,
}

impl Lines {
    fn new(input: Input) -> Self {
        let Input { label, bytes, .. } = input;
        let reader = BufReader::with_capacity(1 << 16, bytes);
        Lines { label, reader, line: 0, buffer: Vec::new() }
    }
}

impl IdSource for Lines {
    fn read(&mut self, at_most: usize, into: &mut Vec<u64>) -> Result<usize, IngestError> {
        let mut count = 0;
        while count < at_most {
            self.buffer.clear();
            let length = self
                .reader
                .read_until(b'\n', &mut self.buffer)
                .map_err(|source| IngestError::Read { file: self.label.clone(), source })?;
            if length == 0 {
                break;
            }
            self.line += 1;
            let text = self.buffer.trim_ascii();
            if text.is_empty() {
                continue;
            }
            let id = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
            into.push(id.ok_or_else(|| IngestError::Id {
                file: self.label.clone(),
                line: self.line,
                text: quote(text),
            })?);
            count += 1;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<u64>, IngestError> {
        let mut lines = Lines::new(Input::from_bytes("ids.txt", text.as_bytes().to_vec(), false));
        let mut ids = Vec::new();
        while lines.read(2, &mut ids)? > 0 {}
        Ok(ids)
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
