//! Writers that are killed in the middle of things, on a real file. The parent keeps the log of
//! what was acknowledged.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use treering::{Neighbor, Store, VerifyOptions, VersionId};

use super::figures::{finished, say, scale};
use super::preamble::small;
use crate::common::{Random, canonical_sum, threads};

/// What the writer that gets killed does, version by version: all follows from the number.
#[derive(Clone, Default)]
struct Model {
    version: u64,
    live: BTreeMap<u64, [f32; 2]>,
    next_id: u64,
}

impl Model {
    /// The points that the next version inserts, and the ids that it deletes.
    fn next(&self) -> (Vec<f32>, Vec<u64>) {
        let mut random = Random(1_000 + self.version);
        let count = 1 + random.below(24) as usize;
        let points = random.points(count, 2);
        let deletes = if self.version % 3 == 2 { random.below(5) as usize } else { 0 };
        let step = (self.live.len() / 7).max(1);
        (points, self.live.keys().copied().step_by(step).take(deletes).collect())
    }

    fn advance(&mut self) {
        let (points, deletes) = self.next();
        self.live.retain(|id, _| !deletes.contains(id));
        for point in points.chunks_exact(2) {
            self.live.insert(self.next_id, [point[0], point[1]]);
            self.next_id += 1;
        }
        self.version += 1;
    }

    fn at(version: u64) -> Self {
        let mut model = Model::default();
        (0..version).for_each(|_| model.advance());
        model
    }

    fn assert_answers(&self, store: &Store) {
        let snapshot = store.at(VersionId(self.version)).unwrap();
        let mut points = BTreeMap::new();
        snapshot
            .for_each(|id, point| {
                points.insert(id, [point[0], point[1]]);
            })
            .unwrap();
        assert!(points == self.live, "points of version {}", self.version);
        for query in Random(self.version).points(5, 2).chunks_exact(2) {
            let mut expected: Vec<Neighbor> = self
                .live
                .iter()
                .map(|(&id, point)| Neighbor { id, distance: canonical_sum(query, point).sqrt() })
                .collect();
            expected.sort_by(|a, b| a.distance.total_cmp(&b.distance).then(a.id.cmp(&b.id)));
            expected.truncate(6);
            assert_eq!(snapshot.knn(query, 6).unwrap(), expected, "version {}", self.version);
        }
    }
}

const CHILD: &str = "TREERING_CRASH_CHILD";
const ACKNOWLEDGED: &str = "acknowledged=";

/// Not a test by itself: the process that `killed_writers_lose_nothing_acknowledged` starts and
/// kills.
#[test]
fn child_worker() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let say = |text: &str| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush()).unwrap();
    };
    say("ready");
    let mut store = Store::open_with(path, threads(2)).unwrap();
    let mut model = Model::at(store.latest().unwrap().version().0);
    for _ in 0..400 {
        let (points, deletes) = model.next();
        let mut transaction = store.begin();
        transaction.delete(&deletes).unwrap();
        transaction.insert(&points).unwrap();
        let report = transaction.commit().unwrap();
        model.advance();
        assert_eq!(report.version.0, model.version);
        say(&format!("{ACKNOWLEDGED}{}", report.version));
    }
    std::thread::sleep(Duration::from_secs(60));
}

/// Starts a writer, waits until it has acknowledged some versions, and kills it a moment later.
/// Returns the last version that it acknowledged.
fn kill_a_writer(path: &Path, wait_for: u64, patience: Duration) -> Option<u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["trust::kills::child_worker", "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines.by_ref().map_while(Result::ok).any(|line| line.ends_with("ready"));
    let number = |line: String| line.split(ACKNOWLEDGED).nth(1)?.trim().parse::<u64>().ok();
    let mut lines = lines.map_while(Result::ok).filter_map(number);
    let newest = (0..wait_for).map_while(|_| lines.next()).last();
    std::thread::sleep(patience);
    child.kill().unwrap();
    let status = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&status.stderr);
    assert!(ready && !stderr.contains("panicked"), "the writer failed by itself: {stderr}");
    lines.last().or(newest)
}

#[test]
fn killed_writers_lose_nothing_acknowledged() {
    const KILLS_PER_STORE: u64 = 20;
    let kills = scale(100, 1000) as u64;
    let mut random = Random(2024);
    let (mut commits, mut unacknowledged) = (0, 0);
    for _ in 0..kills / KILLS_PER_STORE {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.tre");
        drop(Store::create_with(&path, small(), threads(1)).unwrap());
        let mut promised = 0;
        for _ in 0..KILLS_PER_STORE {
            let (wait_for, patience) =
                (random.below(6), Duration::from_micros(random.below(6_000)));
            promised = kill_a_writer(&path, wait_for, patience).unwrap_or(promised);
            let store = Store::open_with(&path, threads(1)).unwrap();
            let newest = store.latest().unwrap().version().0;
            assert!(
                newest == promised || newest == promised + 1,
                "version {promised} was acknowledged, the newest is {newest}"
            );
            unacknowledged += newest - promised;
            promised = newest;
            assert_eq!(store.versions().unwrap().len() as u64, newest);
            let report = store.verify(VerifyOptions::all()).unwrap();
            assert!(report.is_ok(), "{:?}", report.problems);
            for version in [newest, newest.saturating_sub(1), random.below(newest + 1)] {
                Model::at(version).assert_answers(&store);
            }
        }
        commits += promised;
        let store = Store::open_with(&path, threads(1)).unwrap();
        let report = store.verify(VerifyOptions::latest().deep(true)).unwrap();
        assert!(report.is_ok(), "{:?}", report.problems);
    }
    println!("{commits} commits, {unacknowledged} of them not acknowledged");
    say("kills", kills);
    finished(None);
    assert!(commits > kills, "the writers got something done");
}
