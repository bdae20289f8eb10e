//! What a store must hold: its versions with their points, its tags, and the answers, by a scan
//! that shares no code with the library.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use treering::{Neighbor, OpenOptions, Place, Snapshot, Store, VerifyOptions, VersionId};

use crate::common::{ALLOCATION_CHECKS, Random, canonical_sum, threads};

/// Dimension of all stores here.
pub(crate) const DIM: usize = 2;

/// Neighbours asked for.
const K: usize = 5;

pub(crate) type Points = BTreeMap<u64, [f32; DIM]>;

/// A version: its points and what it answers.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) points: Points,
    answers: OnceLock<Vec<Vec<Neighbor>>>,
}

impl Content {
    pub(crate) fn new(points: Points) -> Arc<Self> {
        Arc::new(Content { points, answers: OnceLock::new() })
    }

    fn answers(&self) -> &[Vec<Neighbor>] {
        self.answers.get_or_init(|| {
            let rank = |query: &[f32; DIM]| {
                let distance = |point: &[f32; DIM]| canonical_sum(query, point).sqrt();
                let points = self.points.iter();
                let mut all: Vec<Neighbor> =
                    points.map(|(&id, point)| Neighbor { id, distance: distance(point) }).collect();
                all.sort_by(|a, b| a.distance.total_cmp(&b.distance).then(a.id.cmp(&b.id)));
                all.truncate(K);
                all
            };
            queries().iter().map(rank).collect()
        })
    }
}

/// Every version is asked these.
fn queries() -> [[f32; DIM]; 3] {
    [[0.2, 0.7], [2.0, 1.0], [-3.5, 40.0]]
}

/// Points of a mixture: a lattice full of ties, twins, ordinary ones, far ones.
pub(crate) fn points(random: &mut Random, n: usize) -> Vec<f32> {
    let mut points = Vec::with_capacity(n * DIM);
    for _ in 0..n {
        match random.below(8) {
            0..3 => points.extend([random.below(4) as f32, random.below(4) as f32]),
            3 => points.extend([1.0, 1.0]),
            4 => points.extend([100.0 * random.unit(), -50.0 * random.unit()]),
            _ => points.extend([random.unit(), random.unit()]),
        }
    }
    points
}

/// Everything that a store holds as of some commit.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) versions: BTreeMap<u64, Arc<Content>>,
    pub(crate) tags: BTreeMap<String, u64>,
    pub(crate) next_id: u64,
}

/// Why a store is not what it must be.
#[derive(Clone, Debug)]
pub(crate) enum Wrong {
    /// It does not open, or a part of it cannot be read, or is reported as damaged.
    Damaged(String),
    /// An acknowledged version is not there.
    Lost(String),
    /// A version gives other answers, or there is something that nobody put there.
    Answers(String),
}

impl State {
    pub(crate) fn newest(&self) -> u64 {
        self.versions.last_key_value().map_or(0, |(&version, _)| version)
    }

    pub(crate) fn live(&self) -> Points {
        self.versions.last_key_value().map_or_else(Points::new, |(_, c)| c.points.clone())
    }

    /// The next version has these points.
    pub(crate) fn add(&mut self, points: Points) {
        self.versions.insert(self.newest() + 1, Content::new(points));
    }

    /// Those that a rule keeping the newest `last` does not keep go.
    pub(crate) fn expire(&mut self, last: usize) {
        let numbers: Vec<u64> = self.versions.keys().copied().collect();
        let tagged: Vec<u64> = self.tags.values().copied().collect();
        for version in &numbers[..numbers.len().saturating_sub(last)] {
            if !tagged.contains(version) {
                self.versions.remove(version);
            }
        }
    }

    /// True if the store lists the same versions and tags.
    fn is_listed(&self, versions: &[u64], tags: &BTreeMap<String, u64>) -> bool {
        self.versions.keys().eq(versions) && &self.tags == tags
    }
}

/// Checks that a store is whole and is in one of the states allowed. Returns which.
pub(crate) fn check(store: &Store, allowed: &[State]) -> Result<usize, Wrong> {
    fn damaged(e: impl std::fmt::Display) -> Wrong {
        Wrong::Damaged(e.to_string())
    }
    let versions = store.versions().map_err(damaged)?;
    let versions: Vec<u64> = versions.iter().map(|info| info.version.0).collect();
    let tags = store.tags().map_err(damaged)?;
    let tags = tags.into_iter().map(|tag| (tag.name, tag.version.0)).collect();
    let mut listed = (0..allowed.len()).filter(|&i| allowed[i].is_listed(&versions, &tags));
    let Some(first) = listed.next() else {
        let promised = allowed[0]
            .versions
            .keys()
            .filter(|v| allowed.iter().all(|s| s.versions.contains_key(v)));
        let what = format!("versions {versions:?} and tags {tags:?}");
        return Err(match promised.clone().find(|v| !versions.contains(v)) {
            Some(lost) => Wrong::Lost(format!("version {lost} is gone: {what}")),
            None => Wrong::Answers(format!("a state that nobody made: {what}")),
        });
    };
    let mut problems = store.verify(VerifyOptions::all()).map_err(damaged)?.problems;
    ALLOCATION_CHECKS.fetch_add(1, Ordering::Relaxed);
    // A bad copy of what is kept twice is told, and costs nothing.
    problems.retain(|p| !matches!(p.what.at, Place::Header { .. } | Place::Slots | Place::Hint));
    if let Some(problem) = problems.first() {
        return Err(damaged(problem));
    }
    // Several states may list the same versions, if one of them was made twice. One must agree.
    let mut outcome = Ok(first);
    for i in std::iter::once(first).chain(listed) {
        let mut versions = allowed[i].versions.iter();
        outcome = versions.try_for_each(|(&v, content)| agrees(store, v, content)).map(|()| i);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// Checks that a version has the points and gives the answers that it must.
pub(crate) fn agrees(store: &Store, version: u64, content: &Content) -> Result<(), Wrong> {
    let snapshot = store.at(VersionId(version));
    agrees_with(&snapshot.map_err(|e| Wrong::Damaged(format!("version {version}: {e}")))?, content)
}

/// [`agrees`] of a version that is open.
pub(crate) fn agrees_with(snapshot: &Snapshot, content: &Content) -> Result<(), Wrong> {
    let version = snapshot.version();
    let failed = |e: &dyn std::fmt::Display| Wrong::Damaged(format!("version {version}: {e}"));
    let mut points = Points::new();
    let mut rows = 0;
    let read = snapshot.for_each(|id, point| {
        rows += 1;
        points.insert(id, [point[0], point[1]]);
    });
    read.map_err(|e| failed(&e))?;
    if points != content.points || rows != points.len() {
        return Err(Wrong::Answers(format!("version {version} has other points")));
    }
    let mut searcher = snapshot.searcher();
    for (query, expected) in queries().iter().zip(content.answers()) {
        if searcher.knn(query, K).map_err(|e| failed(&e))? != expected {
            return Err(Wrong::Answers(format!("version {version}: neighbours of {query:?}")));
        }
    }
    Ok(())
}

pub(crate) fn open_options() -> OpenOptions {
    threads(1)
}
