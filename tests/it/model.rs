//! The model: a map per version that knows the right answers, held against the store on random
//! histories.
//!
//! A [`Plan`] is a geometry and a sequence of operations: transactions, refused calls, transactions
//! that are dropped, reopenings. It holds seeds and counts, never points, so that what proptest
//! prints after shrinking is short and can be pasted into a test of its own at the end of this
//! file.
//!
//! The brute force here shares no code with the library. It is the definition of the distance,
//! written out once more.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use treering::{
    CreateOptions, DeleteError, InsertError, Neighbor, PointId, PointsError, Report, Snapshot,
    Store, Transaction, VersionId,
};

use crate::common::{Random, assert_sound, threads};

/// Live points of one version.
type Live = BTreeMap<PointId, Vec<f32>>;

#[derive(Clone, Debug)]
struct Plan {
    dim: usize,
    leaf_capacity: u32,
    block_bytes: u32,
    topology_blocks: u32,
    coordinate_blocks: u32,
    threads: usize,
    seed: u64,
    operations: Vec<Operation>,
}

#[derive(Clone, Debug)]
enum Operation {
    /// One transaction, one version.
    Commit(Vec<Step>),
    /// The same calls, never committed.
    Drop(Vec<Step>),
    Refused(Refusal),
    Reopen {
        threads: usize,
    },
}

#[derive(Clone, Debug)]
enum Step {
    Insert {
        points: usize,
    },
    InsertWithIds {
        points: usize,
    },
    /// Ids that were deleted come back, elsewhere.
    Revive {
        points: usize,
    },
    Delete {
        percent: u64,
    },
    DeleteAll,
    /// A refused call in the middle must leave the transaction as it was.
    Refused(Refusal),
}

#[derive(Clone, Copy, Debug)]
enum Refusal {
    NotFinite,
    OutOfDomain,
    Ragged,
    IdCount,
    DuplicateId,
    AlreadyLive,
    UnknownId,
    DeletedTwice,
}

fn refusal() -> impl Strategy<Value = Refusal> {
    prop::sample::select(vec![
        Refusal::NotFinite,
        Refusal::OutOfDomain,
        Refusal::Ragged,
        Refusal::IdCount,
        Refusal::DuplicateId,
        Refusal::AlreadyLive,
        Refusal::UnknownId,
        Refusal::DeletedTwice,
    ])
}

/// Mostly a handful of points; sometimes enough for several levels of splits at once.
fn batch_size() -> impl Strategy<Value = usize> {
    prop_oneof![1 => Just(0usize), 4 => 1..6usize, 5 => 6..40usize, 2 => 40..240usize]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => batch_size().prop_map(|points| Step::Insert { points }),
        4 => batch_size().prop_map(|points| Step::InsertWithIds { points }),
        2 => (1..60usize).prop_map(|points| Step::Revive { points }),
        4 => (1..60u64).prop_map(|percent| Step::Delete { percent }),
        1 => Just(Step::DeleteAll),
        1 => refusal().prop_map(Step::Refused),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        5 => step().prop_map(|step| Operation::Commit(vec![step])),
        3 => prop::collection::vec(step(), 2..6).prop_map(Operation::Commit),
        1 => prop::collection::vec(step(), 1..4).prop_map(Operation::Drop),
        1 => refusal().prop_map(Operation::Refused),
        1 => (1..=2usize).prop_map(|threads| Operation::Reopen { threads }),
    ]
}

fn plan() -> impl Strategy<Value = Plan> {
    // 17 and 40 are the only dimensions here in which a lane of the distance adds up more than one
    // component.
    let dim = prop_oneof![12 => 1..=5usize, 1 => Just(17usize), 1 => Just(40usize)];
    let geometry = (
        prop::sample::select(vec![1, 2, 3, 8, 32u32]),
        prop::sample::select(vec![128, 256, 512u32]),
        prop::sample::select(vec![1, 2, 3u32]),
        prop::sample::select(vec![1, 2, 5u32]),
    );
    let operations = prop::collection::vec(operation(), 1..14);
    (dim, geometry, 1..=2usize, any::<u64>(), operations).prop_map(
        |(dim, geometry, threads, seed, operations)| {
            let (leaf_capacity, block_bytes, topology_blocks, coordinate_blocks) = geometry;
            Plan {
                dim,
                leaf_capacity,
                block_bytes,
                topology_blocks,
                coordinate_blocks,
                threads,
                seed,
                operations,
            }
        },
    )
}

/// The canonical distance: every step in f32, sixteen lanes, folded by halves.
fn canonical_distance(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    for (j, lane) in lanes.iter_mut().enumerate() {
        for c in (j..a.len()).step_by(16) {
            let difference: f32 = a[c] - b[c];
            let square: f32 = difference * difference;
            *lane += square;
        }
    }
    let eight: Vec<f32> = (0..8).map(|i| lanes[i] + lanes[i + 8]).collect();
    let four: Vec<f32> = (0..4).map(|i| eight[i] + eight[i + 4]).collect();
    let two = [four[0] + four[2], four[1] + four[3]];
    (two[0] + two[1]).sqrt()
}

/// Every live point, in the order of answers.
fn ranking(live: &Live, query: &[f32]) -> Vec<(f32, PointId)> {
    let mut all: Vec<(f32, PointId)> =
        live.iter().map(|(&id, row)| (canonical_distance(query, row), id)).collect();
    all.sort_by(|a, b| a.partial_cmp(b).expect("no distance is NaN"));
    all
}

/// Bits, so that 0 and -0 differ.
fn bits(neighbors: &[Neighbor]) -> Vec<(u32, PointId)> {
    neighbors.iter().map(|n| (n.distance.to_bits(), n.id)).collect()
}

fn ranking_bits(ranking: &[(f32, PointId)]) -> Vec<(u32, PointId)> {
    ranking.iter().map(|(distance, id)| (distance.to_bits(), *id)).collect()
}

fn row_bits(row: &[f32]) -> Vec<u32> {
    row.iter().map(|x| x.to_bits()).collect()
}

/// What a transaction has come to, before it is committed.
#[derive(Clone)]
struct Draft {
    live: Live,
    dead: BTreeSet<PointId>,
    /// The next automatic id; `None` once `u64::MAX` was used.
    next_id: Option<PointId>,
    added: u64,
    removed: u64,
}

struct Model {
    dim: usize,
    path: PathBuf,
    random: Random,
    /// By version number; version 0 is empty.
    versions: Vec<Live>,
    dead: BTreeSet<PointId>,
    next_id: Option<PointId>,
    /// Every row ever made, to repeat some.
    rows: Vec<Vec<f32>>,
}

impl Model {
    fn draft(&self) -> Draft {
        Draft {
            live: self.versions.last().expect("version 0 at least").clone(),
            dead: self.dead.clone(),
            next_id: self.next_id,
            added: 0,
            removed: 0,
        }
    }

    /// A point of the mixture: lattice (ties), an earlier point, uniform, so small that squares
    /// vanish, far away.
    fn point(&mut self) -> Vec<f32> {
        let dim = self.dim;
        let random = &mut self.random;
        let row: Vec<f32> = match random.below(16) {
            0..5 => (0..dim).map(|_| random.below(4) as f32).collect(),
            5..8 if !self.rows.is_empty() => {
                self.rows[random.below(self.rows.len() as u64) as usize].clone()
            }
            8 => (0..dim).map(|_| (random.unit() - 0.5) * 1e-30).collect(),
            9 => (0..dim).map(|_| (random.unit() - 0.5) * 1e-21).collect(),
            10 => (0..dim).map(|_| if random.below(2) == 0 { 0.0 } else { -0.0 }).collect(),
            11 if random.below(8) == 0 => {
                let mut row = random.points(1, dim);
                row[random.below(dim as u64) as usize] =
                    if random.below(2) == 0 { 1e9 } else { -1e17 };
                row
            }
            _ => random.points(1, dim),
        };
        self.rows.push(row.clone());
        row
    }

    fn points(&mut self, n: usize) -> Vec<f32> {
        (0..n).flat_map(|_| self.point()).collect()
    }

    /// Any id but `u64::MAX` mostly: using that one ends the automatic ids.
    fn any_id(&mut self) -> PointId {
        let random = &mut self.random;
        match random.below(200) {
            0 => u64::MAX,
            1 => u64::MAX - random.below(40),
            2..60 => random.below(400),
            60..120 => random.below(40) << 40,
            120..140 => u64::from(u32::MAX) - 20 + random.below(40),
            _ => random.next() >> 1,
        }
    }

    fn pick(&mut self, from: impl Iterator<Item = PointId>, count: usize) -> Vec<PointId> {
        let mut pool: Vec<PointId> = from.collect();
        let count = count.min(pool.len());
        for i in 0..count {
            let j = i + self.random.below((pool.len() - i) as u64) as usize;
            pool.swap(i, j);
        }
        pool.truncate(count);
        pool
    }

    fn step(&mut self, transaction: &mut Transaction<'_>, draft: &mut Draft, step: &Step) {
        match step {
            Step::Insert { points } => {
                let rows = self.points(*points);
                let result = transaction.insert(&rows).map(drop);
                if *points == 0 {
                    return result.unwrap();
                }
                let last = draft.next_id.and_then(|first| first.checked_add(*points as u64 - 1));
                let Some((first, last)) = draft.next_id.zip(last) else {
                    assert!(matches!(result, Err(InsertError::IdsExhausted { .. })), "{result:?}");
                    return;
                };
                result.unwrap();
                draft.take((first..=last).collect(), &rows, self.dim);
            }
            Step::InsertWithIds { points } => {
                let mut ids: BTreeSet<PointId> = BTreeSet::new();
                while ids.len() < *points {
                    let id = self.any_id();
                    if !draft.live.contains_key(&id) {
                        ids.insert(id);
                    }
                }
                let ids = self.pick(ids.into_iter(), *points);
                let rows = self.points(ids.len());
                transaction.insert_with_ids(&rows, &ids).unwrap();
                draft.take(ids, &rows, self.dim);
            }
            Step::Revive { points } => {
                let ids = self.pick(draft.dead.iter().copied(), *points);
                let rows = self.points(ids.len());
                transaction.insert_with_ids(&rows, &ids).unwrap();
                draft.take(ids, &rows, self.dim);
            }
            Step::Delete { percent } => {
                let count = (draft.live.len() as u64 * percent).div_ceil(100);
                let ids = self.pick(draft.live.keys().copied(), count as usize);
                transaction.delete(&ids).unwrap();
                draft.remove(&ids);
            }
            Step::DeleteAll => {
                let ids = self.pick(draft.live.keys().copied(), usize::MAX);
                transaction.delete(&ids).unwrap();
                draft.remove(&ids);
            }
            Step::Refused(refusal) => self.refused(transaction, draft, *refusal),
        }
        for id in self.pick(draft.live.keys().copied(), 3) {
            assert!(transaction.contains(id).unwrap(), "{id} is in the transaction");
        }
        for id in self.pick(draft.dead.iter().copied(), 3) {
            assert!(!transaction.contains(id).unwrap(), "{id} is not in the transaction");
        }
    }

    /// A call that must fail, naming the right row or id. `draft` does not change, which later
    /// steps and the commit check.
    fn refused(&mut self, transaction: &mut Transaction<'_>, draft: &Draft, refusal: Refusal) {
        let dim = self.dim;
        let n = 3 + self.random.below(20) as usize;
        let mut rows = self.points(n);
        let row = self.random.below(n as u64) as usize;
        let column = self.random.below(dim as u64) as usize;
        let mut fresh: Vec<PointId> = Vec::new();
        while fresh.len() < n {
            let id = self.random.next() >> 1;
            if !draft.live.contains_key(&id) && !fresh.contains(&id) {
                fresh.push(id);
            }
        }
        let live = self.pick(draft.live.keys().copied(), n);
        match refusal {
            Refusal::NotFinite => {
                rows[row * dim + column] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][row % 3];
                let e = transaction.insert(&rows).map(drop).unwrap_err();
                let InsertError::Points(PointsError::NotFinite { row: r, column: c, .. }) = e
                else {
                    panic!("{e}");
                };
                assert_eq!((r, c), (row, column));
            }
            Refusal::OutOfDomain => {
                rows[row * dim + column] = -2e19;
                let e = transaction.insert_with_ids(&rows, &fresh).map(drop).unwrap_err();
                let InsertError::Points(PointsError::OutOfDomain { row: r, column: c, .. }) = e
                else {
                    panic!("{e}");
                };
                assert_eq!((r, c), (row, column));
            }
            Refusal::Ragged if dim > 1 => {
                rows.pop();
                let e = transaction.insert(&rows).map(drop).unwrap_err();
                assert!(matches!(e, InsertError::Points(PointsError::Ragged { .. })), "{e}");
            }
            Refusal::Ragged | Refusal::IdCount => {
                let e = transaction.insert_with_ids(&rows, &fresh[1..]).map(drop).unwrap_err();
                let InsertError::IdCount { ids, points } = e else { panic!("{e}") };
                assert_eq!((ids, points), (n - 1, n));
            }
            Refusal::DuplicateId => {
                let (first, again) = (row / 2, row / 2 + 1);
                fresh[again] = fresh[first];
                let e = transaction.insert_with_ids(&rows, &fresh).map(drop).unwrap_err();
                let InsertError::DuplicateId { row: r, first: f, id } = e else { panic!("{e}") };
                assert_eq!((r, f, id), (again, first, fresh[again]));
            }
            Refusal::AlreadyLive => {
                let Some(&id) = live.first() else { return };
                fresh[row] = id;
                let e = transaction.insert_with_ids(&rows, &fresh).map(drop).unwrap_err();
                let InsertError::AlreadyLive { row: r, id: i } = e else { panic!("{e}") };
                assert_eq!((r, i), (row, id));
            }
            Refusal::UnknownId => {
                // One that was never there, or one that was and is gone, after ids that are good.
                let gone = self.pick(draft.dead.iter().copied(), 1);
                let bad = gone.first().copied().unwrap_or(fresh[0]);
                let index = live.len() / 2;
                let mut ids = live.clone();
                ids.insert(index, bad);
                let e = transaction.delete(&ids).map(drop).unwrap_err();
                let DeleteError::UnknownId { index: at, id } = e else { panic!("{e}") };
                assert_eq!((at, id), (index, bad));
            }
            Refusal::DeletedTwice => {
                let Some(&id) = live.first() else { return };
                let mut ids = live.clone();
                ids.push(id);
                let e = transaction.delete(&ids).map(drop).unwrap_err();
                let DeleteError::DuplicateId { index, first, id: twice } = e else { panic!("{e}") };
                assert_eq!((index, first, twice), (live.len(), 0, id));
            }
        }
    }

    fn commit(&mut self, store: &mut Store, steps: &[Step]) {
        let mut draft = self.draft();
        let before = self.draft().live.len() as u64;
        let mut transaction = store.begin();
        for step in steps {
            self.step(&mut transaction, &mut draft, step);
        }
        let report: Report = transaction.commit().unwrap();
        assert_eq!(report.is_new, draft.added + draft.removed > 0);
        if !report.is_new {
            let newest = VersionId(self.versions.len() as u64 - 1);
            assert_eq!((report.version, report.points), (newest, before));
            return;
        }
        assert_eq!(report.version, VersionId(self.versions.len() as u64));
        assert_eq!(report.points, draft.live.len() as u64);
        assert_eq!((report.added, report.removed), (draft.added, draft.removed));
        assert_eq!(before + report.added, report.points + report.removed);
        let Draft { live, dead, next_id, .. } = draft;
        (self.dead, self.next_id) = (dead, next_id);
        self.versions.push(live);
        self.check_contents(&store.latest().unwrap(), self.versions.len() - 1);
    }

    /// len, contains, get and the full listing of one version.
    fn check_contents(&mut self, snapshot: &Snapshot, version: usize) {
        let live = &self.versions[version];
        assert_eq!(snapshot.version(), VersionId(version as u64));
        assert_eq!(snapshot.len(), live.len() as u64, "version {version}");
        let mut listed = Live::new();
        let mut last = None;
        snapshot
            .for_each(|id, row| {
                assert!(last < Some(id), "ids ascend");
                last = Some(id);
                listed.insert(id, row.to_vec());
            })
            .unwrap();
        assert_eq!(listed.len(), live.len(), "version {version}");
        for (id, row) in live {
            let got = snapshot.get(*id).unwrap();
            let got = got.unwrap_or_else(|| panic!("version {version}: {id} is live"));
            assert_eq!(row_bits(&got), row_bits(row), "version {version}: point {id}");
            assert_eq!(row_bits(&listed[id]), row_bits(row), "version {version}: point {id}");
            assert!(snapshot.contains(*id).unwrap());
        }
        // Ids that died, ids that are born later, and neighbours of live ids.
        let others: BTreeSet<PointId> = (self.dead.iter())
            .chain(self.versions.last().expect("version 0 at least").keys())
            .copied()
            .chain(live.keys().map(|id| id.wrapping_add(1)))
            .chain([0, 1, u64::MAX])
            .filter(|id| !live.contains_key(id))
            .collect();
        for id in others {
            assert!(!snapshot.contains(id).unwrap(), "version {version}: {id} is not live");
            assert_eq!(snapshot.get(id).unwrap(), None, "version {version}: {id} is not live");
        }
    }

    /// Every question, against the model's own brute force and the library's.
    fn check_answers(&mut self, snapshot: &Snapshot, version: usize) {
        let live = self.versions[version].clone();
        let mut queries: Vec<Vec<f32>> = vec![vec![0.0; self.dim], self.random.points(1, self.dim)];
        if !self.rows.is_empty() {
            for i in 0..5 {
                let mut some = || {
                    let at = self.random.below(self.rows.len() as u64) as usize;
                    self.rows[at].clone()
                };
                let (a, b) = (some(), some());
                queries.push(match i {
                    0 | 1 => a,
                    2 => a.iter().zip(&b).map(|(a, b)| a * 0.5 + b * 0.5).collect(),
                    3 => a.iter().map(|a| a + 0.5).collect(),
                    _ => a.iter().map(|a| -a).collect(),
                });
            }
        }
        for query in &queries {
            let right = ranking(&live, query);
            for k in [0, 1, 5, live.len() + 3] {
                let right = ranking_bits(&right[..k.min(right.len())]);
                let what = format!("version {version}, query {query:?}, k {k}");
                assert_eq!(bits(&snapshot.knn(query, k).unwrap()), right, "{what}");
                assert_eq!(bits(&snapshot.brute_knn(query, k).unwrap()), right, "brute, {what}");
            }
            let some = right.get(self.random.below(right.len().max(1) as u64) as usize);
            let radius = some.map_or(0.25, |(distance, _)| *distance);
            let below = if radius > 0.0 { radius.next_down() } else { 0.0 };
            for radius in [0.0, below, radius, radius.next_up(), f32::INFINITY] {
                let count = right.partition_point(|(distance, _)| *distance <= radius);
                let right = ranking_bits(&right[..count]);
                let what = format!("version {version}, query {query:?}, radius {radius:e}");
                assert_eq!(bits(&snapshot.within(query, radius).unwrap()), right, "{what}");
                assert_eq!(bits(&snapshot.brute_within(query, radius).unwrap()), right, "{what}");
                assert_eq!(snapshot.count_within(query, radius).unwrap(), count as u64, "{what}");
            }
        }
    }

    fn check_all(&mut self, store: &Store) {
        assert_eq!(store.versions().unwrap().len(), self.versions.len() - 1);
        assert!(store.at(VersionId(self.versions.len() as u64)).is_err());
        for version in 0..self.versions.len() {
            let snapshot = store.at(VersionId(version as u64)).unwrap();
            self.check_contents(&snapshot, version);
            self.check_answers(&snapshot, version);
        }
    }
}

impl Draft {
    fn take(&mut self, ids: Vec<PointId>, rows: &[f32], dim: usize) {
        self.added += ids.len() as u64;
        // Automatic ids go on above the largest id that was ever used, even by a point that is
        // gone.
        if let (Some(next), Some(last)) = (self.next_id, ids.iter().max()) {
            self.next_id = if next > *last { Some(next) } else { last.checked_add(1) };
        }
        for (id, row) in ids.into_iter().zip(rows.chunks_exact(dim)) {
            self.dead.remove(&id);
            assert!(self.live.insert(id, row.to_vec()).is_none(), "the model itself is wrong");
        }
    }

    fn remove(&mut self, ids: &[PointId]) {
        self.removed += ids.len() as u64;
        for id in ids {
            assert!(self.live.remove(id).is_some(), "the model itself is wrong");
            self.dead.insert(*id);
        }
    }
}

fn reopen(path: &Path, threads_used: usize) -> Store {
    Store::open_with(path, threads(threads_used)).unwrap()
}

fn run(plan: &Plan) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    let options = CreateOptions::new(plan.dim)
        .leaf_capacity(plan.leaf_capacity)
        .block_bytes(plan.block_bytes)
        .topology_segment_bytes(plan.block_bytes * plan.topology_blocks)
        .coordinate_segment_bytes(plan.block_bytes * plan.coordinate_blocks)
        .seed(plan.seed);
    let mut store = Store::create_with(&path, options, threads(plan.threads)).unwrap();
    let mut model = Model {
        dim: plan.dim,
        path: path.clone(),
        random: Random(plan.seed),
        versions: vec![Live::new()],
        dead: BTreeSet::new(),
        next_id: Some(0),
        rows: Vec::new(),
    };
    for operation in &plan.operations {
        match operation {
            Operation::Commit(steps) => model.commit(&mut store, steps),
            Operation::Drop(steps) => {
                let before = fs::read(&model.path).unwrap();
                let mut draft = model.draft();
                let mut transaction = store.begin();
                for step in steps {
                    model.step(&mut transaction, &mut draft, step);
                }
                drop(transaction);
                assert!(fs::read(&model.path).unwrap() == before, "a dropped transaction wrote");
            }
            Operation::Refused(refusal) => {
                let before = fs::read(&model.path).unwrap();
                let draft = model.draft();
                model.refused(&mut store.begin(), &draft, *refusal);
                assert!(fs::read(&model.path).unwrap() == before, "a refused call wrote");
            }
            Operation::Reopen { threads } => {
                drop(store);
                store = reopen(&path, *threads);
            }
        }
        let newest = model.versions.len() - 1;
        model.check_contents(&store.latest().unwrap(), newest);
    }
    model.check_all(&store);
    assert_sound(&store, "every version");
    let reader = Store::open_with(&path, threads(1).read_only(true)).unwrap();
    model.check_all(&reader);
    drop(store);
    assert_sound(&reader, "every version, read-only");
}

proptest! {
    // 256 cases, or as many as PROPTEST_CASES says. What fails is printed whole and becomes a test
    // below.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_version_of_a_random_history_answers_as_the_model(plan in plan()) {
        run(&plan);
    }
}

/// The first history that anyone would write down: it keeps [`run`] honest about the steps that
/// random plans rarely put in this order.
#[test]
fn filled_emptied_and_filled_again() {
    for leaf_capacity in [1, 2, 3, 8, 32] {
        run(&Plan {
            dim: 2,
            leaf_capacity,
            block_bytes: 128,
            topology_blocks: 1,
            coordinate_blocks: 1,
            threads: 2,
            seed: 11,
            operations: vec![
                Operation::Commit(vec![]),
                Operation::Commit(vec![Step::Insert { points: 150 }]),
                Operation::Commit(vec![Step::DeleteAll]),
                Operation::Reopen { threads: 1 },
                Operation::Commit(vec![Step::Revive { points: 100 }, Step::Delete { percent: 50 }]),
                Operation::Commit(vec![Step::DeleteAll, Step::Revive { points: 250 }]),
                Operation::Commit(vec![Step::Insert { points: 0 }]),
                Operation::Commit(vec![Step::Insert { points: 60 }, Step::DeleteAll]),
                Operation::Commit(vec![Step::InsertWithIds { points: 200 }]),
            ],
        });
    }
}

/// A dense stretch of ids that ends at `u64::MAX` is read again when a later batch merges the index
/// runs; counting on past its end overflowed.
#[test]
fn a_dense_stretch_of_ids_up_to_the_largest_is_merged() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::create(dir.path().join("s.tre"), CreateOptions::new(1)).unwrap();
    let ids: Vec<PointId> = (u64::MAX - 31..=u64::MAX).collect();
    store.insert_with_ids(&[0.5; 32], &ids).unwrap();
    store.insert_with_ids(&[0.25; 20], &Vec::from_iter(0..20)).unwrap();
    let snapshot = store.latest().unwrap();
    assert!(ids.iter().all(|&id| snapshot.contains(id).unwrap()));
    assert_eq!(snapshot.knn(&[0.5], 60).unwrap().len(), 52);
}
