//! Text as a terminal may have it: what cannot be seen, or changes how the rest is seen, is written
//! as an escape.
//!
//! A character is plain if it is a letter, mark, number, punctuation or symbol that shows, or the
//! ordinary space. Not plain are those whose general category is control, format (which has the
//! direction overrides and isolates), surrogate, private use or unassigned, every other space or
//! separator, and those that Unicode calls default ignorable or that are blank, be they letters.
//! Which characters are assigned depends on the Unicode version of the table; so this decides what
//! is accepted and how it is shown, and never whether a store can be read.

use std::fmt::{self, Write};

use unicode_properties::{GeneralCategory as Category, UnicodeGeneralCategory};

/// Characters that do not show although their category is that of letters, marks or symbols: the
/// default ignorable ones of `DerivedCoreProperties.txt`, which the categories do not have already,
/// and the blank pattern of Braille.
const INVISIBLE: [(char, char); 10] = [
    ('\u{34f}', '\u{34f}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{2800}', '\u{2800}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fff8}'),
    ('\u{e0000}', '\u{e0fff}'),
];

/// True if a character shows as itself, and nothing else shows differently because of it.
pub fn is_plain(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    let hidden = matches!(
        c.general_category(),
        Category::Control
            | Category::Format
            | Category::Surrogate
            | Category::PrivateUse
            | Category::Unassigned
            | Category::LineSeparator
            | Category::ParagraphSeparator
            | Category::SpaceSeparator
    );
    !hidden && !INVISIBLE.iter().any(|&(first, last)| (first..=last).contains(&c))
}

/// A text with all that is not plain as `\u{...}`, or as `\n`, `\r` or `\t`.
#[derive(Clone, Copy, Debug)]
pub struct Printable<'a>(pub &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match (is_plain(c), c) {
            (true, _) => f.write_char(c),
            (false, '\n' | '\r' | '\t') => write!(f, "{}", c.escape_default()),
            (false, _) => write!(f, "{}", c.escape_unicode()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_plain() {
        let hidden = [
            '\0',
            '\t',
            '\n',
            '\u{7f}',
            '\u{85}',
            '\u{a0}',
            '\u{ad}',
            '\u{34f}',
            '\u{61c}',
            '\u{115f}',
            '\u{1160}',
            '\u{1680}',
            '\u{17b4}',
            '\u{180b}',
            '\u{180e}',
            '\u{2000}',
            '\u{200b}',
            '\u{200d}',
            '\u{200e}',
            '\u{200f}',
            '\u{2028}',
            '\u{2029}',
            '\u{202a}',
            '\u{202e}',
            '\u{202f}',
            '\u{205f}',
            '\u{2060}',
            '\u{2066}',
            '\u{2069}',
            '\u{206f}',
            '\u{2800}',
            '\u{3000}',
            '\u{3164}',
            '\u{e000}',
            '\u{fe00}',
            '\u{fe0f}',
            '\u{feff}',
            '\u{ffa0}',
            '\u{fff9}',
            '\u{ffff}',
            '\u{1d173}',
            '\u{e0001}',
            '\u{e0041}',
            '\u{e0100}',
            '\u{f0000}',
            '\u{10ffff}',
        ];
        for c in hidden {
            assert!(!is_plain(c), "{}", c.escape_unicode());
        }
        for c in " !'\"\\`~aZ09éßΩжא中あ한🎄€½\u{301}".chars() {
            assert!(is_plain(c), "{}", c.escape_unicode());
        }
    }

    #[test]
    fn it_is_escaped_and_nothing_else_is() {
        assert_eq!(Printable("a\x1b[2J\né \\").to_string(), "a\\u{1b}[2J\\né \\");
        assert_eq!(Printable("\u{202e}x\u{3164}").to_string(), "\\u{202e}x\\u{3164}");
    }
}
