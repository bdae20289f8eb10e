//! Which versions can share segments: the tree of `parent` links, with the expired ones contracted.
//!
//! A version takes every segment from its parent or writes it itself, so the versions that use a
//! segment are connected in the tree. What a version shares with any retained version it shares
//! with one of its *retained neighbours*, those reached from it through expired ones only. (Asking
//! when a segment was last referred to does not do: going back to an old version revives its
//! segments.)

use std::collections::{BTreeMap, BTreeSet};

use crate::format::version_row::VersionRow;
use crate::values::seeded_bug::SeededBug;

/// What must be known of every version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VersionSummary {
    pub(crate) parent: u64,
    pub(crate) time_ns: u64,
    pub(crate) expired: bool,
}

impl VersionSummary {
    pub(crate) fn of(row: &VersionRow) -> Self {
        VersionSummary { parent: row.parent, time_ns: row.time_ns, expired: row.is_expired() }
    }
}

/// The tree of versions 1 to n. Version 0, which has no segments, is not in it.
pub(crate) struct SharingGraph {
    parents: Vec<u64>,
    children: BTreeMap<u64, Vec<u64>>,
    expired: Vec<bool>,
    /// For an expired version, another one of the same connected region; itself if it speaks for
    /// the region.
    region: Vec<u64>,
    /// The retained versions around a region.
    borders: BTreeMap<u64, BTreeSet<u64>>,
}

impl SharingGraph {
    /// `past`: version v at position v - 1.
    pub(crate) fn new(past: &[VersionSummary]) -> Self {
        let mut family = SharingGraph {
            parents: past.iter().map(|brief| brief.parent).collect(),
            children: BTreeMap::new(),
            expired: vec![false; past.len()],
            region: (1..=past.len() as u64).collect(),
            borders: BTreeMap::new(),
        };
        for (version, brief) in (1..).zip(past) {
            family.children.entry(brief.parent).or_default().push(version);
        }
        family.children.remove(&0);
        for (version, brief) in (1..).zip(past) {
            if brief.expired {
                family.expire(version);
            }
        }
        family
    }

    /// Adds the next version, a child of `parent`.
    pub(crate) fn push(&mut self, parent: u64) {
        self.parents.push(parent);
        let version = self.parents.len() as u64;
        self.expired.push(false);
        self.region.push(version);
        if parent == 0 {
            return;
        }
        self.children.entry(parent).or_default().push(version);
        if self.is_expired(parent) {
            let region = self.region_of(parent);
            self.borders.get_mut(&region).expect("a region has a border").insert(version);
        }
    }

    fn is_expired(&self, version: u64) -> bool {
        self.expired[version as usize - 1]
    }

    fn region_of(&mut self, mut version: u64) -> u64 {
        while self.region[version as usize - 1] != version {
            let above = self.region[version as usize - 1];
            self.region[version as usize - 1] = self.region[above as usize - 1];
            version = above;
        }
        version
    }

    fn adjacent(&self, version: u64) -> Vec<u64> {
        let parent = Some(self.parents[version as usize - 1]).filter(|&parent| parent > 0);
        let children = self.children.get(&version).into_iter().flatten().copied();
        let children = children
            .filter(|&child| child == version + 1 || !SeededBug::FreeRevivedSegments.is_planted());
        parent.into_iter().chain(children).collect()
    }

    /// The retained versions with which a retained one can share anything, but for itself.
    pub(crate) fn neighbours(&mut self, version: u64) -> BTreeSet<u64> {
        let mut found = BTreeSet::new();
        for other in self.adjacent(version) {
            if self.is_expired(other) {
                let region = self.region_of(other);
                found.extend(&self.borders[&region]);
            } else {
                found.insert(other);
            }
        }
        found.remove(&version);
        found
    }

    /// Takes a version out.
    pub(crate) fn expire(&mut self, version: u64) {
        let mut border = BTreeSet::new();
        for other in self.adjacent(version) {
            if !self.is_expired(other) {
                border.insert(other);
                continue;
            }
            let region = self.region_of(other);
            self.region[region as usize - 1] = version;
            let mut theirs = self.borders.remove(&region).expect("a region has a border");
            if theirs.len() > border.len() {
                std::mem::swap(&mut theirs, &mut border);
            }
            border.extend(theirs);
        }
        border.remove(&version);
        self.expired[version as usize - 1] = true;
        self.borders.insert(version, border);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition: reached through expired versions only.
    fn by_walking(past: &[VersionSummary], version: u64) -> BTreeSet<u64> {
        let mut found = BTreeSet::new();
        let mut seen = BTreeSet::from([version]);
        let mut open = vec![version];
        while let Some(at) = open.pop() {
            for (other, brief) in (1..).zip(past) {
                let linked = brief.parent == at || past[at as usize - 1].parent == other;
                if linked && seen.insert(other) {
                    match brief.expired {
                        true => open.push(other),
                        false => drop(found.insert(other)),
                    }
                }
            }
        }
        found
    }

    #[test]
    fn neighbours_are_what_walking_finds() {
        let mut state = 5u64;
        let mut random = |limit: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % limit
        };
        for _ in 0..300 {
            let count = 1 + random(24);
            let mut past: Vec<VersionSummary> = (1..=count)
                .map(|version| VersionSummary {
                    parent: if random(3) > 0 { version - 1 } else { random(version) },
                    time_ns: version,
                    expired: random(3) == 0,
                })
                .collect();
            let mut family = SharingGraph::new(&past);
            loop {
                let retained: Vec<u64> =
                    (1..=past.len() as u64).filter(|&v| !past[v as usize - 1].expired).collect();
                for &version in &retained {
                    assert_eq!(family.neighbours(version), by_walking(&past, version));
                }
                if retained.is_empty() {
                    break;
                }
                let gone = retained[random(retained.len() as u64) as usize];
                family.expire(gone);
                past[gone as usize - 1].expired = true;
                if random(2) == 0 {
                    let parent = random(past.len() as u64 + 1);
                    family.push(parent);
                    past.push(VersionSummary { parent, time_ns: 0, expired: false });
                    if past.len() > 60 {
                        break;
                    }
                }
            }
        }
    }
}
