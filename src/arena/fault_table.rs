//! Which maps are guarded, and which of them are damaged: atomics only, because a signal handler
//! asks and marks.
//!
//! A place is taken, perhaps marked, and given back. A thread that has read what the handler put in
//! the place of its map finds by [`Table::any_damaged`] that there is a mark, whoever else takes
//! places and gives them back meanwhile; and when all places have been given back there is none.

use crate::arena::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

/// A map, if there is one.
pub(super) struct Place {
    /// Its first address; 0 if the place is not taken.
    pub(super) start: AtomicUsize,
    pub(super) damaged: AtomicBool,
}

/// The table. Whoever owns it makes it: a static of atomics, or, for a checker of orders, of its
/// own.
pub(super) struct Table<const N: usize> {
    pub(super) places: [Place; N],
    /// Places that are marked.
    pub(super) damaged: AtomicUsize,
}

impl<const N: usize> Table<N> {
    /// Takes a place for the map that begins at `start`, not 0; `None` if all are taken.
    pub(super) fn take(&self, start: usize) -> Option<usize> {
        let free = |place: &Place| {
            let order = Ordering::AcqRel;
            place.start.compare_exchange(0, start, order, Ordering::Relaxed).is_ok()
        };
        self.places.iter().position(free)
    }

    pub(super) fn give_back(&self, place: usize) {
        let place = &self.places[place];
        if place.damaged.swap(false, Ordering::AcqRel) {
            self.damaged.fetch_sub(1, Ordering::AcqRel);
        }
        place.start.store(0, Ordering::Release);
    }

    /// Marks the map of `len` bytes in which `address` lies, and returns where it begins; `None` if
    /// there is none. The map is held by whoever asks, so it is not given back meanwhile.
    pub(super) fn mark(&self, address: usize, len: usize) -> Option<usize> {
        let start = |place: &Place| place.start.load(Ordering::Acquire);
        let hit = |place: &&Place| {
            let start = start(place);
            start != 0 && address.wrapping_sub(start) < len
        };
        let place = self.places.iter().find(hit)?;
        if !place.damaged.swap(true, Ordering::SeqCst) {
            self.damaged.fetch_add(1, Ordering::SeqCst);
        }
        Some(start(place))
    }

    pub(super) fn is_damaged(&self, place: usize) -> bool {
        self.places[place].damaged.load(Ordering::Acquire)
    }

    /// True if any place is marked. Costs one load.
    #[inline]
    pub(super) fn any_damaged(&self) -> bool {
        fence(Ordering::Acquire);
        self.damaged.load(Ordering::Relaxed) > 0
    }
}
