//! `recover`: what is left of a damaged store, and, if asked, a new store of it.

use serde_json::json;

use crate::args::Recover;
use crate::context::Context;
use crate::failure::{About, Failure};
use crate::progress::Bar;
use crate::{human, output};
use treering::{RecoverReport, Store, VersionId};

pub(super) fn run(context: &Context, args: &Recover) -> Result<(), Failure> {
    let bar = Bar::new(context.quiet);
    let report = Store::recover(&args.store, args.write.as_deref(), context.open_options(&bar));
    drop(bar);
    let report = report.about(&args.store)?;
    if context.json {
        output::print_json(&json!({
            "commit": report.commit,
            "newest_commit": report.newest_commit,
            "in_doubt": report.in_doubt,
            "file_bytes": report.file_bytes.0,
            "needed_bytes": report.file_bytes.1,
            "intact": numbers(&report.intact),
            "lost": numbers(&report.lost),
            "problems": report.problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "written": report.written.is_some(),
        }))?;
    } else if !context.quiet || !report.is_complete() {
        output::print(&text(&report))?;
    }
    match report.is_complete() {
        true => Ok(()),
        false => Err(Failure::Lost { store: args.store.clone(), what: loss(&report) }),
    }
}

/// What is lost, in a line.
fn loss(report: &RecoverReport) -> String {
    match report.lost.len() {
        0 if report.commit < report.newest_commit => {
            "the newest commit is lost, and what it changed".into()
        }
        0 => "a newer commit may be lost".into(),
        versions => format!("{versions} versions are lost"),
    }
}

fn numbers(versions: &[VersionId]) -> Vec<u64> {
    versions.iter().map(|version| version.0).collect()
}

fn text(report: &RecoverReport) -> String {
    let mut text: String = report.problems.iter().map(|problem| format!("{problem}\n")).collect();
    let (found, needed) = report.file_bytes;
    if found < needed {
        text += &format!("the file has {found} bytes, commit {} needs {needed}\n", report.commit);
    }
    if report.commit < report.newest_commit {
        let (commit, newest) = (report.commit, report.newest_commit);
        text += &format!("commit {newest} cannot be read; commit {commit} can\n");
    }
    if report.in_doubt {
        text += "the device cannot read a place where a newer commit may have been\n";
    }
    text += &format!("intact: {}\n", ranges(&report.intact));
    text += &format!("lost: {}\n", ranges(&report.lost));
    text += &match &report.written {
        Some(written) => format!("{} versions written\n", human::count(written.versions)),
        None => "nothing was written; --write FILE makes a new store of what is intact\n".into(),
    };
    text
}

/// Numbers as ranges: 1 to 4, 7.
fn ranges(versions: &[VersionId]) -> String {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for version in versions {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == version.0 => *last = version.0,
            _ => ranges.push((version.0, version.0)),
        }
    }
    let one = |&(first, last): &(u64, u64)| match first == last {
        true => first.to_string(),
        false => format!("{first} to {last}"),
    };
    match ranges.is_empty() {
        true => "none".to_string(),
        false => ranges.iter().map(one).collect::<Vec<_>>().join(", "),
    }
}
