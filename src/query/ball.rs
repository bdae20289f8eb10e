//! All points within a radius, or their number.

use super::Neighbor;
use super::sink::{Admission, Reach, Sink};
use super::walk::{self, Scratch};
use crate::space::Near;
use crate::tree::columns::{Range, Tree};
use crate::values::error::ReadError;

/// Lists what lies within a radius, in any order.
pub(super) struct List<'a> {
    reach: Reach,
    admission: Admission,
    found: &'a mut Vec<Neighbor>,
}

impl<'a> List<'a> {
    pub(super) fn new(
        tree: &Tree,
        radius: f32,
        found: &'a mut Vec<Neighbor>,
    ) -> Result<Self, ReadError> {
        found.clear();
        let admission = Admission::new(tree, tree.live()?);
        Ok(List { reach: Reach::new(radius), admission, found })
    }
}

impl Sink for List<'_> {
    fn bound(&self) -> Reach {
        self.reach
    }

    fn offer_all(&mut self, tree: &Tree, found: &mut Vec<Near>) -> Result<(), ReadError> {
        found.retain(|near| near.value() <= self.reach.distance);
        self.admission.retain(tree, found)?;
        for near in &*found {
            let id = tree.ids.get(near.number().into())?;
            self.found.push(Neighbor { id, distance: near.value() });
        }
        Ok(())
    }

    fn offer_twins(&mut self, tree: &Tree, distance: f32, twins: Range) -> Result<(), ReadError> {
        if distance > self.reach.distance {
            return Ok(());
        }
        for slot in twins.start..twins.start + twins.count {
            if self.admission.admits(tree, slot)? {
                self.found.push(Neighbor { id: tree.ids.get(slot.into())?, distance });
            }
        }
        Ok(())
    }
}

/// Counts what lies within a radius.
struct Count {
    reach: Reach,
    admission: Admission,
    count: u64,
}

impl Sink for Count {
    fn bound(&self) -> Reach {
        self.reach
    }

    fn offer_all(&mut self, tree: &Tree, found: &mut Vec<Near>) -> Result<(), ReadError> {
        found.retain(|near| near.value() <= self.reach.distance);
        self.admission.retain(tree, found)?;
        self.count += found.len() as u64;
        Ok(())
    }

    fn offer_twins(&mut self, tree: &Tree, distance: f32, twins: Range) -> Result<(), ReadError> {
        if distance <= self.reach.distance {
            self.count += tree.live_in(twins)?;
        }
        Ok(())
    }

    fn offer_subtree(&mut self, tree: &Tree, node: u32) -> Result<bool, ReadError> {
        self.count += u64::from(tree.counts.get(node.into())?.live);
        Ok(true)
    }
}

/// All live points with canonical distance at most `radius`, in the order (distance, id), into
/// `out`.
pub(crate) fn within(
    tree: &Tree,
    query: &[f32],
    radius: f32,
    scratch: &mut Scratch,
    out: &mut Vec<Neighbor>,
) -> Result<(), ReadError> {
    within_unsorted(tree, query, radius, scratch, out)?;
    out.sort_unstable_by(Neighbor::order);
    Ok(())
}

/// The same in any order.
pub(crate) fn within_unsorted(
    tree: &Tree,
    query: &[f32],
    radius: f32,
    scratch: &mut Scratch,
    out: &mut Vec<Neighbor>,
) -> Result<(), ReadError> {
    walk::all_within_reach(tree, query, &mut List::new(tree, radius, out)?, scratch)
}

/// How many live points have canonical distance at most `radius`. Subtrees wholly inside are not
/// walked through.
pub(crate) fn count_within(
    tree: &Tree,
    query: &[f32],
    radius: f32,
    scratch: &mut Scratch,
) -> Result<u64, ReadError> {
    let admission = Admission::new(tree, tree.live()?);
    let mut sink = Count { reach: Reach::new(radius), admission, count: 0 };
    walk::all_within_reach(tree, query, &mut sink, scratch)?;
    Ok(sink.count)
}
