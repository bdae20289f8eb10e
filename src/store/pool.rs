//! The threads of a store.

use std::ops::Deref;

use crate::arena::process::Owner;

/// A pool of threads that a forked child leaves alone: they are not there, and what they held when
/// the process was forked is held for ever, so that to stop them could hang.
pub(crate) struct Pool {
    /// Taken only when it is dropped.
    threads: Option<rayon::ThreadPool>,
    owner: Owner,
}

impl Pool {
    pub(crate) fn new(threads: rayon::ThreadPool) -> Self {
        Pool { threads: Some(threads), owner: Owner::here() }
    }
}

impl Deref for Pool {
    type Target = rayon::ThreadPool;

    fn deref(&self) -> &rayon::ThreadPool {
        self.threads.as_ref().expect("taken only when it is dropped")
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.owner.is_elsewhere() {
            std::mem::forget(self.threads.take());
        }
    }
}
