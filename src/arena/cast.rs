//! Segments as slices of records.
//!
//! Invariant: a [`Typed`] was checked for alignment and length when it was made, so that reading it costs nothing.

#![expect(unsafe_code, reason = "checked once, read often: the proofs are beside each use")]

use std::marker::PhantomData;
use std::ops::Deref;

use zerocopy::{FromBytes, Immutable};

use super::mapping::Bytes;

/// The first `len` records of a segment.
pub(crate) struct Typed<T> {
    bytes: Bytes,
    start: *const T,
    len: usize,
    marker: PhantomData<T>,
}

// SAFETY: a `Typed` is a shared slice of plain records in memory that `bytes` keeps alive and nobody mutates; `start`
// points into it. `T: Send + Sync` makes the records themselves fit to be shared.
unsafe impl<T: Send + Sync> Send for Typed<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Typed<T> {}

impl<T: FromBytes + Immutable> Typed<T> {
    /// `len` records at the front of `bytes`; `None` if the bytes are too short or not aligned for `T`.
    pub(crate) fn new(bytes: Bytes, len: usize) -> Option<Self> {
        let (start, available) = {
            let content: &[u8] = &bytes;
            (content.as_ptr().cast::<T>(), content.len())
        };
        let fits = len.checked_mul(size_of::<T>()).is_some_and(|need| need <= available);
        (fits && start.is_aligned()).then_some(Typed { bytes, start, len, marker: PhantomData })
    }

    /// Asks the system for records that will be wanted soon. Costs a system call.
    pub(crate) fn will_need(&self, first: usize, count: usize) {
        self.bytes.will_need(first * size_of::<T>(), count * size_of::<T>());
    }
}

impl<T> Deref for Typed<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        debug_assert_eq!(self.bytes.as_ptr().cast::<T>(), self.start);
        // SAFETY:
        // - `start` is aligned and `len` records fit the bytes: checked in `new`, the only constructor.
        // - every bit pattern is a `T`: `T: FromBytes` in `new`.
        // - alive and unchanging: `bytes` is held, and `Bytes` never moves nor changes.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

/// Bytes of a cache line.
const LINE: usize = 64;

/// Asks the processor to bring in the cache lines of some records that will be wanted soon. Costs an instruction a line
/// and changes nothing; where there is no such instruction, it does nothing.
#[inline]
pub(crate) fn prefetch<T>(records: &[T]) {
    let mut at = 0;
    while at < size_of_val(records) {
        prefetch_line(records.as_ptr().wrapping_byte_add(at));
        at += LINE;
    }
}

/// The same for the line of one record and those that follow, whatever is there.
#[inline]
pub(crate) fn prefetch_lines<T, const LINES: usize>(record: &T) {
    for i in 0..LINES {
        prefetch_line(std::ptr::from_ref(record).wrapping_byte_add(i * LINE));
    }
}

#[inline]
fn prefetch_line<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: SSE is part of x86-64, and a prefetch of any address whatever neither faults nor is seen.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_length() {
        let mut buffer = Bytes::zeroed(10);
        buffer.bytes_mut()[8] = 7;
        let bytes = buffer.freeze();
        assert!(Typed::<u64>::new(bytes.clone(), 2).is_none());
        let halves = Typed::<u16>::new(bytes, 5).unwrap();
        assert_eq!(&halves[..], &[0, 0, 0, 0, 7]);
    }
}
