//! What can be wrong with an input: which file, where in it, and what to do.

use std::io;
use std::path::PathBuf;

use treering::printable::is_plain;

/// Why an input was refused. Nothing has been changed by then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum IngestError {
    /// The file is not there or may not be read.
    #[error("cannot open {file}: {source}")]
    Open {
        /// The file.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// Reading failed.
    #[error("cannot read {file}: {source}")]
    Read {
        /// The file.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// The ending is not one that is known.
    #[error("{file}: unknown format; give {supported}, or name the format with --format")]
    UnknownFormat {
        /// The file.
        file: String,
        /// What there is.
        supported: &'static str,
    },
    /// There is more than memory can hold.
    #[error("{file}: does not fit into memory; give it in several parts")]
    TooLarge {
        /// The file.
        file: String,
    },
    /// There is nothing in it.
    #[error("{file}: empty; one row of numbers a line is expected")]
    Empty {
        /// The file.
        file: String,
    },

    /// The file does not begin as an .npy file does.
    #[error("{file}: not an .npy file; write it with numpy.save, or name its format with --format")]
    NotNpy {
        /// The file.
        file: String,
    },
    /// The header makes no sense.
    #[error("{file}: the .npy header is not usable: {why}; write the file again with numpy.save")]
    NpyHeader {
        /// The file.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// The values are of another type.
    #[error(
        "{file}: values of type {found}; convert them to {wanted}, for example with numpy.astype"
    )]
    NpyType {
        /// The file.
        file: String,
        /// As the header has it.
        found: String,
        /// The types accepted.
        wanted: &'static str,
    },
    /// The array has another shape.
    #[error("{file}: an array of shape {found}; {wanted} is expected, see numpy.reshape")]
    NpyShape {
        /// The file.
        file: String,
        /// As the header has it.
        found: String,
        /// The shape accepted.
        wanted: &'static str,
    },
    /// The file ends before its last row does.
    #[error(
        "{file}: truncated: its header promises {rows} rows, {expected} bytes in all, and it has {found}; copy it again"
    )]
    NpyTruncated {
        /// The file.
        file: String,
        /// Rows promised.
        rows: u64,
        /// Bytes that takes, with the header.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// The file goes on after its last row.
    #[error(
        "{file}: {extra} bytes follow the {rows} rows that its header promises; write one array to a file"
    )]
    NpyTrailing {
        /// The file.
        file: String,
        /// Rows promised.
        rows: u64,
        /// Bytes too many.
        extra: u64,
    },
    /// An f64 that is finite and has no f32 near it.
    #[error(
        "{file}: row {row}, column {column} (from 0): {value:e} is beyond 32-bit numbers; scale the data down"
    )]
    NpyRange {
        /// The file.
        file: String,
        /// Row, from 0.
        row: u64,
        /// Column, from 0.
        column: u64,
        /// The value.
        value: f64,
    },
    /// A negative id.
    #[error("{file}: entry {index} (from 0) is {value}; ids are numbers from 0 up")]
    NpyNegativeId {
        /// The file.
        file: String,
        /// Position in the list, from 0.
        index: u64,
        /// The value.
        value: i64,
    },

    /// A temporary file could not be had.
    #[error("cannot write a temporary file in {}: {source}; --temporary-folder names another folder", .folder.display())]
    Temporary {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The bytes are no lines of text.
    #[error("{file}: line {line}: {why}")]
    NotText {
        /// The file.
        file: String,
        /// Line, from 1.
        line: u64,
        /// What is wrong, and what to do.
        why: String,
    },
    /// Quotes that do not balance.
    #[error("{file}: line {line}, field {column}: {why}")]
    CsvQuote {
        /// The file.
        file: String,
        /// Line, from 1.
        line: u64,
        /// Field of the line, from 1.
        column: usize,
        /// What is wrong.
        why: &'static str,
    },
    /// A header without rows.
    #[error("{file}: a header and no rows under it; if the first line is a row, say --no-header")]
    CsvNoRows {
        /// The file.
        file: String,
    },
    /// A first line that may be a point or a header.
    #[error(
        "{file}: the first line is `{text}`, which may be a point or the numbers of the columns; say --no-header or --header"
    )]
    CsvNumberedHeader {
        /// The file.
        file: String,
        /// The line.
        text: String,
    },
    /// A column that was asked for.
    #[error("{file}: column `{column}`: {why}")]
    CsvColumn {
        /// The file.
        file: String,
        /// As it was asked for.
        column: String,
        /// What is wrong.
        why: &'static str,
    },
    /// No coordinates are left.
    #[error("{file}: no column of coordinates")]
    CsvNoColumns {
        /// The file.
        file: String,
    },
    /// A row of another length.
    #[error("{file}: line {line} has {found} fields, the first row has {expected}")]
    CsvRagged {
        /// The file.
        file: String,
        /// Line, from 1.
        line: u64,
        /// Fields in the first row.
        expected: usize,
        /// Fields in this one.
        found: usize,
    },
    /// A field that is no number.
    #[error("{file}: line {line}, column {column}: `{text}` is not a number{hint}")]
    CsvField {
        /// The file.
        file: String,
        /// Line, from 1.
        line: u64,
        /// Field of the line, from 1.
        column: usize,
        /// What stands there.
        text: String,
        /// What may be the matter.
        hint: String,
    },
    /// A field that is no finite f32.
    #[error("{file}: line {line}, column {column}: `{text}` is not finite as a 32-bit number")]
    CsvNotFinite {
        /// The file.
        file: String,
        /// Line, from 1.
        line: u64,
        /// Field of the line, from 1.
        column: usize,
        /// What stands there.
        text: String,
    },
    /// A column that looks like anything but coordinates.
    #[error(
        "{file}: column {column} is named `{name}`, so it seems to hold no coordinate; say what holds the ids with --id-column, or what holds the coordinates with --columns"
    )]
    CsvIndexColumn {
        /// The file.
        file: String,
        /// From 1.
        column: usize,
        /// Its name.
        name: String,
    },
    /// A line of an id file that is no id.
    #[error("{file}: line {line}: `{text}` is not an id (a number from 0 to 2^64 - 1)")]
    Id {
        /// The file.
        file: String,
        /// Line, from 1.
        line: u64,
        /// What stands there.
        text: String,
    },
}

/// At most this many characters of a field are repeated in a message.
const QUOTED: usize = 40;

/// Bytes of a text field as a message shows them: short and printable.
pub(super) fn quote(field: &[u8]) -> String {
    let text = String::from_utf8_lossy(field);
    let escape = |c: char| match is_plain(c) {
        true => c.escape_debug().to_string(),
        false => c.escape_default().to_string(),
    };
    let mut shown: String = text.chars().take(QUOTED).map(escape).collect();
    if text.chars().nth(QUOTED).is_some() {
        shown.push_str("...");
    }
    shown
}
