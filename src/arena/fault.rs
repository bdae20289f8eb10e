//! Faults of the map as errors: a handler of SIGBUS that knows our maps.
//!
//! When a mapped file is cut, or its device fails to read a page again that was dropped, the kernel
//! answers an access with SIGBUS, which ends the process. Once [`install`] was called, a fault
//! inside a map with a [`Guard`] instead puts zeros in the place of the whole map, marks the guard,
//! and lets the access go on. What is computed from those zeros is thrown away: whoever has read
//! asks [`any`] before handing anything out. A fault elsewhere goes where it would have gone. After
//! wl_shm of Wayland, which guards the buffers of its clients in this way.
//!
//! Invariants. F1: the handler uses nothing but atomics and the system calls `mmap`, `sigaction`
//! and `raise`, so it may interrupt anything. F2: a place of the table is taken only while its map
//! exists. F3: a guard is marked before its map is replaced, so whoever has read a zero finds the
//! mark. (What the table promises for that is at the head of [`super::fault_table`].)

#![expect(unsafe_code, reason = "signals and maps are the operating system's")]

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Mutex, OnceLock};

use nix::libc;

use super::fault_table::{Place, Table};
use super::mapping::WINDOW_BYTES;

/// Guards that can exist at once: maps of 4 TiB.
const MOST_GUARDS: usize = 1 << 12;

static TABLE: Table<MOST_GUARDS> = Table {
    places: [const { Place { start: AtomicUsize::new(0), damaged: AtomicBool::new(false) } };
        MOST_GUARDS],
    damaged: AtomicUsize::new(0),
};

/// What was done about SIGBUS before.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// Watches over one map. To be dropped before the map is.
pub(crate) struct Guard {
    place: usize,
}

impl Guard {
    /// A guard for the map of `WINDOW_BYTES` that begins at `start`; `None` if there are too many.
    pub(crate) fn new(start: *const u8) -> Option<Self> {
        TABLE.take(start.expose_provenance()).map(|place| Guard { place })
    }

    /// True once zeros have taken the place of the map.
    pub(crate) fn is_damaged(&self) -> bool {
        TABLE.is_damaged(self.place)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        TABLE.give_back(self.place);
    }
}

/// True if any map of this process has been replaced. Costs one load. Asked after reading, it knows
/// of every zero that was read (F3).
#[inline]
pub(crate) fn any() -> bool {
    TABLE.any_damaged()
}

/// Installs the handler, once and for the life of the process. Does nothing on systems other than
/// Linux, where nobody has tried it.
pub(crate) fn install() -> io::Result<()> {
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    let mut installed = INSTALLED.lock().expect("no holder panics");
    if *installed || !cfg!(target_os = "linux") {
        return Ok(());
    }
    // Known before the handler is there, because the handler asks for it.
    let before = *BEFORE.get_or_init(|| {
        // SAFETY: all zeros are an action: the default one, with an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: a null pointer means that nothing is to change; `action` may be written to. It
        // fails for no signal that exists.
        unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &mut action) };
        action
    });
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_fault;
    let mut ours = before;
    ours.sa_sigaction = handler as usize;
    ours.sa_flags = libc::SA_SIGINFO
        | libc::SA_ONSTACK
        | before.sa_flags & (libc::SA_RESTART | libc::SA_NODEFER);
    // SAFETY: `ours` is a whole action, whose handler has the signature that SA_SIGINFO asks for
    // and may interrupt anything (F1); a null pointer means that the old action is not wanted.
    match unsafe { libc::sigaction(libc::SIGBUS, &ours, ptr::null_mut()) } {
        0 => {
            *installed = true;
            Ok(())
        }
        _ => Err(io::Error::last_os_error()),
    }
}

extern "C" fn on_fault(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the kernel hands a valid record to a handler that was installed with SA_SIGINFO.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr().addr()) };
    // Codes of signals that another process sent are not positive; they have no address.
    let is_fault = code > 0;
    if !(is_fault && replace(address)) {
        pass_on(signal, info, context, is_fault);
    }
}

/// Puts zeros in the place of the map in which `address` lies. False if it is none of ours, or that
/// cannot be done.
fn replace(address: usize) -> bool {
    let Some(start) = TABLE.mark(address, WINDOW_BYTES as usize) else { return false };
    let start = ptr::with_exposed_provenance_mut(start);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
    // SAFETY: the range is all of one map of `WINDOW_BYTES`, which exists (F2) and goes on
    // existing: the thread that has faulted was reading it, so holds it. Nothing else lies in the
    // range. The new map is readable like the old one and is unmapped with it. That bytes change
    // under shared references is what the cut has done already; the head of `mapping` says why that
    // is borne.
    let zeros = unsafe { libc::mmap(start, WINDOW_BYTES as usize, libc::PROT_READ, flags, -1, 0) };
    zeros != libc::MAP_FAILED
}

/// Does what would have been done without us.
fn pass_on(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
    is_fault: bool,
) {
    let before = BEFORE.get().expect("set before the handler was installed");
    match before.sa_sigaction {
        libc::SIG_IGN if !is_fault => {}
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: `before` is an action that the system gave us. On return a fault happens
            // again, and a signal that was sent is sent again; either way it then meets that
            // action.
            unsafe {
                libc::sigaction(signal, before, ptr::null_mut());
            }
            if !is_fault {
                // SAFETY: raising a signal has no preconditions.
                unsafe { libc::raise(signal) };
            }
        }
        handler if before.sa_flags & libc::SA_SIGINFO != 0 => {
            type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
            // SAFETY: whoever installed it said by SA_SIGINFO that it has this signature.
            let handler = unsafe { std::mem::transmute::<usize, Handler>(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: whoever installed it said by the absence of SA_SIGINFO that it has this
            // signature.
            let handler =
                unsafe { std::mem::transmute::<usize, extern "C" fn(libc::c_int)>(handler) };
            handler(signal);
        }
    }
}
