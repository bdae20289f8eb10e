//! Files and streams of numbers in: rows of coordinates for `build`, `insert`, `query` and `bench`, and lists of ids.
//!
//! A format is one file of this folder that turns bytes into a [`RowSource`]; [`Format`] names it and [`open`] picks it.
//! A source is read in pieces, so a caller that can work piece by piece never holds the whole input. Nothing here knows
//! of stores or metrics: whether values are acceptable as points (finite, within the domain, of the store's dimension)
//! is the library's to say, except where only the reader can name the place in the text.
//!
//! Invariants:
//! - I1: no number found in a file decides the size of an allocation, beyond what the file's own length vouches for.
//! - I2: a source yields whole rows of `dim() > 0` values, or an error; never a part of a row.

mod csv;
mod error;
mod ids;
mod input;
mod npy;
mod points;

use std::path::Path;

use clap::ValueEnum;

pub(crate) use error::IngestError;
pub(crate) use ids::{IdSource, ids_at_hand, open_ids, read_ids};
use input::Input;
pub(crate) use input::label;
pub(crate) use points::Points;

/// How an input's bytes are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// NumPy's array file: n x d, of f32, f64 or u8.
    Npy,
    /// Text, one row a line, fields separated by commas.
    Csv,
}

/// What [`Format::of`] can recognise, for messages.
const ENDINGS: &str = ".npy, .csv, or - for CSV on standard input";

impl Format {
    /// The format that a path's ending stands for; `-` is CSV.
    fn of(path: &Path) -> Result<Format, IngestError> {
        if input::is_stdin(path) {
            return Ok(Format::Csv);
        }
        let ending = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
        match ending.as_deref() {
            Some("npy") => Ok(Format::Npy),
            Some("csv") => Ok(Format::Csv),
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

    /// Rows still to come, if the source knows without reading them. The length of the file vouches for it.
    fn remaining(&self) -> Option<usize>;

    /// Appends up to `at_most` rows to `into` and says how many; 0 means that there are no more.
    fn read(&mut self, at_most: usize, into: &mut Vec<f32>) -> Result<usize, IngestError>;
}

/// Opens `path` (`-` is standard input) as rows of coordinates; `format` overrides the ending.
pub(crate) fn open(path: &Path, format: Option<Format>) -> Result<Box<dyn RowSource>, IngestError> {
    let format = match format {
        Some(format) => format,
        None => Format::of(path)?,
    };
    rows_of(Input::open(path)?, format)
}

fn rows_of(input: Input, format: Format) -> Result<Box<dyn RowSource>, IngestError> {
    match format {
        Format::Npy => npy::open_rows(input),
        Format::Csv => csv::open_rows(input),
    }
}

/// Reads all rows of `path`.
pub(crate) fn read_all(path: &Path, format: Option<Format>) -> Result<Rows, IngestError> {
    const PIECE: usize = 1 << 16;
    let mut source = open(path, format)?;
    let dim = source.dim();
    let mut values = Vec::new();
    if let Some(rows) = source.remaining() {
        let wanted =
            rows.checked_mul(dim).ok_or(IngestError::TooLarge { file: input::label(path) })?;
        values
            .try_reserve_exact(wanted)
            .map_err(|_| IngestError::TooLarge { file: input::label(path) })?;
    }
    while source.read(PIECE, &mut values)? > 0 {}
    Ok(Rows { values, dim })
}

/// [`read_all`] of bytes at hand; `piped`: as if their number were not known. For tests of the readers.
#[cfg(feature = "simulation")]
pub(crate) fn rows_of_bytes(
    bytes: Vec<u8>,
    format: Format,
    piped: bool,
) -> Result<Rows, IngestError> {
    let mut source = rows_of(Input::from_bytes("input", bytes, piped), format)?;
    let (dim, mut values) = (source.dim(), Vec::new());
    while source.read(7, &mut values)? > 0 {}
    Ok(Rows { values, dim })
}

/// [`read_ids`] of bytes at hand, likewise.
#[cfg(feature = "simulation")]
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
