//! kiddo's immutable kd-tree, in memory, with the buckets and the layout that its documentation
//! recommends.
//!
//! Its dimension is part of its type, so only some are compiled.

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use kiddo::batch::{Executor, ThreadPool, ThreadPoolBuilder};
use kiddo::{ImmutableKdTree, SquaredEuclidean};

use super::{Build, System, build, time};

struct KdTree<const DIM: usize> {
    tree: ImmutableKdTree<f32, DIM>,
    one: Executor,
    two: Executor,
}

/// The pool that builds and batches of two threads run on.
pub(crate) fn pool() -> Arc<ThreadPool> {
    let pool = ThreadPoolBuilder::new().num_threads(2).build();
    Arc::new(pool.expect("two threads can be started"))
}

/// Builds on two threads; `None` if no tree of this dimension is compiled.
pub(crate) fn new(
    points: &[f32],
    dim: usize,
    pool: &Arc<ThreadPool>,
) -> Option<(Box<dyn System>, Build)> {
    macro_rules! one_of {
        ($($dim:literal)*) => {
            match dim {
                $($dim => Some(of_dim::<$dim>(points, pool)),)*
                _ => None,
            }
        };
    }
    one_of!(2 3 4 8 9 16 27 32 64 128 784)
}

fn of_dim<const DIM: usize>(points: &[f32], pool: &Arc<ThreadPool>) -> (Box<dyn System>, Build) {
    let (rows, _) = points.as_chunks::<DIM>();
    let (tree, build) = build(|| {
        pool.install(|| ImmutableKdTree::<f32, DIM>::new_from_slice_parallel(rows))
            .expect("made points and finite files make a tree")
    });
    let two = Executor::parallel_in_pool(pool.clone()).with_default_static_chunking();
    (Box::new(KdTree { tree, one: Executor::serial(), two }), build)
}

fn wanted(k: usize) -> NonZero<usize> {
    NonZero::new(k).expect("k is at least 1")
}

impl<const DIM: usize> System for KdTree<DIM> {
    fn name(&self) -> &'static str {
        "kiddo"
    }

    fn batch(&mut self, queries: &[f32], k: usize, threads: usize) -> Duration {
        let (queries, _) = queries.as_chunks::<DIM>();
        let executor = if threads == 1 { &self.one } else { &self.two };
        time(|| {
            self.tree
                .query_batch(queries)
                .with_executor(executor)
                .nearest_n::<SquaredEuclidean<f32>>(wanted(k))
                .execute()
        })
    }

    fn single(&mut self, query: &[f32], k: usize) -> Duration {
        let query: &[f32; DIM] = query.try_into().expect("a query has the dimension");
        time(|| self.tree.query(query).nearest_n::<SquaredEuclidean<f32>>(wanted(k)).execute())
    }

    fn distances(&mut self, queries: &[f32], k: usize) -> Vec<f32> {
        let (queries, _) = queries.as_chunks::<DIM>();
        let found = self
            .tree
            .query_batch(queries)
            .with_executor(&self.two)
            .nearest_n::<SquaredEuclidean<f32>>(wanted(k))
            .execute();
        found.iter().flatten().map(|item| item.distance.sqrt()).collect()
    }
}
