//! Bytes of the file that stay where they are: read-only windows of the map, and private buffers of
//! the same type.
//!
//! A window is mapped once, at most 1 GiB of address space long, and lives as long as anything
//! refers to it. It may reach beyond the end of the file: the file grows under it, and nothing
//! beyond the committed length is touched.
//!
//! Invariant: no byte inside a [`Bytes`] changes while anybody may read it. For windows the commit
//! protocol sees to it, because writes go only into space to which no committed version refers. To
//! what a transaction has written early, which no version refers to yet, the same transaction may
//! write again: only when it has changed the segment, for which the bytes were copied and let go,
//! or has given up the whole tree, which is read no more. Another program that writes into the file
//! behind our back breaks this; so does one that truncates it, which makes the kernel raise SIGBUS
//! on access, or, where [`super::fault`] is installed, turns the window into zeros. All records
//! accept any bit pattern, so what such a program can cause is a wrong answer, an error or a dead
//! process, as with any file that is changed while it is in use. Opening a store is therefore safe
//! in Rust's sense of the contract that the caller leaves the file alone.

#![expect(unsafe_code, reason = "a map is memory that only the operating system knows of")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Deref;
#[cfg(target_os = "linux")]
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

#[cfg(target_os = "linux")]
use memmap2::MmapMut;
use memmap2::{Advice, MmapOptions, MmapRaw};

use super::fault::{self, Guard};
use crate::values::error::StorageError;

/// Address space per window. Segments never straddle a multiple of it.
pub(crate) const WINDOW_BYTES: u64 = 1 << 30;

/// A part of the file in memory.
struct Window {
    /// Before the map, because it must be dropped before it.
    guard: Option<Guard>,
    map: MmapRaw,
    /// Where it begins in the file.
    offset: u64,
}

/// The windows of one file, mapped as they are needed, and unmapped when this is dropped at the
/// earliest.
pub(crate) struct Windows {
    mapped: Mutex<Mapped>,
    guarded: bool,
}

#[derive(Default)]
struct Mapped {
    /// By number. Not a list: the file can have windows that nothing lies in, and say that it has
    /// any number of them.
    windows: BTreeMap<u64, Arc<Window>>,
    /// Those of before the file was opened again, still in use, and the file since.
    anew: Option<(Vec<Arc<Window>>, File)>,
}

impl Windows {
    /// None mapped yet. `guarded`: [`fault::install`] has been called, and faults are to be caught.
    pub(crate) fn new(guarded: bool) -> Self {
        Windows { mapped: Mutex::default(), guarded }
    }

    /// True once zeros have taken the place of a window.
    pub(crate) fn are_damaged(&self) -> bool {
        let damaged = |window: &Arc<Window>| window.guard.as_ref().is_some_and(Guard::is_damaged);
        if !fault::any() {
            return false;
        }
        let mapped = self.mapped.lock().expect("no holder panics");
        let before = mapped.anew.iter().flat_map(|(windows, _)| windows);
        mapped.windows.values().chain(before).any(damaged)
    }

    /// Makes new windows from now on, of the file that `open` opens. What is mapped already stays
    /// as it is. Done once: a file moves once.
    pub(crate) fn renew(&self, open: impl FnOnce() -> io::Result<File>) -> io::Result<()> {
        let mut mapped = self.mapped.lock().expect("no holder panics");
        // Another thread may have met the same: what it has opened will do.
        if mapped.anew.is_none() {
            let file = open()?;
            let windows = std::mem::take(&mut mapped.windows).into_values().collect();
            mapped.anew = Some((windows, file));
        }
        Ok(())
    }

    /// The bytes from `offset` on. The caller has made sure that the file is that long.
    pub(crate) fn get(&self, file: &File, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        let number = offset / WINDOW_BYTES;
        let start = (offset % WINDOW_BYTES) as usize;
        assert!(start + len <= WINDOW_BYTES as usize, "a segment straddles two windows");
        let mut mapped = self.mapped.lock().expect("no holder panics");
        let window = match mapped.windows.get(&number) {
            Some(window) => window.clone(),
            None => {
                let offset = number * WINDOW_BYTES;
                let map = MmapOptions::new()
                    .offset(offset)
                    .len(WINDOW_BYTES as usize)
                    .map_raw_read_only(mapped.anew.as_ref().map_or(file, |(_, file)| file))
                    .map_err(|source| StorageError { operation: "map", source })?;
                // A k-NN query jumps; read-ahead would fetch what it skips. Only advice: failure
                // costs nothing.
                let _ = map.advise(Advice::Random);
                let guard = if self.guarded { Guard::new(map.as_ptr()) } else { None };
                let window = Arc::new(Window { guard, map, offset });
                mapped.windows.insert(number, window.clone());
                window
            }
        };
        Ok(Bytes { owner: Owner::Window(window), start, len })
    }
}

/// A word of memory that a forked child finds to be zero again, whatever its parent wrote there;
/// `None` where there is no such memory. It is never given back.
#[cfg(target_os = "linux")]
pub(super) fn wiped_by_fork() -> Option<&'static AtomicU64> {
    use nix::sys::mman::{MmapAdvise, madvise};
    // Raw, because as a slice it would be borrowed by what is leaked.
    let page = MmapRaw::from(MmapMut::map_anon(size_of::<u64>()).ok()?);
    let page: &'static MmapRaw = Box::leak(Box::new(page));
    let start = NonNull::new(page.as_mut_ptr())?.cast();
    // SAFETY: the range is a private anonymous map of this function's own, to which nobody else
    // refers yet. The advice changes nothing in this process; in a child the memory is there, and
    // zero.
    unsafe { madvise(start, page.len(), MmapAdvise::MADV_WIPEONFORK) }.ok()?;
    // SAFETY: aligned and valid for a word, because it begins a map that is leaked above, and used
    // as an atomic only.
    Some(unsafe { AtomicU64::from_ptr(start.cast().as_ptr()) })
}

#[cfg(not(target_os = "linux"))]
pub(super) fn wiped_by_fork() -> Option<&'static AtomicU64> {
    None
}

#[derive(Clone)]
enum Owner {
    Window(Arc<Window>),
    /// `u64` words, so that every record is aligned.
    Heap(Arc<[u64]>),
}

/// Immutable bytes, cheap to clone; 8-byte aligned if `start` is.
#[derive(Clone)]
pub(crate) struct Bytes {
    owner: Owner,
    start: usize,
    len: usize,
}

impl Bytes {
    /// A private buffer of zeros, to be filled and then frozen.
    pub(crate) fn zeroed(len: usize) -> BytesMut {
        BytesMut { words: vec![0; len.div_ceil(8)], len }
    }

    /// Some of them.
    #[cfg(test)]
    pub(crate) fn part(&self, start: usize, len: usize) -> Self {
        assert!(start + len <= self.len);
        Bytes { owner: self.owner.clone(), start: self.start + start, len }
    }

    /// Asks the system to read `len` of them from `from` on, while something else is being done.
    /// Costs a system call.
    pub(crate) fn will_need(&self, from: usize, len: usize) {
        if let Owner::Window(window) = &self.owner
            && from.checked_add(len).is_some_and(|end| end <= self.len)
        {
            // Only advice.
            let _ = window.map.advise_range(Advice::WillNeed, self.start + from, len);
        }
    }

    /// False if touching them would be a fault. Brings them into the page tables, so that the next
    /// touch costs none.
    pub(crate) fn are_present(&self) -> bool {
        #[cfg(target_os = "linux")]
        if let Owner::Window(window) = &self.owner {
            use nix::libc::{EFAULT, EHWPOISON};
            let populated = window.map.advise_range(Advice::PopulateRead, self.start, self.len);
            let errno = populated.err().and_then(|e| e.raw_os_error());
            // A kernel before 5.14 does not know of it, and cannot be asked.
            return !matches!(errno, Some(EFAULT | EHWPOISON));
        }
        true
    }

    /// Where the bytes begin in the file, if a fault of theirs would be caught.
    pub(crate) fn guarded_offset(&self) -> Option<u64> {
        match &self.owner {
            Owner::Window(window) if window.guard.is_some() => {
                Some(window.offset + self.start as u64)
            }
            _ => None,
        }
    }

    /// For tests: the private buffer, for as long as anything refers to it.
    #[cfg(feature = "simulation")]
    pub(crate) fn buffer(&self) -> Option<std::sync::Weak<[u64]>> {
        match &self.owner {
            Owner::Heap(words) => Some(Arc::downgrade(words)),
            Owner::Window(_) => None,
        }
    }

    /// Where the bytes begin. They stay there for as long as `self` or a clone of it exists.
    pub(crate) fn as_ptr(&self) -> *const u8 {
        match &self.owner {
            Owner::Window(window) => window.map.as_ptr().wrapping_add(self.start),
            Owner::Heap(words) => words.as_ptr().cast::<u8>().wrapping_add(self.start),
        }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY:
        // - non-null, valid for `len` bytes: `start + len` is inside the window (asserted in
        //   `Windows::get`) or the buffer (`freeze`), which `owner` keeps alive and which never
        //   moves; the file is long enough (the arena checks the committed length before it maps).
        // - initialised: file pages and zeroed words are.
        // - not mutated: the invariant in the module's head.
        // - `len` fits `isize`: at most `WINDOW_BYTES`, or the size of an allocation.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len) }
    }
}

/// A private buffer that is still being filled.
pub(crate) struct BytesMut {
    words: Vec<u64>,
    len: usize,
}

impl BytesMut {
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        use zerocopy::IntoBytes;
        &mut self.words.as_mut_slice().as_mut_bytes()[..self.len]
    }

    pub(crate) fn freeze(self) -> Bytes {
        Bytes { owner: Owner::Heap(self.words.into()), start: 0, len: self.len }
    }
}
