//! `compact`: the live points in a tree built anew, as one new version.

use std::time::Instant;

use crate::args::Compact;
use crate::context::Context;
use crate::failure::{About, Failure};
use crate::made;
use crate::progress::Bar;

pub(super) fn run(context: &Context, args: &Compact) -> Result<(), Failure> {
    let started = Instant::now();
    let bar = Bar::new(context.quiet);
    let mut store = context.open_writer_within(&args.store, &args.memory, &bar)?;
    let mut transaction = store.begin();
    transaction.message(&args.message.text);
    let input = args.store.display().to_string();
    transaction.compact().map_err(|source| Failure::Insert { input, source })?;
    let report = transaction.commit().about(&args.store)?;
    drop((bar, store));
    made::print(context, &report, started)
}
