//! Sorting more records than memory holds: sorted runs in a temporary file, merged.
//!
//! A record is a 96-bit key and a payload of fixed length. Keys must be distinct where the order
//! matters.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use zerocopy::IntoBytes;

use super::{BLOCK_BYTES, Done, SEAL, SpillFile};
use crate::values::error::TemporaryError;

/// What records are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    high: u64,
    low: u32,
}

impl Key {
    /// First by a 64-bit number, then by one of 32 bits.
    pub(crate) fn wide_first(first: u64, then: u32) -> Self {
        Key { high: first, low: then }
    }

    /// First by a 32-bit number, then by one of 64 bits.
    pub(crate) fn wide_last(first: u32, then: u64) -> Self {
        Key { high: u64::from(first) << 32 | then >> 32, low: then as u32 }
    }

    /// What [`Key::wide_first`] was given.
    pub(crate) fn as_wide_first(self) -> (u64, u32) {
        (self.high, self.low)
    }

    /// What [`Key::wide_last`] was given.
    pub(crate) fn as_wide_last(self) -> (u32, u64) {
        ((self.high >> 32) as u32, self.high << 32 | u64::from(self.low))
    }

    const BYTES: usize = 12;

    fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.high.to_le_bytes());
        out.extend_from_slice(&self.low.to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> Self {
        let high = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
        let low = u32::from_le_bytes(bytes[8..12].try_into().expect("four bytes"));
        Key { high, low }
    }
}

/// Runs that are merged at once.
const FAN_IN: usize = 256;

/// Takes records in any order.
pub(crate) struct Sorter {
    folder: PathBuf,
    /// Bytes of memory for records.
    budget: usize,
    /// Values of f32 per payload.
    payload: usize,
    keys: Vec<(Key, u32)>,
    values: Vec<f32>,
    file: Option<SpillFile>,
    runs: Vec<Run>,
    count: u64,
}

/// A sorted stretch of the file: blocks of equally many records, the last of which may have fewer.
#[derive(Clone, Copy, Debug)]
struct Run {
    offset: u64,
    records: u64,
}

/// Records of a block: so few that as many blocks as runs that are merged at once fit into the
/// budget.
fn records_of_block(payload: usize, budget: usize) -> usize {
    let record = Key::BYTES + 4 * payload;
    (BLOCK_BYTES.min(budget / FAN_IN) / record).max(1)
}

impl Sorter {
    /// A sorter of records with `payload` values each, which holds `budget` bytes of them in
    /// memory.
    pub(crate) fn new(folder: &Path, payload: usize, budget: usize) -> Self {
        Sorter {
            folder: folder.to_path_buf(),
            budget,
            payload,
            keys: Vec::new(),
            values: Vec::new(),
            file: None,
            runs: Vec::new(),
            count: 0,
        }
    }

    /// Records so far.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Adds a record.
    pub(crate) fn push(&mut self, key: Key, payload: &[f32]) -> Result<(), TemporaryError> {
        assert_eq!(payload.len(), self.payload);
        // Growing a list holds it twice for a moment.
        let needed = (self.keys.len() + 1) * (size_of::<(Key, u32)>() + 4 * self.payload);
        if needed * 2 > self.budget && !self.keys.is_empty() {
            self.write_run()?;
        }
        self.keys.push((key, self.keys.len() as u32));
        self.values.extend_from_slice(payload);
        self.count += 1;
        Ok(())
    }

    fn write_run(&mut self) -> Result<(), TemporaryError> {
        self.keys.par_sort_unstable();
        if self.file.is_none() {
            self.file = Some(SpillFile::new(&self.folder)?);
        }
        let file = self.file.as_mut().expect("made above");
        let mut run = RunBuffer::new(records_of_block(self.payload, self.budget));
        for &(key, at) in &self.keys {
            let first = at as usize * self.payload;
            run.push(file, key, self.values[first..first + self.payload].as_bytes())?;
        }
        self.runs.push(run.finish(file)?);
        self.keys.clear();
        self.values.clear();
        Ok(())
    }

    /// The records in order.
    pub(crate) fn finish(mut self) -> Result<Sorted, TemporaryError> {
        if self.runs.is_empty() {
            self.keys.par_sort_unstable();
            let Sorter { keys, values, payload, .. } = self;
            return Ok(Sorted::Memory { keys, values, payload, next: 0 });
        }
        if !self.keys.is_empty() {
            self.write_run()?;
        }
        let Sorter { budget, payload, file, mut runs, .. } = self;
        let mut file = file.expect("there are runs");
        let block = records_of_block(payload, budget);
        while runs.len() > FAN_IN {
            let some = runs.drain(..FAN_IN).collect();
            let mut merge = Merge::new(some, payload, block);
            // Read and write turn by turn, because both are of one file.
            let mut merged = RunBuffer::new(block);
            while let Some(key) = merge.next(&file)? {
                merged.push(&mut file, key, &merge.payload)?;
            }
            runs.push(merged.finish(&mut file)?);
        }
        let merge = Merge::new(runs, payload, block);
        Ok(Sorted::Runs { file, merge, values: Vec::new() })
    }
}

/// A run on its way out.
struct RunBuffer {
    /// Records of a block.
    block: usize,
    bytes: Vec<u8>,
    offset: Option<u64>,
    records: u64,
}

impl RunBuffer {
    fn new(block: usize) -> Self {
        RunBuffer { block, bytes: Vec::new(), offset: None, records: 0 }
    }

    /// Appends a record. Nothing else is written to the file between the blocks of a run.
    fn push(
        &mut self,
        file: &mut SpillFile,
        key: Key,
        payload: &[u8],
    ) -> Result<(), TemporaryError> {
        key.encode(&mut self.bytes);
        self.bytes.extend_from_slice(payload);
        self.records += 1;
        match self.records.is_multiple_of(self.block as u64) {
            true => self.flush(file),
            false => Ok(()),
        }
    }

    fn flush(&mut self, file: &mut SpillFile) -> Result<(), TemporaryError> {
        let offset = file.append(&[&self.bytes])?;
        self.offset.get_or_insert(offset);
        self.bytes.clear();
        Ok(())
    }

    fn finish(mut self, file: &mut SpillFile) -> Result<Run, TemporaryError> {
        if !self.bytes.is_empty() {
            self.flush(file)?;
        }
        Ok(Run { offset: self.offset.expect("a run has records"), records: self.records })
    }
}

/// A run on its way in.
struct Reader {
    run: Run,
    /// A block.
    buffer: Vec<u8>,
    at: usize,
    read: Done,
}

/// Several runs as one.
pub(crate) struct Merge {
    readers: Vec<Reader>,
    heap: BinaryHeap<Reverse<(Key, usize)>>,
    /// Bytes of a record.
    record: usize,
    /// Records of a block.
    block: usize,
    started: bool,
    /// Of the record that came last.
    payload: Vec<u8>,
}

impl Merge {
    fn new(runs: Vec<Run>, payload: usize, block: usize) -> Self {
        let record = Key::BYTES + 4 * payload;
        let reader = |run| Reader { run, buffer: Vec::new(), at: 0, read: Done::default() };
        let readers = runs.into_iter().map(reader).collect();
        let heap = BinaryHeap::new();
        Merge { readers, heap, record, block, started: false, payload: Vec::new() }
    }

    /// The next key; its payload is in `payload`.
    fn next(&mut self, file: &SpillFile) -> Result<Option<Key>, TemporaryError> {
        if !std::mem::replace(&mut self.started, true) {
            for i in 0..self.readers.len() {
                self.refill(file, i)?;
            }
        }
        let Some(Reverse((key, i))) = self.heap.pop() else {
            return Ok(None);
        };
        let reader = &mut self.readers[i];
        self.payload.clear();
        let record = reader.at..reader.at + self.record;
        self.payload.extend_from_slice(&reader.buffer[record][Key::BYTES..]);
        reader.at += self.record;
        self.refill(file, i)?;
        Ok(Some(key))
    }

    /// Puts the next key of a run into the heap.
    fn refill(&mut self, file: &SpillFile, i: usize) -> Result<(), TemporaryError> {
        let reader = &mut self.readers[i];
        if reader.at == reader.buffer.len() {
            let records = reader.run.records.min(self.block as u64);
            let bytes = records as usize * self.record;
            reader.at = 0;
            reader.buffer.clear();
            if records > 0 {
                file.read(reader.run.offset, bytes, &mut reader.buffer)?;
                reader.read.add(file, reader.run.offset, bytes);
                reader.run.offset += (bytes + SEAL) as u64;
                reader.run.records -= records;
            }
        }
        if reader.at < reader.buffer.len() {
            self.heap.push(Reverse((Key::decode(&reader.buffer[reader.at..]), i)));
        }
        Ok(())
    }
}

/// Gives records out in order.
pub(crate) enum Sorted {
    /// There were few.
    Memory {
        /// Keys, and where the payload of each is.
        keys: Vec<(Key, u32)>,
        values: Vec<f32>,
        payload: usize,
        next: usize,
    },
    /// There were many.
    Runs { file: SpillFile, merge: Merge, values: Vec<f32> },
}

impl Sorted {
    /// The next record.
    pub(crate) fn next(&mut self) -> Result<Option<(Key, &[f32])>, TemporaryError> {
        match self {
            Sorted::Memory { keys, values, payload, next } => {
                let Some(&(key, at)) = keys.get(*next) else {
                    return Ok(None);
                };
                *next += 1;
                let first = at as usize * *payload;
                Ok(Some((key, &values[first..first + *payload])))
            }
            Sorted::Runs { file, merge, values } => {
                let Some(key) = merge.next(file)? else {
                    return Ok(None);
                };
                let payload = merge.payload.as_chunks().0;
                values.clear();
                values.extend(payload.iter().map(|&bytes| f32::from_le_bytes(bytes)));
                Ok(Some((key, values)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_records_come_out_in_order() {
        let folder = tempfile::tempdir().unwrap();
        // In memory; in some runs; in so many that they are merged twice.
        for (records, payload, budget) in
            [(500u64, 3usize, 1 << 20), (20_000, 0, 1 << 16), (30_000, 2, 4000)]
        {
            let mut sorter = Sorter::new(folder.path(), payload, budget);
            let mut expected = Vec::new();
            let mut state = 1u64;
            for _ in 0..records {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let key = Key::wide_last((state >> 60) as u32, state);
                let values = vec![(state >> 40) as f32; payload];
                sorter.push(key, &values).unwrap();
                expected.push((key.as_wide_last(), values));
            }
            expected.sort_by_key(|record| record.0);
            assert_eq!(sorter.count(), records);
            assert_eq!(sorter.runs.len() > FAN_IN, budget == 4000, "{}", sorter.runs.len());
            let mut sorted = sorter.finish().unwrap();
            for (key, values) in expected {
                let (found, payload) = sorted.next().unwrap().unwrap();
                assert_eq!((found.as_wide_last(), payload), (key, &values[..]));
            }
            assert!(sorted.next().unwrap().is_none());
        }
    }

    #[test]
    fn every_flipped_byte_is_an_error() {
        use std::os::unix::fs::FileExt;
        let folder = tempfile::tempdir().unwrap();
        let sorted = || {
            let mut sorter = Sorter::new(folder.path(), 1, 1500);
            (0..150u64).for_each(|i| sorter.push(Key::wide_first(i * 7 % 150, 0), &[0.5]).unwrap());
            sorter.finish().unwrap()
        };
        let end = match sorted() {
            Sorted::Runs { file, .. } => file.end,
            Sorted::Memory { .. } => panic!("there are runs"),
        };
        for at in 0..end {
            let mut sorted = sorted();
            if let Sorted::Runs { file, .. } = &sorted {
                let mut byte = [0];
                file.file.read_exact_at(&mut byte, at).unwrap();
                file.file.write_all_at(&[byte[0] ^ 4], at).unwrap();
            }
            let failed = loop {
                match sorted.next() {
                    Ok(None) => break false,
                    Ok(Some(_)) => {}
                    Err(_) => break true,
                }
            };
            assert!(failed, "byte {at} of {end}");
        }
    }

    #[test]
    fn keys_keep_what_they_were_made_of() {
        assert_eq!(Key::wide_first(u64::MAX - 1, 7).as_wide_first(), (u64::MAX - 1, 7));
        assert_eq!(Key::wide_last(9, u64::MAX - 1).as_wide_last(), (9, u64::MAX - 1));
        assert!(Key::wide_last(1, u64::MAX) < Key::wide_last(2, 0));
        assert!(Key::wide_first(1, u32::MAX) < Key::wide_first(2, 0));
    }
}
