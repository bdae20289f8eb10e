//! `expire`: old versions go by a rule.

use std::time::Instant;

use serde_json::json;

use crate::args::Expire;
use crate::context::Context;
use crate::failure::{About, Failure};
use crate::progress::Bar;
use crate::{human, output};
use treering::{ExpireReport, Retention, VersionId};

pub(super) fn run(context: &Context, args: &Expire) -> Result<(), Failure> {
    let started = Instant::now();
    let bar = Bar::new(true);
    // Telling takes no more than reading.
    let mut store = match args.dry_run {
        true => context.open_reader(&args.store, &bar)?,
        false => context.open_writer(&args.store, &bar)?,
    };
    let mut rule = Retention::new();
    rule = args.keep_last.map_or(rule, |count| rule.keep_last(count));
    rule = args.keep_for.map_or(rule, |age| rule.keep_for(age));
    if rule.keeps_all() && !args.save_policy {
        rule = store.retention().about(&args.store)?;
        if rule.keeps_all() {
            let what = "say what to keep: --keep-last N, --keep-for DURATION, or both; no rule is saved in the store";
            return Err(Failure::Usage(what.to_owned()));
        }
    }
    let report = match (args.dry_run, args.save_policy) {
        (true, _) => store.expire_preview(rule),
        (_, true) => store.set_retention(rule),
        _ => store.expire(rule),
    };
    let report = report.about(&args.store)?;
    let saved = store.retention().about(&args.store)?;
    drop(store);
    if let Some(leap) = report.clock_leap {
        context.warn(&human::leap(&leap));
    }
    let numbers = |versions: &[VersionId]| versions.iter().map(|v| v.0).collect::<Vec<u64>>();
    if context.json {
        return output::print_json(&json!({
            "rule": rule.to_string(),
            "dry_run": args.dry_run,
            "expired": numbers(&report.expired),
            "pinned": numbers(&report.pinned),
            "bytes_freed": report.bytes_freed,
            "file_bytes_before": report.file_bytes.0,
            "file_bytes": report.file_bytes.1,
            "clock_leap": report.clock_leap.map(|leap| [human::time(leap.from), human::time(leap.to)]),
            "saved_policy": (!saved.keeps_all()).then(|| saved.to_string()),
            "seconds": started.elapsed().as_secs_f64(),
        }));
    }
    if context.quiet { Ok(()) } else { output::print(&text(args, rule, &report)) }
}

fn text(args: &Expire, rule: Retention, report: &ExpireReport) -> String {
    let verb = if args.dry_run { "would expire" } else { "expired" };
    let mut text = format!(
        "{rule}: {} versions {verb}, {} freed\n",
        human::count(report.expired.len() as u64),
        human::bytes(report.bytes_freed)
    );
    if !report.pinned.is_empty() {
        let pinned: Vec<String> = report.pinned.iter().map(ToString::to_string).collect();
        text += &format!("kept because somebody has them open: {}\n", pinned.join(", "));
    }
    text
}
