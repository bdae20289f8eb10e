//! `restore`: back to an older version, as one new version.

use std::time::Instant;

use crate::args::Restore;
use crate::context::Context;
use crate::failure::{About, Failure};
use crate::made;
use crate::progress::Bar;

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
