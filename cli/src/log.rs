//! `log`: the versions, newest first.

use std::collections::HashMap;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::args::Log;
use crate::context::Context;
use crate::failure::{About, Failure};
use crate::progress::Bar;
use crate::{human, output};
use treering::{VersionId, VersionInfo};

pub(super) fn run(context: &Context, args: &Log) -> Result<(), Failure> {
    let store = context.open_reader(&args.store, &Bar::new(true))?;
    let versions = store.versions().about(&args.store)?;
    let tags = store.tags().about(&args.store)?;
    let unique: HashMap<VersionId, u64> =
        store.unique_bytes().about(&args.store)?.into_iter().collect();
    let tags_of = |version: &VersionInfo| {
        let of = tags.iter().filter(|tag| tag.version == version.version);
        of.map(|tag| tag.name.clone()).collect::<Vec<String>>()
    };
    let newest_first = versions.iter().rev().map(|version| Line {
        version,
        tags: tags_of(version),
        // Unknown if the version came or went since it was listed.
        unique: unique.get(&version.version).copied(),
    });
    if context.json {
        let objects: Vec<Value> = newest_first.map(object).collect();
        return output::print_json(&json!({ "versions": objects }));
    }
    let headings = [
        "version", "parent", "<time", "<kind", "points", "added", "removed", "written", "unique",
        "<tags", "<message",
    ];
    let rows: Vec<Vec<String>> = newest_first.map(row).collect();
    output::print(&human::table(&headings, &rows))
}

struct Line<'a> {
    version: &'a VersionInfo,
    tags: Vec<String>,
    unique: Option<u64>,
}

fn object(Line { version, tags, unique }: Line<'_>) -> Value {
    json!({
        "version": version.version.0,
        "parent": version.parent.0,
        "time": human::time(version.time),
        "from_the_future": version.time > SystemTime::now(),
        "kind": version.kind.to_string(),
        "points": version.points,
        "added": version.added,
        "removed": version.removed,
        "bytes_written": version.bytes_written,
        "bytes_unique": unique,
        "tags": tags,
        "message": version.message,
    })
}

fn row(Line { version, tags, unique }: Line<'_>) -> Vec<String> {
    vec![
        version.version.to_string(),
        version.parent.to_string(),
        match version.time > SystemTime::now() {
            true => format!("{} (from the future)", human::time(version.time)),
            false => human::time(version.time),
        },
        version.kind.to_string(),
        human::count(version.points),
        human::count(version.added),
        human::count(version.removed),
        human::bytes(version.bytes_written),
        unique.map_or("?".to_owned(), human::bytes),
        human::printable(&tags.join(", ")),
        human::printable(&version.message),
    ]
}
