//! Lines of text, whatever program wrote them: LF or CRLF, with or without a mark of its encoding
//! at the beginning.

use std::io::{BufRead, BufReader, Read};

use super::error::quote;
use super::{IngestError, Input};

/// Bytes that a line may have: more than the longest row takes that a store could hold, so that
/// text without line ends does not fill the memory.
const LONGEST: usize = 16 << 20;

/// Lines that are read as they are asked for.
pub(super) struct Lines {
    pub(super) label: String,
    reader: BufReader<Box<dyn Read + Send>>,
    /// The line that was read last, from 1.
    pub(super) number: u64,
    buffer: Vec<u8>,
    /// The next one and its number, if it has been looked at; `None` in it: there is none.
    next: Option<Option<(Vec<u8>, u64)>>,
}

impl Lines {
    pub(super) fn new(input: Input) -> Self {
        let Input { label, bytes, .. } = input;
        let reader = BufReader::with_capacity(1 << 16, bytes);
        Lines { label, reader, number: 0, buffer: Vec::new(), next: None }
    }

    /// Goes on to the next line that is not blank; false at the end.
    pub(super) fn advance(&mut self) -> Result<bool, IngestError> {
        if let Some(next) = self.next.take() {
            let Some(next) = next else { return Ok(false) };
            (self.buffer, self.number) = next;
            return Ok(true);
        }
        loop {
            self.buffer.clear();
            let mut limited = (&mut self.reader).take(LONGEST as u64 + 1);
            let length = limited
                .read_until(b'\n', &mut self.buffer)
                .map_err(|source| IngestError::Read { file: self.label.clone(), source })?;
            if length == 0 {
                return Ok(false);
            }
            self.number += 1;
            if self.number == 1 && self.buffer.starts_with(b"\xEF\xBB\xBF") {
                self.buffer.drain(..3);
            }
            for end in *b"\n\r" {
                if self.buffer.last() == Some(&end) {
                    self.buffer.pop();
                }
            }
            self.check(length)?;
            if !self.buffer.trim_ascii().is_empty() {
                return Ok(true);
            }
        }
    }

    /// The line after this one.
    pub(super) fn peek(&mut self) -> Result<Option<&str>, IngestError> {
        let here = (std::mem::take(&mut self.buffer), self.number);
        let found = self.advance()?;
        let next = (std::mem::replace(&mut self.buffer, here.0), self.number);
        self.number = here.1;
        let next = self.next.insert(found.then_some(next));
        let line = next.as_ref().map(|(line, _)| line);
        Ok(line.map(|line| str::from_utf8(line).expect("checked when it was read")))
    }

    /// True if the next line is there without waiting for whoever writes it.
    pub(super) fn has_arrived(&self) -> bool {
        self.next.is_some() || self.reader.buffer().contains(&b'\n')
    }

    /// The line, without its end.
    pub(super) fn line(&self) -> &str {
        str::from_utf8(&self.buffer).expect("checked when it was read")
    }

    fn check(&self, length: usize) -> Result<(), IngestError> {
        let fault = |why: String| {
            Err(IngestError::NotText { file: self.label.clone(), line: self.number, why })
        };
        if self.number == 1
            && (self.buffer.starts_with(b"\xFF\xFE") || self.buffer.starts_with(b"\xFE\xFF"))
        {
            return fault("this is UTF-16; save it as UTF-8".into());
        }
        if self.buffer.contains(&0) {
            return fault(
                "there is a zero byte; text has none (is it UTF-16 or a binary file?)".into(),
            );
        }
        if length > LONGEST {
            return fault(format!("the line has no end within {} MiB", LONGEST >> 20));
        }
        if let Err(e) = std::str::from_utf8(&self.buffer) {
            let at = e.valid_up_to();
            let what = quote(&self.buffer[at.saturating_sub(10)..(at + 10).min(self.buffer.len())]);
            return fault(format!("this is not UTF-8 (around `{what}`); save it as UTF-8"));
        }
        if self.buffer.contains(&b'\r') {
            return fault(
                "a carriage return stands inside the line; lines end with LF or CRLF".into(),
            );
        }
        Ok(())
    }
}
