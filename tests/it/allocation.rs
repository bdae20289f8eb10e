//! The allocator of the test binary: it counts per thread, so that tests side by side do not
//! disturb each other.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// The largest block that this thread has asked for.
    static LARGEST_HERE: Cell<usize> = const { Cell::new(0) };
}

/// The largest block that any thread has asked for since [`watch`].
static LARGEST: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Bytes that the process has allocated and not given back, and how many it may have.
static LIVE: AtomicUsize = AtomicUsize::new(0);
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);

/// From now on the process may allocate so many bytes more than it has; what goes beyond is
/// refused, as by a system that has no more. `None`: as many as there are.
pub(crate) fn allow(more: Option<usize>) {
    let limit = more.map_or(usize::MAX, |more| LIVE.load(Ordering::SeqCst) + more);
    LIMIT.store(limit, Ordering::SeqCst);
}

/// From now on the largest block is noted, in the whole process.
pub(crate) fn watch() {
    LARGEST.store(0, Ordering::SeqCst);
}

/// The largest block that was asked for, in bytes.
pub(crate) fn largest() -> usize {
    LARGEST.load(Ordering::SeqCst)
}

/// The largest block that this thread asks for while `f` runs, in bytes.
#[allow(dead_code, reason = "for the tests of the command")]
pub(crate) fn largest_of(f: impl FnOnce()) -> usize {
    LARGEST_HERE.set(0);
    f();
    LARGEST_HERE.get()
}

struct Counting;

/// Takes bytes off what is allowed, if there are so many.
fn take(bytes: usize) -> bool {
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed);
    let refused = bytes > LIMIT.load(Ordering::Relaxed).saturating_sub(live);
    if refused {
        LIVE.fetch_sub(bytes, Ordering::Relaxed);
    }
    !refused
}

fn count(bytes: usize) {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
    LARGEST_HERE.set(LARGEST_HERE.get().max(bytes));
    if bytes > LARGEST.load(Ordering::Relaxed) {
        LARGEST.fetch_max(bytes, Ordering::Relaxed);
    }
}

#[expect(unsafe_code, reason = "an allocator cannot be written without")]
// SAFETY: every call is passed on unchanged to the system's allocator, whose contract is the one
// asked for here, or refused, which an allocator may do. The counters are thread-locals without a
// destructor, so that counting allocates nothing and never fails.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        if !take(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        if !take(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        if !take(size) {
            return std::ptr::null_mut();
        }
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::realloc`, and all blocks come from
        // `System`.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`, and all blocks come from
        // `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations that `f` makes on this thread.
pub(crate) fn allocations(f: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    f();
    ALLOCATIONS.get() - before
}
