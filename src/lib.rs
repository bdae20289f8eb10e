//! `treering`: an exact k-nearest-neighbour index that lives on disk and keeps every version of itself.
//!
//! Points go in by the batch; each batch becomes a version; any version can be opened read-only and asked, at any later
//! time, for exactly the answers it gave then. The index is a compressed cover tree whose arrays lie in checksummed
//! segments of one memory-mapped file. A batch copies only the segments it touches.
//!
//! *Exact* means: [`Snapshot::knn`] returns the first k of all live points in the total order (distance, id), where the
//! distance is one scalar function of f32 arithmetic, the same on every instruction set. The answer is the same, bit
//! for bit, for any number of threads, any way of filling the store, and any later history.
//!
//! ```
//! use treering::{CreateOptions, Store, VersionId};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("points.tre");
//! let mut store = Store::create(&path, CreateOptions::new(3))?;
//! store.insert(&[0.0, 0.0, 0.0, /* */ 1.0, 0.0, 0.0, /* */ 0.0, 2.0, 0.0])?;
//! store.delete(&[1])?;
//!
//! for neighbor in store.latest()?.knn(&[0.9, 0.0, 0.0], 2)? {
//!     println!("{} at {}", neighbor.id, neighbor.distance);
//! }
//! assert_eq!(store.at(VersionId(1))?.knn(&[0.9, 0.0, 0.0], 1)?[0].id, 1);
//! # Ok(())
//! # }
//! ```

mod arena;
mod copies;
mod error;
mod external;
mod format;
mod history;
mod ids;
#[cfg(feature = "cli")]
mod ingest;
mod insert;
mod maintain;
mod memory;
mod metric;
mod new_file;
mod opening;
mod options;
mod pool;
mod printable;
#[cfg_attr(
    not(feature = "cli"),
    allow(dead_code, reason = "the library itself writes stores only")
)]
mod publish;
mod query;
mod retention;
#[cfg_attr(
    not(feature = "simulation"),
    allow(
        unreachable_pub,
        dead_code,
        reason = "public through `simulation`, which is not compiled"
    )
)]
mod seeded_bug;
#[cfg(feature = "simulation")]
#[doc(hidden)]
pub mod simulation;
mod snapshot;
mod source;
mod spill;
mod store;
mod sync;
#[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "only the command replaces files"))]
mod temporary;
mod time_text;
mod transaction;
mod tree;
mod version;
mod version_info;
#[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "only the command waits for pipes"))]
mod waiting;
mod when;

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;

pub use error::{
    AtError, BackupError, CommitError, Corruption, CreateError, Defect, DeleteError, InsertError,
    OpenError, OptionsError, Place, PointsError, QueryError, ReadError, ReceiveError, RecoverError,
    RestoreError, SourceError, StorageError, TagError, TemporaryError, VacuumError,
};
pub use ids::{PointId, VersionId};
pub use insert::report::{Counters, Report, StageTimes};
pub use maintain::backup::BackupReport;
pub use maintain::diff::Diff;
pub use maintain::receive::ReceiveReport;
pub use maintain::recover::RecoverReport;
pub use maintain::scrub::{ScrubOptions, ScrubReport};
pub use maintain::stats::Stats;
pub use maintain::vacuum::VacuumReport;
pub use maintain::verify::{Problem, VerifyOptions, VerifyReport};
pub use options::{
    CancelToken, CreateOptions, Durability, Metric, OpenOptions, Progress, Provenance, Verify,
};
pub use query::Neighbor;
pub use retention::{ClockLeap, ExpireReport, Retention};
pub use snapshot::{NeighborTable, Searcher, Snapshot};
pub use source::PointSource;
pub use store::Store;
pub use transaction::Transaction;
pub use version_info::{VersionInfo, VersionKind};
pub use when::{Tag, When, WhenError};

/// The examples of the README, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
