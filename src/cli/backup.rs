//! `backup`: versions and tags into one file, which appears whole or not at all.

use std::io::BufWriter;
use std::path::Path;
use std::time::Instant;

use serde_json::json;

use super::args::Backup;
use super::context::Context;
use super::failure::{About, Failure};
use super::progress::Bar;
use super::{human, output};

/// Bytes that are written at once.
const BUFFER: usize = 1 << 20;

pub(super) fn run(context: &Context, args: &Backup) -> Result<(), Failure> {
    let started = Instant::now();
    let store = context.open_reader(&args.store, &Bar::new(true))?;
    let since = args.since.as_ref().map(|when| store.find(when)).transpose();
    let since = since.about(&args.store)?;
    let fail = |source| Failure::Output { name: args.file.display().to_string(), source };
    let folder = match args.file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    let file = builder.prefix(".treering-").suffix(".tmp").tempfile_in(folder).map_err(fail)?;
    let report =
        store.backup(since, BufWriter::with_capacity(BUFFER, file.as_file())).about(&args.store)?;
    file.as_file().sync_all().map_err(fail)?;
    file.persist(&args.file).map_err(|e| fail(e.error))?;
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
