//! Which blocks of the file are in use, and where the next segment goes.
//!
//! Space is carved in chunks of one class, so that small rows that survive do not lie between large
//! segments. A block is *used* while a retained version or the store state refers to it, and for
//! one commit longer.

use super::mapping::WINDOW_BYTES;
use crate::format::arrays::Class;

/// The free map and the carving cursors. Cloned by a commit, and put back only if the commit
/// succeeds.
#[derive(Clone, Debug)]
pub(crate) struct FreeSpace {
    block_bytes: u64,
    /// Blocks at the start of the file that are never given out.
    preamble: u64,
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

/// A file may be so much longer than what is in use, however little that is.
const SPARE_BYTES: u64 = 1 << 19;

impl FreeSpace {
    /// The state recorded in a free map; `preamble` bytes at the start of the file are never given
    /// out.
    pub(crate) fn new(block_bytes: u32, words: Vec<u64>, preamble: u64) -> Self {
        let mut space = FreeSpace {
            block_bytes: block_bytes as u64,
            preamble: preamble / u64::from(block_bytes),
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

    /// True if no block of a range is used.
    pub(crate) fn is_range_free(&self, address: u64, bytes: u64) -> bool {
        let first = address / self.block_bytes;
        !(first..first + bytes.div_ceil(self.block_bytes)).any(|block| self.is_used(block))
    }

    /// Bytes from the start of the file to the end of the last used block.
    pub(crate) fn used_end(&self) -> u64 {
        let last = self.words.iter().rposition(|&word| word != 0);
        let blocks = last.map_or(0, |w| (w as u64 + 1) * 64 - self.words[w].leading_zeros() as u64);
        blocks * self.block_bytes
    }

    /// Where the tail begins, if the file is more than twice as long as what is in use: what lies
    /// there keeps the file from getting shorter. Below it there is room for all of that, because
    /// what is given out lies as low as it fits. None while nothing is put there.
    pub(crate) fn tail(&self) -> Option<u64> {
        let start = self.preamble * self.block_bytes;
        let used = self.used_bytes() - start;
        (self.fills_holes && self.used_end() - start > 2 * (used + SPARE_BYTES))
            .then_some(start + used + used / 2 + SPARE_BYTES)
    }

    /// Gives up chunks that lie in the tail, so that what comes next goes into holes below it.
    pub(crate) fn leave_tail(&mut self) {
        let Some(tail) = self.tail() else {
            return;
        };
        for chunk in &mut self.chunks {
            if chunk.next * self.block_bytes >= tail {
                *chunk = Chunk::default();
            }
        }
        let chunks = self.chunks.iter().map(|chunk| chunk.end);
        self.frontier = chunks.fold(self.used_end() / self.block_bytes, u64::max);
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

    /// From now on holes are filled, if they were not.
    pub(crate) fn fill_holes(&mut self) {
        if !self.fills_holes {
            self.fills_holes = true;
            self.chunks = [Chunk::default(); 2];
            self.frontier = self.used_end() / self.block_bytes;
        }
    }

    /// From now on nothing is put into holes, only behind everything that is in use.
    pub(crate) fn only_at_end(&mut self) {
        self.chunks = [Chunk::default(); 2];
        self.frontier = self.used_end() / self.block_bytes;
        self.fills_holes = false;
    }

    /// A free range of at least `blocks` blocks: the first hole that is long enough, else new space
    /// at the end.
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
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
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
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
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
    fn after_a_commit_at_the_end_holes_are_filled_again() {
        let mut space = FreeSpace::new(4096, Vec::new(), 65_536);
        let first = space.allocate(4 * 4096, Class::Topology);
        let last = space.allocate(4096, Class::Topology);
        space.free(first, 4 * 4096);
        space.only_at_end();
        assert!(space.allocate(4096, Class::Topology) > last);
        space.fill_holes();
        assert_eq!(space.allocate(4096, Class::Topology), first);
    }

    #[test]
    fn a_tail_is_what_lies_far_behind_the_rest() {
        let mut space = FreeSpace::new(4096, Vec::new(), 65_536);
        let taken: Vec<u64> = (0..2048).map(|_| space.allocate(4096, Class::Topology)).collect();
        assert_eq!(space.tail(), None, "full");
        taken[..2047].iter().for_each(|&address| space.free(address, 4096));
        space.leave_tail();
        let tail = space.tail().unwrap();
        assert!(tail > space.used_bytes() && tail < taken[2047]);
        assert!(space.allocate(4096, Class::Topology) < tail);
        space.free(taken[2047], 4096);
        assert_eq!(space.tail(), None, "short");
    }

    #[test]
    fn changed_words_are_reported_once() {
        let mut space = FreeSpace::new(4096, Vec::new(), 65_536);
        assert_eq!(space.take_changes(), [0]);
        space.allocate(4096 * 100, Class::Topology);
        assert_eq!(space.take_changes(), [0, 1]);
        assert_eq!(space.take_changes(), Vec::<usize>::new());
    }

    /// A map that is a list of blocks, and the space that must agree with it.
    #[derive(Clone)]
    struct Checked {
        space: FreeSpace,
        used: Vec<bool>,
        /// Ranges given out: first block, blocks.
        taken: Vec<(u64, u64)>,
        /// Words as of the last question what has changed.
        words: Vec<u64>,
        fixed: u64,
    }

    /// More blocks than any of these sequences reaches.
    const REACH: u64 = 192;

    impl Checked {
        /// Blocks are used as `words` say, and the first `fixed` of them always.
        fn new(block_bytes: u32, words: Vec<u64>, fixed: u64) -> Self {
            let preamble = fixed * block_bytes as u64;
            let is_used =
                |b: u64| words.get((b / 64) as usize).is_some_and(|w| w >> (b % 64) & 1 > 0);
            let used = (0..REACH).map(|block| block < fixed || is_used(block)).collect();
            let mut space = FreeSpace::new(block_bytes, words, preamble);
            space.take_changes();
            let words = space.words.clone();
            let checked = Checked { space, used, taken: Vec::new(), words, fixed };
            checked.check_all();
            checked
        }

        fn allocate(&mut self, blocks: u64, class: Class) {
            let size = self.space.block_bytes;
            let before = self.space.used_end() / size;
            let address = self.space.allocate((blocks * size) as usize, class);
            let first = address / size;
            assert!(address.is_multiple_of(size) && first >= self.fixed);
            assert!(first + blocks <= REACH, "far beyond what is used: {first}, {before}");
            for block in first..first + blocks {
                assert!(!self.used[block as usize], "block {block} is given out twice");
                self.used[block as usize] = true;
            }
            self.taken.push((first, blocks));
            self.check_all();
        }

        fn free(&mut self, number: usize) {
            let (first, blocks) = self.taken.swap_remove(number);
            let size = self.space.block_bytes;
            self.space.free(first * size, blocks * size);
            self.used[first as usize..(first + blocks) as usize].fill(false);
            self.check_all();
        }

        /// Everything that can be asked gives what the list gives.
        fn check_all(&self) {
            let size = self.space.block_bytes;
            let count = self.used.iter().filter(|&&used| used).count() as u64;
            assert_eq!(self.space.used_bytes(), count * size);
            let end = self.used.iter().rposition(|&used| used).map_or(0, |last| last as u64 + 1);
            assert_eq!(self.space.used_end(), end * size);
            let limit = (end + 3).min(REACH);
            for from in self.fixed.saturating_sub(1)..limit {
                assert_eq!(self.space.is_range_used(from * size, size), self.used[from as usize]);
                let mut runs: Vec<(u64, u64)> = Vec::new();
                for block in (from..limit).filter(|&block| !self.used[block as usize]) {
                    match runs.last_mut() {
                        Some((start, len)) if *start + *len == block * size => *len += size,
                        _ => runs.push((block * size, size)),
                    }
                }
                assert_eq!(self.space.free_runs(from * size, limit * size), runs);
                let all_used = (from..limit).all(|block| self.used[block as usize]);
                assert_eq!(self.space.is_range_used(from * size, (limit - from) * size), all_used);
            }
        }

        /// The words that are reported as changed are those that have changed, and no other.
        fn check_changes(&mut self) {
            let changed = self.space.take_changes();
            let old = |w: usize| self.words.get(w).copied().unwrap_or(0);
            let mut differing =
                (0..self.space.words.len()).filter(|&w| self.space.words[w] != old(w));
            assert!(differing.all(|w| changed.contains(&w)), "a change is not reported");
            assert!(changed.is_sorted() && changed.iter().all(|&w| w < self.space.words.len()));
            // Whoever opens the file sees the same blocks used, and can go on.
            let mut again =
                Checked::new(self.space.block_bytes as u32, self.space.words.clone(), self.fixed);
            assert_eq!(again.used, self.used);
            again.allocate(1, Class::Topology);
            again.allocate(2, Class::Coordinates);
        }

        /// Goes through every sequence of so many steps.
        fn go_on(mut self, steps: u32, sequences: &mut u64) {
            if steps == 0 {
                *sequences += 1;
                return self.check_changes();
            }
            for class in [Class::Topology, Class::Coordinates] {
                for blocks in [1, 3] {
                    let mut next = self.clone();
                    next.allocate(blocks, class);
                    next.go_on(steps - 1, sequences);
                }
            }
            for number in 0..self.taken.len() {
                let mut next = self.clone();
                next.free(number);
                next.go_on(steps - 1, sequences);
            }
        }
    }

    /// All sequences of five steps, on maps that begin at, before and across the end of a word,
    /// with chunks of one block and of sixteen.
    #[test]
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
    fn every_short_sequence_agrees_with_a_list_of_blocks() {
        let mut sequences = 0;
        for (block_bytes, words, fixed) in [
            (65_536, vec![], 1),
            (4096, vec![], 16),
            (65_536, vec![!0 >> 3, 0b1001], 1),
            (4096, vec![!(0b1101 << 60), 0b10], 16),
        ] {
            Checked::new(block_bytes, words, fixed).go_on(5, &mut sequences);
        }
        assert!(sequences > 10_000, "{sequences}");
    }

    /// Whatever is used: what is asked for goes into the first hole that holds it, if there is one.
    #[test]
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
    fn holes_are_used_first_whatever_is_used() {
        for pattern in 0u64..1 << 10 {
            // Ten blocks on both sides of the end of a word.
            let words = vec![!0 >> 5 | pattern << 59, pattern >> 5 | 1 << 5];
            for blocks in 1..=4 {
                for class in [Class::Topology, Class::Coordinates] {
                    let mut checked = Checked::new(65_536, words.clone(), 1);
                    let hole = (0..=69 - blocks).find(|&first| {
                        (first..first + blocks).all(|block| !checked.used[block as usize])
                    });
                    checked.allocate(blocks, class);
                    let first = checked.taken[0].0;
                    assert_eq!(first, hole.unwrap_or(70), "{pattern:b}, {blocks}");
                }
            }
        }
    }
}
