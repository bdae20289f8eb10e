//! `verify`: is every byte as it was written, and does the tree keep its invariants?
//!
//! Damage is this verb's data: it is printed on standard output in the same form whether it stopped
//! the store from opening or was found afterwards.

use serde_json::{Value, json};

use crate::args::Verify;
use crate::context::Context;
use crate::failure::{About, Failure};
use crate::progress::Bar;
use crate::{exit, human, output};
use treering::{
    Corruption, OpenError, Problem, ReadError, ScrubOptions, VerifyOptions, VerifyReport,
};

pub(super) fn run(context: &Context, args: &Verify) -> Result<(), Failure> {
    if args.scrub {
        return scrub(context, args);
    }
    let bar = Bar::new(context.quiet);
    let outcome = check(context, args, &bar);
    drop(bar);
    let report = match outcome {
        Ok(report) => report,
        Err(failure) => {
            if context.json && exit::code(&failure) == exit::CORRUPT {
                output::print_json(&object(0, 0, vec![problem_of(&failure)]))?;
            }
            return Err(failure);
        }
    };
    let problems = &report.problems;
    if context.json {
        let list = problems.iter().map(problem).collect();
        output::print_json(&object(report.versions_checked, report.segments_checked, list))?;
    } else if !context.quiet || !problems.is_empty() {
        let mut text: String = problems.iter().map(|problem| format!("{problem}\n")).collect();
        text += &format!(
            "{}: {} versions, {} segments checked, {} problems\n",
            if report.is_ok() { "ok" } else { "NOT OK" },
            human::count(report.versions_checked),
            human::count(report.segments_checked),
            problems.len(),
        );
        output::print(&text)?;
    }
    if report.is_ok() {
        return Ok(());
    }
    Err(Failure::NotOk { store: args.store.clone(), problems: problems.len() })
}

/// Part or all of a scrub. Interrupted, it still says how far it came.
fn scrub(context: &Context, args: &Verify) -> Result<(), Failure> {
    let bar = Bar::new(context.quiet);
    let store = context.open_reader(&args.store, &bar)?;
    let mut options = ScrubOptions::new().from(args.from);
    if let Some(rate) = args.rate {
        options = options.bytes_per_second(rate);
    }
    if let Some(bytes) = args.at_most {
        options = options.at_most(bytes);
    }
    let report = store.scrub(options);
    drop(bar);
    let report = report.about(&args.store)?;
    let problems = &report.problems;
    if context.json {
        output::print_json(&json!({
            "ok": problems.is_empty(),
            "bytes_checked": report.bytes,
            "next": report.next,
            "problems": problems.iter().map(problem).collect::<Vec<_>>(),
        }))?;
    } else if !context.quiet || !problems.is_empty() || report.next.is_some() {
        let mut text: String = problems.iter().map(|problem| format!("{problem}\n")).collect();
        text += &format!(
            "{}: {} checked, {} problems\n",
            if problems.is_empty() { "ok" } else { "NOT OK" },
            human::bytes(report.bytes),
            problems.len(),
        );
        if let Some(next) = report.next {
            text += &format!("not at the end; to go on: --scrub --from {next}\n");
        }
        output::print(&text)?;
    }
    if problems.is_empty() {
        return context.check_interrupt();
    }
    Err(Failure::NotOk { store: args.store.clone(), problems: problems.len() })
}

fn check(context: &Context, args: &Verify, bar: &Bar) -> Result<VerifyReport, Failure> {
    let store = context.open_reader(&args.store, bar)?;
    let options = match &args.at {
        _ if args.all => VerifyOptions::all(),
        Some(when) => {
            let version = store.find(when).about(&args.store)?;
            store.at(version).about(&args.store)?;
            VerifyOptions::version(version)
        }
        None => VerifyOptions::latest(),
    };
    let report = store.verify(options.deep(args.deep));
    context.check_interrupt()?;
    report.about(&args.store)
}

fn object(versions_checked: u64, segments_checked: u64, problems: Vec<Value>) -> Value {
    json!({
        "ok": problems.is_empty(),
        "versions_checked": versions_checked,
        "segments_checked": segments_checked,
        "problems": problems,
    })
}

fn problem(problem: &Problem) -> Value {
    let versions: Vec<u64> = problem.versions.iter().map(|version| version.0).collect();
    place_and_defect(&problem.what, versions)
}

fn place_and_defect(what: &Corruption, versions: Vec<u64>) -> Value {
    let (place, defect) = (what.at.to_string(), what.what.to_string());
    json!({ "place": place, "defect": defect, "versions": versions })
}

/// The damage that kept the store from being opened or read at all.
fn problem_of(failure: &Failure) -> Value {
    match failure {
        Failure::Open { source: OpenError::Read(ReadError::Corrupt(what)), .. }
        | Failure::Read { source: ReadError::Corrupt(what), .. } => {
            place_and_defect(what, Vec::new())
        }
        Failure::Open { source, .. } => {
            json!({ "place": "file", "defect": source.to_string(), "versions": [] })
        }
        _ => json!({ "place": "file", "defect": failure.to_string(), "versions": [] }),
    }
}
