//! `vacuum`: the store in a fresh file, without holes.

use std::time::Instant;

use serde_json::json;

use crate::args::Vacuum;
use crate::context::Context;
use crate::failure::{About, Failure};
use crate::progress::Bar;
use crate::{human, output};
use treering::Store;

pub(super) fn run(context: &Context, args: &Vacuum) -> Result<(), Failure> {
    let started = Instant::now();
    let bar = Bar::new(context.quiet);
    let done = Store::vacuum(&args.store, context.open_options(&bar));
    if done.is_err() {
        // Who was told to stop has not failed.
        context.check_interrupt()?;
    }
    let report = done.about(&args.store)?;
    drop(bar);
    let seconds = started.elapsed().as_secs_f64();
    let (before, after) = report.file_bytes;
    if context.json {
        return output::print_json(&json!({
            "versions": report.versions,
            "file_bytes_before": before,
            "file_bytes": after,
            "seconds": seconds,
        }));
    }
    if context.quiet {
        return Ok(());
    }
    output::print(&format!(
        "{} versions in {}, before in {}; in {seconds:.3} s\n",
        human::count(report.versions),
        human::bytes(after),
        human::bytes(before),
    ))
}
