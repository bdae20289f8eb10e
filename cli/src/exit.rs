//! Exit codes: a contract with scripts. One function, one line per kind of failure that has a code
//! of its own.

use crate::failure::Failure;
use crate::ingest::IngestError;
use treering::{
    AtError, BackupError, CommitError, CreateError, DeleteError, InsertError, OpenError,
    QueryError, ReadError, ReceiveError, RecoverError, StorageError, TagError, VacuumError,
};

/// Done.
pub(super) const OK: u8 = 0;
/// Any failure without a number of its own: bad input, a missing file, mismatches.
pub(super) const FAILURE: u8 = 1;
/// Arguments that make no sense.
pub(super) const USAGE: u8 = 2;
/// Damage, or not a store at all.
pub(super) const CORRUPT: u8 = 3;
/// Another writer has the store.
pub(super) const LOCKED: u8 = 4;
/// No such version or id.
pub(super) const NOT_FOUND: u8 = 5;
/// Out of memory or disk.
pub(super) const FULL: u8 = 6;
/// Ctrl-C; the store is openable, at its last version.
pub(super) const INTERRUPTED: u8 = 130;

/// What a code is called in JSON.
pub(super) fn kind(code: u8) -> &'static str {
    match code {
        USAGE => "usage",
        CORRUPT => "corrupt",
        LOCKED => "locked",
        NOT_FOUND => "not_found",
        FULL => "full",
        INTERRUPTED => "interrupted",
        _ => "failure",
    }
}

/// The exit code for a failure.
pub(super) fn code(failure: &Failure) -> u8 {
    match failure {
        Failure::Ingest(source) => ingest(source),
        Failure::Create { source, .. } => create(source),
        Failure::Open { source, .. } => open(source),
        Failure::At { source, .. } => at(source),
        Failure::Read { source, .. } => read(source),
        Failure::Tag { source: TagError::Name { .. }, .. } => USAGE,
        Failure::Tag { source: TagError::At(source), .. } => at(source),
        Failure::Tag { source: TagError::Commit(source), .. } => commit(source),
        Failure::Backup { source, .. } => backup(source),
        Failure::Receive { source, .. } => receive(source),
        Failure::Recover { source, .. } => recover(source),
        Failure::Vacuum { source, .. } => vacuum(source),
        Failure::Lost { .. } => CORRUPT,
        Failure::Insert { source, .. } => insert(source),
        Failure::Delete { source, .. } => delete(source),
        Failure::Commit { source, .. } => commit(source),
        Failure::Tag { .. } => FAILURE,
        Failure::Query { source: QueryError::Read(source), .. } => read(source),
        Failure::Query { .. } => FAILURE,
        Failure::NoPoint { .. } => NOT_FOUND,
        Failure::Output { .. } if failure.is_closed_pipe() => OK,
        Failure::Output { source, .. } => io(source),
        Failure::NotOk { .. } => CORRUPT,
        Failure::Mismatches { .. } => FAILURE,
        Failure::Usage(_) => USAGE,
        Failure::System { .. } => FAILURE,
        Failure::Interrupted => INTERRUPTED,
    }
}

fn ingest(source: &IngestError) -> u8 {
    match source {
        IngestError::TooLarge { .. } => FULL,
        IngestError::Temporary { source, .. } => io(source),
        _ => FAILURE,
    }
}

fn create(source: &CreateError) -> u8 {
    match source {
        CreateError::Path { source, .. } => io(source),
        CreateError::Storage(source) => storage(source),
        CreateError::Open(source) => open(source),
        CreateError::Insert(source) => insert(source),
        _ => FAILURE,
    }
}

fn open(source: &OpenError) -> u8 {
    match source {
        OpenError::NotTreering | OpenError::NotAFile { .. } | OpenError::Truncated { .. } => {
            CORRUPT
        }
        OpenError::Locked => LOCKED,
        OpenError::Read(source) => read(source),
        _ => FAILURE,
    }
}

fn at(source: &AtError) -> u8 {
    match source {
        AtError::NoSuchVersion { .. }
        | AtError::NoSuchTag { .. }
        | AtError::Expired { .. }
        | AtError::BeforeFirst { .. } => NOT_FOUND,
        AtError::Read(source) => read(source),
        _ => FAILURE,
    }
}

fn backup(source: &BackupError) -> u8 {
    match source {
        BackupError::At(source) => at(source),
        BackupError::Commit(source) => commit(source),
        BackupError::Write(source) => io(source),
        BackupError::Interrupted => INTERRUPTED,
        _ => FAILURE,
    }
}

fn recover(source: &RecoverError) -> u8 {
    match source {
        RecoverError::Open(source) => open(source),
        RecoverError::NothingLeft => CORRUPT,
        RecoverError::Copy { source } => io(source),
        RecoverError::Backup(source) => backup(source),
        RecoverError::Receive(source) => receive(source),
        RecoverError::Interrupted => INTERRUPTED,
        _ => FAILURE,
    }
}

fn vacuum(source: &VacuumError) -> u8 {
    match source {
        VacuumError::Open(source) => open(source),
        VacuumError::Read(source) => read(source),
        VacuumError::Backup(source) => backup(source),
        VacuumError::Receive(source) => receive(source),
        VacuumError::Commit(source) => commit(source),
        VacuumError::Verify(source) => at(source),
        VacuumError::NotWhole { .. } => CORRUPT,
        VacuumError::Replace { source, .. } => io(source),
        VacuumError::Interrupted => INTERRUPTED,
        _ => FAILURE,
    }
}

fn receive(source: &ReceiveError) -> u8 {
    match source {
        ReceiveError::Foreign
        | ReceiveError::Truncated
        | ReceiveError::Damaged { .. }
        | ReceiveError::Incomplete { .. } => CORRUPT,
        ReceiveError::At(source) => at(source),
        ReceiveError::Read(source) => io(source),
        ReceiveError::Create(source) => create(source),
        ReceiveError::Open(source) => open(source),
        ReceiveError::Commit(source) => commit(source),
        _ => FAILURE,
    }
}

fn insert(source: &InsertError) -> u8 {
    match source {
        InsertError::Interrupted => INTERRUPTED,
        InsertError::MemoryLimit { .. } => FULL,
        InsertError::Temporary(e) => io(&e.source),
        InsertError::Source(e) => e.downcast_ref::<IngestError>().map_or(FAILURE, ingest),
        InsertError::Read(source) => read(source),
        InsertError::Commit(source) => commit(source),
        _ => FAILURE,
    }
}

fn delete(source: &DeleteError) -> u8 {
    match source {
        DeleteError::UnknownId { .. } => NOT_FOUND,
        DeleteError::Interrupted => INTERRUPTED,
        DeleteError::Read(source) => read(source),
        DeleteError::Commit(source) => commit(source),
        _ => FAILURE,
    }
}

fn commit(source: &CommitError) -> u8 {
    match source {
        CommitError::Interrupted => INTERRUPTED,
        CommitError::DiskFull { .. } => FULL,
        // Whether the commit is there or not, what the caller can do about it is to make room.
        CommitError::Storage(source) | CommitError::Unknown { source, .. } => storage(source),
        CommitError::Read(source) => read(source),
        _ => FAILURE,
    }
}

fn read(source: &ReadError) -> u8 {
    match source {
        ReadError::Corrupt(_) | ReadError::Truncated { .. } | ReadError::Lost { .. } => CORRUPT,
        ReadError::OutOfMemory { .. } => FULL,
        ReadError::Storage(source) => storage(source),
        _ => FAILURE,
    }
}

fn storage(source: &StorageError) -> u8 {
    io(&source.source)
}

fn io(source: &std::io::Error) -> u8 {
    use std::io::ErrorKind as Kind;
    match source.kind() {
        Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge | Kind::OutOfMemory => FULL,
        _ => FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Error, ErrorKind};
    use std::path::PathBuf;
    use treering::VersionId;

    fn full() -> StorageError {
        StorageError { operation: "write", source: ErrorKind::StorageFull.into() }
    }

    #[test]
    fn codes_that_no_test_of_the_command_can_provoke() {
        let store = PathBuf::from("s");
        let corrupt = || {
            let (at, what) = (treering::Place::Slots, treering::Defect::Invalid("nonsense"));
            ReadError::Corrupt(Box::new(treering::Corruption { at, what }))
        };
        for (expected, failure) in [
            (6, Failure::Commit { store: store.clone(), source: CommitError::Storage(full()) }),
            (
                6,
                Failure::Insert {
                    input: String::new(),
                    source: CommitError::DiskFull { needed: 1, source: full() }.into(),
                },
            ),
            (6, Failure::Create { input: String::new(), source: CreateError::Storage(full()) }),
            (6, Failure::Output { name: String::new(), source: ErrorKind::StorageFull.into() }),
            (0, Failure::Output { name: String::new(), source: ErrorKind::BrokenPipe.into() }),
            (1, Failure::Output { name: String::new(), source: Error::other("x") }),
            (130, Failure::Delete { store: store.clone(), source: DeleteError::Interrupted }),
            (
                130,
                Failure::Create {
                    input: String::new(),
                    source: InsertError::Commit(CommitError::Interrupted).into(),
                },
            ),
            (3, Failure::Read { store: store.clone(), source: corrupt() }),
            (3, Failure::Query { input: String::new(), source: corrupt().into() }),
            (3, Failure::At { store: store.clone(), source: corrupt().into() }),
            (
                5,
                Failure::At {
                    store: store.clone(),
                    source: AtError::NoSuchVersion { asked: VersionId(9), newest: VersionId(1) },
                },
            ),
            (4, Failure::Open { store: store.clone(), source: OpenError::Locked }),
            (3, Failure::Open { store, source: OpenError::Truncated { found: 1, needed: 2 } }),
        ] {
            assert_eq!(code(&failure), expected, "{failure}");
        }
    }
}
