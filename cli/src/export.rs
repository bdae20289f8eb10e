//! `export`: the live points of a version and their ids, by ascending id.

use std::path::PathBuf;

use serde_json::json;

use crate::args::Export;
use crate::context::Context;
use crate::failure::{About, Failure};
use crate::human;
use crate::output::{self, NpyFile, OutputFormat, PointRows, Sink};
use crate::progress::Bar;
use treering::{PointId, Snapshot};

pub(super) fn run(context: &Context, args: &Export) -> Result<(), Failure> {
    let format = OutputFormat::of(&args.out)?;
    let to_stdout = args.out.as_os_str() == "-";
    if to_stdout && context.json {
        let why = "--json and CSV on standard output do not go together; name a file";
        return Err(Failure::Usage(why.to_owned()));
    }
    let bar = Bar::new(context.quiet);
    let store = context.open_reader(&args.store, &bar)?;
    let snapshot = context.snapshot(&store, &args.store, &args.at)?;
    let files = match format {
        OutputFormat::Csv => csv(context, args, &snapshot, &bar)?,
        OutputFormat::Npy => npy(context, args, &snapshot, &bar)?,
    };
    drop(bar);
    if to_stdout {
        return Ok(());
    }
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    if context.json {
        return output::print_json(&json!({
            "version": snapshot.version().0,
            "points": snapshot.len(),
            "dim": snapshot.dim(),
            "files": names,
        }));
    }
    if context.quiet {
        return Ok(());
    }
    output::print(&format!(
        "version {}: {} points to {}\n",
        snapshot.version(),
        human::count(snapshot.len()),
        names.join(" and ")
    ))
}

fn csv(
    context: &Context,
    args: &Export,
    snapshot: &Snapshot,
    bar: &Bar,
) -> Result<Vec<PathBuf>, Failure> {
    let mut sink = Sink::new(context.outputs().input(&args.store).create(&args.out)?);
    sink.write(PointRows::header(snapshot.dim()).as_bytes())?;
    let mut line = PointRows::default();
    walk(context, args, snapshot, bar, |id, point| {
        line.clear();
        line.push(id, point);
        sink.write(line.text().as_bytes())
    })?;
    sink.finish()?;
    Ok(vec![args.out.clone()])
}

fn npy(
    context: &Context,
    args: &Export,
    snapshot: &Snapshot,
    bar: &Bar,
) -> Result<Vec<PathBuf>, Failure> {
    let ids_path = output::beside(&args.out, "ids");
    let mut outputs = context.outputs().input(&args.store);
    let mut points = NpyFile::create(&mut outputs, &args.out, "<f4")?;
    let mut ids = NpyFile::create(&mut outputs, &ids_path, "<u8")?;
    let mut bytes = Vec::new();
    walk(context, args, snapshot, bar, |id, point| {
        bytes.clear();
        bytes.extend(point.iter().flat_map(|value| value.to_le_bytes()));
        points.write(&bytes)?;
        ids.write(&id.to_le_bytes())
    })?;
    ids.finish(&[snapshot.len()])?;
    points.finish(&[snapshot.len(), snapshot.dim() as u64])?;
    Ok(vec![args.out.clone(), ids_path])
}

/// Calls `f` for each live point until it fails or Ctrl-C is pressed.
fn walk(
    context: &Context,
    args: &Export,
    snapshot: &Snapshot,
    bar: &Bar,
    mut f: impl FnMut(PointId, &[f32]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    const STRIDE: u64 = 1 << 14;
    let mut done = 0;
    let mut outcome = Ok(());
    let each = |id, point: &[f32]| {
        if outcome.is_err() {
            return;
        }
        if done % STRIDE == 0 {
            bar.stage("export", done, snapshot.len());
            outcome = context.check_interrupt();
        }
        done += 1;
        outcome = std::mem::replace(&mut outcome, Ok(())).and_then(|()| f(id, point));
    };
    snapshot.for_each(each).about(&args.store)?;
    outcome?;
    assert_eq!(done, snapshot.len(), "a snapshot visits each of its points once");
    Ok(())
}
