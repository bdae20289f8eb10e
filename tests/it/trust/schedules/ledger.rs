//! What somebody who looks at a store from outside may see, at any moment of a schedule.
//!
//! Whoever changes a store says beforehand what it may become, and afterwards what it is. A
//! reader's call takes time: what it finds must be what the store was, or may have been, at some
//! moment between its beginning and its end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use super::super::model::{Content, State};

/// A state in which a store may be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Possible {
    pub(crate) state: State,
    /// Of its versions, those that may have expired: whether somebody has them open decides.
    pub(crate) doubtful: BTreeSet<u64>,
    /// The saved rule: so many versions are kept, or all.
    pub(crate) rule: Option<u64>,
}

impl fmt::Display for Possible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Possible { state, doubtful, rule } = self;
        let versions: Vec<&u64> = state.versions.keys().collect();
        write!(f, "{versions:?} but perhaps {doubtful:?}, tags {:?}, rule {rule:?}", state.tags)
    }
}

impl Possible {
    /// This one, if a store that lists such versions and tags may be in it.
    pub(crate) fn as_listed(
        &self,
        versions: &[u64],
        tags: &BTreeMap<String, u64>,
    ) -> Option<Possible> {
        let known = versions.iter().all(|version| self.state.versions.contains_key(version));
        let mut missing = self.state.versions.keys().filter(|v| !versions.contains(v));
        let fits = known && missing.all(|v| self.doubtful.contains(v)) && *tags == self.state.tags;
        fits.then(|| {
            let mut found = self.clone();
            found.state.versions.retain(|version, _| versions.contains(version));
            found.doubtful.clear();
            found
        })
    }

    /// What a version holds, if it can be opened.
    pub(crate) fn content(&self, version: u64) -> Option<Arc<Content>> {
        match version {
            0 => Some(Content::new(Default::default())),
            _ => self.state.versions.get(&version).cloned(),
        }
    }

    /// True if the version is there no more.
    pub(crate) fn may_be_gone(&self, version: u64) -> bool {
        let there = self.state.versions.contains_key(&version);
        version <= self.state.newest() && (!there || self.doubtful.contains(&version))
    }

    /// Versions that a rule keeping the newest `last` may let go: `spared` it keeps in any case.
    pub(crate) fn doomed(&self, last: u64, spared: &[u64]) -> BTreeSet<u64> {
        let mut kept = self.state.clone();
        kept.expire(last as usize);
        let versions = self.state.versions.keys();
        let gone = versions.filter(|v| !kept.versions.contains_key(v) && !spared.contains(v));
        gone.copied().collect()
    }
}

#[derive(Default)]
struct Book {
    /// What was possible, from one change to the next.
    pages: Vec<Vec<Arc<Possible>>>,
    /// The newest version that a reader has seen while no writer had died.
    seen: u64,
    disturbed: bool,
}

/// What is possible, and was. Clones are one.
#[derive(Clone)]
pub(crate) struct Ledger(Arc<Mutex<Book>>);

impl Ledger {
    pub(crate) fn new(possible: Possible) -> Self {
        let pages = vec![vec![Arc::new(possible)]];
        Ledger(Arc::new(Mutex::new(Book { pages, ..Book::default() })))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().expect("no holder panics")
    }

    /// From now on one of these.
    pub(crate) fn turn(&self, possible: impl IntoIterator<Item = Possible>) {
        self.book().pages.push(possible.into_iter().map(Arc::new).collect());
    }

    pub(crate) fn now(&self) -> Vec<Possible> {
        let book = self.book();
        book.pages.last().expect("there is one").iter().map(|p| Possible::clone(p)).collect()
    }

    /// A moment, to be given to [`Ledger::since`].
    pub(crate) fn moment(&self) -> usize {
        self.book().pages.len() - 1
    }

    /// All that was possible at some time from a moment on.
    pub(crate) fn since(&self, moment: usize) -> Vec<Arc<Possible>> {
        self.book().pages[moment..].iter().flatten().cloned().collect()
    }

    /// A writer has died.
    pub(crate) fn disturb(&self) {
        self.book().disturbed = true;
    }

    /// A reader has seen a version. It did so beside a writer that lives, so no crash takes it away
    /// any more.
    pub(crate) fn see(&self, version: u64) {
        let mut book = self.book();
        if !book.disturbed {
            book.seen = book.seen.max(version);
        }
    }

    /// What a crash may leave.
    pub(crate) fn after_crash(&self) -> Vec<Possible> {
        let seen = self.book().seen;
        let mut possible = self.now();
        possible.retain(|possible| possible.state.newest() >= seen);
        possible
    }
}
