//! The readers of inputs, without the command around them: for tests and fuzz targets.

use treering::SourceError;

use crate::ingest::{self, Format};

/// How the bytes of an input are laid out, and whether their number is known before they are read.
#[derive(Clone, Copy, Debug)]
pub struct InputForm {
    /// `.npy`, or else text.
    pub npy: bool,
    /// From a pipe, so of unknown length.
    pub piped: bool,
}

impl InputForm {
    fn format(self) -> Format {
        if self.npy { Format::Npy } else { Format::Csv }
    }
}

/// What the command reads from an input of rows: their length, and their values one after the
/// other.
///
/// # Errors
///
/// The input is refused.
pub fn read_rows(bytes: Vec<u8>, layout: InputForm) -> Result<(usize, Vec<f32>), SourceError> {
    let rows = ingest::rows_of_bytes(bytes, layout.format(), layout.piped)?;
    Ok((rows.dim, rows.values))
}

/// What the command reads from an input of ids.
///
/// # Errors
///
/// The input is refused.
pub fn read_ids(bytes: Vec<u8>, layout: InputForm) -> Result<Vec<u64>, SourceError> {
    Ok(ingest::ids_of_bytes(bytes, layout.format(), layout.piped)?)
}
