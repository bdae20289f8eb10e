//! Results out, in the formats that the command has. Where they go is for
//! [`treering::files::publish`].

mod answers;
mod npy;
mod points;
mod sink;

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::failure::Failure;
pub(super) use answers::{AnswerWriter, CsvAnswers, JsonAnswers, NpyAnswers, list};
pub(super) use npy::NpyFile;
pub(super) use points::PointRows;
pub(super) use sink::Sink;
use treering::printable::is_plain;

/// The formats of an output file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OutputFormat {
    Csv,
    Npy,
}

impl OutputFormat {
    /// The format that a path's ending stands for; `-` is CSV on standard output.
    pub(super) fn of(path: &Path) -> Result<OutputFormat, Failure> {
        if path.as_os_str() == "-" {
            return Ok(OutputFormat::Csv);
        }
        let ending = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
        match ending.as_deref() {
            Some("csv") => Ok(OutputFormat::Csv),
            Some("npy") => Ok(OutputFormat::Npy),
            _ => Err(Failure::Usage(format!(
                "{}: unknown output format; give a name that ends in .csv or .npy, or - for CSV on standard output",
                path.display()
            ))),
        }
    }
}

/// `dir/name.npy` and `ids` make `dir/name_ids.npy`.
pub(super) fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push("_");
    name.push(what);
    name.push(".npy");
    path.with_file_name(name)
}

/// Prints text on standard output.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut sink = Sink::stdout();
    sink.write(text.as_bytes())?;
    sink.finish()
}

/// Prints one JSON object and a line feed. Text in it that a terminal would not show as it is stays
/// the same text, because JSON can say any character by its number.
pub(super) fn print_json(object: &Value) -> Result<(), Failure> {
    print(&json_text(object))
}

/// One JSON object and a line feed, as [`print_json`] prints them.
pub(super) fn json_text(object: &Value) -> String {
    let mut text = String::new();
    for c in object.to_string().chars() {
        match is_plain(c) {
            true => text.push(c),
            false => {
                let mut units = [0; 2];
                let units = c.encode_utf16(&mut units);
                text.extend(units.iter().map(|unit| format!("\\u{unit:04x}")));
            }
        }
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_file_lies_beside_the_first() {
        assert_eq!(beside(Path::new("a/b.npy"), "ids"), Path::new("a/b_ids.npy"));
        assert_eq!(beside(Path::new("b.NPY"), "distances"), Path::new("b_distances.npy"));
    }
}
