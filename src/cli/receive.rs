//! `receive`: the versions of a backup become versions of a store.

use std::fs::File;
use std::io::{self, Seek};
use std::path::Path;
use std::time::Instant;

use serde_json::json;

use super::args::Receive;
use super::context::Context;
use super::failure::Failure;
use super::progress::Bar;
use super::{human, output};
use crate::{ReceiveError, Store};

pub(super) fn run(context: &Context, args: &Receive) -> Result<(), Failure> {
    let started = Instant::now();
    let fail = |source| Failure::Receive { file: args.file.clone(), source };
    let file = open(&args.file).map_err(|e| fail(ReceiveError::Read(e)))?;
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

/// Opens a stream. It is read twice, so one that comes down a pipe is kept in a temporary file.
fn open(path: &Path) -> io::Result<File> {
    let mut piped: Box<dyn io::Read> = match path.as_os_str() == "-" {
        true => Box::new(io::stdin()),
        false => {
            let file = File::open(path)?;
            if file.metadata()?.is_file() {
                return Ok(file);
            }
            Box::new(file)
        }
    };
    let mut kept = tempfile::tempfile()?;
    io::copy(&mut piped, &mut kept)?;
    kept.rewind()?;
    Ok(kept)
}
