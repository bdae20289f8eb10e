//! Whether mapped pages have to be read again: where the file is larger than memory, the system
//! takes them back.
//!
//! A fault reads one page and waits for it. Who knows what will be wanted next does better to ask
//! for it beforehand, all at once; but asking for what is there already would cost a warm query a
//! tenth of its time.

/// Steps between two looks at the count of faults.
const LOOKED_AT_EVERY: u32 = 8;

/// Steps that go on asking after pages were missing: whoever asks sees few faults.
const ASKING: u32 = 256;

/// What one thread has lately waited for. A step is a query, or some pages of a scan.
#[derive(Default)]
pub(crate) struct Pressure {
    /// Major faults at the last look.
    seen: Option<u64>,
    until_look: u32,
    asking: u32,
}

impl Pressure {
    /// Notes that a step begins.
    #[inline]
    pub(crate) fn step(&mut self) {
        self.asking = self.asking.saturating_sub(1);
        match self.until_look.checked_sub(1) {
            Some(less) => self.until_look = less,
            None => self.look(),
        }
    }

    /// True if it pays to ask for pages before they are wanted.
    #[inline]
    pub(crate) fn is_felt(&self) -> bool {
        self.asking > 0
    }

    #[cold]
    fn look(&mut self) {
        self.until_look = LOOKED_AT_EVERY - 1;
        let now = major_faults();
        if self.seen.is_some_and(|seen| now >= seen + u64::from(LOOKED_AT_EVERY)) {
            self.asking = ASKING;
        }
        self.seen = Some(now);
    }
}

/// Faults of this thread that had to wait for a disk; 0 where the system does not tell.
fn major_faults() -> u64 {
    #[cfg(target_os = "linux")]
    {
        use nix::sys::resource::{UsageWho, getrusage};
        getrusage(UsageWho::RUSAGE_THREAD).map_or(0, |usage| usage.major_page_faults() as u64)
    }
    #[cfg(not(target_os = "linux"))]
    0
}
