//! Byte-range locks that the kernel drops with the process.
//!
//! Locks belong to an open file description: two handles of one process exclude each other just as two processes do,
//! and closing another handle of the same file releases nothing.

use std::fs::File;
use std::io;

/// The byte that a writer holds. Far beyond any store, so that it never collides with data.
const WRITER_BYTE: i64 = 1 << 62;

/// Takes the writer's lock; `false` if somebody else holds it.
#[cfg(target_os = "linux")]
pub(crate) fn try_lock_writer(file: &File) -> io::Result<bool> {
    use nix::errno::Errno;
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::libc;

    let range = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: WRITER_BYTE,
        l_len: 1,
        l_pid: 0,
    };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&range)) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Takes the writer's lock; `false` if somebody else holds it.
#[cfg(not(target_os = "linux"))]
pub(crate) fn try_lock_writer(file: &File) -> io::Result<bool> {
    let _ = WRITER_BYTE;
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(std::fs::TryLockError::WouldBlock) => Ok(false),
        Err(std::fs::TryLockError::Error(e)) => Err(e),
    }
}
