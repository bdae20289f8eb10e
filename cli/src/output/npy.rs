//! `.npy` files whose number of rows is known only at the end.
//!
//! `npyz` wants the shape of a two-dimensional array first, so the header is made here: room is
//! left for it and it is filled in last. The tests read the files back with `npyz`.

use std::path::Path;

use super::Sink;
use crate::failure::Failure;
use treering::files::publish::Outputs;

/// Bytes of the header: a multiple of 64, and enough for any shape.
const HEADER: usize = 128;

/// An `.npy` file that is being written, row by row.
pub(crate) struct NpyFile {
    sink: Sink,
    descr: &'static str,
}

impl NpyFile {
    /// Begins a file of values of type `descr`, `<f4` or `<u8`.
    pub(crate) fn create(
        outputs: &mut Outputs,
        path: &Path,
        descr: &'static str,
    ) -> Result<NpyFile, Failure> {
        let mut sink = Sink::new(outputs.create_rewritable(path)?);
        sink.write(&[0; HEADER])?;
        Ok(NpyFile { sink, descr })
    }

    /// Appends values, little-endian.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.sink.write(bytes)
    }

    /// Fills in the header and puts the file in its place. The product of `shape` is the number of
    /// values written.
    pub(crate) fn finish(mut self, shape: &[u64]) -> Result<(), Failure> {
        self.sink.overwrite_start(&header(self.descr, shape))?;
        self.sink.finish()
    }
}

fn header(descr: &str, shape: &[u64]) -> [u8; HEADER] {
    let axes: String = shape.iter().map(|n| format!("{n}, ")).collect();
    let axes = if shape.len() == 1 { axes.trim_end() } else { axes.trim_end_matches(", ") };
    let dictionary = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({axes}), }}");
    let mut bytes = [b' '; HEADER];
    bytes[..10].copy_from_slice(b"\x93NUMPY\x01\x00\x76\x00");
    bytes[10..10 + dictionary.len()].copy_from_slice(dictionary.as_bytes());
    bytes[HEADER - 1] = b'\n';
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn npyz_reads_the_header() {
        for shape in [&[3u64, 2][..], &[0, 7], &[5], &[u64::MAX, 1]] {
            let header = npyz::NpyHeader::from_reader(&header("<u8", shape)[..]).unwrap();
            assert_eq!(header.shape(), shape);
            assert_eq!(header.dtype().descr(), "'<u8'");
            assert_eq!(header.order(), npyz::Order::C);
        }
        assert_eq!(usize::from(header("<f4", &[1])[8]) + 10, HEADER);
    }
}
