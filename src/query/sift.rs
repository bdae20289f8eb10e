//! From sums of squares to candidates: what every scan ends in.

use super::Neighbor;
use super::heap::KBest;
use crate::error::ReadError;
use crate::metric;
use crate::tree::columns::Tree;

/// Sums looked at together.
const TOGETHER: usize = 16;

/// Offers the live points of the slots from `first` on, whose sums are given.
#[inline]
pub(crate) fn sift(
    tree: &Tree,
    first: u32,
    sums: &[f32],
    best: &mut KBest,
) -> Result<(), ReadError> {
    for (i, sums) in sums.chunks(TOGETHER).enumerate() {
        let limit = best.sum_limit();
        // Mostly none is near enough; that is seen for several at once.
        if !sums.iter().fold(false, |near, &sum| near | (sum <= limit)) {
            continue;
        }
        for (slot, &sum) in (first + (i * TOGETHER) as u32..).zip(sums) {
            if sum <= best.sum_limit() {
                let distance = metric::distance(sum);
                if distance <= best.radius() && tree.is_live(slot)? {
                    best.offer(Neighbor { id: tree.ids.get(slot as u64)?, distance });
                }
            }
        }
    }
    Ok(())
}
