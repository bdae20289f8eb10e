//! `treering`: an exact k-nearest-neighbour index that lives on disk and keeps every version of
//! itself.
//!
//! Points go in by the batch; each batch becomes a version; any version can be opened read-only and
//! asked, at any later time, for exactly the answers it gave then. The index is a compressed cover
//! tree whose arrays lie in checksummed segments of one memory-mapped file. A batch copies only the
//! segments it touches.
//!
//! *Exact* means: [`Snapshot::knn`] returns the first k of all live points in the total order
//! (distance, id), where the distance is one scalar function of f32 arithmetic, the same on every
//! instruction set. The answer is the same, bit for bit, for any number of threads, any way of
//! filling the store, and any later history.
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
//!
//! # Where to begin
//!
//! - **Put points in**: [`Store::create`] or [`Store::build_from`], then [`Store::insert`] and
//!   [`Store::delete`]; several of them as one version with [`Store::begin`]. What is larger than
//!   memory comes from a [`PointSource`], under [`OpenOptions::memory_limit`].
//! - **Ask**: [`Snapshot::knn`] and [`Snapshot::within`]; many queries at once with
//!   [`Snapshot::knn_batch`], one after the other with a [`Searcher`], anything else with
//!   [`Snapshot::query`].
//! - **Go back**: [`Store::at`] a number, [`Store::as_of`] a time, [`Store::at_tag`] a name;
//!   [`Store::versions`] lists them, [`Store::diff`] compares two, [`Store::restore`] makes an old
//!   one the newest.
//! - **Keep it small**: [`Store::expire`] once, [`Store::set_retention`] for every commit;
//!   [`Store::compact`] packs the newest version, [`Store::vacuum`] the file.
//! - **Trust and copy it**: [`Store::verify`] and [`Store::scrub`] look for damage,
//!   [`Store::recover`] saves what is left; [`Store::backup`] and [`Store::receive`] move versions
//!   to another machine.
//!
//! Every method says what it costs and how it fails; all errors say what, where and what to do.

mod arena;
mod external;
#[doc(hidden)]
pub mod files;
mod format;
mod insert;
mod maintain;
mod query;
#[cfg(feature = "simulation")]
#[doc(hidden)]
pub mod simulation;
mod space;
mod store;
mod tree;
mod values;
mod version;

pub use insert::report::{Counters, Report, StageTimes};
pub use maintain::backup::BackupReport;
pub use maintain::diff::Diff;
pub use maintain::receive::ReceiveReport;
pub use maintain::stats::Stats;
pub use maintain::verify::{Problem, VerifyOptions, VerifyReport};
pub use query::Neighbor;
pub use store::Store;
pub use store::neighbor_table::NeighborTable;
pub use store::query::{Method, Query};
pub use store::recover::RecoverReport;
pub use store::scrub::{ScrubOptions, ScrubReport};
pub use store::searcher::Searcher;
pub use store::snapshot::Snapshot;
pub use store::transaction::Transaction;
pub use store::vacuum::VacuumReport;
pub use store::version_info::{VersionInfo, VersionKind};
pub use values::error::{
    AtError, BackupError, CommitError, Corruption, CreateError, Defect, DeleteError, InsertError,
    Invariant, OpenError, OptionsError, Place, PointsError, QueryError, ReadError, ReceiveError,
    RecoverError, RestoreError, SourceError, StorageError, TagError, TemporaryError, VacuumError,
};
pub use values::ids::{PointId, VersionId};
pub use values::options::{
    CancelToken, CreateOptions, Durability, Metric, OpenOptions, Progress, Provenance, Verify,
};
#[doc(hidden)]
pub use values::printable;
pub use values::retention::{ClockLeap, ExpireReport, Retention};
pub use values::source::PointSource;
pub use values::when::{Tag, When, WhenError};

/// The examples of the README, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
