//! What the verbs that make a version print about it.

use std::time::Instant;

use serde_json::{Map, Value, json};

use crate::context::Context;
use crate::failure::Failure;
use crate::ingest::{Lost, Precision};
use crate::{human, output};
use treering::Report;

/// Prints the report; `started` is when the verb began, before it read its input.
pub(super) fn print(context: &Context, report: &Report, started: Instant) -> Result<(), Failure> {
    print_with(context, report, None, started)
}

/// The same of a version that an input was read for, and what f32 lost of that.
pub(super) fn print_points(
    context: &Context,
    report: &Report,
    precision: &Precision,
    started: Instant,
) -> Result<(), Failure> {
    if let Some(text) = loss(precision) {
        context.note(&text);
    }
    print_with(context, report, Some(precision), started)
}

fn print_with(
    context: &Context,
    report: &Report,
    precision: Option<&Precision>,
    started: Instant,
) -> Result<(), Failure> {
    let seconds = started.elapsed().as_secs_f64();
    if !report.clock_behind.is_zero() {
        context.warn(&format!(
            "the clock is {} behind the version before; version {} is stamped just after that one, and so will be those to come until the clock has caught up",
            human::duration(report.clock_behind),
            report.version,
        ));
    }
    if let Some(leap) = report.clock_leap {
        context.warn(&human::leap(&leap));
    }
    if context.json {
        let mut object = object(report, seconds);
        if let Some(precision) = precision {
            object["precision"] = lost_object(precision);
        }
        return output::print_json(&object);
    }
    if context.quiet {
        return Ok(());
    }
    if !report.is_new {
        return output::print(&format!(
            "nothing changes, so no version is made: version {} stays the newest, with {} points\n",
            report.version,
            human::count(report.points)
        ));
    }
    output::print(&format!(
        "version {}: {} points (+{} -{}), dimension {}; {} written in {seconds:.3} s\n",
        report.version,
        human::count(report.points),
        human::count(report.added),
        human::count(report.removed),
        report.dim,
        human::bytes(report.bytes_written),
    ))
}

/// What was lost and what to do, in one sentence.
fn loss(precision: &Precision) -> Option<String> {
    let rows = |n: u64, at_least: bool, one: &str, many: &str| {
        let (most, rest) = if n == 1 { ("row", one) } else { ("rows", many) };
        let at_least = if at_least { "at least " } else { "" };
        format!("{at_least}{} {most} {rest}", human::count(n))
    };
    let mut parts = Vec::new();
    if let Some(Lost { rows: n, at_least, first: (row, other) }) = precision.rounded {
        let rows = rows(n, at_least, "is now equal to another", "are now equal to others");
        parts.push(format!(
            "{rows} only because coordinates are rounded to f32 (first row {row}, now equal to row {other}): subtract an offset from all values to keep them apart",
        ));
    }
    let scale = "multiply all values by a power of ten to keep them apart";
    if let Some(Lost { rows: n, at_least, first: (row, other) }) = precision.at_zero {
        let rows =
            rows(n, at_least, "is at distance 0 from another", "are at distance 0 from others");
        parts.push(format!(
            "{rows} without being equal, since squares below 7e-46 are 0 in f32 (first row {row}, which differs from row {other}): {scale}",
        ));
    } else if let Some((n, row)) = precision.small {
        let rows = rows(n, false, "is so near to 0", "are so near to 0");
        parts.push(format!(
            "{rows} that distances between them lose digits, since f32 does not hold squares below 1.2e-38 in full (first row {row}): {scale}",
        ));
    }
    (!parts.is_empty()).then(|| format!("{} (rows count from 0)", parts.join("; ")))
}

fn lost_object(precision: &Precision) -> Value {
    let lost = |lost: Option<Lost>| match lost {
        Some(Lost { rows, at_least, first: (row, other) }) => {
            json!({ "rows": rows, "at_least": at_least, "row": row, "like": other })
        }
        None => json!({ "rows": 0 }),
    };
    json!({
        "equal_by_rounding": lost(precision.rounded),
        "at_distance_zero": lost(precision.at_zero),
        "near_zero": match precision.small {
            Some((rows, row)) => json!({ "rows": rows, "row": row }),
            None => json!({ "rows": 0 }),
        },
    })
}

fn object(report: &Report, seconds: f64) -> Value {
    let counters: Map<String, Value> =
        report.counters.iter().map(|(name, n)| (name.to_owned(), n.into())).collect();
    let times: Map<String, Value> = report
        .times
        .iter()
        .map(|(stage, time)| (stage.to_owned(), (time.as_secs_f64() * 1e3).into()))
        .collect();
    json!({
        "version": report.version.0,
        "new": report.is_new,
        "points": report.points,
        "added": report.added,
        "removed": report.removed,
        "dim": report.dim,
        "seconds": seconds,
        "bytes_written": report.bytes_written,
        "counters": counters,
        "times_ms": times,
    })
}
