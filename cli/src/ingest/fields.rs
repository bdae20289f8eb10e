//! A line of text as fields: separated by one character or by blanks, quoted or not.

use std::ops::Range;
use std::str::FromStr;

/// What stands between two fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delimiter {
    /// One character of ASCII.
    Char(u8),
    /// Any number of spaces and tabs.
    Blanks,
}

impl Delimiter {
    pub(super) const COMMA: Delimiter = Delimiter::Char(b',');

    /// The text that [`Delimiter::from_str`] reads, as a shell takes it.
    pub(super) fn shell(self) -> String {
        match self {
            Delimiter::Blanks => "space".into(),
            Delimiter::Char(b'\t') => "tab".into(),
            Delimiter::Char(c) => format!("'{}'", c as char),
        }
    }
}

impl FromStr for Delimiter {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.as_bytes()) {
            ("tab" | "\\t" | "\t", _) => Ok(Delimiter::Char(b'\t')),
            ("space" | " ", _) => Ok(Delimiter::Blanks),
            (_, &[c]) if c.is_ascii_punctuation() && !b"\"+-.'".contains(&c) => {
                Ok(Delimiter::Char(c))
            }
            _ => Err(
                "a separator is one character that no number has, such as ';' or '|', or tab, or space",
            ),
        }
    }
}

/// What is wrong with the quotes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadQuote {
    /// Which field, from 0.
    pub(super) field: usize,
    pub(super) why: &'static str,
}

/// The fields of a line, as ranges of it.
#[derive(Debug, Default)]
pub(super) struct Fields(Vec<Range<usize>>);

impl Fields {
    /// Takes a line apart. Blanks around a field are none of it, nor are its quotes; what stands in
    /// quotes may hold the separator, and a quote if that is doubled.
    pub(super) fn split(&mut self, line: &str, delimiter: Delimiter) -> Result<(), BadQuote> {
        self.0.clear();
        let bytes = line.as_bytes();
        let is_end = |c: u8| match delimiter {
            Delimiter::Char(delimiter) => c == delimiter,
            Delimiter::Blanks => c == b' ' || c == b'\t',
        };
        let is_blank =
            |c: u8| (c == b' ' || c == b'\t') && (delimiter == Delimiter::Blanks || !is_end(c));
        let skip = |mut at: usize| {
            while bytes.get(at).is_some_and(|&c| is_blank(c)) {
                at += 1;
            }
            at
        };
        let mut at = skip(0);
        loop {
            let fault = |why| Err(BadQuote { field: self.0.len(), why });
            let (field, next) = if bytes.get(at) == Some(&b'"') {
                let Some(end) = closing_quote(&bytes[at + 1..]) else {
                    return fault("a quote is opened and not closed in this line");
                };
                (at + 1..at + 1 + end, skip(at + 2 + end))
            } else {
                let rest = &bytes[at..];
                let end = rest.iter().position(|&c| is_end(c)).unwrap_or(rest.len());
                if rest[..end].contains(&b'"') {
                    return fault("a quote stands inside a field that does not begin with one");
                }
                let kept = rest[..end].trim_ascii_end().len();
                (at..at + kept, skip(at + end))
            };
            let closed = bytes.get(at) == Some(&b'"');
            self.0.push(field);
            if next >= bytes.len() {
                return Ok(());
            }
            let field = self.0.len() - 1;
            match delimiter {
                // What blanks there were have been skipped.
                Delimiter::Blanks if closed && !is_end(bytes[next - 1]) => {
                    return Err(BadQuote { field, why: "text follows a closing quote" });
                }
                Delimiter::Blanks => at = next,
                Delimiter::Char(_) if is_end(bytes[next]) => at = skip(next + 1),
                Delimiter::Char(_) => {
                    return Err(BadQuote { field, why: "text follows a closing quote" });
                }
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// One field of the line that was taken apart.
    pub(super) fn get<'a>(&self, line: &'a str, field: usize) -> &'a str {
        &line[self.0[field].clone()]
    }

    /// All of them.
    pub(super) fn iter<'a>(&self, line: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().map(move |range| &line[range.clone()])
    }
}

/// Where the quote is that closes a field: one that is not doubled.
fn closing_quote(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += bytes[at..].iter().position(|&c| c == b'"')?;
        match bytes.get(at + 1) {
            Some(b'"') => at += 2,
            _ => return Some(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str, delimiter: Delimiter) -> Result<Vec<String>, BadQuote> {
        let mut fields = Fields::default();
        fields.split(line, delimiter)?;
        Ok(fields.iter(line).map(str::to_owned).collect())
    }

    #[test]
    fn fields_quotes_and_blanks() {
        let comma = |line| split(line, Delimiter::COMMA).unwrap();
        assert_eq!(comma("1,2"), ["1", "2"]);
        assert_eq!(comma(" 1 ,\t2 "), ["1", "2"]);
        assert_eq!(comma("1,"), ["1", ""]);
        assert_eq!(comma(",,"), ["", "", ""]);
        assert_eq!(comma("\"1\" , \"a,b\",\"say \"\"x\"\"\""), ["1", "a,b", "say \"\"x\"\""]);
        assert_eq!(comma("\"\""), [""]);
        let blanks = |line| split(line, Delimiter::Blanks).unwrap();
        assert_eq!(blanks("  1\t 2  \"3\" "), ["1", "2", "3"]);
        let tab = |line| split(line, Delimiter::Char(b'\t')).unwrap();
        assert_eq!(tab("1\t 2\t\t3"), ["1", "2", "", "3"]);
    }

    #[test]
    fn quotes_must_balance() {
        for (line, field) in [
            ("\"3", 0),
            ("1,\"2\"5", 1),
            ("3\"", 0),
            ("1,2,\"", 2),
            ("\"a\" b,1", 0),
            ("1,2\"3\"", 1),
            ("\"a\"\"", 0),
        ] {
            let fault = split(line, Delimiter::COMMA).unwrap_err();
            assert_eq!(fault.field, field, "{line}: {fault:?}");
        }
        assert!(split("\"1\"2 3", Delimiter::Blanks).is_err());
        assert!(split("1 2\"", Delimiter::Blanks).is_err());
    }

    #[test]
    fn separators_as_they_are_written() {
        for (text, delimiter) in [
            (";", Delimiter::Char(b';')),
            ("|", Delimiter::Char(b'|')),
            ("tab", Delimiter::Char(b'\t')),
            ("\\t", Delimiter::Char(b'\t')),
            ("space", Delimiter::Blanks),
        ] {
            assert_eq!(text.parse(), Ok(delimiter));
            assert_eq!(delimiter.shell().trim_matches('\'').parse(), Ok(delimiter));
        }
        for text in ["", "ab", "\"", ".", "-", "+", "1", "e", "\u{e9}"] {
            assert!(text.parse::<Delimiter>().is_err(), "{text}");
        }
    }
}
