//! Trees built in far too little memory: they must keep every invariant, and answer as a full scan
//! does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::arena::lock::{Hold, LockRange};
use crate::arena::mapping::Bytes;
use crate::arena::storage::{MemoryStorage, Storage};
use crate::insert::Context;
use crate::insert::batch::Batch;
use crate::insert::credit::Credit;
use crate::insert::locate::locate;
use crate::insert::report::Work;
use crate::insert::scratch::ScratchPool;
use crate::store::Store;
use crate::tree::check;
use crate::values::budget::Budget;
use crate::values::error::StorageError;
use crate::values::options::{CreateOptions, OpenOptions};
use crate::version::database::Database;
use crate::{InsertError, PointId, Snapshot, VerifyOptions};

/// Shares so small that a few thousand points are far too many.
const TINY: Budget = Budget {
    cluster_rows: 400,
    sample_rows: 300,
    chunk_rows: 77,
    scattered_rows: 50,
    spill: 20_000,
    sort: 9_000,
    changed: 100_000,
};

fn tiny() -> OpenOptions {
    OpenOptions { shares: Some(TINY), ..OpenOptions::new().memory_limit(1) }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.0 >> 33
    }

    fn unit(&mut self) -> f32 {
        (self.next() % (1 << 20)) as f32 / (1 << 20) as f32
    }
}

/// Awkward and ordinary data: name, dimension, points.
fn shapes(n: usize) -> Vec<(&'static str, usize, Vec<f32>)> {
    let mut random = Random(7);
    let mut uniform = |n: usize| -> Vec<f32> { (0..n).map(|_| random.unit()).collect() };
    let mut shapes = vec![
        ("uniform 3-d", 3, uniform(3 * n)),
        ("uniform 9-d", 9, uniform(9 * n)),
        ("uniform 40-d", 40, uniform(40 * n / 2)),
        ("all equal", 2, [0.25, -7.0].repeat(n)),
        ("line", 2, (0..n).flat_map(|i| [i as f32, 2.0 * i as f32]).collect()),
        (
            "lattice",
            3,
            (0..n).flat_map(|i| [i % 17, i / 17 % 17, i / 289]).map(|x| x as f32).collect(),
        ),
    ];
    // Sorted, so that a sample of the beginning would say nothing; and half of it one point.
    let mut sorted = uniform(n);
    sorted.sort_by(f32::total_cmp);
    shapes.push(("sorted", 1, sorted));
    let half = uniform(2 * n);
    let half = half.chunks_exact(2).enumerate();
    let half = half.flat_map(|(i, p)| if i % 2 == 0 { [0.3, 0.3] } else { [p[0], p[1]] });
    shapes.push(("half twins", 2, half.collect()));
    // One cluster holds nearly everything, at a far smaller scale.
    let skewed = uniform(3 * n);
    let skewed = skewed.chunks_exact(3).enumerate();
    let scale = |i: usize| if i.is_multiple_of(50) { 1000.0 } else { 1e-3 };
    let skewed = skewed.flat_map(|(i, p)| [p[0] * scale(i), p[1] * scale(i), p[2] * scale(i)]);
    shapes.push(("skewed", 3, skewed.collect()));
    // Underflow: twins that differ in value.
    shapes.push(("tiny", 3, uniform(3 * n).iter().map(|x| x * 3e-23).collect()));
    shapes
}

fn check_all(name: &str, snapshot: &Snapshot, points: &[f32], ids: &[PointId]) {
    let tree = snapshot.tree();
    let violations = check::check(tree).unwrap();
    assert!(violations.is_empty(), "{name}: {}", violations[0]);
    assert_eq!(snapshot.len(), ids.len() as u64, "{name}");
    for (row, &id) in points.chunks_exact(tree.dim).zip(ids).step_by(97) {
        assert_eq!(snapshot.get(id).unwrap().as_deref(), Some(row), "{name}");
        let exact = crate::query::brute::knn_batch(tree, row, 7).unwrap();
        assert_eq!(snapshot.knn(row, 7).unwrap(), exact, "{name}");
    }
}

/// Each point lies where an insertion would put it.
fn check_places(name: &str, snapshot: &Snapshot) {
    let tree = snapshot.tree();
    let (mut points, mut ids) = (Vec::new(), Vec::new());
    for slot in 0..tree.slots() as u64 {
        points.extend_from_slice(tree.coordinates.row(slot).unwrap());
        ids.push(tree.ids.get(slot).unwrap());
    }
    let (options, scratch) = (OpenOptions::new(), ScratchPool::new(1));
    let context = Context { options: &options, scratch: &scratch, most_rebuilt: u64::MAX };
    let batch = Batch { points: &points, ids };
    let found = locate(tree, &context, &batch, &mut Work::default()).unwrap();
    assert!(found.radii.is_empty() && found.extents.is_empty(), "{name}: T5, T8");
    for slot in 0..tree.slots() {
        assert_eq!(found.nodes[slot as usize], tree.owner(slot).unwrap(), "{name}: slot {slot}");
    }
    assert_eq!(tree.counts.get(0).unwrap().span, tree.slots(), "{name}: packed");
    assert_eq!(tree.runs.len(), 0, "{name}: no later ranges");
}

#[test]
fn what_is_built_piece_by_piece_is_a_packed_tree() {
    for (name, dim, points) in shapes(6000) {
        for leaf_capacity in [1, 16] {
            let options = CreateOptions::new(dim).leaf_capacity(leaf_capacity);
            let mut store = Store::in_memory(options, tiny().threads(2)).unwrap();
            let report = store.insert(&points).unwrap();
            let credit = Credit::of_build((points.len() / dim) as u64).evaluations;
            let took = report.counters.distance_evaluations;
            assert!(took <= credit, "{name}: {took} evaluations of {credit}");
            let snapshot = store.latest().unwrap();
            let ids: Vec<PointId> = (0..(points.len() / dim) as u64).collect();
            check_all(name, &snapshot, &points, &ids);
            check_places(name, &snapshot);
            let report = store.verify(VerifyOptions::all().deep(true)).unwrap();
            assert!(report.is_ok(), "{name}: {:?}", report.problems);
        }
    }
}

#[test]
fn batches_that_do_not_fit_are_merged_and_compaction_packs_them() {
    for (name, dim, points) in shapes(5000) {
        let mut store =
            Store::in_memory(CreateOptions::new(dim).leaf_capacity(16), tiny()).unwrap();
        let mut random = Random(1);
        let rows = points.len() / dim;
        // Ids that are neither consecutive nor in order.
        let mut ids: Vec<PointId> =
            (0..rows as u64).map(|i| i * 1000 + random.next() % 7).collect();
        for i in (1..rows).rev() {
            ids.swap(i, random.next() as usize % (i + 1));
        }
        // Built; merged, because there are fewer; built anew, because there are more.
        let parts = [0, rows / 4, rows / 4 + rows / 8, rows];
        for part in parts.windows(2) {
            let (from, to) = (part[0], part[1]);
            store.insert_with_ids(&points[from * dim..to * dim], &ids[from..to]).unwrap();
            check_all(name, &store.latest().unwrap(), &points[..to * dim], &ids[..to]);
        }
        let gone: Vec<PointId> = ids[..rows / 3].to_vec();
        store.delete(&gone).unwrap();
        let (points, ids) = (&points[rows / 3 * dim..], &ids[rows / 3..]);
        check_all(name, &store.latest().unwrap(), points, ids);
        store.compact().unwrap();
        check_all(name, &store.latest().unwrap(), points, ids);
        check_places(name, &store.latest().unwrap());
        let report = store.verify(VerifyOptions::all().deep(true)).unwrap();
        assert!(report.is_ok(), "{name}: {:?}", report.problems);
    }
}

#[test]
fn the_tree_does_not_depend_on_threads() {
    let (_, dim, points) = shapes(6000).swap_remove(0);
    let trees: Vec<Vec<u64>> = [1, 3]
        .into_iter()
        .map(|threads| {
            let mut store =
                Store::in_memory(CreateOptions::new(dim), tiny().threads(threads)).unwrap();
            store.insert(&points).unwrap();
            let snapshot = store.latest().unwrap();
            let tree = snapshot.tree();
            (0..tree.slots() as u64).map(|slot| tree.ids.get(slot).unwrap()).collect()
        })
        .collect();
    assert_eq!(trees[0], trees[1]);
}

#[test]
fn faults_are_named_by_the_row_of_the_whole_input() {
    let mut store = Store::in_memory(CreateOptions::new(1), tiny()).unwrap();
    let mut points: Vec<f32> = (0..3000).map(|i| i as f32).collect();
    let mut ids: Vec<PointId> = (0..3000).map(|i| i * 2).collect();
    points[2500] = f32::NAN;
    let refused = store.insert(&points).unwrap_err().to_string();
    assert!(refused.contains("row 2500, column 0"), "{refused}");
    points[2500] = 2500.0;
    ids[2700] = 84;
    let refused = store.insert_with_ids(&points, &ids);
    assert!(matches!(refused, Err(InsertError::DuplicateId { row: 2700, first: 42, id: 84 })));
    ids[2700] = 5400;
    assert!(store.versions().unwrap().is_empty(), "nothing was written");
    store.insert_with_ids(&points[..1000], &ids[..1000]).unwrap();
    let refused = store.insert_with_ids(&points[400..], &ids[400..]);
    assert!(matches!(refused, Err(InsertError::AlreadyLive { row: 0, id: 800 })), "{refused:?}");
    let refused = store.insert_with_ids(&points[1000..], &ids[1000..2999]);
    assert!(matches!(refused, Err(InsertError::IdCount { ids: 1999, points: 2000 })));
    assert_eq!(store.latest().unwrap().len(), 1000);
}

#[test]
fn several_operations_of_one_transaction_share_what_was_written_early() {
    let (_, dim, points) = shapes(6000).swap_remove(0);
    let mut store = Store::in_memory(CreateOptions::new(dim).leaf_capacity(8), tiny()).unwrap();
    let mut transaction = store.begin();
    transaction.insert(&points[..3 * 3000]).unwrap();
    transaction.insert(&points[3 * 3000..3 * 4000]).unwrap();
    transaction.delete(&(0..700).collect::<Vec<_>>()).unwrap();
    transaction.compact().unwrap();
    transaction.insert(&points[3 * 4000..]).unwrap();
    transaction.commit().unwrap();
    let ids: Vec<PointId> = (700..6000).collect();
    check_all("transaction", &store.latest().unwrap(), &points[3 * 700..], &ids);
    // What was written and given up again is free: the file is not much larger than that of one
    // build.
    let stats = store.stats(&store.latest().unwrap()).unwrap();
    assert_eq!(stats.pinned_bytes, 0, "{stats:?}");
    assert!(store.verify(VerifyOptions::all().deep(true)).unwrap().is_ok());
}

/// A disk in memory that changes a byte of one write, as soon as it is done.
struct Decaying {
    memory: MemoryStorage,
    writes: Arc<AtomicU64>,
    /// Number of the write that decays, and which sixteenth of it.
    at: (u64, usize),
}

impl Storage for Decaying {
    fn len(&self) -> Result<u64, StorageError> {
        self.memory.len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), StorageError> {
        self.memory.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), StorageError> {
        self.memory.write_at(bytes, offset)?;
        if self.writes.fetch_add(1, Ordering::Relaxed) == self.at.0 {
            let place = bytes.len() * (2 * self.at.1 + 1) / 32;
            self.memory.write_at(&[bytes[place] ^ 8], offset + place as u64)?;
        }
        Ok(())
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<(), StorageError> {
        self.memory.allocate(offset, len)
    }

    fn set_len(&self, len: u64) -> Result<(), StorageError> {
        self.memory.set_len(len)
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.memory.sync()
    }

    fn map(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        self.memory.map(offset, len)
    }

    fn punch(&self, offset: u64, len: u64) -> Result<(), StorageError> {
        self.memory.punch(offset, len)
    }

    fn lock(&self, range: LockRange, hold: Hold) -> Result<bool, StorageError> {
        self.memory.lock(range, hold)
    }
}

/// A segment written early goes bad before it is read again: no checksum is made over what it is by
/// then.
#[test]
fn what_was_written_early_and_goes_bad_is_not_sealed_anew() {
    let (_, dim, points) = shapes(2500).swap_remove(0);
    let options = CreateOptions::new(dim).leaf_capacity(8);
    let (mut told, mut whole) = (0, 0);
    'all: for at in 0.. {
        for part in [1, 6, 9, 14] {
            let memory = MemoryStorage::default();
            let open = tiny().threads(1);
            Database::format(&memory, &options, open.provenance).unwrap();
            let writes = Arc::new(AtomicU64::new(0));
            let disk = Decaying { memory, writes: writes.clone(), at: (at, part) };
            let folder = std::env::temp_dir();
            let mut store = Store::from_storage(Box::new(disk), open, &folder).unwrap();
            let mut transaction = store.begin();
            let half = points.len() / dim / 2 * dim;
            // Built, and then changed again by batches that do not fit.
            let done = transaction
                .insert(&points[..half])
                .and_then(|t| t.insert(&points[half..]))
                .map(drop)
                .and_then(|()| Ok(transaction.commit()?));
            if writes.load(Ordering::Relaxed) <= at {
                break 'all;
            }
            // Refused, or damaged where it was written; never wrong behind a good checksum.
            let report = done.ok().and_then(|_| store.verify(VerifyOptions::all()).ok());
            if report.is_none_or(|report| !report.is_ok()) {
                told += 1;
                continue;
            }
            let ids: Vec<PointId> = (0..(points.len() / dim) as u64).collect();
            check_all("decaying", &store.latest().unwrap(), &points, &ids);
            let deep = store.verify(VerifyOptions::all().deep(true)).unwrap();
            assert!(deep.is_ok(), "write {at}: {:?}", deep.problems);
            whole += 1;
        }
    }
    assert!(told > 20, "{told} told, {whole} whole");
}
