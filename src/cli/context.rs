//! What every verb shares: the global options, the way stores are opened, and Ctrl-C.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::args::{At, Global, Memory};
use super::exit;
use super::failure::{About, Failure};
use super::progress::Bar;
use crate::publish::Outputs;
use crate::{CancelToken, OpenOptions, Snapshot, Store};

/// The global options, and the token that Ctrl-C cancels.
pub(super) struct Context {
    /// Print one JSON object instead of text.
    pub(super) json: bool,
    /// Print no summary and no bar.
    pub(super) quiet: bool,
    threads: usize,
    cancel: CancelToken,
}

impl Context {
    pub(super) fn new(global: &Global) -> Context {
        Context {
            json: global.json,
            quiet: global.quiet,
            threads: global.threads as usize,
            cancel: CancelToken::default(),
        }
    }

    /// From now on the first Ctrl-C asks for a clean stop and the second ends the process at once. Either way the store
    /// opens at its last version.
    pub(super) fn catch_interrupts(&self) {
        let cancel = self.cancel.clone();
        let asked = AtomicBool::new(false);
        let handler = move || {
            if asked.swap(true, Ordering::Relaxed) {
                std::process::exit(i32::from(exit::INTERRUPTED));
            }
            cancel.cancel();
            let _ = writeln!(std::io::stderr(), "stopping; once more to stop at once");
        };
        // Without a handler Ctrl-C kills the process, which the store survives as well.
        let _ = ctrlc::set_handler(handler);
    }

    /// An error if Ctrl-C was pressed.
    pub(super) fn check_interrupt(&self) -> Result<(), Failure> {
        if self.cancel.is_cancelled() { Err(Failure::Interrupted) } else { Ok(()) }
    }

    /// Tells of something that is not as it should be, and that the verb goes on after. Not silenced by `--quiet`.
    pub(super) fn warn(&self, text: &str) {
        let _ = writeln!(std::io::stderr(), "warning: {text}");
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
        match bar.handle() {
            Some(handle) => options.progress(move |p| handle.stage(p.stage, p.done, p.total)),
            None => options,
        }
    }

    /// Opens a store for writing.
    pub(super) fn open_writer(&self, store: &Path, bar: &Bar) -> Result<Store, Failure> {
        Store::open_with(store, self.open_options(bar)).about(store)
    }

    /// Opens a store for writing within a memory limit.
    pub(super) fn open_writer_within(
        &self,
        store: &Path,
        memory: &Memory,
        bar: &Bar,
    ) -> Result<Store, Failure> {
        Store::open_with(store, memory.apply(self.open_options(bar))).about(store)
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
        match &at.when {
            Some(when) => store.find(when).and_then(|version| store.at(version)),
            None => store.latest(),
        }
        .about(path)
    }
}
