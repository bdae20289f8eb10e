//! The k best candidates so far, for a moderate k: a list sorted by distance.
//!
//! A candidate is a slot at a distance. Its id decides only between equal distances, and reading it
//! is a cache miss as a rule; so ids are read where it is undecided which candidate is the k-th,
//! and in the end.

use super::Neighbor;
use crate::space::{self, Near, PLACES};
use crate::tree::columns::Tree;
use crate::values::error::ReadError;

#[derive(Default)]
pub(super) struct SortedList {
    k: usize,
    /// Ascending; by slot among equal distances, whatever their ids. Those behind the k-th are not
    /// among the k best.
    list: Vec<[Near; PLACES]>,
    /// Candidates at one distance, by id.
    ties: Vec<(u64, Near)>,
    /// The distance of the k-th when ids last decided, and the greatest id that stayed at it.
    decided: Option<(f32, u64)>,
}

impl SortedList {
    /// Empties the list and makes it one for `k` > 0 candidates, at most [`space::MAX_SORTED`].
    pub(super) fn reset(&mut self, k: usize) {
        assert!(k > 0, "a list has a last place");
        self.k = k;
        self.decided = None;
        space::sorted_list(k, &mut self.list);
    }

    /// The candidates, the nearest first.
    fn candidates(&self) -> &[Near] {
        let best = &self.list.as_flattened()[..self.k];
        match best.last() {
            Some(&Near::NONE) => &best[..best.partition_point(|&entry| entry < Near::NONE)],
            _ => best,
        }
    }

    /// The distance of the k-th, infinite if there are not as many.
    #[inline]
    pub(super) fn worst(&self) -> f32 {
        match self.list.as_flattened()[self.k - 1] {
            Near::NONE => f32::INFINITY,
            last => last.value(),
        }
    }

    pub(super) fn contains(&self, candidate: Near) -> bool {
        self.candidates().contains(&candidate)
    }

    /// Takes those candidates that are among the k best.
    #[inline]
    pub(super) fn offer(&mut self, tree: &Tree, mut candidates: &[Near]) -> Result<(), ReadError> {
        while !candidates.is_empty() {
            if self.decided.is_some() {
                candidates = self.skip_refused(tree, candidates)?;
            }
            let taken = tree.kernel.insert_sorted(&mut self.list, self.k, candidates);
            candidates = &candidates[taken..];
            if space::is_undecided(self.list.as_flattened(), self.k) {
                self.decide(tree)?;
            }
        }
        Ok(())
    }

    /// The candidates from the first one on that may enter. Where many points are as near as the
    /// k-th, ids refuse most of them, and an id costs much less than a place in the list that is
    /// taken back at once.
    fn skip_refused<'a>(
        &self,
        tree: &Tree,
        candidates: &'a [Near],
    ) -> Result<&'a [Near], ReadError> {
        let worst = self.worst();
        for (i, &candidate) in candidates.iter().enumerate() {
            if !self.refuses(tree, worst, candidate)? {
                return Ok(&candidates[i..]);
            }
        }
        Ok(&[])
    }

    /// Whether it is known that a candidate cannot enter, the k-th being at the distance `worst`.
    ///
    /// What was decided stays true: the k-th only comes nearer, and of those at its distance only
    /// the ids that are smallest stay.
    #[inline]
    fn refuses(&self, tree: &Tree, worst: f32, candidate: Near) -> Result<bool, ReadError> {
        match self.decided {
            Some((distance, id)) if candidate.value() == distance && distance == worst => {
                Ok(tree.ids.get(candidate.number().into())? > id)
            }
            _ => Ok(candidate.value() > worst),
        }
    }

    /// Among those as near as the k-th, keeps the ones with the smallest ids.
    #[cold]
    #[inline(never)]
    fn decide(&mut self, tree: &Tree) -> Result<(), ReadError> {
        let SortedList { k, list, ties, decided } = self;
        let list = list.as_flattened_mut();
        let last = list[*k - 1];
        let first = list.partition_point(|entry| entry.value() < last.value());
        ties.clear();
        for &entry in list[first..].iter().take_while(|entry| entry.ties_with(last)) {
            ties.push((tree.ids.get(entry.number().into())?, entry));
        }
        ties.sort_unstable();
        for (place, (_, entry)) in list[first..*k].iter_mut().zip(&*ties) {
            *place = *entry;
        }
        list[first..*k].sort_unstable();
        list[*k..].fill(Near::NONE);
        let kept = *k - first;
        *decided = Some((last.value(), ties[kept - 1].0));
        Ok(())
    }

    /// Asks for the ids of the candidates.
    pub(super) fn prefetch_ids(&self, tree: &Tree) {
        for candidate in self.candidates() {
            tree.ids.prefetch(candidate.number().into(), 1);
        }
    }

    /// Appends the candidates by distance, in any order among equal ones.
    pub(super) fn neighbors(
        &self,
        tree: &Tree,
        neighbors: &mut Vec<Neighbor>,
    ) -> Result<(), ReadError> {
        for candidate in self.candidates() {
            let id = tree.ids.get(candidate.number().into())?;
            neighbors.push(Neighbor { id, distance: candidate.value() });
        }
        Ok(())
    }
}
