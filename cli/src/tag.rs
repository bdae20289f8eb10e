//! `tag`: names for versions.

use serde_json::{Value, json};

use crate::args::Tag;
use crate::context::Context;
use crate::failure::{About, Failure};
use crate::progress::Bar;
use crate::{human, output};

pub(super) fn run(context: &Context, args: &Tag) -> Result<(), Failure> {
    match &args.name {
        None => list(context, args),
        Some(name) if args.delete => {
            let mut store = context.open_writer(&args.store, &Bar::new(true))?;
            store.delete_tag(name).about(&args.store)?;
            drop(store);
            say(
                context,
                json!({ "deleted": name }),
                format!("{}: taken away\n", human::printable(name)),
            )
        }
        Some(name) => {
            let mut store = context.open_writer(&args.store, &Bar::new(true))?;
            let version = match &args.at {
                Some(when) => store.find(when),
                None => store.latest().map(|snapshot| snapshot.version()),
            };
            let version = version.about(&args.store)?;
            let now = store.tags().about(&args.store)?;
            let other = now.iter().find(|tag| tag.name == *name && tag.version != version);
            if let Some(other) = other.filter(|_| !args.is_moved) {
                return Err(Failure::Usage(format!(
                    "{}: version {} is called `{}`; with --move version {version} is instead, and the other may expire",
                    args.store.display(),
                    other.version,
                    human::printable(name),
                )));
            }
            store.tag(name, version).about(&args.store)?;
            drop(store);
            let object = json!({ "name": name, "version": version.0 });
            say(context, object, format!("{}: version {version}\n", human::printable(name)))
        }
    }
}

fn say(context: &Context, object: Value, text: String) -> Result<(), Failure> {
    match (context.json, context.quiet) {
        (true, _) => output::print_json(&object),
        (_, true) => Ok(()),
        _ => output::print(&text),
    }
}

fn list(context: &Context, args: &Tag) -> Result<(), Failure> {
    let store = context.open_reader(&args.store, &Bar::new(true))?;
    let tags = store.tags().about(&args.store)?;
    if context.json {
        let tag = |tag: &treering::Tag| json!({ "name": tag.name, "version": tag.version.0 });
        let tags: Vec<Value> = tags.iter().map(tag).collect();
        return output::print_json(&json!({ "tags": tags }));
    }
    let rows: Vec<Vec<String>> =
        tags.iter().map(|tag| vec![human::printable(&tag.name), tag.version.to_string()]).collect();
    output::print(&human::table(&["<tag", "version"], &rows))
}
