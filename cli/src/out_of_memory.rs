//! The end of a process for which there is no memory: like a full disk, exit code 6, and not a
//! crash.
//!
//! The standard library says that an allocation has failed and aborts. Whether one has failed is
//! known to the allocator; so it notes that, and the handler of the abort looks. The store is as it
//! was, as after any end of a process. Here as well: a file that would exceed the limit for files
//! is an error, and not a signal.

#![expect(unsafe_code, reason = "allocators and signals are the operating system's")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// What the command exits with when memory or disk is full.
const FULL: i32 = 6;

/// The last allocation that was asked for has failed.
static FAILED: AtomicBool = AtomicBool::new(false);

struct Noting;

#[global_allocator]
static ALLOCATOR: Noting = Noting;

fn note(pointer: *mut u8) -> *mut u8 {
    // A store to a line that is shared by all threads is dear, and failures are rare.
    if pointer.is_null() {
        FAILED.store(true, Ordering::Relaxed);
    }
    pointer
}

// SAFETY: everything is the system's allocator's, which keeps the contract.
unsafe impl GlobalAlloc for Noting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of this very function.
        note(unsafe { System.alloc(layout) })
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        note(unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        note(unsafe { System.realloc(pointer, layout, size) })
    }
}

extern "C" fn on_abort(_: libc::c_int) {
    const WHY: &[u8] = b"error: out of memory; the store is as it was\n";
    if FAILED.load(Ordering::Relaxed) {
        // SAFETY: writes a constant and ends the process at once, both of which a handler may do.
        unsafe {
            libc::write(2, WHY.as_ptr().cast(), WHY.len());
            libc::_exit(FULL)
        }
    }
}

/// To be called before anything else.
pub(crate) fn prepare() {
    let set = |signal, handler| {
        let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler only loads an atomic and ends the process. Without it the process
        // ends all the same.
        let _ = unsafe { sigaction(signal, &action) };
    };
    set(Signal::SIGABRT, SigHandler::Handler(on_abort));
    set(Signal::SIGXFSZ, SigHandler::SigIgn);
}
