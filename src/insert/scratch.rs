//! Scratch buffers that outlive a batch. Nothing that is published ever lies in one.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::report::Counters;
use crate::space::Near;

/// Buffers of one piece of sequential work. Capacities only grow.
#[derive(Default)]
pub(crate) struct Scratch {
    /// Gathered rows.
    pub(crate) rows: Vec<f32>,
    /// Gathered rows of new centers, or of winners.
    pub(crate) centers: Vec<f32>,
    /// Sums of squares.
    pub(crate) sums: Vec<f32>,
    /// Best sum of each member, and the center that has it.
    pub(crate) best: Vec<f32>,
    pub(crate) best_center: Vec<u32>,
    /// Positions of members in a share.
    pub(crate) positions: Vec<u32>,
    /// Rows of candidates that no winner conflicts with.
    pub(crate) rivals: Vec<f32>,
    pub(crate) found: Vec<Near>,
}

macro_rules! each_buffer {
    ($scratch:expr, $f:expr) => {{
        let s = $scratch;
        [
            $f(&mut s.rows),
            $f(&mut s.centers),
            $f(&mut s.sums),
            $f(&mut s.best),
            $f(&mut s.best_center),
            $f(&mut s.positions),
            $f(&mut s.rivals),
            $f(&mut s.found),
        ]
    }};
}

impl Scratch {
    /// Elements that each buffer can hold.
    fn capacities(&mut self) -> [usize; 8] {
        each_buffer!(self, |buffer: &mut Vec<_>| buffer.capacity())
    }

    /// Bytes that all buffers together can hold.
    fn bytes(&mut self) -> usize {
        fn bytes<T>(buffer: &mut Vec<T>) -> usize {
            buffer.capacity() * size_of::<T>()
        }
        each_buffer!(self, bytes).iter().sum()
    }

    fn reserve(&mut self, capacities: [usize; 8]) {
        let mut wanted = capacities.into_iter();
        let mut wanted = || wanted.next().expect("one capacity per buffer");
        each_buffer!(self, |buffer: &mut Vec<_>| {
            let want = wanted();
            buffer.clear();
            buffer.reserve_exact(want);
        });
    }
}

/// Scratch buffers not in use, and the largest capacities seen.
#[derive(Default)]
pub(crate) struct ScratchPool {
    idle: Mutex<Vec<Scratch>>,
    reuse_hits: AtomicU64,
    /// Bytes of all idle buffers when a batch was last settled.
    settled_bytes: AtomicU64,
    threads: usize,
}

impl ScratchPool {
    /// A pool for work on `threads` threads at once.
    pub(crate) fn new(threads: usize) -> Self {
        ScratchPool { threads, ..Self::default() }
    }

    /// Runs `f` with a scratch. `f` must not run other work on the pool's threads in between.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut Scratch) -> R) -> R {
        let idle = self.idle.lock().expect("no holder panics").pop();
        if idle.is_some() {
            self.reuse_hits.fetch_add(1, Ordering::Relaxed);
        }
        let mut scratch = idle.unwrap_or_default();
        let result = f(&mut scratch);
        self.idle.lock().expect("no holder panics").push(scratch);
        result
    }

    /// At the end of a batch: gives every thread a scratch with the largest capacities seen, so
    /// that the next batch of the same shape grows none, whichever thread does what. Accounts for
    /// growth and reuse.
    pub(crate) fn settle(&self, counters: &mut Counters) {
        let mut idle = self.idle.lock().expect("no holder panics");
        let count = self.threads.max(idle.len());
        idle.resize_with(count, Scratch::default);
        let mut largest = [0; 8];
        for scratch in idle.iter_mut() {
            for (most, capacity) in largest.iter_mut().zip(scratch.capacities()) {
                *most = capacity.max(*most);
            }
        }
        let mut bytes = 0;
        for scratch in idle.iter_mut() {
            scratch.reserve(largest);
            bytes += scratch.bytes() as u64;
        }
        let before = self.settled_bytes.swap(bytes, Ordering::Relaxed);
        counters.pool_grow_bytes += bytes.saturating_sub(before);
        counters.pool_reuse_hits += self.reuse_hits.swap(0, Ordering::Relaxed);
    }
}
