//! Power failures below real file systems: `log_disk.c` is a disk that remembers every write and
//! flush, a loop device makes it a block device, and a store on ext4, xfs and btrfs is worked with.
//! Then the disk is made again as it was at many moments: all that was written before the last
//! flush, and any of what came after, torn at a sector or not. Each such disk is mounted, which
//! makes the file system recover, and the store on it must hold what was acknowledged by then.
//!
//! What dm-log-writes does with its replays, without a device mapper. Needs root, loop devices,
//! FUSE, a C compiler, and the tools of the file systems; so it runs only when it is asked for:
//! `cargo test --release --test it block_layer -- --ignored --nocapture`.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::Ordering;
use std::time::Duration;

use treering::simulation::SeededBug;
use treering::{Store, VerifyOptions};

use super::bugs::PLANTED;
use super::figures::{Tally, say, scale};
use super::model::{State, Wrong, check};
use super::workload::{LOCAL, Planned, geometry, options};
use crate::common::Random;

const PAGE: u64 = 4096;
const SECTOR: u64 = 512;
const HEAD: usize = 16;

/// File systems, the tool that makes each, and the bytes that it wants at least.
const FILE_SYSTEMS: [(&str, &[&str], u64); 3] = [
    ("ext4", &["mkfs.ext4", "-q"], 64 << 20),
    ("xfs", &["mkfs.xfs", "-q", "-f"], 320 << 20),
    ("btrfs", &["mkfs.btrfs", "-q", "-f"], 128 << 20),
];

/// Runs a command that must succeed and returns what it printed.
fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let output =
        Command::new(program).args(args).output().map_err(|e| format!("{program}: {e}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(format!("{program} {args:?}: {errors}")),
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

/// A file as a block device with a mounted file system, until it is dropped.
struct Mounted {
    device: String,
    folder: PathBuf,
}

impl Mounted {
    /// `make`: the tool that makes the file system, if there is none yet.
    fn new(file: &Path, folder: &Path, make: Option<&[&str]>) -> Result<Self, String> {
        let device = run("losetup", &["-f", "--show", text(file)])?;
        let mounted = Mounted { device, folder: folder.to_path_buf() };
        if let Some([tool, args @ ..]) = make {
            run(tool, &[args, &[&mounted.device[..]]].concat())?;
        }
        run("mount", &[&mounted.device, text(folder)])?;
        Ok(mounted)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = run("umount", &[text(&self.folder)]);
        let _ = run("losetup", &["-d", &self.device]);
    }
}

/// The disk that remembers, served by a process of its own until this is dropped.
struct LogDisk {
    server: Child,
    folder: PathBuf,
    log: PathBuf,
}

impl LogDisk {
    fn new(root: &Path, bytes: u64) -> Result<Self, String> {
        let (program, folder, log) = (root.join("log_disk"), root.join("fuse"), root.join("log"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/trust/log_disk.c");
        run("cc", &["-Wall", "-Wextra", "-Werror", "-O2", source, "-o", text(&program)])?;
        fs::create_dir(&folder).map_err(|e| e.to_string())?;
        let server = Command::new(program)
            .arg(&folder)
            .arg(bytes.to_string())
            .arg(&log)
            .spawn()
            .map_err(|e| e.to_string())?;
        let mut disk = LogDisk { server, folder, log };
        for _ in 0..500 {
            if disk.file().exists() {
                return Ok(disk);
            }
            if disk.server.try_wait().is_ok_and(|status| status.is_some()) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err("the disk in user space does not start".into())
    }

    fn file(&self) -> PathBuf {
        self.folder.join("disk")
    }

    /// How far the log has come: what has happened by now is in it up to here.
    fn position(&self) -> u64 {
        fs::metadata(&self.log).unwrap().len()
    }
}

impl Drop for LogDisk {
    fn drop(&mut self) {
        let _ = run("umount", &[text(&self.folder)]);
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// What happened on the disk.
enum Event {
    /// Offset on the disk; where the bytes are in the log.
    Write(u64, std::ops::Range<usize>),
    Flush,
}

/// The events of a log, each with where it ends.
fn events(log: &[u8]) -> Vec<(u64, Event)> {
    let mut events = Vec::new();
    let mut at = 0;
    while at < log.len() {
        let number = |from: usize, len: usize| {
            let mut bytes = [0; 8];
            bytes[..len].copy_from_slice(&log[at + from..at + from + len]);
            u64::from_le_bytes(bytes)
        };
        let (kind, len, offset) = (number(0, 4), number(4, 4) as usize, number(8, 8));
        at += HEAD + len;
        let event = if kind == 0 { Event::Write(offset, at - len..at) } else { Event::Flush };
        events.push((at as u64, event));
    }
    events
}

/// The disk as it is known to be: all that was written before the last flush; and what was written
/// since.
struct Replay<'a> {
    log: &'a [u8],
    durable: Vec<u8>,
    /// Pages of it that are not zeros throughout.
    touched: BTreeSet<u64>,
    since: Vec<(u64, std::ops::Range<usize>)>,
}

impl Replay<'_> {
    fn follow(&mut self, event: &Event) {
        match event {
            Event::Write(offset, bytes) => self.since.push((*offset, bytes.clone())),
            Event::Flush => {
                for (offset, bytes) in self.since.drain(..) {
                    let (start, len) = (offset as usize, bytes.len());
                    self.durable[start..start + len].copy_from_slice(&self.log[bytes]);
                    self.touched.extend(offset / PAGE..(offset + len as u64).div_ceil(PAGE));
                }
            }
        }
    }

    /// Writes a disk that power failing now may leave.
    fn image(&self, path: &Path, random: &mut Random) {
        let file = File::create(path).unwrap();
        file.set_len(self.durable.len() as u64).unwrap();
        for page in &self.touched {
            let start = (page * PAGE) as usize;
            file.write_all_at(&self.durable[start..start + PAGE as usize], page * PAGE).unwrap();
        }
        // None of them, all, or each with some chance; of what is written, sometimes only the first
        // sectors.
        let (chance, torn) = (random.below(5), random.below(2) == 0);
        for (offset, bytes) in &self.since {
            if random.below(4) >= chance {
                continue;
            }
            let mut bytes = &self.log[bytes.clone()];
            if torn && random.below(8) == 0 {
                let sectors = bytes.len() as u64 / SECTOR;
                bytes = &bytes[..(random.below(sectors + 1) * SECTOR) as usize];
            }
            file.write_all_at(bytes, *offset).unwrap();
        }
    }
}

/// Works with a store on a mounted file system. Returns what was allowed from each position of the
/// log on: the state that was acknowledged there, and those that the operation after it leads
/// through.
fn work(folder: &Path, disk: &LogDisk, random: &mut Random) -> Vec<(u64, Vec<State>)> {
    let path = folder.join("s.tre");
    let mut store = Store::create_with(&path, geometry(), options()).unwrap();
    let mut state = State::default();
    let mut marks = Vec::new();
    for number in 0..scale(24, 60) {
        let operation = LOCAL[random.below(LOCAL.len() as u64) as usize];
        let plan = Planned::new(operation, &state, random, None);
        marks.push((disk.position(), plan.states.clone()));
        plan.run(&mut store).unwrap();
        state = plan.states.last().unwrap().clone();
        if number % 7 == 6 {
            drop(store);
            store = Store::open_with(&path, options()).unwrap();
        }
    }
    marks.push((disk.position(), vec![state]));
    marks
}

/// Mounts a disk and looks at the store on it.
fn look(image: &Path, folder: &Path, allowed: &[State]) -> Result<(), Wrong> {
    let damaged = |e: String| Wrong::Damaged(e);
    let mounted = Mounted::new(image, folder, None).map_err(damaged)?;
    let open = || Store::open_with(folder.join("s.tre"), options());
    let mut store = open().map_err(|e| damaged(format!("does not open: {e}")))?;
    let found = check(&store, allowed)?;
    let deep = store.verify(VerifyOptions::all().deep(true)).map_err(|e| damaged(e.to_string()))?;
    if let Some(problem) = deep.problems.first() {
        return Err(damaged(problem.to_string()));
    }
    // It goes on from there.
    let next = Planned::new(LOCAL[0], &allowed[found], &mut Random(1), None);
    next.run(&mut store).map_err(damaged)?;
    check(&store, &next.states[1..])?;
    drop(store);
    drop(mounted);
    Ok(())
}

fn replay(name: &str, make: &[&str], bytes: u64, tally: &Tally) -> Result<(), String> {
    let root = tempfile::tempdir_in(shared_memory()).unwrap();
    let folder = root.path().join("mounted");
    fs::create_dir(&folder).unwrap();
    let mut random = Random(bytes);
    let disk = LogDisk::new(root.path(), bytes)?;
    let mounted = Mounted::new(&disk.file(), &folder, Some(make))?;
    let marks = work(&folder, &disk, &mut random);
    drop(mounted);
    let log = fs::read(&disk.log).unwrap();
    drop(disk);

    let events = events(&log);
    let first = events.partition_point(|(end, _)| *end <= marks[0].0);
    let wanted = scale(60, 300).min(events.len() - first);
    let mut moments = BTreeSet::new();
    while moments.len() < wanted {
        moments.insert(first + random.below((events.len() - first) as u64) as usize);
    }
    let (durable, touched) = (vec![0; bytes as usize], BTreeSet::new());
    let mut replay = Replay { log: &log, durable, touched, since: Vec::new() };
    let image = root.path().join("image");
    for (number, (end, event)) in events.iter().enumerate() {
        replay.follow(event);
        if moments.contains(&number) {
            replay.image(&image, &mut random);
            let mark = marks.partition_point(|(position, _)| position <= end) - 1;
            Tally::count(&tally.images);
            if let Err(wrong) = look(&image, &folder, &marks[mark].1) {
                let len = events.len();
                tally.failed(&wrong, || format!("{name}: event {number} of {len}"));
            }
        }
    }
    println!("{name}: {} events, {wanted} of them the last", events.len());
    Ok(())
}

/// Where files are fast, if there is such a place.
fn shared_memory() -> PathBuf {
    let shared = PathBuf::from("/dev/shm");
    if shared.is_dir() { shared } else { std::env::temp_dir() }
}

#[test]
#[ignore = "needs root, loop devices, FUSE and the tools of the file systems"]
fn power_fails_below_real_file_systems() {
    let bug = std::env::var(PLANTED).unwrap_or_default();
    SeededBug::ALL
        .into_iter()
        .filter(|known| format!("{known:?}") == bug)
        .for_each(SeededBug::plant);
    let tally = Tally::default();
    for (name, make, bytes) in FILE_SYSTEMS {
        if let Err(why) = replay(name, make, bytes, &tally) {
            println!("skipped: {name}: {why}");
        }
    }
    tally.assert_clean();
    say("block layer crashes", tally.images.load(Ordering::Relaxed));
}

/// The replay can fail: without either of the two syncs of a commit it does.
#[test]
#[ignore = "needs root, loop devices, FUSE and the tools of the file systems"]
fn a_missing_sync_is_caught_below_real_file_systems() {
    for bug in [SeededBug::SkipFirstSync, SeededBug::SkipSecondSync] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["trust::block_layer::power_fails_below_real_file_systems", "--exact"])
            .args(["--ignored", "--nocapture"])
            .env(PLANTED, format!("{bug:?}"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        if text.matches("skipped: ").count() == FILE_SYSTEMS.len() {
            return println!("{text}");
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains(": event "), "{bug:?}: {text}{errors}");
    }
}
