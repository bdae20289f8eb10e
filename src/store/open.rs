//! How a store comes to be: created, built with a first version, or opened. The part of [`Store`]
//! that knows files and threads.

use std::fs::{self, File, FileType, OpenOptions as FileOptions};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::arena::storage::{FileStorage, MemoryStorage, Storage};
use crate::files::publish::folder;
use crate::insert::report::Report;
use crate::insert::scratch::ScratchPool;
use crate::store::Store;
use crate::store::core::Core;
use crate::store::new_file::NewFile;
use crate::store::pool::Pool;
use crate::store::scrub::Background;
use crate::store::transaction::Transaction;
use crate::values::error::{CreateError, InsertError, OpenError, OptionsError};
use crate::values::ids::PointId;
use crate::values::options::{CreateOptions, OpenOptions};
use crate::values::source::PointSource;
use crate::version::database::Database;
use crate::version::pins::Patience;

/// How often a writer who waits for another looks whether it has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Opens the file of a store. Whatever else is at `path` is refused: first without being opened,
/// because opening a device may set something going; then without waiting, because it may have come
/// there meanwhile.
pub(crate) fn open_file(path: &Path, write: bool) -> Result<File, OpenError> {
    let failed = |source| OpenError::Path { path: path.to_path_buf(), source };
    let check = |kind: FileType| {
        let kind = match kind {
            kind if kind.is_file() => return Ok(()),
            kind if kind.is_dir() => "a folder",
            kind if kind.is_fifo() => "a pipe",
            kind if kind.is_socket() => "a socket",
            _ => "a device",
        };
        Err(OpenError::NotAFile { path: path.to_path_buf(), kind })
    };
    check(fs::metadata(path).map_err(failed)?.file_type())?;
    let mut options = FileOptions::new();
    options.read(true).write(write).custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits());
    let file = options.open(path).map_err(failed)?;
    check(file.metadata().map_err(failed)?.file_type())?;
    // It says nothing for a file, and is not to be inherited by whatever the system makes of it one
    // day.
    fcntl(&file, FcntlArg::F_SETFL(OFlag::empty())).map_err(|errno| failed(errno.into()))?;
    Ok(file)
}

/// More threads than this are a mistake.
const MAX_THREADS: usize = 1024;

impl Store {
    /// Creates an empty store and opens it for writing. The file appears whole or not at all.
    ///
    /// # Errors
    ///
    /// Something exists at `path` already, an option is out of range, or the file cannot be made.
    pub fn create(path: impl AsRef<Path>, options: CreateOptions) -> Result<Self, CreateError> {
        Self::create_with(path, options, OpenOptions::new())
    }

    /// [`Store::create`] with runtime options.
    ///
    /// # Errors
    ///
    /// As for [`Store::create`].
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// use treering::{CreateOptions, OpenOptions, Store};
    /// let path = dir.path().join("s.tre");
    /// let store = Store::create_with(path, CreateOptions::new(3), OpenOptions::new().threads(1))?;
    /// assert!(store.latest()?.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub fn create_with(
        path: impl AsRef<Path>,
        options: CreateOptions,
        open: OpenOptions,
    ) -> Result<Self, CreateError> {
        let new = NewFile::beside(path.as_ref(), &options, &open)?;
        let store = Self::from_new(&new, open)?;
        new.keep()?;
        store.core.db.arena.storage().has_its_name().map(drop)?;
        Ok(store)
    }

    /// [`Store::build`] from points that are read piece by piece. With
    /// [`OpenOptions::memory_limit`] there may be more of them than fit into memory.
    ///
    /// # Errors
    ///
    /// As for [`Store::build`] and [`Transaction::insert_from`]; nothing is left at `path`.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("s.tre");
    /// # use treering::{PointId, PointSource, SourceError};
    /// # struct Counting(u64);
    /// # impl PointSource for Counting {
    /// #     fn dim(&self) -> usize { 2 }
    /// #     fn read(&mut self, at_most: usize, points: &mut Vec<f32>, _: &mut Vec<PointId>) -> Result<usize, SourceError> {
    /// #         let rows = at_most.min(1000 - self.0 as usize);
    /// #         points.extend((self.0..self.0 + rows as u64).flat_map(|i| [i as f32, 0.5]));
    /// #         self.0 += rows as u64;
    /// #         Ok(rows)
    /// #     }
    /// # }
    /// use treering::{CreateOptions, OpenOptions, Store};
    /// let mut source = Counting(0); // the example of `PointSource`
    /// let open = OpenOptions::new().threads(1).memory_limit(64 << 20);
    /// let (_store, report) = Store::build_from(&path, CreateOptions::new(2), open, &mut source, "")?;
    /// assert_eq!(report.points, 1000);
    /// # Ok(())
    /// # }
    /// ```
    pub fn build_from(
        path: impl AsRef<Path>,
        options: CreateOptions,
        open: OpenOptions,
        source: &mut dyn PointSource,
        message: &str,
    ) -> Result<(Self, Report), CreateError> {
        Self::build_with(path.as_ref(), options, open, message, |transaction| {
            transaction.insert_from(source).map(drop)
        })
    }

    fn build_with(
        path: &Path,
        options: CreateOptions,
        open: OpenOptions,
        message: &str,
        fill: impl FnOnce(&mut Transaction<'_>) -> Result<(), InsertError>,
    ) -> Result<(Self, Report), CreateError> {
        let new = NewFile::beside(path, &options, &open)?;
        let mut store = Self::from_new(&new, open)?;
        let mut transaction = store.begin();
        fill(&mut transaction)?;
        transaction.message(message);
        // Even if there is nothing in it: whoever builds wants a version 1.
        let report = transaction.commit_version().map_err(InsertError::Commit)?;
        new.keep()?;
        store.core.db.arena.storage().has_its_name().map(drop)?;
        Ok((store, report))
    }

    /// Creates a store with a first version, all or nothing: the file appears at `path` when the
    /// version is durable.
    ///
    /// `points`: row-major `[n x dim]`. `ids`: one per row, or 0, 1, 2, ... in order. Bulk loading
    /// gives the best tree and the smallest file.
    ///
    /// # Errors
    ///
    /// As for [`Store::create`] and [`Store::insert_with_ids`]; nothing is left at `path`, unless
    /// only the last step, making the new name durable, failed.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("s.tre");
    /// use treering::{CreateOptions, OpenOptions, Store};
    /// let points = [0.0, 0.0, 1.0, 1.0];
    /// let (store, report) =
    ///     Store::build(&path, CreateOptions::new(2), OpenOptions::new(), &points, None, "first")?;
    /// assert_eq!((report.points, store.versions()?.len()), (2, 1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn build(
        path: impl AsRef<Path>,
        options: CreateOptions,
        open: OpenOptions,
        points: &[f32],
        ids: Option<&[PointId]>,
        message: &str,
    ) -> Result<(Self, Report), CreateError> {
        Self::build_with(path.as_ref(), options, open, message, |transaction| {
            transaction.insert_named(points, ids).map(drop)
        })
    }

    /// Opens a store for reading and writing. Costs a few reads, whatever the size of the file.
    ///
    /// # Errors
    ///
    /// No such file, not a store, made by a newer treering, truncated, damaged, or open for writing
    /// elsewhere.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_with(path, OpenOptions::new())
    }

    /// [`Store::open`] with runtime options; [`OpenOptions::read_only`] opens beside a writer.
    ///
    /// # Errors
    ///
    /// As for [`Store::open`].
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("s.tre");
    /// use treering::{CreateOptions, OpenOptions, Store};
    /// let mut writer = Store::create(&path, CreateOptions::new(1))?;
    /// let reader = Store::open_with(&path, OpenOptions::new().read_only(true))?;
    /// writer.insert(&[1.0])?;
    /// assert_eq!(reader.latest()?.len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn open_with(path: impl AsRef<Path>, open: OpenOptions) -> Result<Self, OpenError> {
        let path = path.as_ref();
        let start = Instant::now();
        loop {
            let file = open_file(path, !open.read_only)?;
            match Self::from_file(file, open.clone(), path, false) {
                Err(OpenError::Locked)
                    if start.elapsed() < open.wait && !open.cancel.is_cancelled() =>
                {
                    std::thread::sleep(LOOK_AGAIN);
                }
                // Whoever had the lock before has put another file in its place.
                Ok(store)
                    if !open.read_only
                        && store.core.db.arena.storage().has_its_name()?.is_err()
                        && path.exists() => {}
                opened => return opened,
            }
        }
    }

    /// A store without a file: the same in every respect, and gone when it is dropped.
    ///
    /// # Errors
    ///
    /// An option is out of range.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use treering::{CreateOptions, OpenOptions, Store};
    /// let mut store = Store::in_memory(CreateOptions::new(1), OpenOptions::new())?;
    /// store.insert(&[1.0, 5.0])?;
    /// assert_eq!(store.latest()?.knn(&[4.0], 1)?[0].id, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn in_memory(options: CreateOptions, open: OpenOptions) -> Result<Self, CreateError> {
        options.check()?;
        let storage = MemoryStorage::default();
        Database::format(&storage, &options, open.provenance)?;
        let open = OpenOptions { read_only: false, ..open };
        Self::from_storage(Box::new(storage), open, &std::env::temp_dir())
            .map_err(|e| CreateError::Open(Box::new(e)))
    }

    pub(crate) fn from_new(new: &NewFile, open: OpenOptions) -> Result<Self, CreateError> {
        let open = OpenOptions { read_only: false, ..open };
        Self::from_file(new.handle()?, open, new.target(), true)
            .map_err(|e| CreateError::Open(Box::new(e)))
    }

    fn from_file(
        file: File,
        options: OpenOptions,
        path: &Path,
        is_new: bool,
    ) -> Result<Self, OpenError> {
        let storage = FileStorage::new(file, path, is_new, options.catch_faults)?;
        Self::from_storage(Box::new(storage), options, folder(path))
    }

    pub(crate) fn from_storage(
        storage: Box<dyn Storage>,
        options: OpenOptions,
        folder: &Path,
    ) -> Result<Self, OpenError> {
        let provenance = (!options.read_only).then_some(options.provenance);
        let patience = Patience { limit: options.patience, cancel: options.cancel.clone() };
        let db = Database::open(storage, provenance, options.verify, patience)?;
        if options.threads > MAX_THREADS {
            let why = format!("{} is more than {MAX_THREADS}", options.threads);
            return Err(OptionsError { option: "threads", why }.into());
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(options.threads)
            .thread_name(|i| format!("treering-{i}"))
            .build()
            .map_err(|e| OptionsError { option: "threads", why: e.to_string() })?;
        let scratch = ScratchPool::new(pool.current_num_threads());
        let folder = folder.to_path_buf();
        let pool = Pool::new(pool);
        let core = Arc::new(Core { db, pool, options, scratch, folder });
        let _scrub = Background::begin(&core)
            .map_err(|e| OptionsError { option: "scrub", why: e.to_string() })?;
        Ok(Store { _scrub, core, latest: Mutex::new(None) })
    }
}
