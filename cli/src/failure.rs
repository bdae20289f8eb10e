//! Why a verb failed: a library error with the file it is about, or one of the command's own.

use std::io;
use std::path::{Path, PathBuf};

use crate::ingest::IngestError;
use treering::files::publish::OutputError;
use treering::{
    AtError, BackupError, CommitError, CreateError, DeleteError, InsertError, OpenError, PointId,
    QueryError, ReadError, ReceiveError, RecoverError, TagError, VacuumError, VersionId,
};

/// Why a verb failed. The message is one line that names the file.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// An input was refused.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// The store could not be made.
    #[error("{}", create_message(.input, .source))]
    Create { input: String, source: CreateError },
    /// The store could not be opened.
    #[error("{}", open_message(.store, .source))]
    Open { store: PathBuf, source: OpenError },
    /// The version could not be opened.
    #[error("{}: {source}", .store.display())]
    At { store: PathBuf, source: AtError },
    /// The store could not be read.
    #[error("{}: {source}", .store.display())]
    Read { store: PathBuf, source: ReadError },
    /// The tag was refused or could not be written.
    #[error("{}: {source}", .store.display())]
    Tag { store: PathBuf, source: TagError },
    /// The backup could not be made.
    #[error("{}: {source}", .store.display())]
    Backup { store: PathBuf, source: BackupError },
    /// The backup was refused, or could not be taken over.
    #[error("{}: {source}", .file.display())]
    Receive { file: PathBuf, source: ReceiveError },
    /// The store could not be written anew.
    #[error("{}: {source}", .store.display())]
    Vacuum { store: PathBuf, source: VacuumError },
    /// Nothing could be recovered.
    #[error("{}: {source}", .store.display())]
    Recover { store: PathBuf, source: RecoverError },
    /// `recover` found that something is lost; it has been printed.
    #[error("{}: {what}", .store.display())]
    Lost { store: PathBuf, what: String },
    /// The batch was refused or could not be written.
    #[error("{}", insert_message(.input, .source))]
    Insert { input: String, source: InsertError },
    /// The ids were refused or the deletion could not be written.
    #[error("{}: {source}", .store.display())]
    Delete { store: PathBuf, source: DeleteError },
    /// The version could not be written.
    #[error("{}: {source}", .store.display())]
    Commit { store: PathBuf, source: CommitError },
    /// A query was refused or could not be answered.
    #[error("{input}: {source}")]
    Query { input: String, source: QueryError },
    /// No live point has this id.
    #[error("{}: no point has id {id} in version {version}", .store.display())]
    NoPoint { store: PathBuf, id: PointId, version: VersionId },
    /// The output could not be written.
    #[error("cannot write {name}: {source}")]
    Output { name: String, source: io::Error },
    /// `verify` found damage; it has been printed.
    #[error("{}: {problems} problems found", .store.display())]
    NotOk { store: PathBuf, problems: usize },
    /// The tree and brute force disagree.
    #[error("{queries} of {sample} sampled queries differ from brute force; please report this")]
    Mismatches { queries: usize, sample: usize },
    /// Arguments that do not go together.
    #[error("{0}")]
    Usage(String),
    /// Worker threads or the temporary folder could not be had.
    #[error("cannot {what}: {why}")]
    System { what: &'static str, why: String },
    /// Ctrl-C before the verb was done.
    #[error("interrupted")]
    Interrupted,
}

impl From<OutputError> for Failure {
    fn from(e: OutputError) -> Failure {
        match e {
            OutputError::Refused(why) => Failure::Usage(why),
            OutputError::Io { name, source } => Failure::Output { name, source },
            OutputError::Interrupted => Failure::Interrupted,
        }
    }
}

impl Failure {
    /// True if the reader of standard output went away, which is its right: `treering log s | head
    /// -1`.
    pub(super) fn is_closed_pipe(&self) -> bool {
        matches!(self, Failure::Output { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Puts the store's path to a library error.
pub(super) trait About<T> {
    /// The result, with the store named.
    fn about(self, store: &Path) -> Result<T, Failure>;
}

macro_rules! about {
    ($($error:ident => $variant:ident),*) => {$(
        impl<T> About<T> for Result<T, $error> {
            fn about(self, store: &Path) -> Result<T, Failure> {
                self.map_err(|source| Failure::$variant { store: store.to_path_buf(), source })
            }
        }
    )*};
}
about!(OpenError => Open, AtError => At, ReadError => Read, DeleteError => Delete, CommitError => Commit,
    TagError => Tag, BackupError => Backup, RecoverError => Recover, VacuumError => Vacuum);

fn open_message(store: &Path, source: &OpenError) -> String {
    match source {
        // These name the path themselves.
        OpenError::Path { .. } | OpenError::NotAFile { .. } => source.to_string(),
        _ => format!("{}: {source}", store.display()),
    }
}

/// Errors about rows are about the input file; the others speak for themselves.
fn insert_message(input: &str, source: &InsertError) -> String {
    match source {
        InsertError::Interrupted
        | InsertError::MemoryLimit { .. }
        | InsertError::Temporary(_)
        | InsertError::Source(_)
        | InsertError::Read(_)
        | InsertError::Commit(_) => source.to_string(),
        _ => format!("{input}: {source}"),
    }
}

fn create_message(input: &str, source: &CreateError) -> String {
    match source {
        CreateError::Insert(source) => insert_message(input, source),
        CreateError::Options(_) => format!("{input}: {source}"),
        _ => source.to_string(),
    }
}
