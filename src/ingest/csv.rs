//! Comma-separated text, one row a line.
//!
//! Every field is a number in the notation of Rust's `f32` (`1`, `-0.5`, `1e-3`); blanks around it and blank lines do not
//! matter. There may be one header line: the first line is one exactly when *none* of its fields is a number, so that a
//! first row with one bad field is reported and not skipped. A header whose first column is `id`, as `export` writes it,
//! is refused: the ids would become coordinates.

use std::io::Read;

use ::csv::{ByteRecord, Reader, ReaderBuilder, Trim};

use super::error::quote;
use super::{IngestError, Input, RowSource};

/// Rows of a CSV input.
struct CsvRows {
    label: String,
    reader: Reader<Box<dyn Read + Send>>,
    dim: usize,
    /// A row that was read to learn the dimension and has not been given out.
    pending: bool,
    record: ByteRecord,
}

/// Opens an input as CSV.
pub(super) fn open_rows(input: Input) -> Result<Box<dyn RowSource>, IngestError> {
    let reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(Trim::All)
        .buffer_capacity(1 << 16)
        .from_reader(input.bytes);
    let mut rows =
        CsvRows { label: input.label, reader, dim: 0, pending: false, record: ByteRecord::new() };
    if !rows.advance()? {
        return Err(IngestError::Empty { file: rows.label });
    }
    rows.dim = rows.record.len();
    rows.pending = true;
    if rows.record.iter().all(|field| parse(field).is_none()) {
        if rows.record.get(0).is_some_and(|name| name.eq_ignore_ascii_case(b"id")) {
            return Err(IngestError::CsvIdColumn { file: rows.label });
        }
        rows.pending = rows.advance()?;
    }
    Ok(Box::new(rows))
}

fn parse(field: &[u8]) -> Option<f32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

impl CsvRows {
    /// Reads the next line into `record`; false at the end.
    fn advance(&mut self) -> Result<bool, IngestError> {
        self.reader.read_byte_record(&mut self.record).map_err(|e| {
            let (file, why) = (self.label.clone(), e.to_string());
            match e.into_kind() {
                ::csv::ErrorKind::Io(source) => IngestError::Read { file, source },
                _ => IngestError::Csv { file, why },
            }
        })
    }

    fn line(&self) -> u64 {
        self.record.position().map_or(0, |position| position.line())
    }

    /// Appends the fields of `record`.
    fn take(&self, into: &mut Vec<f32>) -> Result<(), IngestError> {
        if self.record.len() != self.dim {
            return Err(IngestError::CsvRagged {
                file: self.label.clone(),
                line: self.line(),
                expected: self.dim,
                found: self.record.len(),
            });
        }
        for (column, field) in self.record.iter().enumerate() {
            match parse(field) {
                Some(value) if value.is_finite() => into.push(value),
                parsed => {
                    let (file, line) = (self.label.clone(), self.line());
                    let (column, text) = (column + 1, quote(field));
                    return Err(match parsed {
                        Some(_) => IngestError::CsvNotFinite { file, line, column, text },
                        None => IngestError::CsvField { file, line, column, text },
                    });
                }
            }
        }
        Ok(())
    }
}

impl RowSource for CsvRows {
    fn dim(&self) -> usize {
        self.dim
    }

    fn remaining(&self) -> Option<usize> {
        None
    }

    fn read(&mut self, at_most: usize, into: &mut Vec<f32>) -> Result<usize, IngestError> {
        for rows in 0..at_most {
            if !self.pending && !self.advance()? {
                return Ok(rows);
            }
            self.pending = false;
            self.take(into)?;
        }
        Ok(at_most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(usize, Vec<f32>), IngestError> {
        let mut rows = open_rows(Input::from_bytes("t.csv", text.as_bytes().to_vec(), false))?;
        let mut values = Vec::new();
        while rows.read(2, &mut values)? > 0 {}
        Ok((rows.dim(), values))
    }

    #[test]
    fn numbers_with_and_without_a_header() {
        let expected = (2, vec![1.0, 2.0, -3.5, 4e-3, 5.0, 6.0]);
        assert_eq!(read("1,2\n-3.5, 4e-3\n\n5,6\n").unwrap(), expected);
        assert_eq!(read("x,y\r\n1,2\r\n-3.5,0.004\r\n5,6").unwrap(), expected);
        assert_eq!(read("\u{feff}x,y\n1,2\n").unwrap(), (2, vec![1.0, 2.0]));
        assert_eq!(read("x,y\n").unwrap(), (2, vec![]));
        assert_eq!(read("7").unwrap(), (1, vec![7.0]));
    }

    #[test]
    fn every_float_survives() {
        for value in [0.1f32, 1e-45, f32::MAX, f32::MIN_POSITIVE, -0.0, 16_777_217.0] {
            let (_, values) = read(&format!("{value}\n")).unwrap();
            assert_eq!(values[0].to_bits(), value.to_bits());
        }
    }

    #[test]
    fn faults_are_named_by_line_and_column() {
        for (text, part) in [
            ("1,2\n3\n", "line 2 has 1 fields, the first row has 2"),
            ("x,y\n\n1,2\n3,4,5\n", "line 4 has 3 fields, the first row has 2"),
            ("1,2\n3,four\n", "line 2, column 2: `four` is not a number"),
            ("1,two\n3,4\n", "line 1, column 2: `two` is not a number"),
            ("1,2\n,4\n", "line 2, column 1: `` is not a number"),
            ("1,2\nnan,4\n", "line 2, column 1: `nan` is not finite"),
            ("1,2\n3,1e39\n", "line 2, column 2: `1e39` is not finite"),
            ("inf,2\n", "line 1, column 1: `inf` is not finite"),
            ("", "empty"),
            ("\n\n", "empty"),
            ("id,x0\n7,1\n", "named `id`"),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(
                message.starts_with("t.csv: ") && message.contains(part),
                "{text:?}: {message}"
            );
        }
    }
}
