//! `stats`: sizes and shape of a version.

use serde_json::json;

use crate::args::Stats;
use crate::context::Context;
use crate::failure::{About, Failure};
use crate::progress::Bar;
use crate::{human, output};

pub(super) fn run(context: &Context, args: &Stats) -> Result<(), Failure> {
    let store = context.open_reader(&args.store, &Bar::new(true))?;
    let snapshot = context.snapshot(&store, &args.store, &args.at)?;
    let stats = store.stats(&snapshot).about(&args.store)?;
    if context.json {
        return output::print_json(&json!({
            "version": stats.version.0,
            "points": stats.points,
            "live": stats.live,
            "dim": stats.dim,
            "metric": stats.metric.to_string(),
            "height": stats.height,
            "nodes": stats.nodes,
            "checksum": format!("{:08x}", stats.checksum),
            "file_bytes": stats.file_bytes,
            "live_bytes": stats.live_bytes,
            "unique_bytes": stats.unique_bytes,
            "shared_bytes": stats.shared_bytes,
            "pinned_bytes": stats.pinned_bytes,
            "reclaimable_bytes": stats.reclaimable_bytes,
        }));
    }
    let size = |bytes| format!("{} ({})", human::count(bytes), human::bytes(bytes));
    output::print(&human::pairs(&[
        ("version", stats.version.to_string()),
        ("points", human::count(stats.points)),
        ("live", human::count(stats.live)),
        ("dim", stats.dim.to_string()),
        ("metric", stats.metric.to_string()),
        ("height", stats.height.to_string()),
        ("nodes", human::count(stats.nodes)),
        ("checksum", format!("{:08x}", stats.checksum)),
        ("file_bytes", size(stats.file_bytes)),
        ("live_bytes", size(stats.live_bytes)),
        ("unique_bytes", size(stats.unique_bytes)),
        ("shared_bytes", size(stats.shared_bytes)),
        ("pinned_bytes", size(stats.pinned_bytes)),
        ("reclaimable_bytes", size(stats.reclaimable_bytes)),
    ]))
}
