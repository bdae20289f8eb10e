//! `delete`: points leave by id, in one new version; if one id is unknown, none leaves.

use std::time::Instant;

use crate::args::Delete;
use crate::context::Context;
use crate::failure::{About, Failure};
use crate::ingest;
use crate::made;
use crate::progress::Bar;

pub(super) fn run(context: &Context, args: &Delete) -> Result<(), Failure> {
    let started = Instant::now();
    let bar = Bar::new(context.quiet);
    let mut store = context.open_writer(&args.store, &bar)?;
    // Of more ids than there are points, one appears twice or is no point's: the others need not be
    // held to say so.
    let enough = store.latest().about(&args.store)?.len();
    let from_file = args.ids.as_deref();
    let from_file = from_file.map(|file| ingest::read_ids(file, enough, context.cancel()));
    let from_file = from_file.transpose()?;
    let ids = from_file.as_ref().unwrap_or(&args.id);
    let mut transaction = store.begin();
    transaction.message(&args.message.text);
    transaction.delete(ids).about(&args.store)?;
    let report = transaction.commit().about(&args.store)?;
    drop((bar, store));
    made::print(context, &report, started)
}
