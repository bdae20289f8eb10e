//! AVX2 and AVX-512 as sixteen lanes: thin instantiations of [`Lanes`](super::lanes::Lanes), with
//! no algorithm of their own.
//!
//! Invariants, cited by the SAFETY comments:
//!
//! - **X1 features**: `Avx2` and `Avx512` have a private field and are built only by `detect`,
//!   which asks the processor. A method of theirs therefore runs only where its instructions exist.
//!   (A process does not migrate to a lesser processor.)
//! - **X2 bounds**: a load or store of k values is given a pointer from a slice or array of at
//!   least k values, checked by type or by an assertion in the same function; lanes switched off by
//!   a mask are not accessed, by the instruction's definition. None of them needs alignment.
//! - **X3 environment**: Rust leaves rounding and denormal control at their defaults, so subnormals
//!   are kept (M2).

mod avx2;
mod avx512;
mod eight;

pub(super) use avx2::Avx2;
pub(super) use avx512::Avx512;
