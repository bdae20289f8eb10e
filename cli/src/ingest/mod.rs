//! Files and streams of numbers in: rows of coordinates for `build`, `insert`, `query` and `bench`,
//! and lists of ids.
//!
//! A format is one file of this folder that turns bytes into a [`RowSource`]; [`Format`] names it
//! and [`open`] picks it. A source is read in pieces, so a caller that can work piece by piece
//! never holds the whole input. Nothing here knows of stores or metrics: whether values are
//! acceptable as points (finite, within the domain, of the store's dimension) is the library's to
//! say, except where only the reader can name the place in the text.
//!
//! Invariants:
//! - I1: no number found in a file decides the size of an allocation, beyond what the file's own
//!   length vouches for.
//! - I2: a source yields whole rows of `dim() > 0` values, or an error; never a part of a row.

mod csv;
mod error;
mod fields;
mod ids;
mod input;
mod lines;
mod npy;
mod points;
mod precision;

use std::path::{Path, PathBuf};

use clap::ValueEnum;

pub(crate) use csv::CsvRules;
pub(crate) use error::IngestError;
pub(crate) use fields::Delimiter;
pub(crate) use ids::{IdSource, IdsOfRows, kept_ids, open_ids, read_ids};
use input::Input;
pub(crate) use input::{Kept, label, open_seekable};
pub(crate) use points::Points;
pub(crate) use precision::{Lost, Precision, Watch};

use treering::{CancelToken, PointId};

/// How an input's bytes are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// NumPy's array file: n x d, of f32, f64 or u8.
    Npy,
    /// Text, one row a line, fields separated by commas, or by what --delimiter says.
    Csv,
}

/// How an input is to be read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reading {
    /// Instead of what the ending says.
    pub(crate) format: Option<Format>,
    pub(crate) csv: CsvRules,
    /// Where temporary files go; the system's folder for them unless given.
    pub(crate) temporary: Option<PathBuf>,
    /// Ends waits for who writes the input.
    pub(crate) cancel: CancelToken,
    /// Whether rows are counted that become equal by rounding.
    pub(crate) watch: Option<Watch>,
}

/// What [`Format::of`] can recognise, for messages.
const ENDINGS: &str = ".npy, .csv, .tsv, or - for CSV on standard input";

impl Format {
    /// The format that a path's ending stands for; `-` is CSV.
    fn of(path: &Path) -> Result<Format, IngestError> {
        if input::is_stdin(path) {
            return Ok(Format::Csv);
        }
        let ending = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
        match ending.as_deref() {
            Some("npy") => Ok(Format::Npy),
            Some("csv" | "tsv") => Ok(Format::Csv),
            _ => Err(IngestError::UnknownFormat { file: input::label(path), supported: ENDINGS }),
        }
    }
}

/// Rows held in memory.
#[derive(Debug)]
pub(crate) struct Rows {
    /// Row-major `[rows x dim]`.
    pub(crate) values: Vec<f32>,
    /// Values per row, at least 1.
    pub(crate) dim: usize,
}

impl Rows {
    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.values.len() / self.dim
    }

    /// One row.
    pub(crate) fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.dim..][..self.dim]
    }
}

/// Rows that are read as they are asked for.
pub(crate) trait RowSource: Send {
    /// Values per row, at least 1.
    fn dim(&self) -> usize;

    /// Rows still to come, if the source knows without reading them. The length of the file vouches
    /// for it.
    fn remaining(&self) -> Option<usize>;

    /// True if each row brings its id.
    fn has_ids(&self) -> bool {
        false
    }

    /// Appends up to `at_most` rows to `into`, their ids to `ids` if they have any, and says how
    /// many; 0 means that there are no more.
    fn read(
        &mut self,
        at_most: usize,
        into: &mut Vec<f32>,
        ids: &mut Vec<PointId>,
    ) -> Result<usize, IngestError>;

    /// [`RowSource::read`] that waits for the first row only: what has not arrived by then is for
    /// the next call.
    fn read_ready(
        &mut self,
        at_most: usize,
        into: &mut Vec<f32>,
        ids: &mut Vec<PointId>,
    ) -> Result<usize, IngestError> {
        self.read(at_most, into, ids)
    }

    /// Rows so far that rounding has made equal to others, if that is watched.
    fn rounded(&self) -> Option<Lost> {
        None
    }

    /// True if somebody writes the rows while they are read.
    fn is_piped(&self) -> bool {
        false
    }
}

/// Opens `path` (`-` is standard input) as rows of coordinates.
pub(crate) fn open(path: &Path, reading: &Reading) -> Result<Box<dyn RowSource>, IngestError> {
    let (format, reading) = settled(path, reading)?;
    rows_of(Input::open(path, &reading.cancel)?, format, &reading)
}

/// [`open`] of what `kept` has of `path`.
pub(crate) fn kept_rows(
    kept: &Kept,
    path: &Path,
    reading: &Reading,
) -> Result<Box<dyn RowSource>, IngestError> {
    let (format, reading) = settled(path, reading)?;
    rows_of(kept.input()?, format, &reading)
}

/// What is not said follows from the ending.
fn settled(path: &Path, reading: &Reading) -> Result<(Format, Reading), IngestError> {
    let format = match reading.format {
        Some(format) => format,
        None => Format::of(path)?,
    };
    let mut reading = reading.clone();
    if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("tsv")) {
        reading.csv.delimiter.get_or_insert(Delimiter::Char(b'\t'));
    }
    Ok((format, reading))
}

fn rows_of(
    input: Input,
    format: Format,
    reading: &Reading,
) -> Result<Box<dyn RowSource>, IngestError> {
    match format {
        Format::Npy => {
            let temporary = reading.temporary.clone().unwrap_or_else(std::env::temp_dir);
            npy::open_rows(input, &temporary, reading.watch)
        }
        Format::Csv => csv::open_rows(input, &reading.csv, reading.watch),
    }
}

/// Reads all rows of `path`.
pub(crate) fn read_all(path: &Path, reading: &Reading) -> Result<Rows, IngestError> {
    const PIECE: usize = 1 << 16;
    let mut source = open(path, reading)?;
    let dim = source.dim();
    let (mut values, mut ids) = (Vec::new(), Vec::new());
    if let Some(rows) = source.remaining() {
        let wanted =
            rows.checked_mul(dim).ok_or(IngestError::TooLarge { file: input::label(path) })?;
        values
            .try_reserve_exact(wanted)
            .map_err(|_| IngestError::TooLarge { file: input::label(path) })?;
    }
    while source.read(PIECE, &mut values, &mut ids)? > 0 {
        ids.clear();
    }
    Ok(Rows { values, dim })
}

/// [`read_all`] of bytes at hand; `piped`: as if their number were not known. For tests of the
/// readers.
pub(crate) fn rows_of_bytes(
    bytes: Vec<u8>,
    format: Format,
    piped: bool,
) -> Result<Rows, IngestError> {
    let mut source =
        rows_of(Input::from_bytes("input", bytes, piped), format, &Reading::default())?;
    let (dim, mut values) = (source.dim(), Vec::new());
    while source.read(7, &mut values, &mut Vec::new())? > 0 {}
    Ok(Rows { values, dim })
}

/// [`read_ids`] of bytes at hand, likewise.
pub(crate) fn ids_of_bytes(
    bytes: Vec<u8>,
    format: Format,
    piped: bool,
) -> Result<Vec<u64>, IngestError> {
    let mut source = ids::ids_of(Input::from_bytes("input", bytes, piped), format)?;
    let mut ids = Vec::new();
    while source.read(7, &mut ids)? > 0 {}
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_decides() {
        assert_eq!(Format::of(Path::new("a.NPY")).unwrap(), Format::Npy);
        assert_eq!(Format::of(Path::new("dir.npy/a.csv")).unwrap(), Format::Csv);
        assert_eq!(Format::of(Path::new("-")).unwrap(), Format::Csv);
        let message = Format::of(Path::new("a.fvecs")).unwrap_err().to_string();
        assert!(message.contains("a.fvecs") && message.contains(".npy, .csv"), "{message}");
    }
}
