//! `build`: a new store from one input. Interrupted or refused, it leaves nothing at STORE.

use std::path::Path;
use std::time::Instant;

use crate::args::{Build, Input, Memory};
use crate::context::Context;
use crate::failure::Failure;
use crate::ingest::{self, IdSource, IdsOfRows, Kept, Points, Reading, Watch};
use crate::made;
use crate::progress::Bar;
use treering::{CreateError, CreateOptions, OpenOptions, PointSource, Store};

pub(super) fn run(context: &Context, args: &Build) -> Result<(), Failure> {
    let started = Instant::now();
    let fail = |source| Failure::Create { input: args.input.name(), source };
    if args.store.symlink_metadata().is_ok() {
        // The library says the same, but only after a long input has been read.
        return Err(fail(CreateError::Exists { path: args.store.clone() }));
    }
    let bar = Bar::new(context.quiet);
    let mut points = args.input.open(context, &args.store, &args.memory, &bar)?;
    context.check_interrupt()?;
    let mut options = CreateOptions::new(points.dim()).metric(args.metric.into());
    if let Some(points) = args.leaf_capacity {
        options = options.leaf_capacity(points);
    }
    let open = args.memory.apply(context.open_options(&bar));
    let (store, report) =
        Store::build_from(&args.store, options, open, &mut points, &args.message.text)
            .map_err(fail)?;
    drop((bar, store));
    made::print_points(context, &report, &points.precision(), started)
}

impl Memory {
    /// The settings of an opening, with the limit.
    pub(super) fn apply(&self, mut options: OpenOptions) -> OpenOptions {
        if let Some(bytes) = self.memory_limit {
            options = options.memory_limit(bytes);
        }
        if let Some(folder) = &self.temporary_folder {
            options = options.temporary_folder(folder);
        }
        options
    }

    /// How much is kept to see what f32 loses.
    fn watch(&self) -> Watch {
        Watch::within(self.memory_limit)
    }
}

impl Input {
    /// The name of the input, for messages.
    pub(super) fn name(&self) -> String {
        ingest::label(&self.input)
    }

    /// Opens the rows, and the ids if a file of them was given, for `store`.
    pub(super) fn open(
        &self,
        context: &Context,
        store: &Path,
        memory: &Memory,
        bar: &Bar,
    ) -> Result<Points, Failure> {
        bar.stage("read", 0, 0);
        let reading = self.reading(context, store, memory)?;
        let rows = ingest::open(&self.input, &reading)?;
        let ids = self.ids.as_deref();
        let ids = ids.map(|file| ingest::open_ids(file, context.cancel())).transpose()?;
        Ok(Points::new(rows, ids, memory.watch()))
    }

    /// The same, and the ids alone beforehand, if there are any: what they replace has to go first.
    pub(super) fn open_with_ids(
        &self,
        context: &Context,
        store: &Path,
        memory: &Memory,
        bar: &Bar,
    ) -> Result<(Option<Box<dyn IdSource>>, Points), Failure> {
        let kept = |path| Kept::open(path, context.cancel());
        if let Some(file) = &self.ids {
            bar.stage("read", 0, 0);
            let rows = ingest::open(&self.input, &self.reading(context, store, memory)?)?;
            let kept = kept(file)?;
            let ids = || ingest::kept_ids(&kept, file);
            let points = Points::new(rows, Some(ids()?), memory.watch());
            return Ok((Some(ids()?), points));
        }
        if self.text.id_column.is_none() {
            return Ok((None, self.open(context, store, memory, bar)?));
        }
        let reading = self.reading(context, store, memory)?;
        let kept = kept(&self.input)?;
        let rows = ingest::kept_rows(&kept, &self.input, &reading)?;
        // Once is enough to see what is lost.
        let reading = Reading { watch: None, ..reading };
        let ids = IdsOfRows(ingest::kept_rows(&kept, &self.input, &reading)?);
        Ok((Some(Box::new(ids)), Points::new(rows, None, memory.watch())))
    }

    fn reading(
        &self,
        context: &Context,
        store: &Path,
        memory: &Memory,
    ) -> Result<Reading, Failure> {
        let both = |path: &Path| path.as_os_str() == "-";
        if both(&self.input) && self.ids.as_deref().is_some_and(both) {
            let why = "INPUT and --ids cannot both be standard input";
            return Err(Failure::Usage(why.to_owned()));
        }
        let mut reading = self.text.reading(context.cancel());
        let folder = memory.temporary_folder.as_deref();
        reading.temporary =
            Some(folder.unwrap_or_else(|| treering::files::publish::folder(store)).to_path_buf());
        reading.watch = Some(memory.watch());
        Ok(reading)
    }
}
