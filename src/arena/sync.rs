//! What threads share by, in one place for the modules whose orders of events are checked: a
//! checker (`tests/orders`) compiles them with primitives of its own in this one's stead.

pub(crate) use std::sync::{Mutex, MutexGuard, RwLock};

/// Atomics.
pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
}
