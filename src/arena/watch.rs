//! Whether everything that was read from the map was there.
//!
//! A cut of the file takes pages away, which [`super::fault`] catches, and turns the rest of the
//! page in which it lies into zeros, which nobody tells. But a cut takes all that follows it: so as
//! long as the last byte of all that was mapped here, other than zeros, is there, everything before
//! it is, and what follows it is zero anyway.
//!
//! And whether it is still good as far as anybody knows: what passed when it was first read may
//! have failed a later check.

#![expect(unsafe_code, reason = "the byte is read without a lock")]

use std::collections::HashSet;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex};

use super::mapping::Bytes;
use super::{Arena, Name, fault, name};
use crate::format::arrays::Entry;
use crate::values::error::ReadError;

/// Watches over what one reader has mapped.
pub(crate) struct Watch {
    /// Has the windows, and keeps them mapped.
    arena: Arc<Arena>,
    included: Mutex<Included>,
    /// The last byte in memory; null if there is none.
    byte: AtomicPtr<u8>,
    /// [`Arena::failures`] when none of what is included had failed.
    judged: AtomicU64,
}

#[derive(Default)]
struct Included {
    /// Offset in the file of the last byte that is not zero.
    last: u64,
    names: HashSet<Name>,
}

impl Watch {
    pub(crate) fn new(arena: Arc<Arena>) -> Self {
        let (included, judged) = Default::default();
        Watch { arena, included, byte: AtomicPtr::new(ptr::null_mut()), judged }
    }

    /// Includes bytes of the arena, before they are used. They must not change from now on, and the
    /// file must not be cut before them by who may do so, for as long as this is asked.
    pub(crate) fn include(&self, entry: &Entry, bytes: &Bytes) -> Result<(), ReadError> {
        let mut included = self.included.lock().expect("no holder panics");
        let Included { last, names } = &mut *included;
        names.insert(name(entry));
        if self.arena.failures() > 0 {
            // It may have failed just now.
            self.judged.store(0, Ordering::Relaxed);
        }
        let Some(offset) = bytes.guarded_offset() else { return Ok(()) };
        if let Some(i) = bytes.iter().rposition(|&byte| byte != 0)
            && offset + i as u64 > *last
        {
            *last = offset + i as u64;
            self.byte.store(bytes.as_ptr().wrapping_add(i).cast_mut(), Ordering::Release);
        }
        // Had it been cut before, a byte further ahead would have been taken for the last.
        self.arena.check_reach(offset + bytes.len() as u64)
    }

    /// An error if anything of what was included has been lost up to now, is known to be bad, or
    /// belongs to another process. Costs a few loads.
    #[inline]
    pub(crate) fn check(&self) -> Result<(), ReadError> {
        if !self.is_whole() {
            return Err(self.loss());
        }
        let failures = self.arena.failures();
        if failures == self.judged.load(Ordering::Relaxed) { Ok(()) } else { self.judge(failures) }
    }

    #[cold]
    #[inline(never)]
    fn judge(&self, failures: u64) -> Result<(), ReadError> {
        let included = self.included.lock().expect("no holder panics");
        match self.arena.failure_of(&included.names) {
            Some(what) => Err(ReadError::Corrupt(Box::new(what))),
            None => {
                self.judged.store(failures, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn loss(&self) -> ReadError {
        // First: a lock may be held for ever by a thread that is not here.
        if let Err(e) = self.arena.check_process() {
            return e;
        }
        let found = self.included.lock().expect("no holder panics").last;
        let told = self.arena.check_maps().and_then(|()| self.arena.check_length());
        // It is as long as it was: somebody has made it longer again, after it was cut before the
        // last byte.
        let needed = self.arena.limit().max(found + 1);
        told.err().unwrap_or(ReadError::Truncated { found, needed })
    }

    #[inline]
    fn is_whole(&self) -> bool {
        if self.arena.owner().seems_elsewhere() {
            return false;
        }
        // After all that was read.
        fence(Ordering::Acquire);
        let byte = self.byte.load(Ordering::Acquire);
        if !byte.is_null() {
            // SAFETY: `byte` lies in a window of the arena, which is readable for as long as
            // `self.arena` exists, be it replaced or not. A byte has no alignment and any value.
            // Nobody writes to it but who cuts the file, which is what is asked for: hence
            // volatile.
            let byte = unsafe { byte.read_volatile() };
            if byte == 0 {
                return false;
            }
        }
        !fault::any() || !self.arena.is_damaged()
    }
}
