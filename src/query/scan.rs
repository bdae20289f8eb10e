//! From ranges of slots to candidates: what every search ends in.

use super::sink::Sink;
use crate::space::Near;
use crate::tree::columns::{Range, Tree};
use crate::values::error::ReadError;

/// Rows scanned before the bound is looked at again.
const STEP: u32 = 256;

/// Offers every point of a range of slots. In steps, so that what is found in one bounds the sums
/// of the next.
pub(crate) fn scan(
    tree: &Tree,
    query: &[f32],
    range: Range,
    sink: &mut impl Sink,
    found: &mut Vec<Near>,
) -> Result<(), ReadError> {
    let end = range.start as u64 + range.count as u64;
    let mut first = range.start as u64;
    while first < end {
        let rows = tree.coordinates.chunk(first, (end - first).min(STEP as u64))?;
        found.clear();
        tree.kernel.near(query, rows, sink.sum_limit(), first as u32, found);
        sink.offer_all(tree, found)?;
        first += (rows.len() / tree.dim) as u64;
    }
    Ok(())
}
