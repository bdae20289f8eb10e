//! What the harnesses share: made data, flags, the median. Std only, and no subject of measurement
//! itself.

#![allow(dead_code, reason = "each harness uses a part of this")]

pub(crate) mod flags;
pub(crate) mod group;
pub(crate) mod made;

/// The middle value; of an even number the upper one; NaN of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
