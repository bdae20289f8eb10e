//! Faults at real system calls: the real command on real files, with `libc_faults.c` under it,
//! which lets one call fail, fall short, be interrupted, or be the last. The parent keeps the log
//! of what was acknowledged: exit code 0.
//!
//! After each fault the files are opened without the shim. What was acknowledged must be there and
//! answer as a scan does; what was not is whole or absent; what reads and succeeds has said all
//! that there is; an exit code says what happened. Interrupted and short calls are nobody's
//! business: the command goes on, and succeeds.
//!
//! Needs Linux on x86-64, a C compiler and seccomp; elsewhere it says so and passes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use treering::{Store, VerifyOptions};

use super::figures::{Tally, finished, in_parallel, say, scale};
use super::model::{State, Wrong, agrees, check, open_options, points};
use crate::common::Random;

const TREERING: &str = env!("CARGO_BIN_EXE_treering");

/// Faults of one history, one command each.
const FAULTS_PER_HISTORY: usize = 4;

/// Longer than any command here takes, however busy the machine is.
const HANGS: Duration = Duration::from_secs(60);

/// What the commands are called on, in a folder of their own.
const STORE: &str = "s.tre";
const COPY: &str = "c.tre";
const NEW: &str = "n.tre";
const BACKUP: &str = "b.tb";
const INCREMENT: &str = "i.tb";
const FULL: &str = "full.tb";
const ROWS: &str = "rows.csv";
const QUERIES: &str = "q.csv";
const OUTPUT: &str = "x.csv";

/// What the output file holds before.
const OLD: &str = "old\n";

/// More than there are calls.
const FOR_GOOD: u64 = 1 << 40;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verb {
    Build,
    Insert,
    Delete,
    Tag,
    Untag,
    Restore,
    Expire,
    Compact,
    Backup,
    ReceiveMore,
    ReceiveNew,
    Recover,
    Verify,
    Query,
    Export,
    Log,
}

const VERBS: [Verb; 16] = [
    Verb::Build,
    Verb::Insert,
    Verb::Delete,
    Verb::Tag,
    Verb::Untag,
    Verb::Restore,
    Verb::Expire,
    Verb::Compact,
    Verb::Backup,
    Verb::ReceiveMore,
    Verb::ReceiveNew,
    Verb::Recover,
    Verb::Verify,
    Verb::Query,
    Verb::Export,
    Verb::Log,
];

/// What a call meets. The numbers are those of Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Fails(i32),
    /// It has happened, and says that it failed.
    FailsLate(i32),
    /// Half of the bytes are written, and then it fails.
    FailsHalf(i32),
    Short,
    KillBefore,
    KillWithin,
    KillAfter,
}

const EINTR: i32 = 4;
const EIO: i32 = 5;
const ENOMEM: i32 = 12;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;
const ENOLCK: i32 = 37;

impl Fault {
    /// Everything that can happen to a call of a class of the shim.
    fn all(class: &str) -> Vec<Fault> {
        use Fault::*;
        let mut faults = vec![KillBefore, KillAfter];
        faults.extend_from_slice(match class {
            "open" => &[Fails(EIO), Fails(EINTR), Fails(EMFILE)],
            "read" | "pread" => &[Fails(EIO), Fails(EINTR), Short],
            "write" | "pwrite" => &[
                Fails(EIO),
                Fails(ENOSPC),
                Fails(EINTR),
                FailsLate(EIO),
                FailsHalf(EIO),
                FailsHalf(ENOSPC),
                Short,
                KillWithin,
            ],
            "sync" => &[Fails(EIO), Fails(ENOSPC), Fails(EINTR), FailsLate(EIO)],
            "truncate" | "allocate" | "punch" => {
                &[Fails(EIO), Fails(ENOSPC), Fails(EINTR), FailsLate(EIO)]
            }
            "rename" | "link" | "unlink" => &[Fails(EIO), Fails(ENOSPC), FailsLate(EIO)],
            "lock" => &[Fails(EIO), Fails(EINTR), Fails(ENOLCK)],
            "map" => &[Fails(ENOMEM), Fails(EIO)],
            "fcntl" => &[Fails(EMFILE)],
            "close" => &[FailsLate(EIO), FailsLate(EINTR)],
            _ => &[Fails(EIO)],
        });
        faults
    }

    fn is_kill(self) -> bool {
        matches!(self, Fault::KillBefore | Fault::KillWithin | Fault::KillAfter)
    }

    /// It must not be seen by the caller of the command.
    fn is_harmless(self, class: &str) -> bool {
        self == Fault::Short
            || matches!(self, Fault::Fails(EINTR) | Fault::FailsLate(EINTR))
            || class == "advise"
    }

    fn errno(self) -> i32 {
        match self {
            Fault::Fails(errno) | Fault::FailsLate(errno) | Fault::FailsHalf(errno) => errno,
            _ => 0,
        }
    }

    fn letter(self) -> char {
        match self {
            Fault::Fails(_) => 'E',
            Fault::FailsLate(_) => 'L',
            Fault::FailsHalf(_) => 'H',
            Fault::Short => 'S',
            Fault::KillBefore => 'B',
            Fault::KillWithin => 'M',
            Fault::KillAfter => 'A',
        }
    }

    /// The exit codes that say what happened; with 0 nothing is missing.
    fn codes(self, class: &str) -> &'static [i32] {
        match (self.errno(), class) {
            _ if self.is_harmless(class) => &[0],
            (ENOSPC, _) => &[0, 6],
            (ENOMEM, _) => &[0, 1, 6],
            // Bytes that the medium does not give are damage of what they belong to.
            (EIO, _) => &[0, 1, 3],
            _ => &[0, 1],
        }
    }
}

/// A class of calls, which of them, how many in a row, and what they meet.
#[derive(Clone, Debug)]
struct Plan {
    class: String,
    nth: u64,
    times: u64,
    fault: Fault,
}

/// What a run of the command came to.
struct Outcome {
    status: ExitStatus,
    stdout: String,
    stderr: String,
    /// The lines of the shim's log.
    log: Vec<String>,
}

/// The compiled shim, and a folder to work from: a store with a history, a copy of it that is
/// behind, streams.
struct Stage {
    _root: tempfile::TempDir,
    shim: PathBuf,
    template: PathBuf,
    /// What the store holds, when its streams were made as well.
    store: State,
    /// What the copy holds.
    copy: State,
    /// What each verb calls: class, number of calls.
    calls: BTreeMap<Verb, BTreeMap<String, u64>>,
}

/// A history under faults.
struct History<'a> {
    stage: &'a Stage,
    tally: &'a Tally,
    seed: usize,
    random: Random,
    scratch: PathBuf,
    folder: PathBuf,
    store: State,
    copy: State,
}

/// A command line, and the states that it may leave its store in: the first before it, the last
/// after it.
struct Planned {
    verb: Verb,
    line: Vec<String>,
    /// The rows of its input.
    rows: Vec<f32>,
    target: &'static str,
    states: Vec<State>,
}

fn inserted(state: &State, rows: &[f32]) -> State {
    let mut after = state.clone();
    let mut live = state.live();
    for row in rows.chunks_exact(2) {
        live.insert(after.next_id, [row[0], row[1]]);
        after.next_id += 1;
    }
    after.add(live);
    after
}

/// The states of a receiver that takes over what a sender had.
fn received(receiver: &State, sender: &State) -> Vec<State> {
    let mut states = vec![receiver.clone()];
    let mut state = receiver.clone();
    for (&version, content) in &sender.versions {
        if version > receiver.newest() {
            state.versions.insert(version, content.clone());
            states.push(state.clone());
        }
    }
    state.next_id = sender.next_id;
    state.tags = sender.tags.clone();
    state.tags.retain(|_, version| state.versions.contains_key(version));
    states.push(state);
    states
}

impl Planned {
    /// `None` if there is nothing to do it to.
    fn new(
        verb: Verb,
        store: &State,
        copy: &State,
        source: &State,
        random: &mut Random,
    ) -> Option<Self> {
        let versions: Vec<u64> = store.versions.keys().copied().collect();
        let version = match versions.len() {
            0 => 0,
            count => versions[random.below(count as u64) as usize],
        };
        let states = vec![store.clone()];
        let mut planned =
            Planned { verb, line: Vec::new(), rows: Vec::new(), target: STORE, states };
        let line = match verb {
            Verb::Build | Verb::Insert => planned.plan_rows(random),
            Verb::ReceiveMore => {
                (planned.target, planned.states) = (COPY, received(copy, source));
                format!("receive {COPY} {INCREMENT} --json")
            }
            Verb::ReceiveNew => {
                planned.target = NEW;
                planned.states.push(source.clone());
                format!("receive {NEW} {FULL} --json")
            }
            Verb::Recover => {
                planned.target = NEW;
                format!("recover {STORE} --write {NEW}")
            }
            Verb::Backup => format!("backup {STORE} {BACKUP}"),
            Verb::Verify => format!("verify {STORE} --all --deep"),
            Verb::Query => format!("query {STORE} {QUERIES} -k 5 --at {version}"),
            Verb::Export => format!("export {STORE} {OUTPUT} --at {version}"),
            Verb::Log => format!("log {STORE} --json"),
            _ => planned.plan_change(version, random)?,
        };
        planned.line = words(&line);
        Some(planned)
    }

    fn plan_rows(&mut self, random: &mut Random) -> String {
        let count = 1 + random.below(60) as usize;
        self.rows = points(random, count);
        let nothing = State::default();
        let (before, verb) = match self.verb {
            Verb::Insert => (self.after(), "insert"),
            _ => (&nothing, "build"),
        };
        let after = inserted(before, &self.rows);
        self.states.push(after);
        self.target = if verb == "insert" { STORE } else { NEW };
        format!("{verb} {} {ROWS} --no-header --json", self.target)
    }

    fn plan_change(&mut self, version: u64, random: &mut Random) -> Option<String> {
        let store = self.after();
        let mut after = store.clone();
        let line = match self.verb {
            Verb::Delete => {
                let live = store.live();
                let step = 1 + random.below(5) as usize;
                let ids: Vec<u64> = live.keys().copied().step_by(step).take(6).collect();
                after.add(live.into_iter().filter(|(id, _)| !ids.contains(id)).collect());
                let ids: Vec<String> = ids.iter().map(u64::to_string).collect();
                format!("delete {STORE} {} --json", ids.join(" "))
            }
            Verb::Tag => {
                let name = format!("tag{}", random.below(3));
                after.tags.insert(name.clone(), version);
                format!("tag {STORE} {name} --at {version} --move")
            }
            Verb::Untag => {
                let (name, _) = after.tags.pop_first()?;
                format!("tag {STORE} {name} --delete")
            }
            Verb::Restore => {
                let content = store.versions[&version].clone();
                after.versions.insert(store.newest() + 1, content);
                format!("restore {STORE} {version} --json")
            }
            Verb::Expire => {
                let keep = 1 + random.below(3);
                after.expire(keep as usize);
                format!("expire {STORE} --keep-last {keep}")
            }
            _ => {
                after.add(store.live());
                format!("compact {STORE} --json")
            }
        };
        self.states.push(after);
        Some(line)
    }

    fn after(&self) -> &State {
        self.states.last().expect("there is one")
    }

    /// What it says is all that it does.
    fn only_reads(&self) -> bool {
        matches!(self.verb, Verb::Verify | Verb::Query | Verb::Export | Verb::Log)
    }

    fn changes_the_store(&self) -> bool {
        self.target == STORE && !self.only_reads() && self.verb != Verb::Backup
    }
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

fn damaged(e: impl std::fmt::Display) -> Wrong {
    Wrong::Damaged(e.to_string())
}

/// Opens a file without the shim and checks that it is in one of the states. Returns which.
fn check_file(path: &Path, allowed: &[State], read_only: bool) -> Result<usize, Wrong> {
    let open = open_options().read_only(read_only);
    let store = Store::open_with(path, open).map_err(|e| damaged(format!("does not open: {e}")))?;
    let found = check(&store, allowed)?;
    let deep = store.verify(VerifyOptions::all().deep(true)).map_err(damaged)?;
    match deep.problems.first() {
        None => Ok(found),
        Some(problem) => Err(damaged(problem)),
    }
}

/// Checks that a stream is whole and holds all of a state.
fn check_stream(path: &Path, state: &State, scratch: &Path) -> Result<(), Wrong> {
    let target = scratch.join("received.tre");
    let _ = fs::remove_file(&target);
    let stream = File::open(path).map_err(damaged)?;
    Store::receive(&target, stream, open_options()).map_err(damaged)?;
    check_file(&target, std::slice::from_ref(state), true).map(drop)
}

impl Stage {
    /// `None`, saying why, where the shim cannot be used.
    fn new() -> Option<Self> {
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            println!("skipped: the shim knows the system calls of Linux on x86-64 only");
            return None;
        }
        let root = tempfile::tempdir().unwrap();
        let path = root.path().canonicalize().unwrap();
        let (shim, template) = (path.join("shim.so"), path.join("template"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/trust/libc_faults.c");
        let compiled = Command::new("cc")
            .args(["-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", source, "-o"])
            .arg(&shim)
            .output();
        let Ok(compiled) = compiled else {
            println!("skipped: there is no C compiler");
            return None;
        };
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        fs::create_dir(&template).unwrap();
        let (store, copy) = history_to_begin_with(&template);
        let calls = BTreeMap::new();
        let mut stage = Stage { _root: root, shim, template, store, copy, calls };
        for verb in VERBS {
            stage.calls.insert(verb, stage.calls_of(verb, &path)?);
        }
        Some(stage)
    }

    /// The calls that a verb makes, by class.
    fn calls_of(&self, verb: Verb, root: &Path) -> Option<BTreeMap<String, u64>> {
        let (folder, scratch) = (root.join("counted"), root.join("scratch"));
        copy_files(&self.template, &folder);
        let _ = fs::create_dir(&scratch);
        let plan =
            Planned::new(verb, &self.store, &self.copy, &self.store, &mut Random(verb as u64));
        let plan = plan.expect("the template has all that a verb wants");
        write_rows(&folder, &plan);
        let outcome = run(&plan.line, &folder, &scratch, Some((&self.shim, None)));
        if let Some(why) = outcome.log.iter().find(|line| line.starts_with("unavailable")) {
            println!("skipped: {why}");
            return None;
        }
        assert!(outcome.status.success(), "{verb:?}: {}", outcome.stderr);
        let mut calls = BTreeMap::new();
        for class in outcome.log {
            *calls.entry(class).or_default() += 1;
        }
        fs::remove_dir_all(&folder).unwrap();
        Some(calls)
    }

    /// Every verb, class of its calls, and fault, in an order of no meaning.
    fn combinations(&self) -> Vec<(Verb, &str, Fault)> {
        let mut all = Vec::new();
        for (&verb, calls) in &self.calls {
            for class in calls.keys() {
                all.extend(Fault::all(class).into_iter().map(|fault| (verb, &class[..], fault)));
            }
        }
        let mut random = Random(15);
        for i in (1..all.len()).rev() {
            all.swap(i, random.below(i as u64 + 1) as usize);
        }
        all
    }
}

/// Makes the files of the template, without the shim.
fn history_to_begin_with(folder: &Path) -> (State, State) {
    let mut random = Random(77);
    let mut state = State::default();
    let mut copy = State::default();
    fs::write(folder.join(QUERIES), "0.2,0.7\n2,1\n-3.5,40\n").unwrap();
    fs::write(folder.join(OUTPUT), OLD).unwrap();
    let verbs = [Verb::Build, Verb::Insert, Verb::Tag, Verb::Delete];
    let more = [Verb::Insert, Verb::Restore, Verb::Tag, Verb::Insert, Verb::Compact, Verb::Insert];
    for (number, verb) in verbs.into_iter().chain(more).enumerate() {
        let mut plan = Planned::new(verb, &state, &copy, &state, &mut random).unwrap();
        if verb == Verb::Build {
            plan.line[1] = STORE.into();
        }
        write_rows(folder, &plan);
        made(&plan.line, folder);
        state = plan.after().clone();
        if number + 1 == verbs.len() {
            made(&words(&format!("backup {STORE} {BACKUP}")), folder);
            made(&words(&format!("receive {COPY} {BACKUP}")), folder);
            copy = state.clone();
        }
    }
    let since = copy.newest();
    made(&words(&format!("backup {STORE} {INCREMENT} --since {since}")), folder);
    made(&words(&format!("backup {STORE} {FULL}")), folder);
    (state, copy)
}

/// Runs a line that must succeed, without the shim, and returns what it printed.
fn made(line: &[String], folder: &Path) -> String {
    let outcome = run(line, folder, &folder.with_extension("out"), None);
    assert!(outcome.status.success(), "{line:?}: {}", outcome.stderr);
    outcome.stdout
}

fn write_rows(folder: &Path, plan: &Planned) {
    let rows = plan.rows.chunks_exact(2).map(|row| format!("{},{}\n", row[0], row[1]));
    fs::write(folder.join(ROWS), rows.collect::<String>()).unwrap();
}

fn copy_files(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for name in names(from) {
        fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Runs the command in a folder, with the shim and a fault if there are any. What it prints goes to
/// files, so that it never waits for us.
fn run(
    line: &[String],
    folder: &Path,
    scratch: &Path,
    shim: Option<(&Path, Option<&Plan>)>,
) -> Outcome {
    let _ = fs::create_dir(scratch);
    let file = |name: &str| scratch.join(name);
    let mut command = Command::new(TREERING);
    command
        .args(line)
        .args(["--threads", "2"])
        .current_dir(folder)
        .env("TMPDIR", folder)
        .stdin(Stdio::null())
        .stdout(File::create(file("stdout")).unwrap())
        .stderr(File::create(file("stderr")).unwrap());
    fs::write(file("log"), "").unwrap();
    if let Some((shim, plan)) = shim {
        command
            .env("LD_PRELOAD", shim)
            .env("TREERING_FAULT_FOLDER", folder)
            .env("TREERING_FAULT_LOG", file("log"));
        if let Some(plan) = plan {
            command.env("TREERING_FAULT", plan.to_string());
        }
    }
    let mut child = command.spawn().unwrap();
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(start.elapsed() < HANGS, "{line:?} hangs, with {shim:?}");
        std::thread::sleep(Duration::from_millis(1));
    };
    let text = |name: &str| String::from_utf8_lossy(&fs::read(file(name)).unwrap()).into_owned();
    let log = text("log").lines().map(str::to_owned).collect();
    Outcome { status, stdout: text("stdout"), stderr: text("stderr"), log }
}

impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (letter, errno) = (self.fault.letter(), self.fault.errno());
        write!(f, "{} {} {} {letter} {errno}", self.class, self.nth, self.times)
    }
}

impl History<'_> {
    /// One command under one fault. Returns false if the files can no longer be trusted.
    fn step(&mut self, verb: Verb, class: &str, fault: Fault) -> bool {
        let source = &self.stage.store;
        let planned = Planned::new(verb, &self.store, &self.copy, source, &mut self.random);
        let Some(planned) = planned else { return true };
        write_rows(&self.folder, &planned);
        let _ = fs::remove_file(self.folder.join(NEW));
        fs::write(self.folder.join(OUTPUT), OLD).unwrap();
        let expected = planned.only_reads().then(|| self.expected(&planned));
        let known = self.stage.calls[&verb][class];
        let times = match fault {
            Fault::Fails(EINTR) => 1 + self.random.below(3),
            _ if fault.is_kill() || self.random.below(3) > 0 => 1,
            _ => FOR_GOOD,
        };
        let plan = Plan { class: class.into(), nth: self.random.below(known), times, fault };
        let before = (self.bytes(STORE), self.bytes(BACKUP));
        let shim = Some((&*self.stage.shim, Some(&plan)));
        let outcome = run(&planned.line, &self.folder, &self.scratch, shim);
        if !outcome.log.is_empty() {
            Tally::count(&self.tally.faults);
        }
        let mut found = self.check_exit(&planned, &plan, &outcome);
        if found.is_ok() {
            found = self.check_files(&planned, &outcome, before, expected.as_deref());
        }
        if found.is_ok() {
            found = self.check_names(&plan);
        }
        if let Err(wrong) = &found {
            let (seed, line) = (self.seed, planned.line.join(" "));
            let what = || {
                let (code, errors) = (outcome.status, outcome.stderr.trim_end());
                format!("TREERING_TRUST_SEED={seed}: `{line}`, `{plan}`: {code}, {errors:?}")
            };
            self.tally.failed(wrong, what);
        }
        found.is_ok()
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.folder.join(name)).unwrap()
    }

    /// What a verb that reads says when nothing fails, on standard output or in its file.
    fn expected(&self, planned: &Planned) -> String {
        let said = made(&planned.line, &self.folder);
        let written = String::from_utf8(self.bytes(OUTPUT)).unwrap();
        fs::write(self.folder.join(OUTPUT), OLD).unwrap();
        if planned.verb == Verb::Export { written } else { said }
    }

    fn check_exit(&self, planned: &Planned, plan: &Plan, outcome: &Outcome) -> Result<(), Wrong> {
        let Outcome { status, stdout, stderr, log } = outcome;
        let wrong = |what: String| Err(Wrong::Answers(what));
        if stderr.contains("panicked") {
            return wrong("a panic".into());
        }
        let Some(code) = status.code() else {
            let killed = status.signal() == Some(9) && plan.fault.is_kill();
            return if killed { Ok(()) } else { wrong("a signal".into()) };
        };
        let codes = if log.is_empty() { &[0][..] } else { plan.fault.codes(&plan.class) };
        if !codes.contains(&code) {
            return wrong(format!("exit code {code}, not one of {codes:?}"));
        }
        if code != 0 && stderr.is_empty() {
            return wrong("nothing is said".into());
        }
        let makes_a_version = planned.line.iter().any(|word| word == "--json");
        if code == 0 && makes_a_version && !planned.only_reads() {
            let said: serde_json::Value = serde_json::from_str(stdout).map_err(damaged)?;
            if said["version"] != planned.after().newest() {
                return wrong(format!("version {} is acknowledged", said["version"]));
            }
        }
        // A read that fails is tried once more.
        let unread = match &plan.class[..] {
            "pread" => plan.times > 1 && log.len() > 1,
            "map" | "open" => !log.is_empty(),
            _ => false,
        };
        if code == 0 && planned.verb == Verb::Verify && unread && plan.fault == Fault::Fails(EIO) {
            return wrong("what cannot be read is well".into());
        }
        Ok(())
    }

    fn check_files(
        &mut self,
        planned: &Planned,
        outcome: &Outcome,
        (store, backup): (Vec<u8>, Vec<u8>),
        expected: Option<&str>,
    ) -> Result<(), Wrong> {
        let is_ok = outcome.status.success();
        let path = |name: &str| self.folder.join(name);
        if !planned.changes_the_store() && self.bytes(STORE) != store {
            return Err(Wrong::Answers("a store that was only read has changed".into()));
        }
        if let Some(expected) = expected {
            let written = String::from_utf8(self.bytes(OUTPUT)).unwrap();
            let said = match planned.verb {
                Verb::Export if written == OLD && !is_ok => return Ok(()),
                // A file is whole, whatever is said.
                Verb::Export => &written,
                _ if !is_ok => return Ok(()),
                _ => &outcome.stdout,
            };
            return match said == expected {
                true => Ok(()),
                false => Err(Wrong::Answers(format!("{said:?} instead of {expected:?}"))),
            };
        }
        if planned.verb == Verb::Backup {
            return match !is_ok && self.bytes(BACKUP) == backup {
                true => Ok(()),
                false => check_stream(&path(BACKUP), &self.store, &self.scratch),
            };
        }
        if planned.target == NEW {
            return match path(NEW).exists() {
                // What is not acknowledged is whole or absent.
                false if !is_ok => Ok(()),
                _ if planned.verb == Verb::Recover && outcome.status.code() == Some(3) => {
                    check_rescued(&path(NEW), planned.after())
                }
                _ => check_file(&path(NEW), std::slice::from_ref(planned.after()), true).map(drop),
            };
        }
        let allowed = match is_ok {
            true => std::slice::from_ref(planned.after()),
            false => &planned.states[..],
        };
        // Whoever opens for reading leaves to the next writer what the last one was in doubt about.
        let read_only = self.random.below(2) == 0;
        let found = check_file(&path(planned.target), allowed, read_only)?;
        let state = allowed[found].clone();
        match planned.target {
            COPY => self.copy = state,
            _ => self.store = state,
        }
        Ok(())
    }

    /// Nothing is left lying about but by a process that was killed, or could not help it.
    fn check_names(&self, plan: &Plan) -> Result<(), Wrong> {
        let mut known = names(&self.stage.template);
        known.extend([NEW, ROWS].map(str::to_owned));
        let left: Vec<String> = names(&self.folder).difference(&known).cloned().collect();
        for name in &left {
            fs::remove_file(self.folder.join(name)).unwrap();
        }
        match left.is_empty() || plan.fault.is_kill() || plan.class == "unlink" {
            true => Ok(()),
            false => Err(Wrong::Answers(format!("{left:?} are left"))),
        }
    }
}

/// Of a rescue that says that something is lost, what is there must be right.
fn check_rescued(path: &Path, state: &State) -> Result<(), Wrong> {
    let store = Store::open_with(path, open_options()).map_err(damaged)?;
    for info in store.versions().map_err(damaged)? {
        let content = state.versions.get(&info.version.0);
        let content = content.ok_or(Wrong::Answers("a version that nobody made".into()))?;
        agrees(&store, info.version.0, content)?;
    }
    Ok(())
}

#[test]
fn every_system_call_may_fail_or_be_the_last() {
    let tally = Tally::default();
    let Some(stage) = Stage::new() else { return finished(None) };
    let combinations = stage.combinations();
    let history = |seed: usize| {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let (folder, scratch) = (root.join("f"), root.join("scratch"));
        copy_files(&stage.template, &folder);
        let (store, copy) = (stage.store.clone(), stage.copy.clone());
        let (stage, tally, random) = (&stage, &tally, Random(seed as u64));
        let mut history = History { stage, tally, seed, random, scratch, folder, store, copy };
        for number in 0..FAULTS_PER_HISTORY {
            let which = (seed * FAULTS_PER_HISTORY + number) % combinations.len();
            let (verb, class, fault) = combinations[which];
            if !history.step(verb, class, fault) {
                break;
            }
        }
    };
    let only = std::env::var("TREERING_TRUST_SEED").ok();
    match only.map(|text| text.parse().expect("TREERING_TRUST_SEED: a number")) {
        Some(seed) => history(seed),
        None => in_parallel(scale(60, 510), history),
    }
    tally.assert_clean();
    let faults = tally.faults.load(Ordering::Relaxed);
    println!("{} combinations of verb, call and fault", combinations.len());
    say("libc faults", faults);
    finished(Some(&tally));
}
