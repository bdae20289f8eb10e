//! What a caller may choose: the geometry that is written into the file once, and the settings of
//! one opening.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use crate::values::budget::Budget;
use crate::values::error::OptionsError;

/// Most components of a row: up to here the proof of what rounding does (`space/bounds.rs`) covers
/// its second-order terms.
pub(crate) const MAX_DIM: usize = 65_536;

/// The distance of a store. Persisted; cannot be changed later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Metric {
    /// The canonical Euclidean distance: the f32 root of a sum of f32 squares, added in a fixed
    /// order.
    #[default]
    Euclidean,
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Metric::Euclidean => "euclidean",
        })
    }
}

/// The size of coordinate segments unless it is chosen: long, so that there are few, but short
/// enough that the last one, which a batch copies when it appends, is not most of what a small
/// batch writes.
pub(crate) fn default_coordinate_segment_bytes(dim: usize) -> u32 {
    const ROWS: usize = 1024;
    1 << (ROWS * 4 * dim.clamp(2, 16)).ilog2()
}

/// The persisted geometry of a new store.
///
/// # Examples
///
/// ```
/// use treering::CreateOptions;
/// let options = CreateOptions::new(3).leaf_capacity(16);
/// assert_eq!(options.dim(), 3);
/// ```
#[derive(Clone, Debug)]
pub struct CreateOptions {
    pub(crate) dim: usize,
    pub(crate) metric: Metric,
    pub(crate) leaf_capacity: u32,
    pub(crate) block_bytes: u32,
    pub(crate) topology_segment_bytes: u32,
    pub(crate) coordinate_segment_bytes: u32,
    pub(crate) seed: u64,
}

impl CreateOptions {
    /// A store of `dim`-dimensional points with the defaults: Euclidean, buckets of 96 (above 16
    /// dimensions: 64), blocks and topology segments of 4 KiB, coordinate segments of up to 1,024
    /// rows, but 8 KiB at least and 64 KiB, from 16 dimensions on, at most.
    pub fn new(dim: usize) -> Self {
        CreateOptions {
            dim,
            metric: Metric::Euclidean,
            // Where rows are short, nodes weigh more than the points that they would spare a query.
            leaf_capacity: if dim <= 16 { 96 } else { 64 },
            block_bytes: 4096,
            topology_segment_bytes: 4096,
            coordinate_segment_bytes: default_coordinate_segment_bytes(dim),
            seed: 0x7265_6972_6E67_0001,
        }
    }

    /// The dimension.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The distance.
    pub fn metric(mut self, metric: Metric) -> Self {
        self.metric = metric;
        self
    }

    /// Points per bucket, the one under the node's center included: 1 to 65,536. 1 gives the
    /// textbook tree with one point per node; from 48 to 96 is fast, and writes least when small
    /// batches come later.
    pub fn leaf_capacity(mut self, points: u32) -> Self {
        self.leaf_capacity = points;
        self
    }

    /// Bytes per segment of small rows (links, counts, ids): a multiple of the block.
    pub fn topology_segment_bytes(mut self, bytes: u32) -> Self {
        self.topology_segment_bytes = bytes;
        self
    }

    /// Bytes per segment of coordinates: a multiple of the block. A row longer than this gets a
    /// segment of its own.
    pub fn coordinate_segment_bytes(mut self, bytes: u32) -> Self {
        self.coordinate_segment_bytes = bytes;
        self
    }

    /// The unit of space and the size of a table node: a power of two from 128 to 65,536. Small
    /// values are for tests.
    pub fn block_bytes(mut self, bytes: u32) -> Self {
        self.block_bytes = bytes;
        self
    }

    /// The seed of the insertion order inside a batch. Any value gives exact answers.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    pub(crate) fn check(&self) -> Result<(), OptionsError> {
        let refuse = |option, why: String| Err(OptionsError { option, why });
        if self.dim == 0 || self.dim > MAX_DIM {
            return refuse("dim", format!("{} is not from 1 to {}", self.dim, MAX_DIM));
        }
        if !(1..=65_536).contains(&self.leaf_capacity) {
            return refuse(
                "leaf_capacity",
                format!("{} is not from 1 to 65536", self.leaf_capacity),
            );
        }
        let block = self.block_bytes;
        if !block.is_power_of_two() || !(128..=65_536).contains(&block) {
            return refuse(
                "block_bytes",
                format!("{block} is not a power of two from 128 to 65536"),
            );
        }
        for (option, bytes) in [
            ("topology_segment_bytes", self.topology_segment_bytes),
            ("coordinate_segment_bytes", self.coordinate_segment_bytes),
        ] {
            if bytes == 0 || bytes % block != 0 || bytes > 1 << 20 {
                return refuse(
                    option,
                    format!("{bytes} is not a multiple of the block ({block}) up to 1 MiB"),
                );
            }
        }
        Ok(())
    }
}

/// How far a long operation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done: "locate", "split", "write", "verify", ...
    pub stage: &'static str,
    /// Units done.
    pub done: u64,
    /// Units in all; 0 if not known.
    pub total: u64,
}

/// Asks a running operation to stop at the next safe point. Cheap to clone; all clones are one
/// token.
///
/// # Examples
///
/// ```
/// let token = treering::CancelToken::default();
/// assert!(!token.is_cancelled());
/// token.clone().cancel();
/// assert!(token.is_cancelled());
/// ```
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// Asks for the stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// True once [`CancelToken::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Where time stamps and lineage ids come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provenance {
    /// The system's clock and random source.
    System,
    /// A clock that starts here and advances one second per commit, and ids derived from the seed:
    /// the same calls give the same bytes, for tests and reproducible artefacts.
    Fixed {
        /// The first time stamp.
        start: SystemTime,
        /// Seed of the lineage ids.
        seed: u64,
    },
}

/// When a version is safe from a crash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// When its commit returns.
    #[default]
    Full,
    /// Versions share one pair of syncs: they are safe when this many have come together, or have
    /// written 64 MiB, when [`crate::Store::sync`] is called, when tags change or versions expire,
    /// and when the [`crate::Store`] is dropped. Until then they are visible to this handle only,
    /// and a crash loses them, the newest first and never one in the middle; what is left is
    /// consistent. For those who insert a few points at a time.
    Deferred {
        /// How many, at most 10,000.
        versions: u32,
    },
}

/// When bytes of the file are compared with their checksums. The store's own accounts always are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verify {
    /// All of a version when it is opened: costs reading it, once per [`crate::Store`] for what
    /// versions share. No query meets damage afterwards.
    OnOpen,
    /// Each segment when it is first read. Costs nothing later. See [`OpenOptions::scrub`] for
    /// damage that comes later.
    #[default]
    FirstTouch,
    /// Never but by [`crate::Store::verify`], and where a commit copies or moves what is there; for
    /// files that are known to be whole and do not move (as those below an overlay do). Damage then
    /// shows as wrong answers, or as errors where numbers make no sense; and a read that the device
    /// refuses ends the process, unless [`OpenOptions::catch_faults`] is on.
    Never,
}

type ProgressFn = Arc<dyn Fn(Progress) + Send + Sync>;

/// The settings of one opening; none is persisted.
#[derive(Clone)]
pub struct OpenOptions {
    pub(crate) threads: usize,
    pub(crate) read_only: bool,
    pub(crate) cancel: CancelToken,
    pub(crate) progress: Option<ProgressFn>,
    pub(crate) provenance: Provenance,
    pub(crate) durability: Durability,
    pub(crate) verify: Verify,
    pub(crate) patience: Option<Duration>,
    pub(crate) wait: Duration,
    pub(crate) catch_faults: bool,
    pub(crate) scrub: Option<u64>,
    pub(crate) memory_limit: Option<u64>,
    pub(crate) temporary_folder: Option<PathBuf>,
    /// Shares of memory other than those that the limit gives, for tests: so small that little data
    /// does not fit.
    pub(crate) shares: Option<Budget>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions {
            threads: 0,
            read_only: false,
            cancel: CancelToken::default(),
            progress: None,
            provenance: Provenance::System,
            durability: Durability::Full,
            verify: Verify::FirstTouch,
            patience: None,
            wait: Duration::ZERO,
            catch_faults: false,
            scrub: None,
            memory_limit: None,
            temporary_folder: None,
            shares: None,
        }
    }
}

impl fmt::Debug for OpenOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenOptions")
            .field("threads", &self.threads)
            .field("read_only", &self.read_only)
            .field("provenance", &self.provenance)
            .finish_non_exhaustive()
    }
}

impl OpenOptions {
    /// The defaults: one thread per core, reading and writing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Threads of the store's pool, at most 1,024; 0 means one per core. No answer and no byte of
    /// the file depends on it.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Opens for reading only: beside a writer, in this process or another, and sees versions that
    /// it commits later. What is open here does not expire there.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// A token that stops inserts, deletes and verification cleanly.
    pub fn cancel(mut self, token: CancelToken) -> Self {
        self.cancel = token;
        self
    }

    /// A function that is told how far long operations are. It is called from worker threads, some
    /// hundred times at most per operation, or, of one that is larger than memory, per second.
    pub fn progress(mut self, f: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(f));
        self
    }

    /// Where time stamps and lineage ids come from.
    pub fn provenance(mut self, provenance: Provenance) -> Self {
        self.provenance = provenance;
        self
    }

    /// When versions are safe from a crash.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("s.tre");
    /// use treering::{CreateOptions, Durability, OpenOptions, Store};
    /// let open = OpenOptions::new().durability(Durability::Deferred { versions: 100 });
    /// let mut store = Store::create_with(path, CreateOptions::new(1), open)?;
    /// for i in 0..250 {
    ///     store.insert(&[i as f32])?;
    /// }
    /// store.sync()?; // the last fifty, too
    /// # Ok(())
    /// # }
    /// ```
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// When bytes are compared with their checksums.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("s.tre");
    /// use treering::{CreateOptions, OpenOptions, Store, Verify};
    /// # Store::create(&path, CreateOptions::new(1))?.insert(&[1.0])?;
    /// let store = Store::open_with(&path, OpenOptions::new().verify(Verify::OnOpen))?;
    /// let snapshot = store.latest()?; // reads and checks all of it
    /// # Ok(())
    /// # }
    /// ```
    pub fn verify(mut self, policy: Verify) -> Self {
        self.verify = policy;
        self
    }

    /// How long to wait for another process where a reader and the writer must not be at the same
    /// time: a reader while a commit becomes visible, or while the version that it asks for is let
    /// go; a writer, before its commit becomes visible, for readers who are choosing a version.
    /// Both take milliseconds, or as long as one sync. Without a limit a reader waits as long as
    /// the writer lives, and a writer half a minute. After it the call fails; nothing has changed.
    pub fn patience(mut self, limit: Duration) -> Self {
        self.patience = Some(limit);
        self
    }

    /// How long to wait for another writer of the store to end; not at all if not given. After it,
    /// or when the token of [`OpenOptions::cancel`] is cancelled, opening fails with
    /// [`crate::OpenError::Locked`]. If the other has put a new file in the place of the store
    /// meanwhile, that is opened.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("s.tre");
    /// use std::time::Duration;
    /// use treering::{CreateOptions, OpenOptions, Store};
    /// # drop(Store::create(&path, CreateOptions::new(1))?);
    /// let open = OpenOptions::new().wait(Duration::from_secs(30));
    /// Store::open_with(&path, open)?.insert(&[1.0])?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait(mut self, limit: Duration) -> Self {
        self.wait = limit;
        self
    }

    /// Turns faults of the map into errors. A file that is truncated while it is open, or a device
    /// that fails to read again what it has read before, ends the process with SIGBUS, as for every
    /// memory map; with this, the calls that meet it fail with [`crate::ReadError::Lost`], and so
    /// do all later ones of this [`crate::Store`]. Nothing is answered or committed that rests on
    /// what is gone. Costs nothing that can be measured.
    ///
    /// Off unless asked for, because it takes a signal handler, and those belong to the program:
    /// the first opening with this installs one for SIGBUS, for the life of the process. Faults
    /// elsewhere go on to the handler that was there before. One that is installed later must do
    /// the same, and no thread may block SIGBUS. Linux only; elsewhere it does nothing. The
    /// `treering` command has it on.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("s.tre");
    /// use treering::{CreateOptions, OpenOptions, Store};
    /// # Store::create(&path, CreateOptions::new(1))?.insert(&[1.0])?;
    /// let open = OpenOptions::new().read_only(true).catch_faults(true);
    /// let snapshot = Store::open_with(&path, open)?.latest()?;
    /// assert_eq!(snapshot.knn(&[0.0], 1)?[0].id, 0);
    /// std::fs::File::options().write(true).open(&path)?.set_len(0)?; // an accident
    /// assert!(snapshot.knn(&[0.0], 1).is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn catch_faults(mut self, catch: bool) -> Self {
        self.catch_faults = catch;
        self
    }

    /// Compares all that the file holds with its checksums, over and over, in a thread of its own
    /// that reads no faster than this, for as long as the [`crate::Store`] exists. Each opening
    /// begins somewhere else in the file.
    ///
    /// Without it bytes are compared when they are first read and not again, so a device that loses
    /// them later may give wrong answers until somebody calls [`crate::Store::verify`] or
    /// [`crate::Store::scrub`]. With it that can be for as long as a round takes, the bytes in use
    /// divided by the rate: a day for 100 GB at 1.2 MB a second. After that the queries that would
    /// rest on what is bad fail with [`crate::ReadError::Corrupt`].
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("s.tre");
    /// use treering::{CreateOptions, OpenOptions, Store};
    /// # Store::create(&path, CreateOptions::new(1))?.insert(&[1.0])?;
    /// let store = Store::open_with(&path, OpenOptions::new().read_only(true).scrub(4 << 20))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn scrub(mut self, bytes_per_second: u64) -> Self {
        self.scrub = Some(bytes_per_second.max(1));
        self
    }

    /// A bound, in bytes, on the memory that inserting, building and compacting take: planning,
    /// changed segments, sorting, all of it. Not counted are the page cache, which the system takes
    /// back when it needs it, and what the caller holds: give the points by
    /// [`crate::Transaction::insert_from`] or [`crate::Store::build_from`] so as not to hold them.
    /// What does not fit goes to temporary files in the store's folder, about as large as the
    /// points, which are gone afterwards, however the process ends. A limit of a tenth of the
    /// points' size costs little time.
    ///
    /// Answers do not depend on the limit; the shape of a tree that was built within one does. A
    /// limit that is too small is an error that names the least one.
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.memory_limit = Some(bytes);
        self
    }

    /// Another folder for temporary files than the store's own.
    pub fn temporary_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.temporary_folder = Some(folder.into());
        self
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    pub(crate) fn report(&self, stage: &'static str, done: u64, total: u64) {
        if let Some(f) = &self.progress {
            f(Progress { stage, done, total });
        }
    }
}
