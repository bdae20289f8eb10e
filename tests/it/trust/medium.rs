//! What a disk may hold when power fails: the model of crash tests, after that of SQLite's.
//!
//! What was synced is there. Of the changes since, each may have been applied, dropped, torn,
//! replaced by garbage, and they may have been applied in any order; the new length of the file may
//! be missing. After a failed sync the changes before it stay in doubt for ever: a later sync that
//! succeeds says nothing of them, only of what was written after.

use std::collections::HashSet;

use super::disk::{Change, Event};
use super::packed::Packed;
use crate::common::Random;

/// A sector: writes are torn at multiples of it, and sometimes anywhere.
const SECTOR: u64 = 512;

#[derive(Clone)]
struct Entry {
    change: Change,
    /// A later sync has made it durable.
    synced: bool,
    /// A sync failed while it was on its way.
    doubtful: bool,
}

/// The medium as the record up to some point leaves it.
#[derive(Clone)]
pub(crate) struct Medium {
    /// What is certain.
    base: Packed,
    /// What came after, in order; all certain changes among them lie behind one that is in doubt.
    entries: Vec<Entry>,
}

/// A way in which a crash leaves the changes that are not certain.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    /// The first so many arrive.
    Prefix(usize),
    /// All arrive but one.
    Without(usize),
    /// Only one arrives.
    Alone(usize),
    /// Each arrives or not.
    Subset(u64),
    /// All arrive, in another order.
    Reordered(u64),
    /// Some arrive, in another order.
    SomeReordered(u64),
    /// All arrive; of one write only the beginning, to the end of some sector, or only the end.
    Torn(usize, u64),
    /// All arrive; one write is torn at any byte.
    TornInside(usize, u64),
    /// All arrive; instead of one write there is garbage.
    Garbage(usize, u64),
    /// All arrive, but the file is as long as it was.
    LengthMissing,
    /// The file has its new length, and nothing else has arrived.
    LengthOnly,
    /// Holes are punched before anything that was asked for earlier arrives.
    HolesFirst,
    /// Only the holes arrive.
    HolesOnly,
}

impl Medium {
    /// A medium that holds `base`, all of it certain.
    pub(crate) fn new(base: Packed) -> Self {
        Medium { base, entries: Vec::new() }
    }

    /// Goes on by one event.
    pub(crate) fn follow(&mut self, event: &Event) {
        match event {
            Event::Change(change) => {
                let change = change.clone();
                self.entries.push(Entry { change, synced: false, doubtful: false });
            }
            Event::Synced { length } => {
                let old_len = self.base.len();
                let fresh = self.entries.iter_mut().filter(|entry| !entry.doubtful);
                fresh.for_each(|entry| entry.synced = true);
                // What is certain from the beginning on is part of the base.
                let certain = self.entries.iter().take_while(|entry| entry.synced).count();
                let mut base = std::mem::take(&mut self.base);
                self.entries.drain(..certain).for_each(|entry| entry.change.apply(&mut base));
                if !length && base.len() > old_len {
                    let len = base.len();
                    base.resize(old_len);
                    let grown = Change::Grow(len);
                    self.entries.insert(0, Entry { change: grown, synced: false, doubtful: true });
                }
                self.base = base;
            }
            Event::Failed => {
                let fresh = self.entries.iter_mut().filter(|entry| !entry.synced);
                fresh.for_each(|entry| entry.doubtful = true);
            }
            Event::Mark(_) => {}
        }
    }

    /// Changes that are not certain.
    fn open(&self) -> Vec<usize> {
        (0..self.entries.len()).filter(|&i| !self.entries[i].synced).collect()
    }

    /// What reading shows: every change.
    pub(crate) fn everything(&self) -> Packed {
        self.image(Fate::Prefix(self.entries.len()))
    }

    /// True if the last change is a write to the preamble.
    pub(crate) fn is_slot_on_its_way(&self) -> bool {
        self.entries.last().is_some_and(|entry| {
            matches!(entry.change, Change::Write { offset, .. } if !entry.synced && offset < 786_432)
        })
    }

    /// How many changes are not certain.
    pub(crate) fn uncertain(&self) -> usize {
        self.open().len()
    }

    /// The first change after the last sync that succeeded. What is in doubt before it cannot come
    /// after it.
    fn tail(&self) -> usize {
        self.entries.iter().rposition(|entry| entry.synced).map_or(0, |last| last + 1)
    }

    /// Length of the file as of the last sync that succeeded.
    fn certain_len(&self) -> usize {
        let mut content = self.base.clone();
        let certain = self.entries.iter().filter(|entry| entry.synced);
        certain.for_each(|entry| entry.change.apply(&mut content));
        content.len()
    }

    /// Ways in which a crash now can leave the medium, those that a crash one change earlier had as
    /// well left out.
    pub(crate) fn fates(&self, random: &mut Random) -> Vec<Fate> {
        let n = self.open().len();
        let mut fates = vec![Fate::Prefix(n)];
        let Some(last) = n.checked_sub(1) else { return fates };
        let mut seed = || random.next();
        fates.extend((0..last).map(Fate::Without));
        fates.push(Fate::Alone(last));
        fates.extend([Fate::Subset(seed()), Fate::Subset(seed()), Fate::Reordered(seed())]);
        fates.extend([Fate::SomeReordered(seed()), Fate::Torn(last, seed())]);
        fates.extend([Fate::TornInside(last, seed()), Fate::Garbage(last, seed())]);
        let other = seed() as usize % n;
        fates.extend([Fate::Torn(other, seed()), Fate::Garbage(other, seed())]);
        fates.push(Fate::TornInside(other, seed()));
        fates.extend([Fate::LengthMissing, Fate::LengthOnly]);
        if self.entries.iter().any(|entry| matches!(entry.change, Change::Punch { .. })) {
            fates.extend([Fate::HolesFirst, Fate::HolesOnly]);
        }
        fates
    }

    /// What is on the medium after a crash.
    pub(crate) fn image(&self, fate: Fate) -> Packed {
        let open = self.open();
        let tail = self.tail();
        let mut content = self.base.clone();
        let is_hole = |i: usize| matches!(self.entries[i].change, Change::Punch { .. });
        // Applies, in order, what is certain and what of the rest is chosen.
        let mut chosen = |keep: &mut dyn FnMut(usize, usize) -> bool| {
            let mut rank = 0;
            for (i, entry) in self.entries.iter().enumerate() {
                if entry.synced || keep(rank, i) {
                    entry.change.apply(&mut content);
                }
                rank += usize::from(!entry.synced);
            }
        };
        match fate {
            Fate::Prefix(n) => chosen(&mut |rank, _| rank < n),
            Fate::Without(k) => chosen(&mut |rank, _| rank != k),
            Fate::Alone(k) => chosen(&mut |rank, _| rank == k),
            Fate::Subset(seed) => {
                let mut random = Random(seed);
                chosen(&mut |_, _| random.below(2) == 0);
            }
            Fate::LengthMissing => {
                chosen(&mut |_, _| true);
                content.resize(content.len().min(self.certain_len()));
            }
            Fate::LengthOnly => chosen(&mut |_, i| !self.entries[i].change.is_write()),
            Fate::HolesOnly => chosen(&mut |_, i| is_hole(i)),
            Fate::HolesFirst => {
                chosen(&mut |_, i| i < tail || is_hole(i));
                let rest = (tail..self.entries.len()).filter(|&i| !is_hole(i));
                rest.for_each(|i| self.entries[i].change.apply(&mut content));
            }
            Fate::Reordered(seed) | Fate::SomeReordered(seed) => {
                let mut random = Random(seed);
                let mut order: Vec<usize> = (tail..self.entries.len()).collect();
                if matches!(fate, Fate::SomeReordered(_)) {
                    order.retain(|_| random.below(3) > 0);
                }
                for i in (1..order.len()).rev() {
                    order.swap(i, random.below(i as u64 + 1) as usize);
                }
                chosen(&mut |_, i| i < tail && random.below(2) == 0);
                order.iter().for_each(|&i| self.entries[i].change.apply(&mut content));
            }
            Fate::Torn(k, seed) | Fate::TornInside(k, seed) | Fate::Garbage(k, seed) => {
                for (i, entry) in self.entries.iter().enumerate() {
                    match &entry.change {
                        Change::Write { offset, bytes } if i == open[k] => {
                            hurt(&mut content, *offset, bytes, fate, seed);
                        }
                        change => change.apply(&mut content),
                    }
                }
            }
        }
        content
    }
}

/// A write that did not come through whole.
fn hurt(content: &mut Packed, offset: usize, bytes: &[u8], fate: Fate, seed: u64) {
    let mut random = Random(seed);
    let len = bytes.len() as u64;
    match fate {
        Fate::Garbage(..) => {
            let garbage: Vec<u8> = bytes.iter().map(|_| random.next() as u8).collect();
            content.write(offset, &garbage);
        }
        _ => {
            let cut = match fate {
                Fate::Torn(..) => random.below(len.div_ceil(SECTOR) + 1) * SECTOR,
                // Records are short, and lie at the beginning of their page.
                _ => random.below(len.min(300)),
            };
            let cut = cut.min(len) as usize;
            match random.below(2) {
                0 => content.write(offset, &bytes[..cut]),
                _ => content.write(offset + cut, &bytes[cut..]),
            }
        }
    }
}

/// Which images were there already.
#[derive(Default)]
pub(crate) struct Seen(HashSet<u64>);

impl Seen {
    /// True the first time.
    pub(crate) fn is_new(&mut self, image: &Packed, salt: u64) -> bool {
        let mut hash = salt ^ image.len() as u64;
        let mut add = |word: [u8; 8]| {
            let mixed = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            hash = mixed ^ mixed >> 29;
        };
        let words = image.bytes().chunks_exact(8);
        let mut rest = [0; 8];
        rest[..words.remainder().len()].copy_from_slice(words.remainder());
        words.for_each(|word| add(word.try_into().expect("eight bytes")));
        add(rest);
        self.0.insert(hash)
    }
}
