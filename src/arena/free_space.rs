//! Which blocks of the file are in use, and where the next segment goes.
//!
//! Space is carved in chunks of one class, so that small rows that survive do not lie between large segments. A block
//! is *used* while a retained version or the store state refers to it, and for one commit longer.

use super::mapping::WINDOW_BYTES;
use crate::format::arrays::Class;

/// The free map and the carving cursors. Cloned by a commit, and put back only if the commit succeeds.
#[derive(Clone, Debug)]
pub(crate) struct FreeSpace {
    block_bytes: u64,
    /// Bit `b % 64` of word `b / 64`: block `b` is used. Blocks beyond the last word are free.
    words: Vec<u64>,
    /// Chunk that each class is carving: blocks `next..end`, all of them free.
    chunks: [Chunk; 2],
    /// First block behind every used block and every chunk.
    frontier: u64,
    /// False if nothing is put into holes.
    fills_holes: bool,
    /// Words changed since [`FreeSpace::take_changes`], ascending after `dedup`.
    changed: Vec<usize>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Chunk {
    next: u64,
    end: u64,
}

/// Largest chunk; smaller ones are taken while the file is small.
const CHUNK_BYTES: u64 = 1 << 20;
const CHUNK_BYTES_MIN: u64 = 1 << 16;

impl FreeSpace {
    /// The state recorded in a free map; `preamble` bytes at the start of the file are never given out.
    pub(crate) fn new(block_bytes: u32, words: Vec<u64>, preamble: u64) -> Self {
        let mut space = FreeSpace {
            block_bytes: block_bytes as u64,
            words,
            chunks: [Chunk::default(); 2],
            frontier: 0,
            fills_holes: true,
            changed: Vec::new(),
        };
        let last = space.words.iter().rposition(|&word| word != 0);
        let used = last.map_or(0, |w| (w as u64 + 1) * 64 - space.words[w].leading_zeros() as u64);
        space.frontier = used.max(preamble / space.block_bytes);
        space.mark(0, preamble / space.block_bytes, true);
        space
    }

    /// Finds room for `bytes` (whole blocks), marks it used and returns its address.
    pub(crate) fn allocate(&mut self, bytes: usize, class: Class) -> u64 {
        let blocks = bytes as u64 / self.block_bytes;
        let class = class as usize;
        loop {
            let chunk = &mut self.chunks[class];
            if chunk.next + blocks <= chunk.end {
                let start = chunk.next;
                let window_blocks = WINDOW_BYTES / self.block_bytes;
                let boundary = (start / window_blocks + 1) * window_blocks;
                if start + blocks > boundary {
                    chunk.next = boundary;
                    continue;
                }
                chunk.next += blocks;
                self.mark(start, blocks, true);
                return start * self.block_bytes;
            }
            self.chunks[class] = self.next_chunk(blocks);
        }
    }

    /// Marks a range free.
    pub(crate) fn free(&mut self, address: u64, bytes: u64) {
        self.mark(address / self.block_bytes, bytes / self.block_bytes, false);
    }

    /// True if every block of a range is used.
    pub(crate) fn is_range_used(&self, address: u64, bytes: u64) -> bool {
        let first = address / self.block_bytes;
        (first..first + bytes / self.block_bytes).all(|block| self.is_used(block))
    }

    /// Bytes from the start of the file to the end of the last used block.
    pub(crate) fn used_end(&self) -> u64 {
        let last = self.words.iter().rposition(|&word| word != 0);
        let blocks = last.map_or(0, |w| (w as u64 + 1) * 64 - self.words[w].leading_zeros() as u64);
        blocks * self.block_bytes
    }

    /// Maximal free ranges between two offsets: (offset, bytes), ascending.
    pub(crate) fn free_runs(&self, from: u64, to: u64) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        let end = to / self.block_bytes;
        let mut block = from.div_ceil(self.block_bytes);
        while block < end {
            let word = self.words.get((block / 64) as usize).copied().unwrap_or(0) >> (block % 64);
            // As many blocks as are alike, as far as this word goes.
            let alike = match word & 1 {
                1 => word.trailing_ones() as u64,
                _ => (word.trailing_zeros() as u64).min(64 - block % 64),
            };
            let alike = alike.min(end - block);
            if word & 1 == 0 {
                let (offset, bytes) = (block * self.block_bytes, alike * self.block_bytes);
                match runs.last_mut() {
                    Some((start, len)) if *start + *len == offset => *len += bytes,
                    _ => runs.push((offset, bytes)),
                }
            }
            block += alike;
        }
        runs
    }

    /// Bytes in use.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.words.iter().map(|w| w.count_ones() as u64).sum::<u64>() * self.block_bytes
    }

    /// The words, and which of them have changed since the last call.
    pub(crate) fn take_changes(&mut self) -> Vec<usize> {
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.dedup();
        changed
    }

    /// All words of the map.
    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    fn is_used(&self, block: u64) -> bool {
        self.words.get((block / 64) as usize).is_some_and(|w| w >> (block % 64) & 1 == 1)
    }

    fn mark(&mut self, start: u64, blocks: u64, used: bool) {
        let end = start + blocks;
        if used && self.words.len() < end.div_ceil(64) as usize {
            self.words.resize(end.div_ceil(64) as usize, 0);
        }
        let mut block = start;
        while block < end {
            let word = (block / 64) as usize;
            let low = block % 64;
            let count = (64 - low).min(end - block);
            let mask = if count == 64 { u64::MAX } else { ((1 << count) - 1) << low };
            let before = self.words.get(word).copied().unwrap_or(0);
            let after = if used { before | mask } else { before & !mask };
            if after != before {
                self.words[word] = after;
                self.note_change(word);
            }
            block += count;
        }
    }

    fn note_change(&mut self, word: usize) {
        if self.changed.last() == Some(&word) {
            return;
        }
        if self.changed.len() > 2 * self.words.len() + 64 {
            self.changed.sort_unstable();
            self.changed.dedup();
        }
        self.changed.push(word);
    }

    /// From now on nothing is put into holes, only behind everything that is in use.
    pub(crate) fn only_at_end(&mut self) {
        self.chunks = [Chunk::default(); 2];
        self.frontier = self.used_end() / self.block_bytes;
        self.fills_holes = false;
    }

    /// A free range of at least `blocks` blocks: the first hole that is long enough, else new space at the end.
    fn next_chunk(&mut self, blocks: u64) -> Chunk {
        let file = self.frontier * self.block_bytes;
        let chunk_bytes = (file / 8).next_power_of_two().clamp(CHUNK_BYTES_MIN, CHUNK_BYTES);
        let want = (chunk_bytes / self.block_bytes).max(blocks);
        let mut block = if self.fills_holes { 0 } else { self.frontier };
        while block < self.frontier {
            let word = self.words.get((block / 64) as usize).copied().unwrap_or(0);
            if word == u64::MAX {
                block = (block / 64 + 1) * 64;
                continue;
            }
            if self.is_used(block) {
                block += 1;
                continue;
            }
            if let Some(other) = self.chunks.iter().find(|c| (c.next..c.end).contains(&block)) {
                block = other.end;
                continue;
            }
            let limit = self
                .chunks
                .iter()
                .filter(|c| c.next < c.end && c.next > block)
                .map(|c| c.next)
                .fold(self.frontier.min(block + want), u64::min);
            let mut end = block + 1;
            while end < limit && !self.is_used(end) {
                end += 1;
            }
            if end - block >= blocks && self.fits_a_window(block, blocks) {
                return Chunk { next: block, end };
            }
            block = end;
        }
        let chunk = Chunk { next: self.frontier, end: self.frontier + want };
        self.frontier = chunk.end;
        chunk
    }

    fn fits_a_window(&self, block: u64, blocks: u64) -> bool {
        let window_blocks = WINDOW_BYTES / self.block_bytes;
        block / window_blocks == (block + blocks - 1) / window_blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_out_is_free_and_comes_back() {
        let mut space = FreeSpace::new(4096, Vec::new(), 65_536);
        let mut taken: Vec<(u64, u64)> = Vec::new();
        let mut state = 1u64;
        for step in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let random = state >> 33;
            if step % 3 == 2 && !taken.is_empty() {
                let (address, bytes) = taken.swap_remove(random as usize % taken.len());
                space.free(address, bytes);
            } else {
                let (bytes, class) = match random % 4 {
                    0 => (65_536, Class::Coordinates),
                    1 => (4096 * (1 + random % 16), Class::Coordinates),
                    _ => (4096, Class::Topology),
                };
                let address = space.allocate(bytes as usize, class);
                assert!(address >= 65_536);
                taken.push((address, bytes));
            }
        }
        taken.sort_unstable();
        for pair in taken.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "two allocations overlap");
        }
        let total: u64 = taken.iter().map(|t| t.1).sum();
        assert_eq!(space.used_bytes(), total + 65_536);
        assert!(space.used_end() < 2 * total, "holes are reused");
        for (address, bytes) in taken {
            space.free(address, bytes);
        }
        assert_eq!(space.used_end(), 65_536);
    }

    #[test]
    fn free_runs_are_the_blocks_that_are_not_used() {
        let mut space = FreeSpace::new(4096, Vec::new(), 65_536);
        let taken: Vec<u64> = (0..300).map(|_| space.allocate(4096, Class::Topology)).collect();
        let end = space.used_end() + 10 * 4096;
        for (i, &address) in taken.iter().enumerate() {
            if i % 3 == 0 || (64..200).contains(&i) {
                space.free(address, 4096);
            }
        }
        let runs = space.free_runs(65_536, end);
        assert!(runs.windows(2).all(|pair| pair[0].0 + pair[0].1 < pair[1].0), "maximal");
        let inside = |at: u64| runs.iter().any(|(start, len)| (*start..start + len).contains(&at));
        for at in (65_536..end).step_by(4096) {
            assert_ne!(inside(at), space.is_range_used(at, 4096), "{at}");
        }
    }

    #[test]
    fn nothing_straddles_a_window() {
        let mut space = FreeSpace::new(65_536, Vec::new(), 65_536);
        let mut end = 0;
        while end < WINDOW_BYTES + (1 << 22) {
            let address = space.allocate(3 * 65_536, Class::Coordinates);
            assert_eq!(address / WINDOW_BYTES, (address + 3 * 65_536 - 1) / WINDOW_BYTES);
            end = address;
        }
    }

    #[test]
    fn changed_words_are_reported_once() {
        let mut space = FreeSpace::new(4096, Vec::new(), 65_536);
        assert_eq!(space.take_changes(), [0]);
        space.allocate(4096 * 100, Class::Topology);
        assert_eq!(space.take_changes(), [0, 1]);
        assert_eq!(space.take_changes(), Vec::<usize>::new());
    }
}
