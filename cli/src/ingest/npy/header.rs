//! The header of an `.npy` file, read with suspicion.
//!
//! `npyz` parses it. It would allocate whatever length the first bytes claim, overflow on a shape
//! whose product does not fit, recurse as deeply as the text nests, and take twice as long for each
//! level; so the text is bounded and looked over before `npyz` sees it.

use std::io::{self, Read};

use npyz::{NpyHeader, Order};

use super::Element;
use crate::ingest::{IngestError, Input};

/// The longest header accepted; NumPy itself refuses to read one of more than 10,000 bytes.
const MAX_TEXT: usize = 1 << 16;
/// The deepest nesting accepted; a plain array has 2, one of records 4.
const MAX_DEPTH: usize = 4;

/// What the header says.
pub(super) struct Header {
    /// The type of the values, if it is one that some caller can use.
    pub(super) element: Option<Element>,
    /// The type as the file names it, for messages.
    pub(super) descr: String,
    /// Lengths of the axes.
    pub(super) shape: Vec<u64>,
    /// The product of `shape`.
    pub(super) count: u64,
    /// True if the first axis runs fastest.
    pub(super) fortran: bool,
    /// Bytes of the header.
    pub(super) bytes: u64,
}

impl Header {
    /// Reads the header and leaves the input at the first value.
    pub(super) fn read(input: &mut Input) -> Result<Header, IngestError> {
        let text = read_text(input)?;
        let refuse = |why: String| Err(IngestError::NpyHeader { file: input.label.clone(), why });
        if let Err(why) = look_over(&text) {
            return refuse(why.to_owned());
        }
        let header = match NpyHeader::from_reader(&text[..]) {
            Ok(header) => header,
            Err(e) => return refuse(e.to_string()),
        };
        let shape = header.shape().to_vec();
        let Some(count) = shape.iter().try_fold(1u64, |product, &n| product.checked_mul(n)) else {
            return refuse("its shape is too large".to_owned());
        };
        let descr = header.dtype().descr();
        Ok(Header {
            element: Element::named(&descr),
            descr,
            shape,
            count,
            fortran: header.order() == Order::Fortran,
            bytes: text.len() as u64,
        })
    }

    /// The first axis, for messages.
    pub(super) fn rows(&self) -> u64 {
        self.shape.first().copied().unwrap_or(1)
    }

    /// The error for a shape that the caller cannot use.
    pub(super) fn wrong_shape(&self, file: String, wanted: &'static str) -> IngestError {
        let lengths: Vec<String> = self.shape.iter().map(u64::to_string).collect();
        IngestError::NpyShape { file, found: format!("({})", lengths.join(", ")), wanted }
    }
}

/// The header as it stands, magic and lengths included.
fn read_text(input: &mut Input) -> Result<Vec<u8>, IngestError> {
    let file = input.label.clone();
    let mut text = vec![0; 8];
    match input.bytes.read_exact(&mut text) {
        Ok(()) if text.starts_with(b"\x93NUMPY") => {}
        Err(source) if source.kind() != io::ErrorKind::UnexpectedEof => {
            return Err(IngestError::Read { file, source });
        }
        _ => return Err(IngestError::NotNpy { file }),
    }
    let width = match text[6] {
        1 => 2,
        2 | 3 => 4,
        major => {
            let why = format!("it is of version {major}, 1 to 3 are known");
            return Err(IngestError::NpyHeader { file, why });
        }
    };
    let mut length = [0; 4];
    extend(input, &mut text, width)?;
    length[..width].copy_from_slice(&text[8..]);
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_TEXT {
        let why = format!("it claims to be {length} bytes long");
        return Err(IngestError::NpyHeader { file, why });
    }
    extend(input, &mut text, length)?;
    Ok(text)
}

fn extend(input: &mut Input, text: &mut Vec<u8>, by: usize) -> Result<(), IngestError> {
    let start = text.len();
    text.resize(start + by, 0);
    input.bytes.read_exact(&mut text[start..]).map_err(|source| match source.kind() {
        io::ErrorKind::UnexpectedEof => {
            IngestError::NpyHeader { file: input.label.clone(), why: "it is cut off".to_owned() }
        }
        _ => IngestError::Read { file: input.label.clone(), source },
    })
}

/// Refuses what `npyz` must not see: deep nesting, and numbers whose product, zeros aside, does not
/// fit in 63 bits. Of the headers that could be used none has either.
fn look_over(text: &[u8]) -> Result<(), &'static str> {
    let mut depth = 0usize;
    let mut product = 1u64;
    // The length field before the dictionary is not text.
    let start = text.iter().skip(8).position(|&b| b == b'{').map_or(text.len(), |at| at + 8);
    let mut rest = &text[start..];
    while let [first, tail @ ..] = rest {
        match first {
            b'[' | b'(' | b'{' => depth += 1,
            b']' | b')' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err("it is nested too deeply");
        }
        if !first.is_ascii_alphanumeric() {
            rest = tail;
            continue;
        }
        let length = rest
            .iter()
            .position(|b| !b.is_ascii_alphanumeric() && *b != b'_')
            .unwrap_or(rest.len());
        let (word, tail) = rest.split_at(length);
        rest = tail;
        if first.is_ascii_digit() {
            let number = std::str::from_utf8(word).ok().and_then(|word| word.parse::<u64>().ok());
            let number = number.ok_or("one of its numbers is too large or oddly written")?;
            product = product
                .checked_mul(number.max(1))
                .filter(|&product| product <= i64::MAX as u64)
                .ok_or("its shape is too large")?;
        }
    }
    Ok(())
}
