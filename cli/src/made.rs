//! What the verbs that make a version print about it.

use std::time::Instant;

use serde_json::{Map, Value, json};

use crate::context::Context;
use crate::failure::Failure;
use crate::{human, output};
use treering::Report;

/// Prints the report; `started` is when the verb began, before it read its input.
pub(super) fn print(context: &Context, report: &Report, started: Instant) -> Result<(), Failure> {
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
        return output::print_json(&object(report, seconds));
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
