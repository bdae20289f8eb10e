//! Which process a handle belongs to.
//!
//! Locks belong to an open file description, which a forked child shares: a lock that the child
//! gave back would be gone in its parent, and a version that the parent released would go from
//! under the child. The threads of the parent are not in the child either, and whoever waited for
//! one would wait for ever. So a handle is of use only in the process that opened it, and every way
//! to the file asks here first.
//!
//! Not a guard against a process that was forked and goes on with the *parent's* pid: there is
//! none.

use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::mapping;

/// A word that is zero in a new process, if the system has such a thing.
static MARK: OnceLock<Option<&'static AtomicU64>> = OnceLock::new();

/// The process in which this was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pid: u32,
    /// What [`MARK`] said then.
    mark: u64,
    word: Option<&'static AtomicU64>,
}

impl Owner {
    /// This process.
    pub(crate) fn here() -> Self {
        let (pid, word) = (process::id(), *MARK.get_or_init(mapping::wiped_by_fork));
        let mark = word.map_or(0, |word| {
            // A child that opens a store of its own has to tell it from what it inherited, whose
            // word was not zero either.
            let new = (u64::from(pid) << 32) | 1;
            match word.compare_exchange(0, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => new,
                Err(mark) => mark,
            }
        });
        Owner { pid, mark, word }
    }

    /// True in any process but that one. Costs a system call.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.seems_elsewhere() || process::id() != self.pid
    }

    /// [`Owner::is_elsewhere`] for readers: for the cost of a load, where there is such a word.
    #[inline]
    pub(crate) fn seems_elsewhere(&self) -> bool {
        match self.word {
            Some(word) => word.load(Ordering::Relaxed) != self.mark,
            None => process::id() != self.pid,
        }
    }
}
