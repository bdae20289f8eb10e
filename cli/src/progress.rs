//! The progress bar: on a terminal only, on standard error, gone when the work is done. Rate and
//! remaining time are those of the stage that it names; work with several says which of how many.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use crate::human;

/// A bar, or nothing where none is wanted. Cleared when dropped.
pub(super) struct Bar(Option<Handle>);

/// The part of a [`Bar`] that the library's progress function holds.
#[derive(Clone)]
pub(super) struct Handle(ProgressBar);

impl Bar {
    /// A bar if standard error is a terminal and `quiet` is false.
    pub(super) fn new(quiet: bool) -> Bar {
        if quiet || !std::io::stderr().is_terminal() {
            return Bar(None);
        }
        let template =
            "{msg:>14} [{wide_bar}] {percent:>3} %, {per_sec}, {elapsed} gone, {eta} left of this";
        let style = ProgressStyle::with_template(template)
            .expect("the template is a constant")
            .with_key("per_sec", |state: &ProgressState, text: &mut dyn std::fmt::Write| {
                // Nothing more can be done about an error here.
                let _ = write!(text, "{} a second", human::count(state.per_sec() as u64));
            })
            .progress_chars("=> ");
        Bar(Some(Handle(ProgressBar::new(0).with_style(style))))
    }

    /// Shows how far a stage has come; `total` is 0 if that is not known.
    pub(super) fn stage(&self, name: &'static str, done: u64, total: u64) {
        if let Some(handle) = &self.0 {
            handle.stage(name, done, total);
        }
    }

    /// What the library's progress function needs.
    pub(super) fn handle(&self) -> Option<Handle> {
        self.0.clone()
    }
}

impl Handle {
    /// Shows how far a stage has come.
    pub(super) fn stage(&self, name: &'static str, done: u64, total: u64) {
        if self.0.message() != name {
            self.0.set_message(name);
            // The rate of one stage says nothing of the next.
            self.0.set_position(0);
            self.0.reset_eta();
        }
        self.0.set_length(total.max(done));
        self.0.set_position(done);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(Handle(bar)) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
