//! What threads of one handle share: the newest commit, and what has been checked.

use std::sync::Arc;

use shuttle::sync::atomic::{AtomicU64, Ordering};
use shuttle::thread;

#[path = "../../../../src/arena/checked.rs"]
#[allow(dead_code)]
mod checked;
#[path = "../../../../src/version/newest.rs"]
mod newest;

mod values {
    pub(crate) mod error {
        #[derive(Clone, Debug)]
        pub(crate) struct Corruption;
    }
}

mod arena {
    pub(crate) mod sync {
        pub(crate) use shuttle::sync::{Mutex, MutexGuard, RwLock};
        pub(crate) mod atomic {
            pub(crate) use shuttle::sync::atomic::{AtomicU64, Ordering};
        }
    }
}

mod format {
    pub(crate) mod arrays {
        pub(crate) struct Entry {
            pub(crate) address: u64,
            pub(crate) birth: u64,
        }
    }
    pub(crate) mod slot {
        #[derive(Clone, Copy)]
        pub(crate) struct CommitSlot {
            pub(crate) commit: u64,
        }
    }
}

use checked::Checked;
use format::arrays::Entry;
use format::slot::CommitSlot;
use newest::Newest;
use values::error::Corruption;

/// Orders that are tried.
const ORDERS: usize = 20_000;

/// Threads find commits in any order; nobody sees an older one after a newer, or one whose bytes
/// cannot be read yet.
fn the_newest_commit_never_goes_back() {
    let newest = Arc::new(Newest::new(CommitSlot { commit: 1 }));
    let limit = Arc::new(AtomicU64::new(1));
    for numbers in [[2, 4], [3, 5]] {
        let (newest, limit) = (newest.clone(), limit.clone());
        thread::spawn(move || {
            for commit in numbers {
                newest.publish(CommitSlot { commit }, || limit.store(commit, Ordering::SeqCst));
            }
        });
    }
    let mut last = 0;
    for _ in 0..5 {
        let commit = newest.get().commit;
        assert!(commit >= last, "{commit} after {last}");
        assert!(limit.load(Ordering::SeqCst) >= commit, "{commit} cannot be read yet");
        last = commit;
    }
}

/// Bytes pass for one thread and fail for another: what has failed last has not passed, and is
/// never both.
fn what_failed_has_not_passed() {
    let checked = Arc::new(Checked::default());
    let entry = || Entry { address: 4096, birth: 3 };
    let passing = {
        let checked = checked.clone();
        thread::spawn(move || checked.pass(&entry()))
    };
    let failing = {
        let checked = checked.clone();
        thread::spawn(move || checked.fail(&entry(), Corruption))
    };
    failing.join().unwrap();
    passing.join().unwrap();
    assert!(!(checked.has_passed(&entry()) && checked.has_failed(&entry())), "both");
    let before = checked.failures();
    assert!(before > 0);
    checked.fail(&entry(), Corruption);
    assert!(checked.has_failed(&entry()) && !checked.has_passed(&entry()));
    assert!(checked.failures() > before);
}

fn main() {
    shuttle::check_random(the_newest_commit_never_goes_back, ORDERS);
    shuttle::check_random(what_failed_has_not_passed, ORDERS);
    println!("shared by threads: {} orders", 2 * ORDERS);
}
