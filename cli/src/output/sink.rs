//! A destination of bytes, with a buffer: standard output, or a file as
//! [`treering::files::publish`] makes it.

use std::io::{self, Write};

use crate::failure::Failure;
use treering::CancelToken;
use treering::files::publish::{Output, OutputError};
use treering::files::waiting::Wait;

/// Bytes that are gathered before any is written. A verb that fails before it has produced more
/// than this prints nothing.
const BUFFER: usize = 16 << 20;

/// A buffered destination.
pub(crate) struct Sink {
    buffer: Vec<u8>,
    to: To,
}

enum To {
    /// What a verb prints, whatever it has read.
    Print,
    Output(Box<Output>),
}

impl Sink {
    /// Standard output.
    pub(crate) fn stdout() -> Sink {
        Sink { buffer: Vec::new(), to: To::Print }
    }

    /// Something that is being written.
    pub(crate) fn new(output: Output) -> Sink {
        Sink { buffer: Vec::new(), to: To::Output(Box::new(output)) }
    }

    /// Appends bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() < BUFFER { Ok(()) } else { self.flush() }
    }

    /// Replaces the first bytes of what was written, if the output is made for it.
    pub(crate) fn overwrite_start(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.flush()?;
        match &mut self.to {
            To::Output(output) => Ok(output.overwrite_start(bytes)?),
            To::Print => unreachable!("what is printed goes from start to end"),
        }
    }

    /// Writes what is buffered and puts the file in its place.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        self.flush()?;
        match self.to {
            To::Output(output) => Ok(output.finish()?),
            To::Print => Ok(()),
        }
    }

    /// Writes what is buffered.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        let done = match &mut self.to {
            To::Print => {
                // Never refused: what is told may have happened already.
                let wait = Wait::begin(&CancelToken::default());
                let mut stdout = io::stdout().lock();
                let done = stdout.write_all(&self.buffer).and_then(|()| stdout.flush());
                let name = || "standard output".to_owned();
                drop(wait);
                done.map_err(|source| OutputError::Io { name: name(), source })
            }
            To::Output(output) => {
                output.write_all(&self.buffer).map_err(|source| output.failure(source))
            }
        };
        self.buffer.clear();
        Ok(done?)
    }
}
