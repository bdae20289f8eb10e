//! A short list sorted by distance, into which a row is put by comparing it with several others at once: that takes no
//! branch that could be mispredicted.

use super::PLACES;
#[cfg(target_arch = "x86_64")]
use super::lanes::{Job, Lanes};

/// A row to be put in its place. Distances are bits of f32 that are not negative, so that they sort as integers.
pub(super) struct Insert<'a> {
    /// `[1 + m x PLACES]`, ascending; the first stays where it is, the last is dropped.
    pub(super) distances: &'a mut [i32],
    /// As many.
    pub(super) slots: &'a mut [u32],
    pub(super) distance: i32,
    pub(super) slot: u32,
}

impl Insert<'_> {
    #[inline(always)]
    pub(super) fn portable(self) {
        let Self { distances, slots, distance, slot } = self;
        // From the last block on, so that each still finds the place before it as it was.
        for block in (0..distances.len() / PLACES).rev() {
            let start = block * PLACES;
            let distances = distances[start..].first_chunk_mut().expect("whole blocks");
            let slots = slots[start..].first_chunk_mut().expect("as many slots");
            insert_in_block(distances, slots, distance, slot);
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Job for Insert<'_> {
    type Output = ();

    /// The compiler makes vectors of the plain code, as wide as the instruction set has them.
    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        self.portable();
    }
}

/// The places of a block and the one before it, which stays as it is.
///
/// Masks of all ones or none, on copies, so that a compiler makes vectors of them rather than branches.
#[inline(always)]
fn insert_in_block(
    distances: &mut [i32; PLACES + 1],
    slots: &mut [u32; PLACES + 1],
    distance: i32,
    slot: u32,
) {
    let (old, old_slots) = (*distances, *slots);
    for i in 0..PLACES {
        let stays = -i32::from(old[i + 1] <= distance);
        let comes = -i32::from(old[i] <= distance);
        let moved = distance & comes | old[i] & !comes;
        let moved_slot = slot & comes as u32 | old_slots[i] & !comes as u32;
        distances[i + 1] = old[i + 1] & stays | moved & !stays;
        slots[i + 1] = old_slots[i + 1] & stays as u32 | moved_slot & !stays as u32;
    }
}
