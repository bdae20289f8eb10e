//! Tree or scan: where the tree cannot prune, reading everything in order is faster. Both give the
//! same bits.
//!
//! The choice rests on counts of what earlier queries took, not on clocks, so that the work done is
//! reproducible too.

use super::knn::Scratch;
use super::{brute, knn};
use crate::tree::columns::Tree;
use crate::values::error::ReadError;

/// What things cost in nanoseconds, roughly, on present processors; only the ratios matter.
///
/// In a descent: a visit of a node, a row, and one of its values.
const VISIT: f64 = 20.0;
const ROW_IN_DESCENT: f64 = 0.7;
const VALUE_IN_DESCENT: f64 = 0.1;

/// In a scan for one query: a row, and one of its values.
const ROW_IN_SCAN: f64 = 0.3;
const VALUE_IN_SCAN: f64 = 0.08;

/// In a scan for many queries, for each of them: a row, one of its values, and what there is once,
/// the best being sums computed anew. A value has to be brought into the form in which all queries
/// meet it.
const ROW_IN_SHARED_SCAN: f64 = 0.1;
const VALUE_IN_SHARED_SCAN: f64 = 0.006;
const QUERY_IN_SHARED_SCAN: f64 = 3000.0;
const VALUE_PREPARED: f64 = 0.4;

/// Queries answered by the tree before the first choice, and one in how many after it, to see
/// whether it still holds.
const TRIALS: u64 = 4;
const TRIAL_EVERY: u64 = 64;

/// Queries of a batch that are tried at most, and how many times one way must be cheaper to be
/// taken earlier.
pub(crate) const BATCH_TRIALS: u64 = 6;
const CLEAR: f64 = 3.0;

/// What queries for one k took so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trials {
    k: usize,
    queries: u64,
    trials: u64,
    visits: u64,
    evaluations: u64,
}

impl Trials {
    fn descent_cost(&self, tree: &Tree) -> f64 {
        let visits = self.visits as f64 / self.trials as f64;
        let evaluations = self.evaluations as f64 / self.trials as f64;
        visits * VISIT + evaluations * row_in_descent(tree)
    }
}

fn row_in_descent(tree: &Tree) -> f64 {
    tree.dim as f64 * VALUE_IN_DESCENT + ROW_IN_DESCENT
}

fn scan_cost(tree: &Tree, value: f64, row: f64) -> f64 {
    tree.slots() as f64 * (tree.dim as f64 * value + row)
}

/// Of each query of a batch.
fn shared_scan_cost(tree: &Tree, batch: usize) -> f64 {
    // Whatever the number of threads, so that it leaves no trace.
    let together = batch.min(brute::QUERIES_PER_PASS) as f64;
    let value = VALUE_IN_SHARED_SCAN + VALUE_PREPARED / together;
    scan_cost(tree, value, ROW_IN_SHARED_SCAN) + QUERY_IN_SHARED_SCAN
}

/// If the first query of a batch takes more evaluations than this, a scan is clearly cheaper.
pub(crate) fn most_evaluations(tree: &Tree, batch: usize) -> u64 {
    (CLEAR * shared_scan_cost(tree, batch) / row_in_descent(tree)) as u64
}

/// How a batch should be answered, judging by its first few queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Scan,
    Descend,
    /// Too close to tell: try more queries.
    Unclear,
}

/// What the first `queries` of a batch of so many say, that took so many visits and evaluations in
/// the tree.
pub(crate) fn judge_batch(
    tree: &Tree,
    batch: usize,
    queries: u64,
    visits: u64,
    evaluations: u64,
) -> Verdict {
    let history = Trials { trials: queries, visits, evaluations, ..Trials::default() };
    let (scan, descent) = (shared_scan_cost(tree, batch), history.descent_cost(tree));
    // One query tells a great difference, several a small one.
    let clear = if queries < BATCH_TRIALS { CLEAR } else { 1.0 };
    if scan * clear < descent {
        Verdict::Scan
    } else if descent * clear <= scan {
        Verdict::Descend
    } else {
        Verdict::Unclear
    }
}

/// [`knn::knn`], by whichever way has been cheaper.
pub(crate) fn knn(
    tree: &Tree,
    query: &[f32],
    k: usize,
    scratch: &mut Scratch,
) -> Result<(), ReadError> {
    if scratch.trials.k != k {
        scratch.trials = Trials { k, ..Trials::default() };
    }
    let history = &mut scratch.trials;
    history.queries += 1;
    let trial = history.trials < TRIALS || history.queries.is_multiple_of(TRIAL_EVERY);
    if !trial && scan_cost(tree, VALUE_IN_SCAN, ROW_IN_SCAN) < history.descent_cost(tree) {
        return knn::scan_all(tree, query, k, scratch);
    }
    let (visits, evaluations) = (scratch.visits(), scratch.evaluations());
    knn::knn(tree, query, k, scratch)?;
    let taken = (scratch.visits(), scratch.evaluations());
    let history = &mut scratch.trials;
    history.trials += 1;
    history.visits += taken.0 - visits;
    history.evaluations += taken.1 - evaluations;
    Ok(())
}
