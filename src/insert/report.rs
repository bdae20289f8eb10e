//! What a batch did and how long each stage took.

use std::time::Duration;

use crate::format::version_row::COUNTERS;
use crate::values::ids::VersionId;
use crate::values::retention::ClockLeap;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts of what making a version took. They are kept with the version.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Counters { $($(#[$doc])* pub $name: u64,)* }

        impl Counters {
            /// Names and values, in a fixed order.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }

            fn values(self) -> [u64; COUNTERS] {
                [$(self.$name,)*]
            }

            pub(crate) fn from_array(values: [u64; COUNTERS]) -> Self {
                let [$($name,)*] = values;
                Counters { $($name,)* }
            }

            /// Adds another count of work.
            pub(crate) fn add(&mut self, other: &Counters) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counters! {
    /// Canonical distances computed.
    distance_evaluations,
    /// Sweeps of a new center over a share of points that a bound made unnecessary.
    bound_hits,
    /// Nodes that received points.
    groups,
    /// Buckets that were split, those of new nodes included.
    splits,
    /// Edges of all conflict graphs.
    conflict_edges,
    /// Rounds of conflict graph and maximal independent set.
    mis_rounds,
    /// Points that moved to a nearer center while their group was split.
    redistributed,
    /// Rows changed in place (by copy-on-write), by the journal.
    journal_entries,
    /// Blocks of new children linked to a parent.
    splice_count,
    /// Levels whose number of nodes changed.
    level_delta_nonzeros,
    /// Committed segments that were copied because they changed.
    cow_segments,
    /// Bytes of those.
    cow_bytes_copied,
    /// Bytes written to the file, tables and slots included.
    bytes_written,
    /// Bytes by which the scratch pool grew. Reported, not kept.
    pool_grow_bytes,
    /// Times a scratch buffer was taken from the pool. Reported, not kept.
    pool_reuse_hits,
}

impl Counters {
    /// What is kept with a version. The pool's counts depend on the threads, which must leave no
    /// trace in the file.
    pub(crate) fn to_array(self) -> [u64; COUNTERS] {
        Counters { pool_grow_bytes: 0, pool_reuse_hits: 0, ..self }.values()
    }
}

macro_rules! times {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Wall time of each stage. Stages that run inside one parallel section share its wall time
        /// in proportion to the processor time that each used.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct StageTimes { $($(#[$doc])* pub $name: Duration,)* }

        impl StageTimes {
            /// Names and values, in the order of the pipeline.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, Duration)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }

            /// Adds another measurement.
            pub(crate) fn add(&mut self, other: &StageTimes) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

times! {
    /// Finding each point's node.
    locate,
    /// Grouping by node, and reading the rows of nodes that change.
    group,
    /// Conflict graphs.
    conflict,
    /// Maximal independent sets.
    mis,
    /// Moving points to nearer centers.
    redistribute,
    /// Writing new rows and links into the columns.
    splice,
    /// Moving the per-level counts.
    level_prefix,
    /// The id index and the copy-on-write sweep of the journal.
    build_cow,
    /// Encoding, writing and syncing.
    commit,
}

/// Counters and times of one transaction, or of a part of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Work {
    pub(crate) counters: Counters,
    pub(crate) times: StageTimes,
}

impl Work {
    pub(crate) fn add(&mut self, other: &Work) {
        self.counters.add(&other.counters);
        self.times.add(&other.times);
    }
}

/// What a commit made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The version that is the newest now.
    pub version: VersionId,
    /// True if it was made; false if there was nothing to make one of.
    pub is_new: bool,
    /// Live points in it.
    pub points: u64,
    /// Points inserted.
    pub added: u64,
    /// Points deleted.
    pub removed: u64,
    /// The store's dimension.
    pub dim: usize,
    /// Bytes written to the file.
    pub bytes_written: u64,
    /// Counts of the work done.
    pub counters: Counters,
    /// Time taken by each stage.
    pub times: StageTimes,
    /// By how much the clock is behind the version before. The new one is stamped a nanosecond
    /// after that, so that times go on increasing; zero, if all is well.
    pub clock_behind: Duration,
    /// A step of the clock because of which the saved rule of retention keeps versions that are too
    /// old by the calendar.
    pub clock_leap: Option<ClockLeap>,
}
