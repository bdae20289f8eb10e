//! A short list in ascending order, into which what has been found is put by comparing it with
//! several entries at once: that takes no branch that could be mispredicted.

use super::near::Near;

#[cfg(target_arch = "x86_64")]
use super::lanes::{Job, Lanes};

/// Entries of a list that are moved together.
pub(crate) const PLACES: usize = 8;

/// Lengths of a list, in [`PLACES`], for which there is a kernel.
const LENGTHS: [usize; 5] = [1, 2, 3, 5, 9];

/// Entries behind the k-th that a list has at least.
const ROOM: usize = 4;

/// The greatest k for which there is a list.
pub(crate) const MAX_SORTED: usize = LENGTHS[LENGTHS.len() - 1] * PLACES - ROOM;

/// An empty list for the k nearest, k <= [`MAX_SORTED`].
pub(crate) fn sorted_list(k: usize, list: &mut Vec<[Near; PLACES]>) {
    let length = LENGTHS.into_iter().find(|length| length * PLACES >= k + ROOM);
    list.clear();
    list.resize(length.expect("k is at most MAX_SORTED"), [Near::NONE; PLACES]);
}

/// [`super::Kernel::insert_sorted`].
pub(super) struct Insert<'a> {
    pub(super) list: &'a mut [[Near; PLACES]],
    pub(super) k: usize,
    pub(super) found: &'a [Near],
}

impl Insert<'_> {
    /// Between two looks at the k-th no more are put in than there is room behind it: what is
    /// dropped is behind it then, and farther.
    #[inline(always)]
    fn in_turns(self, put_in: impl Fn(&mut [[Near; PLACES]], &[Near])) -> usize {
        let Insert { list, k, found } = self;
        let room = list.len() * PLACES - k;
        let mut taken = 0;
        while taken < found.len() {
            let end = found.len().min(taken + room);
            put_in(list, &found[taken..end]);
            taken = end;
            if is_undecided(list.as_flattened(), k) {
                break;
            }
        }
        taken
    }

    pub(super) fn portable(self) -> usize {
        self.in_turns(|list, found| {
            let list = list.as_flattened_mut();
            for &new in found {
                // Each still finds the entry before it as it was.
                for i in (1..list.len()).rev() {
                    list[i] = list[i - 1].max(list[i].min(new));
                }
                list[0] = list[0].min(new);
            }
        })
    }
}

/// Whether the k-th and the one behind it are as near.
#[inline(always)]
pub(crate) fn is_undecided(list: &[Near], k: usize) -> bool {
    list[k] != Near::NONE && list[k].ties_with(list[k - 1])
}

#[cfg(target_arch = "x86_64")]
impl Job for Insert<'_> {
    type Output = usize;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> usize {
        match self.list.len() {
            1 => in_registers::<L, 1>(lanes, self),
            2 => in_registers::<L, 2>(lanes, self),
            3 => in_registers::<L, 3>(lanes, self),
            5 => in_registers::<L, 5>(lanes, self),
            9 => in_registers::<L, 9>(lanes, self),
            _ => self.portable(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn in_registers<L: Lanes, const N: usize>(lanes: L, work: Insert<'_>) -> usize {
    let Insert { list, k, found } = work;
    let list: &mut [[Near; PLACES]; N] = list.try_into().expect("matched by its length");
    let room = N * PLACES - k;
    let mut taken = 0;
    while taken < found.len() {
        let end = found.len().min(taken + room);
        let mut entries = [lanes.load_near(&list[0]); N];
        for (entries, list) in entries.iter_mut().zip(&*list) {
            *entries = lanes.load_near(list);
        }
        for &new in &found[taken..end] {
            for i in (1..N).rev() {
                entries[i] = lanes.insert(entries[i], new, Some(entries[i - 1]));
            }
            entries[0] = lanes.insert(entries[0], new, None);
        }
        for (entries, list) in entries.iter().zip(&mut *list) {
            lanes.store_near(*entries, list);
        }
        taken = end;
        if is_undecided(list.as_flattened(), k) {
            break;
        }
    }
    taken
}
