//! Segments as slices of records.
//!
//! Invariant: a [`Typed`] was checked for alignment and length when it was made, so that reading it
//! costs nothing.

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

// SAFETY: a `Typed` is a shared slice of plain records in memory that `bytes` keeps alive and
// nobody mutates; `start` points into it. `T: Send + Sync` makes the records themselves fit to be
// shared.
unsafe impl<T: Send + Sync> Send for Typed<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Typed<T> {}

impl<T: FromBytes + Immutable> Typed<T> {
    /// `len` records at the front of `bytes`; `None` if the bytes are too short or not aligned for
    /// `T`.
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
        // - `start` is aligned and `len` records fit the bytes: checked in `new`, the only
        //   constructor.
        // - every bit pattern is a `T`: `T: FromBytes` in `new`.
        // - alive and unchanging: `bytes` is held, and `Bytes` never moves nor changes.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

/// Bytes of a cache line.
const LINE: usize = 64;

/// Asks the processor to bring in the cache lines of some records that will be wanted soon. Costs
/// an instruction a line and changes nothing; where there is no such instruction, it does nothing.
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
        // SAFETY: SSE is part of x86-64, and a prefetch of any address whatever neither faults nor
        // is seen.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;

    /// Every start, every length, records of every alignment: either refused for a reason, or the
    /// bytes that are there.
    fn check_all<T: FromBytes + Immutable + IntoBytes + Send + Sync>() {
        const BYTES: usize = 24;
        let mut buffer = Bytes::zeroed(BYTES);
        for (i, byte) in buffer.bytes_mut().iter_mut().enumerate() {
            *byte = i as u8 + 1;
        }
        let whole = buffer.freeze();
        // An interpreter takes every third end.
        let step = if cfg!(miri) { 3 } else { 1 };
        for start in 0..=9 {
            for end in (start..=BYTES).step_by(step) {
                let part = whole.part(start, end - start);
                assert_eq!(part.len(), end - start);
                for len in 0..=BYTES / size_of::<T>() + 1 {
                    let need = len * size_of::<T>();
                    let fits = need <= end - start && start.is_multiple_of(align_of::<T>());
                    let typed = Typed::<T>::new(part.clone(), len);
                    assert_eq!(typed.is_some(), fits, "{start}..{end}, {len}");
                    let Some(typed) = typed else { continue };
                    assert!(typed.as_bytes().iter().zip(start as u8 + 1..).all(|(a, b)| *a == b));
                    prefetch(&typed);
                    typed.will_need(0, len);
                }
            }
        }
        assert!(Typed::<T>::new(whole.clone(), usize::MAX).is_none() || size_of::<T>() == 0);
        // A record outlives whatever else referred to its bytes, in another thread too.
        let typed = Typed::<T>::new(whole, BYTES / size_of::<T>()).expect("it begins aligned");
        let sum = |typed: &[T]| typed.as_bytes().iter().map(|&b| u32::from(b)).sum::<u32>();
        let here = sum(&typed);
        let there = std::thread::scope(|scope| scope.spawn(|| sum(&typed)).join());
        assert_eq!(there.expect("nothing panics"), here);
    }

    #[test]
    fn gives_the_bytes_that_are_there() {
        check_all::<u8>();
        check_all::<u16>();
        check_all::<u32>();
        check_all::<u64>();
        check_all::<f32>();
        check_all::<[u8; 3]>();
        check_all::<crate::format::arrays::Entry>();
    }

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
