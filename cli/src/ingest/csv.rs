//! Rows of text, under rules that leave nothing to guess:
//!
//! 1. The text is UTF-8. Lines end with LF or CRLF; blank lines do not count.
//! 2. Fields are separated by commas, or by what `--delimiter` says (tabs if the file is a `.tsv`).
//!    Blanks around them do not matter.
//! 3. A field may stand in double quotes, which must be closed in the same line; a doubled quote
//!    within them is one quote.
//! 4. Every coordinate is a finite number in the notation of Rust's `f32` (`1`, `-0.5`, `1e-3`).
//!    Nothing stands for a missing one.
//! 5. Every line has as many fields as the first.
//! 6. The first line is a header if `--header` says so, and is not if `--no-header` does. Else it
//!    is one exactly when none of its fields is a number and at least one is a name: text with a
//!    letter, and no word for a missing value (`NA`, `null`, ...). So a first row with a bad field
//!    is reported and not skipped.
//! 7. A first line `0,1,2,...` above one that has a fraction may be a point or the numbers of the
//!    columns: one of the two options must say. (Not of questions down a pipe, each of which is
//!    answered before the next.)
//! 8. Under a header there is at least one row.
//! 9. A column whose name says that it holds no coordinate (none, `id`, `index`, `Unnamed: 0`, a
//!    word `id` anywhere in it, ...) is refused, unless `--id-column` says that it holds the ids,
//!    or `--columns` which columns hold coordinates.
//! 10. Columns are named by their names in the header, or by their numbers from 1.

use super::error::quote;
use super::fields::{BadQuote, Delimiter, Fields};
use super::lines::Lines;
use super::precision::Rounding;
use super::{IngestError, Input, Lost, RowSource, Watch};
use treering::PointId;

/// What the rules leave to whoever brings the text.
#[derive(Clone, Debug, Default)]
pub(crate) struct CsvRules {
    pub(crate) delimiter: Option<Delimiter>,
    /// Whether the first line is a header, if that is said.
    pub(crate) header: Option<bool>,
    /// The columns of the coordinates, in their order; all but the ids' unless given.
    pub(crate) columns: Vec<String>,
    /// The column of the ids.
    pub(crate) id_column: Option<String>,
    /// Down a pipe each row may wait for what is said of the one before, so rule 7 looks no line
    /// ahead.
    pub(crate) one_by_one: bool,
}

/// Rows of a text.
struct CsvRows {
    lines: Lines,
    delimiter: Delimiter,
    fields: Fields,
    /// Fields of a line.
    width: usize,
    /// Those of the coordinates, in order, from 0.
    columns: Vec<usize>,
    id_column: Option<usize>,
    /// A line has been taken apart, and its row has not been given out.
    pending: bool,
    is_piped: bool,
    rounding: Option<Rounding>,
}

/// Opens an input as rows of text.
pub(super) fn open_rows(
    input: Input,
    rules: &CsvRules,
    watch: Option<Watch>,
) -> Result<Box<dyn RowSource>, IngestError> {
    let mut rows = CsvRows {
        is_piped: input.length.is_none(),
        lines: Lines::new(input),
        delimiter: rules.delimiter.unwrap_or(Delimiter::COMMA),
        fields: Fields::default(),
        width: 0,
        columns: Vec::new(),
        id_column: None,
        pending: false,
        rounding: None,
    };
    if !rows.lines.advance()? {
        return Err(IngestError::Empty { file: rows.lines.label });
    }
    rows.split()?;
    rows.width = rows.fields.len();
    let first: Vec<String> = rows.fields.iter(rows.lines.line()).map(str::to_owned).collect();
    let is_header = rules.header.unwrap_or_else(|| is_header(&first));
    let maybe_numbered = rules.header.is_none() && are_column_numbers(&first);
    if is_header && !rows.advance()? {
        return Err(IngestError::CsvNoRows { file: rows.lines.label });
    }
    if maybe_numbered
        && !(rules.one_by_one && rows.is_piped)
        && let Some(second) = rows.lines.peek()?
    {
        let mut fields = Fields::default();
        let is_whole = |field: &str| field.parse::<i64>().is_ok();
        // What else is wrong with it is told when it is read.
        if fields.split(second, rows.delimiter).is_ok()
            && fields.iter(second).all(is_number)
            && !fields.iter(second).all(is_whole)
        {
            let (file, text) = (rows.lines.label, quote(first.join(",").as_bytes()));
            return Err(IngestError::CsvNumberedHeader { file, text });
        }
    }
    rows.pending = true;
    let names = if is_header { first } else { Vec::new() };
    rows.choose(rules, &names)?;
    rows.rounding = watch.map(|watch| Rounding::new(rows.columns.len(), watch));
    Ok(Box::new(rows))
}

fn is_number(field: &str) -> bool {
    field.parse::<f32>().is_ok()
}

fn is_missing(field: &str) -> bool {
    const WORDS: [&str; 12] =
        ["", "na", "n/a", "#n/a", "<na>", "nan", "null", "nil", "none", "-", "?", "missing"];
    WORDS.contains(&field.to_ascii_lowercase().as_str())
}

/// Rule 6.
fn is_header(fields: &[String]) -> bool {
    let is_name = |field: &String| field.chars().any(char::is_alphabetic) && !is_missing(field);
    !fields.iter().any(|field| is_number(field)) && fields.iter().any(is_name)
}

/// Rule 7.
fn are_column_numbers(fields: &[String]) -> bool {
    fields.len() > 1 && fields.iter().enumerate().all(|(i, field)| *field == i.to_string())
}

/// Rule 9: the name of a column that numbers rows, or names them.
fn is_no_coordinate(name: &str) -> bool {
    const WORDS: [&str; 10] =
        ["id", "ids", "idx", "index", "uid", "uuid", "guid", "rowid", "rownames", "key"];
    let lower = name.trim().to_lowercase();
    // Words by what is no letter, and by capitals: `pointId`, `point_id`, `IDs`.
    let mut words: Vec<String> = vec![String::new()];
    let mut before = ' ';
    for c in name.chars() {
        if !c.is_alphabetic() || (c.is_uppercase() && before.is_lowercase()) {
            words.push(String::new());
        }
        if c.is_alphabetic() {
            words.last_mut().expect("there is one").extend(c.to_lowercase());
        }
        before = c;
    }
    lower.is_empty()
        || lower.starts_with("unnamed")
        || words.iter().any(|word| WORDS.contains(&word.as_str()))
}

impl CsvRows {
    /// Reads and takes apart the next line that is not blank; false at the end.
    fn advance(&mut self) -> Result<bool, IngestError> {
        if !self.lines.advance()? {
            return Ok(false);
        }
        self.split()?;
        Ok(true)
    }

    fn split(&mut self) -> Result<(), IngestError> {
        let done = self.fields.split(self.lines.line(), self.delimiter);
        done.map_err(|BadQuote { field, why }| IngestError::CsvQuote {
            file: self.lines.label.clone(),
            line: self.lines.number,
            column: field + 1,
            why,
        })
    }

    /// Which columns are what.
    fn choose(&mut self, rules: &CsvRules, names: &[String]) -> Result<(), IngestError> {
        let id_column = match &rules.id_column {
            Some(text) => Some(self.find(text, names)?),
            None => None,
        };
        let columns: Vec<usize> = match rules.columns.is_empty() {
            true => (0..self.width).filter(|&i| Some(i) != id_column).collect(),
            false => {
                rules.columns.iter().map(|text| self.find(text, names)).collect::<Result<_, _>>()?
            }
        };
        let is_refused = |i: usize| names.get(i).is_some_and(|name| is_no_coordinate(name));
        if rules.columns.is_empty()
            && let Some(&column) = columns.iter().find(|&&i| is_refused(i))
        {
            return Err(IngestError::CsvIndexColumn {
                file: self.lines.label.clone(),
                column: column + 1,
                name: quote(names[column].as_bytes()),
            });
        }
        if columns.is_empty() {
            return Err(IngestError::CsvNoColumns { file: self.lines.label.clone() });
        }
        (self.columns, self.id_column) = (columns, id_column);
        Ok(())
    }

    /// Rule 10.
    fn find(&self, text: &str, names: &[String]) -> Result<usize, IngestError> {
        let mut named = (0..names.len()).filter(|&i| names[i] == text);
        let number = text.parse::<usize>().ok().filter(|number| (1..=self.width).contains(number));
        match (named.next(), named.next(), number) {
            (Some(column), None, _) => Ok(column),
            (None, None, Some(number)) => Ok(number - 1),
            (found, ..) => Err(IngestError::CsvColumn {
                file: self.lines.label.clone(),
                column: quote(text.as_bytes()),
                why: match found {
                    Some(_) => "several have this name; say their numbers, from 1",
                    None if names.is_empty() => {
                        "without a header columns have only numbers, from 1"
                    }
                    None => "there is no column of this name or number",
                },
            }),
        }
    }

    /// Appends the row of the line.
    fn take(&mut self, into: &mut Vec<f32>, ids: &mut Vec<PointId>) -> Result<(), IngestError> {
        let line = self.lines.line();
        let (file, number) = (|| self.lines.label.clone(), self.lines.number);
        if self.fields.len() != self.width {
            let (expected, found) = (self.width, self.fields.len());
            return Err(IngestError::CsvRagged { file: file(), line: number, expected, found });
        }
        for &column in &self.columns {
            let field = self.fields.get(line, column);
            match field.parse::<f32>() {
                Ok(value) if value.is_finite() => {
                    into.push(value);
                    if let Some(rounding) = &mut self.rounding {
                        // What is a number to one is one to the other.
                        rounding.push(field.parse().unwrap_or_else(|_| value.into()), value);
                    }
                }
                parsed => {
                    let (line, text) = (number, quote(field.as_bytes()));
                    let column = column + 1;
                    return Err(match parsed {
                        Ok(_) => IngestError::CsvNotFinite { file: file(), line, column, text },
                        Err(_) => {
                            let hint = self.hint(field);
                            IngestError::CsvField { file: file(), line, column, text, hint }
                        }
                    });
                }
            }
        }
        if let Some(column) = self.id_column {
            let field = self.fields.get(line, column);
            ids.push(field.parse().map_err(|_| IngestError::Id {
                file: file(),
                line: number,
                text: quote(field.as_bytes()),
            })?);
        }
        Ok(())
    }

    /// What to do about a field that is no number: if it is several behind another separator, or
    /// has a decimal comma.
    fn hint(&self, field: &str) -> String {
        let others = [
            Delimiter::COMMA,
            Delimiter::Char(b';'),
            Delimiter::Char(b'\t'),
            Delimiter::Char(b'|'),
            Delimiter::Blanks,
        ];
        for delimiter in others.into_iter().filter(|&other| other != self.delimiter) {
            let mut fields = Fields::default();
            let decimal_comma = delimiter == Delimiter::COMMA;
            if fields.split(field, delimiter).is_err()
                || fields.len() < 2
                || !fields.iter(field).all(is_number)
            {
                continue;
            }
            return match decimal_comma {
                true => "; a decimal point is expected, not a comma".into(),
                false => {
                    let delimiter = delimiter.shell();
                    format!("; if that separates fields, say --delimiter {delimiter}")
                }
            };
        }
        String::new()
    }
}

impl CsvRows {
    /// Reads one row, and more as long as `go_on` says so.
    fn read_while(
        &mut self,
        at_most: usize,
        into: &mut Vec<f32>,
        ids: &mut Vec<PointId>,
        go_on: impl Fn(&Lines) -> bool,
    ) -> Result<usize, IngestError> {
        for rows in 0..at_most {
            if rows > 0 && !go_on(&self.lines) {
                return Ok(rows);
            }
            if !self.pending && !self.advance()? {
                return Ok(rows);
            }
            self.pending = false;
            self.take(into, ids)?;
        }
        Ok(at_most)
    }
}

impl RowSource for CsvRows {
    fn dim(&self) -> usize {
        self.columns.len()
    }

    fn has_ids(&self) -> bool {
        self.id_column.is_some()
    }

    fn remaining(&self) -> Option<usize> {
        None
    }

    fn read(
        &mut self,
        at_most: usize,
        into: &mut Vec<f32>,
        ids: &mut Vec<PointId>,
    ) -> Result<usize, IngestError> {
        self.read_while(at_most, into, ids, |_| true)
    }

    fn read_ready(
        &mut self,
        at_most: usize,
        into: &mut Vec<f32>,
        ids: &mut Vec<PointId>,
    ) -> Result<usize, IngestError> {
        self.read_while(at_most, into, ids, Lines::has_arrived)
    }

    fn rounded(&self) -> Option<Lost> {
        self.rounding.as_ref().and_then(Rounding::lost)
    }

    fn is_piped(&self) -> bool {
        self.is_piped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> CsvRules {
        CsvRules::default()
    }

    fn read_by(text: &[u8], rules: &CsvRules) -> Result<(usize, Vec<f32>, Vec<u64>), IngestError> {
        let mut rows = open_rows(Input::from_bytes("t.csv", text.to_vec(), false), rules, None)?;
        let (mut values, mut ids) = (Vec::new(), Vec::new());
        while rows.read(2, &mut values, &mut ids)? > 0 {}
        Ok((rows.dim(), values, ids))
    }

    fn read(text: &str) -> Result<(usize, Vec<f32>), IngestError> {
        read_by(text.as_bytes(), &rules()).map(|(dim, values, _)| (dim, values))
    }

    #[test]
    fn numbers_with_and_without_a_header() {
        let expected = (2, vec![1.0, 2.0, -3.5, 4e-3, 5.0, 6.0]);
        assert_eq!(read("1,2\n-3.5, 4e-3\n\n5,6\n").unwrap(), expected);
        assert_eq!(read("x,y\r\n1,2\r\n  \t\r\n-3.5,0.004\r\n5,6").unwrap(), expected);
        assert_eq!(read("\u{feff}x,y\n1,2\n").unwrap(), (2, vec![1.0, 2.0]));
        assert_eq!(read("\u{feff}1,2\n").unwrap(), (2, vec![1.0, 2.0]));
        assert_eq!(read("\"x\",\"y\"\n\"1\",\"2\"\n").unwrap(), (2, vec![1.0, 2.0]));
        assert_eq!(read("7").unwrap(), (1, vec![7.0]));
        assert_eq!(read("0,1").unwrap(), (2, vec![0.0, 1.0]));
        assert_eq!(read("0,1\n\n2,3\n").unwrap(), (2, vec![0.0, 1.0, 2.0, 3.0]));
    }

    #[test]
    fn every_float_survives() {
        for value in [0.1f32, 1e-45, f32::MAX, f32::MIN_POSITIVE, -0.0, 16_777_217.0] {
            let (_, values) = read(&format!("{value}\n")).unwrap();
            assert_eq!(values[0].to_bits(), value.to_bits());
        }
    }

    /// By each rule, what is refused, and with which words.
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
            ("\n \n", "empty"),
            ("x,y\n", "a header and no rows"),
            ("NA,NA\n1,2\n", "line 1, column 1: `NA` is not a number"),
            ("null,\n1,2\n", "line 1, column 1: `null` is not a number"),
            ("?\n1\n", "`?` is not a number"),
            ("\"3\n1\n", "line 1, field 1: a quote is opened and not closed"),
            ("1,2\n\"3,4\n5,6\n", "line 2, field 1: a quote is opened and not closed"),
            ("1,\"2\"5\n", "line 1, field 2: text follows a closing quote"),
            ("1,2\"\n", "line 1, field 2: a quote stands inside"),
            ("0,1\n0.5,6\n", "--no-header"),
            ("0,1\n2,x\n", "line 2, column 2: `x` is not a number"),
            ("1;2;3\n", "say --delimiter ';'"),
            ("a;b\n1;2\n", "say --delimiter ';'"),
            ("1\t2\n", "say --delimiter tab"),
            ("1|2\n", "say --delimiter '|'"),
            ("1 2 3\n", "say --delimiter space"),
            ("id,x0\n7,1\n", "column 1 is named `id`"),
            (",x\n0,1\n", "column 1 is named ``"),
            ("x,Unnamed: 0\n0,1\n", "column 2 is named `Unnamed: 0`"),
            ("x,index,y\n0,1,2\n", "column 2 is named `index`"),
            ("x,point_id\n0,1\n", "column 2 is named `point_id`"),
            ("pointId,x\n0,1\n", "column 1 is named `pointId`"),
            ("x,User ID (old)\n0,1\n", "column 2 is named"),
            ("1,2\r3,4\n", "carriage return"),
            ("a\0b\n", "zero byte"),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(
                message.starts_with("t.csv: ") && message.contains(part),
                "{text:?}: {message}"
            );
        }
        for (bytes, part) in [
            (&b"\xFF\xFEx\0,\0y\0\n\0"[..], "UTF-16"),
            (b"\xFE\xFF\0x\0\n", "UTF-16"),
            (b"\0\0\0\0\0\0", "zero byte"),
            (b"1,2\n3,\xE9\n", "line 2: this is not UTF-8"),
        ] {
            let message = read_by(bytes, &rules()).unwrap_err().to_string();
            assert!(message.contains(part), "{bytes:?}: {message}");
        }
    }

    #[test]
    fn names_that_only_look_like_ids_are_coordinates() {
        for name in
            ["width", "hidden", "x", "x0", "video", "period", "keyboard", "mid", "z_index2d"]
        {
            let text = format!("{name},y\n1,2\n");
            let refused = read(&text).is_err();
            assert_eq!(refused, name == "z_index2d", "{name}");
        }
    }

    #[test]
    fn what_is_said_holds() {
        let read = |text: &str, rules: &CsvRules| read_by(text.as_bytes(), rules);
        let said = |header| CsvRules { header: Some(header), ..rules() };
        assert_eq!(read("0,1\n5,6\n", &said(true)).unwrap().1, [5.0, 6.0]);
        assert_eq!(read("0,1\n5,6\n", &said(false)).unwrap().1, [0.0, 1.0, 5.0, 6.0]);
        assert!(read("x,y\n5,6\n", &said(false)).is_err());
        let by =
            |delimiter: &str| CsvRules { delimiter: Some(delimiter.parse().unwrap()), ..rules() };
        assert_eq!(read("x;y\n5;6\n", &by(";")).unwrap().1, [5.0, 6.0]);
        assert_eq!(read(" 5  6\n7\t8 \n", &by("space")).unwrap().1, [5.0, 6.0, 7.0, 8.0]);
        assert_eq!(read("5\t6\n", &by("tab")).unwrap().1, [5.0, 6.0]);
        let message = read("1,5;2,5\n", &by(";")).unwrap_err().to_string();
        assert!(message.contains("decimal point"), "{message}");

        let text = "name,id,x,y\na,7,1,2\nb,3,4,5\n";
        let chosen = |columns: &[&str], id: Option<&str>| CsvRules {
            columns: columns.iter().map(|&c| c.to_owned()).collect(),
            id_column: id.map(str::to_owned),
            ..rules()
        };
        let expected = (2, vec![2.0, 1.0, 5.0, 4.0], vec![7, 3]);
        assert_eq!(read(text, &chosen(&["y", "3"], Some("id"))).unwrap(), expected);
        assert_eq!(read("id,x\n7,1\n", &chosen(&[], Some("id"))).unwrap(), (1, vec![1.0], vec![7]));
        assert_eq!(read("7,1\n", &chosen(&[], Some("1"))).unwrap(), (1, vec![1.0], vec![7]));
        assert_eq!(read("id,x\n7,1\n", &chosen(&["x"], None)).unwrap(), (1, vec![1.0], vec![]));
        for (columns, id, part) in [
            (&["z"][..], None, "no column of this name"),
            (&["5"], None, "no column"),
            (&["x"], Some("name"), "`a` is not an id"),
        ] {
            let message = read(text, &chosen(columns, id)).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
        let message = read("x,x\n1,2\n", &chosen(&["x"], None)).unwrap_err().to_string();
        assert!(message.contains("several"), "{message}");
        let message = read("id\n1\n", &chosen(&[], Some("id"))).unwrap_err().to_string();
        assert!(message.contains("no column of coordinates"), "{message}");
    }
}
