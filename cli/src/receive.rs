//! `receive`: the versions of a backup become versions of a store.

use std::time::Instant;

use serde_json::json;

use crate::args::Receive;
use crate::context::Context;
use crate::failure::Failure;
use crate::ingest;
use crate::progress::Bar;
use crate::{human, output};
use treering::{ReceiveError, Store};

pub(super) fn run(context: &Context, args: &Receive) -> Result<(), Failure> {
    let started = Instant::now();
    let fail = |source| Failure::Receive { file: args.file.clone(), source };
    let file = ingest::open_seekable(&args.file, context.cancel());
    let file = file.map_err(|e| fail(ReceiveError::Read(e)))?;
    let bar = Bar::new(context.quiet);
    let report = Store::receive(&args.store, file, context.open_options(&bar)).map_err(fail)?;
    drop(bar);
    let seconds = started.elapsed().as_secs_f64();
    if context.json {
        return output::print_json(&json!({
            "version": report.newest.0,
            "versions": report.versions,
            "segments": report.segments,
            "bytes": report.bytes,
            "seconds": seconds,
        }));
    }
    if context.quiet {
        return Ok(());
    }
    output::print(&format!(
        "{} versions received, the newest is {}; in {seconds:.3} s\n",
        human::count(report.versions),
        report.newest
    ))
}
