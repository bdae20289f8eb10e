//! A searcher that has warmed up asks the allocator for nothing.
//!
//! The allocator of the whole test binary counts per thread, so that tests beside these do not disturb them.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use treering::{CreateOptions, Store};

use crate::common::{Random, threads, tiny};

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

/// From now on the process may allocate so many bytes more than it has; what goes beyond is refused, as by a system
/// that has no more. `None`: as many as there are.
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
// SAFETY: every call is passed on unchanged to the system's allocator, whose contract is the one asked for here, or
// refused, which an allocator may do. The counters are thread-locals without a destructor, so that counting allocates nothing and never fails.
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
        // SAFETY: the caller keeps the contract of `GlobalAlloc::realloc`, and all blocks come from `System`.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`, and all blocks come from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations that `f` makes on this thread.
fn allocations(f: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    f();
    ALLOCATIONS.get() - before
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
    assert_eq!(allocations(|| ()), 0);
}

/// Uniform rows with some twins, in several versions with deletes.
fn stores(dir: &std::path::Path) -> Vec<(&'static str, Store, Vec<f32>)> {
    let mut random = Random(77);
    let mut stores = Vec::new();
    for (name, dim, options) in [
        ("defaults", 3, CreateOptions::new(3)),
        ("tiny", 3, tiny(3, 2)),
        ("wide", 24, CreateOptions::new(24)),
    ] {
        let mut store = Store::create_with(dir.join(name), options, threads(1)).unwrap();
        let mut points = random.points(6_000, dim);
        for i in 0..500 {
            points.copy_within(0..dim, (i * 11 + 1) * dim);
        }
        for batch in points.chunks(2_000 * dim) {
            store.insert(batch).unwrap();
        }
        store.delete(&Vec::from_iter((0..600).map(|i| i * 7))).unwrap();
        stores.push((name, store, points));
    }
    stores
}

#[test]
fn a_warm_searcher_allocates_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(5);
    for (name, store, points) in stores(dir.path()) {
        let snapshot = store.latest().unwrap();
        let dim = snapshot.dim();
        let mut queries = random.points(100, dim);
        queries.extend_from_slice(&points[..50 * dim]);
        for k in [0, 1, 10, 100, 10_000] {
            let mut searcher = snapshot.searcher();
            let mut round = || {
                for query in queries.chunks_exact(dim) {
                    std::hint::black_box(searcher.knn(query, k).unwrap());
                }
            };
            // Where scanning is cheaper, one query in 64 still tries the tree; after this many rounds each of them has.
            (0..32).for_each(|_| round());
            assert_eq!(allocations(&mut round), 0, "{name}: knn, k {k}");
            assert_eq!(allocations(&mut round), 0, "{name}: knn, k {k}, again");
        }
        for radius in [0.0, 0.05, 0.3, f32::INFINITY] {
            let mut searcher = snapshot.searcher();
            let mut round = || {
                for query in queries.chunks_exact(dim) {
                    std::hint::black_box(searcher.within(query, radius).unwrap());
                }
            };
            round();
            assert_eq!(allocations(&mut round), 0, "{name}: within, radius {radius}");
            let round = || {
                for query in queries.chunks_exact(dim) {
                    std::hint::black_box(snapshot.count_within(query, radius).unwrap());
                }
            };
            round();
            assert_eq!(allocations(round), 0, "{name}: count_within, radius {radius}");
        }
    }
}

/// The scratch goes back to the snapshot: a new searcher, or a single query, starts warm.
#[test]
fn a_second_searcher_starts_warm() {
    let dir = tempfile::tempdir().unwrap();
    for (name, store, points) in stores(dir.path()) {
        let snapshot = store.latest().unwrap();
        let query = &points[..snapshot.dim()];
        let round = || {
            std::hint::black_box(snapshot.searcher().knn(query, 10).unwrap());
        };
        round();
        assert_eq!(allocations(round), 0, "{name}: knn by a searcher of its own");
        // The one allocation is the answer.
        assert_eq!(allocations(|| drop(snapshot.knn(query, 10).unwrap())), 1, "{name}: one knn");
    }
}
