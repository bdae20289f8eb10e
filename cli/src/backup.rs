//! `backup`: versions and tags into one file, which appears whole or not at all, or down a pipe.

use std::io::{BufWriter, Write};
use std::time::Instant;

use serde_json::json;

use crate::args::Backup;
use crate::context::Context;
use crate::failure::{About, Failure};
use crate::progress::Bar;
use crate::{human, output};
use treering::BackupError;
use treering::files::publish::is_standard_output;

/// Bytes that are written at once.
const BUFFER: usize = 1 << 20;

pub(super) fn run(context: &Context, args: &Backup) -> Result<(), Failure> {
    let started = Instant::now();
    let to_stdout = is_standard_output(&args.file);
    if to_stdout && context.json {
        let why = "--json and a backup on standard output do not go together; name a file";
        return Err(Failure::Usage(why.to_owned()));
    }
    let store = context.open_reader(&args.store, &Bar::new(true))?;
    let since = args.since.as_ref().map(|when| store.find(when)).transpose();
    let since = since.about(&args.store)?;
    let mut file = context.outputs().input(&args.store).create(&args.file)?;
    let mut buffered = BufWriter::with_capacity(BUFFER, &mut file);
    let written = store.backup(since, &mut buffered).and_then(|report| {
        buffered.flush().map_err(BackupError::Write)?;
        Ok(report)
    });
    // What a failure has left in it is not to be written.
    let _ = buffered.into_parts();
    let report = match written {
        Err(BackupError::Write(source)) => return Err(file.failure(source).into()),
        other => other.about(&args.store)?,
    };
    file.finish()?;
    if to_stdout {
        return Ok(());
    }
    let seconds = started.elapsed().as_secs_f64();
    if context.json {
        return output::print_json(&json!({
            "since": report.since.0,
            "newest": report.newest.0,
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
        "{} versions up to {}, {}, in {seconds:.3} s\n",
        human::count(report.versions),
        report.newest,
        human::bytes(report.bytes)
    ))
}
