//! Lists of ids: text with one number a line, or `.npy`.
//!
//! Text is read by the rules of [`super::csv`], with one field a line: blanks, blank lines, quotes,
//! CRLF and a header line above at least one id do not matter. That no id appears twice is for the
//! library to see.

use std::path::Path;

use super::error::quote;
use super::fields::{BadQuote, Delimiter, Fields};
use super::lines::Lines;
use super::{Format, IngestError, Input, Kept, RowSource, npy};
use treering::CancelToken;

/// Ids that are read as they are asked for.
pub(crate) trait IdSource: Send {
    /// Appends up to `at_most` ids to `into` and says how many; 0 means that there are no more.
    fn read(&mut self, at_most: usize, into: &mut Vec<u64>) -> Result<usize, IngestError>;
}

/// Opens the ids of `path`: `.npy` by its ending, text otherwise; `-` is text on standard input.
/// Waits end with `cancel`.
pub(crate) fn open_ids(
    path: &Path,
    cancel: &CancelToken,
) -> Result<Box<dyn IdSource>, IngestError> {
    ids_of(Input::open(path, cancel)?, format_of(path))
}

/// [`open_ids`] of what `kept` has of `path`.
pub(crate) fn kept_ids(kept: &Kept, path: &Path) -> Result<Box<dyn IdSource>, IngestError> {
    ids_of(kept.input()?, format_of(path))
}

fn format_of(path: &Path) -> Format {
    let is_npy = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("npy"));
    if is_npy { Format::Npy } else { Format::Csv }
}

/// CSV of one column is text with one number a line.
pub(super) fn ids_of(input: Input, format: Format) -> Result<Box<dyn IdSource>, IngestError> {
    match format {
        Format::Npy => npy::open_ids(input),
        Format::Csv => Ok(Box::new(IdLines {
            lines: Lines::new(input),
            fields: Fields::default(),
            header: None,
        })),
    }
}

/// The ids that rows bring with them.
pub(crate) struct IdsOfRows(pub(crate) Box<dyn RowSource>);

impl IdSource for IdsOfRows {
    fn read(&mut self, at_most: usize, into: &mut Vec<u64>) -> Result<usize, IngestError> {
        // Few at a time, because the rows are only skipped.
        const PIECE: usize = 1 << 10;
        self.0.read(at_most.min(PIECE), &mut Vec::new(), into)
    }
}

/// Reads the ids of `path`. Where there are more than `enough`, the rest is not read.
pub(crate) fn read_ids(
    path: &Path,
    enough: u64,
    cancel: &CancelToken,
) -> Result<Vec<u64>, IngestError> {
    const PIECE: usize = 1 << 16;
    let mut source = open_ids(path, cancel)?;
    let mut ids = Vec::new();
    while ids.len() as u64 <= enough && source.read(PIECE, &mut ids)? > 0 {}
    Ok(ids)
}

/// Ids in text.
struct IdLines {
    lines: Lines,
    fields: Fields,
    /// The header, and its line, as long as no id has followed it.
    header: Option<(String, u64)>,
}

impl IdLines {
    /// The field of the line, which has only one.
    fn field(&mut self) -> Result<&str, IngestError> {
        let line = self.lines.line();
        if let Err(BadQuote { why, .. }) = self.fields.split(line, Delimiter::COMMA) {
            let (file, line) = (self.lines.label.clone(), self.lines.number);
            return Err(IngestError::CsvQuote { file, line, column: 1, why });
        }
        Ok(if self.fields.len() == 1 { self.fields.get(line, 0) } else { line })
    }

    fn refused(&self, line: u64, text: &str) -> IngestError {
        IngestError::Id { file: self.lines.label.clone(), line, text: quote(text.as_bytes()) }
    }
}

impl IdSource for IdLines {
    fn read(&mut self, at_most: usize, into: &mut Vec<u64>) -> Result<usize, IngestError> {
        let mut count = 0;
        let is_first = |lines: &Lines| lines.number == 0;
        while count < at_most {
            let first = is_first(&self.lines);
            if !self.lines.advance()? {
                return match self.header.take() {
                    Some((header, line)) => Err(self.refused(line, &header)),
                    None => Ok(count),
                };
            }
            let number = self.lines.number;
            let field = self.field()?;
            match field.parse() {
                Ok(id) => {
                    into.push(id);
                    self.header = None;
                    count += 1;
                }
                // A number of another kind is no name.
                Err(_)
                    if first
                        && field.parse::<f64>().is_err()
                        && field.chars().all(is_of_a_name) =>
                {
                    self.header = Some((field.to_owned(), number));
                }
                Err(_) => {
                    let field = field.to_owned();
                    return Err(self.refused(number, &field));
                }
            }
        }
        Ok(count)
    }
}

fn is_of_a_name(c: char) -> bool {
    c.is_alphabetic() || c == '_' || c == ' '
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<u64>, IngestError> {
        let input = Input::from_bytes("ids.txt", text.as_bytes().to_vec(), false);
        let mut lines = ids_of(input, Format::Csv).unwrap();
        let mut ids = Vec::new();
        while lines.read(2, &mut ids)? > 0 {}
        Ok(ids)
    }

    #[test]
    fn one_number_a_line() {
        assert_eq!(read("3\n\n 18446744073709551615 \r\n0").unwrap(), [3, u64::MAX, 0]);
        assert_eq!(read("").unwrap(), [0u64; 0]);
        assert_eq!(read("\u{feff}id\r\n\"3\"\r\n \t\r\n4\r\n").unwrap(), [3, 4]);
        assert_eq!(read("\"point id\"\n3\n").unwrap(), [3]);
    }

    #[test]
    fn faults_are_named_by_line() {
        for text in [
            "1\n2.5\n",
            "1\n-1\n",
            "1\n18446744073709551616\n",
            "1\n2,3\n",
            "1\n\u{e9}\n",
            "id\nid\n1\n",
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.starts_with("ids.txt: line 2: `"), "{message}");
        }
        for text in ["2.5\n1\n", "id\n", "-1\n", "nan\n1\n", "\"3\n"] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.starts_with("ids.txt: line 1"), "{message}");
        }
    }
}
