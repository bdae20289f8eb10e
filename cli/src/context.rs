//! What every verb shares: the global options, the way stores are opened, and Ctrl-C.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::args::{At, Global, Memory};
use crate::exit;
use crate::failure::{About, Failure};
use crate::progress::Bar;
use treering::files::publish::Outputs;
use treering::files::{temporary, waiting};
use treering::{CancelToken, OpenError, OpenOptions, Snapshot, Store, VersionId, When};

/// Ends the process wherever it is, and leaves nothing in any folder.
fn end() -> ! {
    temporary::remove_all();
    let _ = writeln!(std::io::stderr(), "error: interrupted");
    std::process::exit(i32::from(exit::INTERRUPTED))
}

/// Ends the process once it waits for another, while it does what it still has to do after Ctrl-C.
fn end_if_it_waits() {
    const PAUSE: Duration = Duration::from_millis(20);
    let mut waited = false;
    loop {
        std::thread::sleep(PAUSE);
        // Twice, because a short wait is no reason.
        match (waited, waiting::is_anybody()) {
            (true, true) => end(),
            (_, now) => waited = now,
        }
    }
}

/// The global options, and the token that Ctrl-C cancels.
pub(super) struct Context {
    /// Print one JSON object instead of text.
    pub(super) json: bool,
    /// Print no summary and no bar.
    pub(super) quiet: bool,
    threads: usize,
    wait: Duration,
    cancel: CancelToken,
}

impl Context {
    pub(super) fn new(global: &Global) -> Context {
        Context {
            json: global.json,
            quiet: global.quiet,
            threads: global.threads as usize,
            wait: global.wait.unwrap_or_default(),
            cancel: CancelToken::default(),
        }
    }

    /// From now on the first Ctrl-C asks for a clean stop, which is at once if the process only
    /// waits for another, and the second ends the process wherever it is. Either way the store
    /// opens at its last version.
    pub(super) fn catch_interrupts(&self) {
        let cancel = self.cancel.clone();
        let asked = AtomicBool::new(false);
        let handler = move || {
            let again = asked.swap(true, Ordering::Relaxed);
            cancel.cancel();
            if again || waiting::is_anybody() {
                end();
            }
            let _ = writeln!(std::io::stderr(), "stopping; once more to stop at once");
            std::thread::spawn(end_if_it_waits);
        };
        // Without a handler Ctrl-C kills the process, which the store survives as well.
        let _ = ctrlc::set_handler(handler);
    }

    /// What Ctrl-C cancels.
    pub(super) fn cancel(&self) -> &CancelToken {
        &self.cancel
    }

    /// An error if Ctrl-C was pressed.
    pub(super) fn check_interrupt(&self) -> Result<(), Failure> {
        if self.cancel.is_cancelled() { Err(Failure::Interrupted) } else { Ok(()) }
    }

    /// Tells of something that is not as it should be, and that the verb goes on after. Not
    /// silenced by `--quiet`.
    pub(super) fn warn(&self, text: &str) {
        let _ = writeln!(std::io::stderr(), "warning: {text}");
    }

    /// Tells of something that may not be known.
    pub(super) fn note(&self, text: &str) {
        if !self.quiet {
            let _ = writeln!(std::io::stderr(), "note: {text}");
        }
    }

    /// What the verb writes; its waits end with Ctrl-C.
    pub(super) fn outputs(&self) -> Outputs {
        Outputs::new(self.cancel.clone())
    }

    /// Threads that work at once.
    pub(super) fn threads(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        }
    }

    /// The settings of an opening whose progress `bar` shows.
    pub(super) fn open_options(&self, bar: &Bar) -> OpenOptions {
        let options =
            OpenOptions::new().threads(self.threads).cancel(self.cancel.clone()).catch_faults(true);
        let options = options.wait(self.wait);
        match bar.handle() {
            Some(handle) => options.progress(move |p| handle.stage(p.stage, p.done, p.total)),
            None => options,
        }
    }

    /// Opens a store for writing.
    pub(super) fn open_writer(&self, store: &Path, bar: &Bar) -> Result<Store, Failure> {
        self.opened(Store::open_with(store, self.open_options(bar)), store)
    }

    /// Opens a store for writing within a memory limit.
    pub(super) fn open_writer_within(
        &self,
        store: &Path,
        memory: &Memory,
        bar: &Bar,
    ) -> Result<Store, Failure> {
        self.opened(Store::open_with(store, memory.apply(self.open_options(bar))), store)
    }

    /// Who was told to stop while it waited for another writer has not failed.
    fn opened(&self, opened: Result<Store, OpenError>, store: &Path) -> Result<Store, Failure> {
        if opened.is_err() {
            self.check_interrupt()?;
        }
        opened.about(store)
    }

    /// Opens a store for reading only.
    pub(super) fn open_reader(&self, store: &Path, bar: &Bar) -> Result<Store, Failure> {
        Store::open_with(store, self.open_options(bar).read_only(true)).about(store)
    }

    /// The version that `--at` asks for.
    pub(super) fn snapshot(
        &self,
        store: &Store,
        path: &Path,
        at: &At,
    ) -> Result<Snapshot, Failure> {
        if at.when == Some(When::Version(VersionId(0))) {
            self.note("version 0 is the empty store, from before version 1");
        }
        match &at.when {
            Some(when) => store.find(when).and_then(|version| store.at(version)),
            None => store.latest(),
        }
        .about(path)
    }
}
