//! What is done to a store on a simulated disk: single operations, each with the states that it
//! leads through.

use std::io::Cursor;
use std::time::{Duration, UNIX_EPOCH};

use treering::simulation;
use treering::{CreateOptions, Durability, OpenOptions, Provenance, Retention, Store, VersionId};

use super::disk::Disk;
use super::model::{Points, State, open_options, points};
use crate::common::Random;

/// An operation on a store. What it does follows from it, the state, and a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Insert,
    Delete,
    Tag,
    Untag,
    Restore,
    Expire,
    Compact,
    /// From another store, which goes on meanwhile.
    Receive,
}

/// Those that a store can be asked in any order.
pub(crate) const LOCAL: [Operation; 7] = [
    Operation::Insert,
    Operation::Delete,
    Operation::Tag,
    Operation::Untag,
    Operation::Restore,
    Operation::Expire,
    Operation::Compact,
];

/// Those that keep a copy a copy.
pub(crate) const COPY: [Operation; 3] = [Operation::Receive, Operation::Expire, Operation::Tag];

pub(crate) fn geometry() -> CreateOptions {
    CreateOptions::new(super::model::DIM)
        .leaf_capacity(4)
        .block_bytes(128)
        .topology_segment_bytes(128)
        .coordinate_segment_bytes(128)
}

/// The same calls give the same bytes.
pub(crate) fn options() -> OpenOptions {
    let start = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    open_options().provenance(Provenance::Fixed { start, seed: 7 })
}

/// Versions share their syncs, so many at a time.
pub(crate) fn deferred(versions: u32) -> OpenOptions {
    options().durability(Durability::Deferred { versions })
}

/// A disk with an empty store.
pub(crate) fn formatted() -> Disk {
    let disk = Disk::default();
    simulation::format(disk.handle(), &geometry(), &options()).unwrap();
    disk.take_record();
    disk
}

pub(crate) fn open(disk: &Disk) -> Result<Store, String> {
    simulation::open(disk.handle(), options()).map_err(|e| e.to_string())
}

/// The store that a copy receives from.
#[derive(Clone)]
pub(crate) struct Source {
    disk: Disk,
    state: State,
}

impl Source {
    pub(crate) fn new() -> Self {
        Source { disk: formatted(), state: State::default() }
    }

    /// Goes on by two versions and a tag, and gives a stream of what is new since a version.
    fn advance(&mut self, since: u64, seed: u64) -> (Vec<u8>, Vec<State>) {
        let mut store = open(&self.disk).unwrap();
        let mut random = Random(seed);
        for operation in [Operation::Insert, Operation::Delete, Operation::Tag] {
            let plan = Planned::new(operation, &self.state, &mut random, None);
            plan.run(&mut store).unwrap();
            self.state = plan.states.last().unwrap().clone();
        }
        let mut stream = Vec::new();
        store.backup((since > 0).then_some(VersionId(since)), &mut stream).unwrap();
        let steps = (since + 1..=self.state.newest()).map(|version| {
            let mut state = self.state.clone();
            state.versions.retain(|&v, _| v <= version);
            state
        });
        (stream, steps.collect())
    }
}

/// An operation with all that it takes decided.
pub(crate) struct Planned {
    pub(crate) operation: Operation,
    rows: Vec<f32>,
    ids: Vec<u64>,
    name: String,
    pub(crate) version: u64,
    keep: u64,
    stream: Vec<u8>,
    /// The states that it leads through; the first is the one before, the last the one after.
    pub(crate) states: Vec<State>,
}

impl Planned {
    pub(crate) fn new(
        operation: Operation,
        state: &State,
        random: &mut Random,
        source: Option<&mut Source>,
    ) -> Self {
        let mut plan = Planned {
            operation,
            rows: Vec::new(),
            ids: Vec::new(),
            name: format!("tag {}", random.below(3)),
            version: 0,
            keep: 1 + random.below(3),
            stream: Vec::new(),
            states: vec![state.clone()],
        };
        let mut after = state.clone();
        let versions: Vec<u64> = state.versions.keys().copied().collect();
        if !versions.is_empty() {
            plan.version = versions[random.below(versions.len() as u64) as usize];
        }
        match operation {
            Operation::Insert => {
                let count = 1 + random.below(9) as usize;
                plan.rows = points(random, count);
                let mut live = state.live();
                for row in plan.rows.chunks_exact(2) {
                    live.insert(after.next_id, [row[0], row[1]]);
                    after.next_id += 1;
                }
                after.add(live);
            }
            Operation::Delete => {
                let live = state.live();
                let step = 1 + random.below(4) as usize;
                let count = 1 + random.below(6) as usize;
                plan.ids = live.keys().copied().step_by(step).take(count).collect();
                let left: Points =
                    live.into_iter().filter(|(id, _)| !plan.ids.contains(id)).collect();
                // Of nothing no version is made.
                if !plan.ids.is_empty() {
                    after.add(left);
                }
            }
            Operation::Tag if plan.version > 0 => {
                after.tags.insert(plan.name.clone(), plan.version);
            }
            Operation::Untag => match state.tags.keys().next() {
                Some(name) => {
                    plan.name = name.clone();
                    after.tags.remove(name);
                }
                None => plan.name.clear(),
            },
            Operation::Restore if plan.version > 0 => {
                let content = state.versions[&plan.version].clone();
                after.versions.insert(state.newest() + 1, content);
            }
            Operation::Tag | Operation::Restore => {}
            Operation::Expire => after.expire(plan.keep as usize),
            Operation::Compact => after.add(state.live()),
            Operation::Receive => {
                let source = source.expect("a copy has a source");
                let (stream, steps) = source.advance(state.newest(), random.next());
                plan.stream = stream;
                // Tags come last.
                for step in steps {
                    let (version, content) =
                        step.versions.last_key_value().expect("a step adds one");
                    after.versions.insert(*version, content.clone());
                    after.next_id = step.next_id;
                    plan.states.push(after.clone());
                }
                after.tags = source.state.tags.clone();
                after.tags.retain(|_, version| after.versions.contains_key(version));
            }
        }
        plan.states.push(after);
        plan
    }

    /// Does it. The error is the library's, in words.
    pub(crate) fn run(&self, store: &mut Store) -> Result<(), String> {
        fn plain<T>(result: Result<T, impl std::fmt::Display>) -> Result<(), String> {
            result.map(drop).map_err(|e| e.to_string())
        }
        match self.operation {
            Operation::Insert => plain(store.insert(&self.rows)),
            Operation::Delete => plain(store.delete(&self.ids)),
            Operation::Tag | Operation::Restore if self.version == 0 => Ok(()),
            Operation::Tag => plain(store.tag(&self.name, VersionId(self.version))),
            Operation::Untag if self.name.is_empty() => Ok(()),
            Operation::Untag => plain(store.delete_tag(&self.name)),
            Operation::Restore => plain(store.restore(VersionId(self.version))),
            Operation::Expire => plain(store.expire(Retention::new().keep_last(self.keep))),
            Operation::Compact => plain(store.compact()),
            Operation::Receive => plain(simulation::receive(store, Cursor::new(&self.stream))),
        }
    }
}

/// A store with some history: two batches of points and a deletion.
pub(crate) fn seasoned(random: &mut Random, inserts: usize) -> (Disk, State) {
    let disk = formatted();
    let mut state = State::default();
    let mut store = open(&disk).unwrap();
    let operations = std::iter::repeat_n(Operation::Insert, inserts).chain([Operation::Delete]);
    for operation in operations {
        let plan = Planned::new(operation, &state, random, None);
        plan.run(&mut store).unwrap();
        state = plan.states.last().unwrap().clone();
    }
    drop(store);
    disk.take_record();
    (disk, state)
}
