//! Files that are cut while they are open, with faults caught: every answer is right or an error
//! that says what has happened, nothing is committed that rests on what is gone, and faults of
//! others end the process as ever.
//!
//! All of it runs in processes of its own, because a signal would end them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use treering::{
    CreateOptions, Durability, OpenOptions, PointId, Retention, Searcher, Snapshot, Store, Verify,
    VerifyOptions, VersionId,
};

use super::figures::{one_in, say, scale};
use super::preamble::small;
use crate::common::crc32;
use crate::common::{Random, threads};

const CHILD: &str = "TREERING_TRUST_CUT";

/// The folder to work in, in a process that [`child`] has started for the test called `name`.
fn folder(name: &str) -> Option<PathBuf> {
    let (test, folder) =
        std::env::var(CHILD).ok()?.split_once('=').map(|(t, f)| (t.to_string(), f.into()))?;
    (test == name).then_some(folder)
}

/// Runs a test of this file in a process of its own.
fn child(name: &str, ignoring: bool) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let ignore = if ignoring { "trap '' BUS; " } else { "" };
    Command::new("sh")
        .args(["-c", &format!("{ignore}exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args([&format!("trust::cuts::{name}"), "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{name}={}", dir.path().display()))
        .output()
        .unwrap()
}

fn assert_passes(name: &str) -> String {
    let output = child(name, false);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {errors}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Two geometries: many blocks to a page, and one.
fn geometries() -> [CreateOptions; 2] {
    [small(), CreateOptions::new(2).leaf_capacity(8)]
}

fn cut(path: &Path, len: u64) {
    File::options().write(true).open(path).unwrap().set_len(len).unwrap();
}

/// The error of somebody whose file was cut.
fn is_told(e: &str) -> bool {
    e.contains("truncated while it was open")
}

/// Ways of asking.
const QUESTIONS: usize = 14;

/// The answer to a question, as text, so that all questions are one.
fn ask(
    store: &Store,
    snapshot: &Snapshot,
    searcher: &mut Searcher,
    question: usize,
) -> Result<String, String> {
    let queries = Random(question as u64).points(6, 2);
    let query = &queries[..2];
    let mut answer = String::new();
    let text = |e: &dyn std::error::Error| e.to_string();
    match question % QUESTIONS {
        0 => write!(answer, "{:?}", searcher.knn(query, 5).map_err(|e| text(&e))?),
        1 => write!(answer, "{:?}", searcher.within(query, 0.2).map_err(|e| text(&e))?),
        2 => {
            let table = snapshot.knn_batch(&queries, 4).map_err(|e| text(&e))?;
            write!(answer, "{:?}", table.iter().collect::<Vec<_>>())
        }
        3 => write!(answer, "{:?}", snapshot.brute_knn(query, 5).map_err(|e| text(&e))?),
        4 => {
            let table = snapshot.brute_knn_batch(&queries, 4).map_err(|e| text(&e))?;
            write!(answer, "{:?}", table.iter().collect::<Vec<_>>())
        }
        5 => write!(answer, "{:?}", snapshot.brute_within(query, 0.2).map_err(|e| text(&e))?),
        6 => write!(answer, "{:?}", snapshot.count_within(query, 0.3).map_err(|e| text(&e))?),
        7 => {
            let id = Random(question as u64).below(500);
            let found = (snapshot.get(id), snapshot.contains(id));
            let found = (found.0.map_err(|e| text(&e))?, found.1.map_err(|e| text(&e))?);
            write!(answer, "{found:?}")
        }
        8 => {
            // What is handed out piece by piece is right as well, even if there is an error in the
            // end.
            let mut rows = Vec::new();
            let done = snapshot.for_each(|id, row| rows.push((id, row.to_vec())));
            let live = model(snapshot.version().0);
            assert!(rows.iter().all(|(id, row)| live[id] == row[..]), "rows of {done:?}");
            done.map_err(|e| text(&e))?;
            write!(answer, "{rows:?}")
        }
        9 => {
            let diff = store.diff(VersionId(1), snapshot.version()).map_err(|e| text(&e))?;
            write!(answer, "{diff:?}")
        }
        10 => {
            let mut stream = Vec::new();
            store.backup(None, &mut stream).map_err(|e| text(&e))?;
            write!(answer, "{}", crc32(&stream))
        }
        11 => {
            let report = store.verify(VerifyOptions::all().deep(true)).map_err(|e| text(&e))?;
            write!(answer, "{:?}", report.problems)
        }
        12 => write!(answer, "{:?}", store.stats(snapshot).map_err(|e| text(&e))?),
        _ => write!(answer, "{:?}", store.unique_bytes().map_err(|e| text(&e))?),
    }
    .unwrap();
    Ok(answer)
}

const BATCH: u64 = 40;
/// Versions for which a point lives.
const LIFE: u64 = 6;

fn batch(version: u64) -> BTreeMap<PointId, [f32; 2]> {
    let mut random = Random(version);
    let ids = (version - 1) * BATCH..version * BATCH;
    ids.map(|id| (id, [random.unit() + 0.01, random.unit() + 0.01])).collect()
}

/// What is live in a version.
fn model(version: u64) -> BTreeMap<PointId, [f32; 2]> {
    (version.saturating_sub(LIFE - 1).max(1)..=version).flat_map(batch).collect()
}

fn advance(store: &mut Store, version: u64) -> Result<(), String> {
    let mut transaction = store.begin();
    let points: Vec<f32> = batch(version).into_values().flatten().collect();
    transaction.insert(&points).map_err(|e| e.to_string())?;
    if version > LIFE {
        let old: Vec<PointId> = batch(version - LIFE).into_keys().collect();
        transaction.delete(&old).map_err(|e| e.to_string())?;
    }
    let report = transaction.commit().map_err(|e| e.to_string())?;
    assert_eq!(report.version.0, version);
    Ok(())
}

/// A store of ten versions, its bytes, and the answers to some questions about the newest.
struct Whole {
    bytes: Vec<u8>,
    answers: Vec<String>,
}

impl Whole {
    fn new(path: &Path, options: CreateOptions) -> Self {
        let mut store = Store::create_with(path, options, threads(1)).unwrap();
        (1..=10).for_each(|version| advance(&mut store, version).unwrap());
        let snapshot = store.latest().unwrap();
        let mut searcher = snapshot.searcher();
        let answers = (0..3 * QUESTIONS).map(|q| ask(&store, &snapshot, &mut searcher, q).unwrap());
        let answers = answers.collect();
        drop((searcher, snapshot, store));
        let bytes = std::fs::read(path).unwrap();
        std::fs::remove_file(path).unwrap();
        Whole { bytes, answers }
    }

    /// Asks, and returns the error if there is one; the answer is right.
    fn ask(
        &self,
        store: &Store,
        snapshot: &Snapshot,
        searcher: &mut Searcher,
        question: usize,
    ) -> Result<(), String> {
        let question = question % self.answers.len();
        let answer = ask(store, snapshot, searcher, question);
        answer.map(|answer| assert_eq!(answer, self.answers[question], "question {question}"))
    }
}

fn guarded(policy: Verify) -> OpenOptions {
    threads(2).read_only(true).verify(policy).catch_faults(true)
}

const POLICIES: [Verify; 3] = [Verify::FirstTouch, Verify::Never, Verify::OnOpen];

/// Not a test by itself: cuts at any place, between two questions.
#[test]
fn child_between_questions() {
    let Some(folder) = folder("child_between_questions") else { return };
    let path = folder.join("s.tre");
    let mut told = 0;
    for (options, step) in geometries().into_iter().zip([1_501, 2_503]) {
        let whole = Whole::new(&path, options);
        for (round, len) in (0..whole.bytes.len()).step_by(step * one_in(6)).enumerate() {
            std::fs::write(&path, &whole.bytes).unwrap();
            let store = Store::open_with(&path, guarded(POLICIES[round % 3])).unwrap();
            let snapshot = store.latest().unwrap();
            let mut searcher = snapshot.searcher();
            let all = 0..whole.answers.len();
            // Some have touched everything before, others little.
            let before = if round % 2 == 0 { whole.answers.len() } else { 1 };
            for question in all.clone().take(before) {
                whole.ask(&store, &snapshot, &mut searcher, question).unwrap();
            }
            cut(&path, len as u64);
            let (mut gone, mut lost) = (false, false);
            for question in all.map(|question| question + round) {
                match whole.ask(&store, &snapshot, &mut searcher, question) {
                    // Only a searcher does not look at the length each time; what it reads may be
                    // there.
                    Ok(()) => assert!(
                        !lost && (!gone || question % QUESTIONS < 2),
                        "cut at {len}, question {question}: all is well again"
                    ),
                    Err(e) => {
                        assert!(is_told(&e), "cut at {len}, question {question}: {e}");
                        gone = true;
                        lost |= e.starts_with("bytes of");
                    }
                }
            }
            assert!(gone, "cut at {len}");
            told += 1;
            drop((searcher, snapshot, store));
            std::fs::remove_file(&path).unwrap();
        }
    }
    println!("\n{CUTS}{told}");
}

const CUTS: &str = "cuts=";

fn cuts_in(output: &str) -> u64 {
    let line = output.lines().find_map(|line| line.strip_prefix(CUTS));
    line.expect("the child says how many").parse().unwrap()
}

/// Cuts the file at any moment while `work` runs, which goes on until it has an error.
fn cut_during(path: &Path, random: &mut Random, work: impl FnOnce()) {
    let (patience, share) = (Duration::from_micros(random.below(3000)), random.unit());
    let page = random.below(3) == 0;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(patience);
            let len = (std::fs::metadata(path).unwrap().len() as f32 * share) as u64;
            cut(path, if page { len & !4095 } else { len });
        });
        work();
    });
}

/// Not a test by itself: cuts while questions are being answered, by one thread and by two.
#[test]
fn child_while_it_is_read() {
    let Some(folder) = folder("child_while_it_is_read") else { return };
    let path = folder.join("s.tre");
    let (faults, rounds) = (AtomicUsize::new(0), scale(60, 600));
    let wholes = geometries().map(|options| Whole::new(&path, options));
    let mut random = Random(77);
    for round in 0..rounds {
        let whole = &wholes[round % 2];
        std::fs::write(&path, &whole.bytes).unwrap();
        let store = Store::open_with(&path, guarded(POLICIES[round / 2 % 3])).unwrap();
        let snapshot = store.latest().unwrap();
        // Some ask everything, others only what does not look at the file's length each time.
        let kinds = if round / 6 % 2 == 0 { QUESTIONS } else { 2 };
        let work = |first: usize| {
            let mut searcher = snapshot.searcher();
            let mut question = first;
            let e = loop {
                let number = question / kinds * QUESTIONS + question % kinds;
                if let Err(e) = whole.ask(&store, &snapshot, &mut searcher, number) {
                    break e;
                }
                question += 1;
            };
            assert!(is_told(&e), "round {round}, question {question}: {e}");
            if e.starts_with("bytes of") {
                faults.fetch_add(1, Ordering::Relaxed);
                assert!(searcher.knn(&[0.5, 0.5], 3).is_err(), "what is lost stays lost");
            }
        };
        cut_during(&path, &mut random, || {
            std::thread::scope(|scope| {
                if round % 4 < 2 {
                    scope.spawn(|| work(round + 5));
                }
                work(round);
            });
        });
        assert!(snapshot.knn(&[0.5, 0.5], 3).is_err() && snapshot.get(3).is_err());
        drop((snapshot, store));
        std::fs::remove_file(&path).unwrap();
    }
    let faults = faults.into_inner();
    println!("{faults} faults were caught");
    assert!(faults * 10 > rounds, "{faults} faults in {rounds} rounds");
    println!("\n{CUTS}{rounds}");
}

/// Versions that a writer makes while its file is cut, if it does not see that.
const MOST_VERSIONS: u64 = 200;

/// Not a test by itself: cuts while versions are made. What is whole afterwards is what was meant
/// to be written.
#[test]
fn child_while_it_is_written() {
    let Some(folder) = folder("child_while_it_is_written") else { return };
    let (path, rescued) = (folder.join("s.tre"), folder.join("rescued.tre"));
    let rounds = scale(20, 150);
    let (mut random, mut intact, mut all_hidden) = (Random(78), 0, 0);
    for round in 0..rounds {
        let [fine, coarse] = geometries();
        let options = if round % 2 == 0 { fine } else { coarse };
        let mut open = threads(2).catch_faults(true);
        if round % 5 == 4 {
            open = open.durability(Durability::Deferred { versions: 3 });
        }
        let mut store = Store::create_with(&path, options, open).unwrap();
        let (mut version, mut hidden) = (0, false);
        while version < 4 + random.below(8) {
            version += 1;
            advance(&mut store, version).unwrap();
        }
        cut_during(&path, &mut random, || {
            let last = version + MOST_VERSIONS;
            let e = loop {
                if version == last {
                    break None;
                }
                if let Err(e) = advance(&mut store, version + 1) {
                    break Some(e);
                }
                version += 1;
                if round % 3 == 0 && version % 4 == 0 {
                    match store.expire(Retention::new().keep_last(3)) {
                        Ok(_) => {}
                        Err(e) => break Some(e.to_string()),
                    }
                }
            };
            // Growth that was on its way when the cut came has made the file long again; then
            // checksums tell, once what was cut is read.
            let hints = ["the store is damaged", "unexpected end of file"];
            hidden = e.as_ref().is_none_or(|e| hints.iter().any(|hint| e.contains(hint)));
            assert!(hidden || e.as_deref().is_some_and(is_told), "round {round}: {e:?}");
        });
        assert!(hidden || store.insert(&[0.5, 0.5]).is_err(), "round {round}");
        all_hidden += usize::from(hidden);
        drop(store);
        if let Ok(report) = Store::recover(&path, Some(&rescued), threads(1)) {
            let store = Store::open_with(&rescued, threads(1)).unwrap();
            for &whole in &report.intact {
                assert!(whole.0 <= version + 1, "round {round}: version {whole}");
                let mut points = BTreeMap::new();
                let mut add = |id, row: &[f32]| {
                    points.insert(id, [row[0], row[1]]);
                };
                store.at(whole).unwrap().for_each(&mut add).unwrap();
                assert_eq!(points, model(whole.0), "round {round}: version {whole}");
                intact += 1;
            }
            std::fs::remove_file(&rescued).unwrap();
        }
        std::fs::remove_file(&path).unwrap();
    }
    // How many hangs on when the cuts came; that there were some shows that the rounds looked at
    // something.
    assert!(4 * intact > rounds, "{intact} versions were left to look at");
    assert!(all_hidden < rounds, "all {rounds} cuts were hidden by growth");
    println!("\n{CUTS}{rounds}");
}

#[test]
fn a_file_that_is_cut_gives_right_answers_or_an_error() {
    let between = cuts_in(&assert_passes("child_between_questions"));
    let reading = cuts_in(&assert_passes("child_while_it_is_read"));
    let writing = cuts_in(&assert_passes("child_while_it_is_written"));
    say("files cut under a reader", between + reading);
    say("files cut under a writer", writing);
}

/// A store whose faults are caught, to have the handler installed.
fn with_the_handler(folder: &Path) -> Store {
    let mut store =
        Store::create_with(folder.join("caught.tre"), small(), threads(1).catch_faults(true))
            .unwrap();
    store.insert(&[0.5, 0.5]).unwrap();
    store
}

/// Not a test by itself: meets a fault in a map that is not guarded.
#[test]
fn child_faults_elsewhere() {
    let Some(folder) = folder("child_faults_elsewhere") else { return };
    let _caught = with_the_handler(&folder);
    let path = folder.join("s.tre");

    let mut store = Store::create_with(&path, small(), threads(1)).unwrap();
    (1..=10).for_each(|version| advance(&mut store, version).unwrap());
    let snapshot = store.latest().unwrap();
    let mut searcher = snapshot.searcher();
    // The first question of a searcher looks at the length of the file, the second does not.
    searcher.knn(&[0.5, 0.5], 3).unwrap();
    cut(&path, 0);
    let _ = searcher.knn(&[0.5, 0.5], 3);
    println!("still here");
}

/// Not a test by itself: is sent the signal, as by `kill`.
#[test]
fn child_is_sent_the_signal() {
    let Some(folder) = folder("child_is_sent_the_signal") else { return };
    let store = with_the_handler(&folder);
    // Rust's own handler, which was there before, takes the first one for its last.
    for _ in 0..2 {
        let id = std::process::id().to_string();
        assert!(Command::new("kill").args(["-BUS", &id]).status().unwrap().success());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(store.latest().unwrap().len(), 1);
    println!("still here");
}

#[test]
fn what_is_not_ours_goes_on_to_who_had_the_signal_before() {
    const SIGBUS: i32 = 7;
    for (name, ignoring) in [
        ("child_faults_elsewhere", false),
        // A fault is never ignored.
        ("child_faults_elsewhere", true),
        ("child_is_sent_the_signal", false),
    ] {
        let output = child(name, ignoring);
        let errors = String::from_utf8_lossy(&output.stderr);
        let out = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.signal(), Some(SIGBUS), "{name}, {ignoring}: {out} {errors}");
    }
    let output = child("child_is_sent_the_signal", true);
    assert!(output.status.success(), "{:?}", output.status);
    assert!(String::from_utf8_lossy(&output.stdout).contains("still here"));
}
