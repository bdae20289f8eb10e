//! What a simulated file holds, without the holes of its preamble: they would be most of a small
//! store, and every crash image is copied and compared whole. Nobody may write to them, which this
//! asserts.

const UNIT: usize = 65_536;
const PAGE: usize = 4096;
/// Where the preamble ends, in the file and here.
const DATA_START: usize = 12 * UNIT;
const PACKED_START: usize = 12 * PAGE;

#[derive(Clone, Default)]
pub(crate) struct Packed {
    /// Length of the file.
    len: usize,
    bytes: Vec<u8>,
}

/// How many bytes are kept of the first `len` of a file.
fn kept(len: usize) -> usize {
    match len.checked_sub(DATA_START) {
        Some(data) => PACKED_START + data,
        None => len / UNIT * PAGE + (len % UNIT).min(PAGE),
    }
}

/// True if a byte of a file is in a hole of the preamble.
pub(crate) fn is_hole(offset: usize) -> bool {
    offset < DATA_START && offset % UNIT >= PAGE
}

impl Packed {
    pub(crate) fn of(file: &[u8]) -> Self {
        let mut packed = Packed::default();
        packed.resize(file.len());
        for start in (0..DATA_START.min(file.len())).step_by(UNIT) {
            packed.write(start, &file[start..file.len().min(start + PAGE)]);
        }
        if file.len() > DATA_START {
            packed.write(DATA_START, &file[DATA_START..]);
        }
        packed
    }

    /// The file as it is.
    pub(crate) fn file(&self) -> Vec<u8> {
        let mut file = vec![0; self.len];
        for start in (0..DATA_START.min(self.len)).step_by(UNIT) {
            let end = self.len.min(start + PAGE);
            file[start..end].copy_from_slice(&self.bytes[kept(start)..kept(end)]);
        }
        if self.len > DATA_START {
            file[DATA_START..].copy_from_slice(&self.bytes[PACKED_START..]);
        }
        file
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn resize(&mut self, len: usize) {
        self.len = len;
        self.bytes.resize(kept(len), 0);
    }

    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if end > self.len {
            self.resize(end);
        }
        self.slice_mut(offset, bytes.len()).copy_from_slice(bytes);
    }

    pub(crate) fn zero(&mut self, offset: usize, len: usize) {
        let end = self.len.min(offset + len);
        if end > offset {
            self.slice_mut(offset, end - offset).fill(0);
        }
    }

    pub(crate) fn flip(&mut self, at: usize, mask: u8) {
        self.slice_mut(at, 1)[0] ^= mask;
    }

    fn slice_mut(&mut self, offset: usize, len: usize) -> &mut [u8] {
        let is_whole = offset >= DATA_START || offset % UNIT + len <= PAGE;
        assert!(is_whole, "{len} bytes at {offset} of the preamble are not in a page");
        let start = kept(offset);
        &mut self.bytes[start..start + len]
    }

    /// `None` if the file ends before.
    pub(crate) fn read(&self, offset: usize, buffer: &mut [u8]) -> Option<()> {
        if offset.checked_add(buffer.len())? > self.len {
            return None;
        }
        if offset >= DATA_START || offset % UNIT + buffer.len() <= PAGE {
            let start = kept(offset);
            buffer.copy_from_slice(&self.bytes[start..start + buffer.len()]);
            return Some(());
        }
        for (at, byte) in (offset..).zip(buffer) {
            *byte = if is_hole(at) { 0 } else { self.bytes[kept(at)] };
        }
        Some(())
    }

    /// Everything that is kept.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[test]
fn a_file_is_what_it_was() {
    let mut file: Vec<u8> = (0..DATA_START + 5_000).map(|i| (i % 251) as u8 + 1).collect();
    file.iter_mut().enumerate().filter(|(at, _)| is_hole(*at)).for_each(|(_, byte)| *byte = 0);
    for len in [0, 1, 5_000, UNIT + 7, 3 * UNIT + PAGE + 1, DATA_START - 1, DATA_START, file.len()]
    {
        let packed = Packed::of(&file[..len]);
        assert_eq!(packed.len(), len);
        assert!(packed.file() == file[..len], "{len}");
        let mut part = vec![0; len / 2];
        packed.read(len / 3, &mut part).unwrap();
        assert!(part == file[len / 3..len / 3 + len / 2], "{len}");
        assert!(packed.read(len / 2 + 1, &mut vec![0; len]).is_none());
    }
}
