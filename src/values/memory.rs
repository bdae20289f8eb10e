//! Room in memory for what a file or a stream claims to have.
//!
//! A number that was read is a claim. Nothing is allocated on its word alone: either the list grows
//! as its content comes in, checked, or the claim was held against what is stored
//! ([`crate::version::table::Table::check_claim`]) and the room is asked for here, where a system
//! that has none is an error and not the end of the process.

use crate::values::error::ReadError;

/// Makes room for `more` values in a list of `what`.
pub(crate) fn reserve<T>(
    list: &mut Vec<T>,
    more: usize,
    what: &'static str,
) -> Result<(), ReadError> {
    list.try_reserve(more).map_err(|_| refused::<T>(more, what))
}

/// A list of `count` values whose bytes are zero. What is never written to costs address space
/// only.
pub(crate) fn zeroed<T: zerocopy::FromZeros>(
    count: usize,
    what: &'static str,
) -> Result<Vec<T>, ReadError> {
    T::new_vec_zeroed(count).map_err(|_| refused::<T>(count, what))
}

/// The error for room that cannot be had.
pub(crate) fn refused<T>(count: usize, what: &'static str) -> ReadError {
    ReadError::OutOfMemory { bytes: count.saturating_mul(size_of::<T>()) as u64, what }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_had_is_an_error() {
        let mut list: Vec<u64> = vec![1];
        reserve(&mut list, 100, "words").unwrap();
        let e = reserve(&mut list, usize::MAX / 8, "words").unwrap_err();
        assert!(matches!(e, ReadError::OutOfMemory { what: "words", .. }), "{e}");
        assert_eq!(list, [1]);
        assert_eq!(zeroed::<u32>(3, "words").unwrap(), [0; 3]);
        assert!(matches!(zeroed::<u64>(usize::MAX, "words"), Err(ReadError::OutOfMemory { .. })));
    }
}
