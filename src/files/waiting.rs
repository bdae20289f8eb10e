//! Waits for other programs by calls that no token ends: opening a pipe, reading from one, writing
//! to one.
//!
//! Whoever makes such a call says so while it lasts. When somebody asks the process to stop, it can
//! then be ended at once if it waits, because nothing is being written; and it does not begin to
//! wait any more.

use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering, fence};

use crate::values::options::CancelToken;

static WAITING: AtomicUsize = AtomicUsize::new(0);

/// A call that may last for ever is being made.
#[must_use]
pub struct Wait(());

/// Why a wait did not begin.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
struct Stopped;

impl Wait {
    /// An error if somebody has asked for the end: [`is_stopped`].
    pub fn begin(cancel: &CancelToken) -> io::Result<Wait> {
        WAITING.fetch_add(1, Ordering::SeqCst);
        let wait = Wait(());
        // Either the one who asks sees that somebody waits, or is seen.
        fence(Ordering::SeqCst);
        match cancel.is_cancelled() {
            true => Err(io::Error::other(Stopped)),
            false => Ok(wait),
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// True if somebody waits. Asked after the token was cancelled, it is true if anybody goes on
/// waiting.
pub fn is_anybody() -> bool {
    fence(Ordering::SeqCst);
    WAITING.load(Ordering::SeqCst) > 0
}

/// True if an error comes from a wait that did not begin.
pub fn is_stopped(e: &(dyn Error + 'static)) -> bool {
    let inner = |e: &io::Error| e.get_ref().is_some_and(|inner| inner.is::<Stopped>());
    let mut next = Some(e);
    while let Some(e) = next {
        if e.downcast_ref::<io::Error>().is_some_and(inner) {
            return true;
        }
        next = e.source();
    }
    false
}
