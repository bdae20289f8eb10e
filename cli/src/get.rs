//! `get`: points by id.

use crate::args::Get;
use crate::context::Context;
use crate::failure::{About, Failure};
use crate::output::{self, PointRows};
use crate::progress::Bar;

pub(super) fn run(context: &Context, args: &Get) -> Result<(), Failure> {
    let store = context.open_reader(&args.store, &Bar::new(true))?;
    let snapshot = context.snapshot(&store, &args.store, &args.at)?;
    let mut rows = PointRows::default();
    let mut objects = Vec::new();
    for &id in &args.id {
        let point = snapshot.get(id).about(&args.store)?;
        let version = snapshot.version();
        let point =
            point.ok_or_else(|| Failure::NoPoint { store: args.store.clone(), id, version })?;
        if context.json {
            let mut text = format!("{{\"id\":{id},\"point\":[");
            output::list(&mut text, point.iter());
            objects.push(text + "]}");
        } else {
            rows.push(id, &point);
        }
    }
    if context.json {
        return output::print(&format!(
            "{{\"version\":{},\"dim\":{},\"points\":[{}]}}\n",
            snapshot.version(),
            snapshot.dim(),
            objects.join(",")
        ));
    }
    output::print(&(PointRows::header(snapshot.dim()) + rows.text()))
}
