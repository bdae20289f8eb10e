//! `restore`: back to an older version, as one new version.

use std::time::Instant;

use super::args::Restore;
use super::context::Context;
use super::failure::{About, Failure};
use super::made;
use super::progress::Bar;

pub(super) fn run(context: &Context, args: &Restore) -> Result<(), Failure> {
    let started = Instant::now();
    let bar = Bar::new(context.quiet);
    let mut store = context.open_writer(&args.store, &bar)?;
    let version = store.find(&args.when).about(&args.store)?;
    let mut transaction = store.begin();
    transaction.restore(version).about(&args.store)?;
    transaction.message(&args.message.text);
    let report = transaction.commit().about(&args.store)?;
    drop((bar, store));
    made::print(context, &report, started)
}
