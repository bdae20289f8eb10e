//! The memory limit as the command keeps it: measured in a memory control group, and everything
//! that can go wrong on the way. What is built within a limit must answer bit for bit like what is
//! built without.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

#[path = "../../../benches/support/group.rs"]
mod group;
#[path = "../../../benches/support/made.rs"]
#[allow(dead_code, reason = "a part of it will do")]
mod made;

use group::Ended;
pub(crate) use group::MemoryGroup;
use made::ROWS_PER_CHUNK;
pub(crate) use made::{Made, Sheets};

use crate::cli::Bench;

pub(crate) const MIB: u64 = 1 << 20;
const TREERING: &str = env!("CARGO_BIN_EXE_treering");

/// Runs the command in a folder. Words are separated by blanks.
fn run(folder: &Path, line: &str) -> Output {
    let words = line.split(' ').filter(|word| !word.is_empty());
    Command::new(TREERING).current_dir(folder).args(words).stdin(Stdio::null()).output().unwrap()
}

pub(crate) fn ok(folder: &Path, line: &str) -> String {
    let output = run(folder, line);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{line}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs the command in a memory group of so many bytes, page cache included; what it prints goes to
/// `out`.
pub(crate) fn run_within(folder: &Path, bytes: u64, line: &str) -> Result<(Ended, String), String> {
    let group = MemoryGroup::new(bytes)?;
    let mut command = group.command(Path::new(TREERING));
    let out = fs::File::create(folder.join("out")).unwrap();
    let words = line.split(' ').filter(|word| !word.is_empty());
    command.current_dir(folder).args(words).stdin(Stdio::null()).stdout(out);
    let mut child = command.spawn().unwrap();
    let ended = group.wait(&mut child).unwrap();
    Ok((ended, fs::read_to_string(folder.join("out")).unwrap()))
}

pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The header of an `.npy` file.
fn npy_header(rows: usize, dim: usize) -> Vec<u8> {
    let text = format!(
        "{:<117}\n",
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dim}), }}")
    );
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes
}

/// Writes rows of a stream, piece by piece.
pub(crate) fn write_npy(path: &Path, made: &Made, rows: usize, stream: u64) {
    use std::io::Write;
    let mut file = fs::File::create(path).unwrap();
    file.write_all(&npy_header(rows, made.dim())).unwrap();
    let piece = 32 * ROWS_PER_CHUNK;
    for (i, first) in (0..rows).step_by(piece).enumerate() {
        let values = made.rows_from(i as u64 * 32, piece.min(rows - first), 42, stream);
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        file.write_all(&bytes).unwrap();
    }
}

/// A folder with points `x.npy` and queries `q.npy`.
pub(crate) fn folder_with(
    made: &Made,
    rows: usize,
    queries: usize,
) -> (tempfile::TempDir, PathBuf) {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = tempfile::tempdir_in(root).unwrap();
    write_npy(&folder.path().join("x.npy"), made, rows, 0);
    write_npy(&folder.path().join("q.npy"), made, queries, 1);
    let path = folder.path().to_path_buf();
    (folder, path)
}

/// Builds `rows` points within `limit` in a group of `group` bytes, and asks the store in a group
/// of `asked` bytes.
fn the_limit_is_kept(made: &Made, rows: usize, limit: u64, group: u64, asked: u64) {
    let (_guard, folder) = folder_with(made, rows, 200);
    let mib = limit / MIB;
    let line = format!("build s x.npy --memory-limit {mib}MiB --json");
    let (ended, out) = match run_within(&folder, group, &line) {
        Ok(done) => done,
        Err(why) => {
            eprintln!("skipped: {why}");
            return;
        }
    };
    assert!(ended.status.success(), "{:?}", ended.status);
    let peak = ended.anonymous_peak;
    eprintln!("{mib} MiB: {out}peak {} MiB", peak / MIB);
    assert!(peak <= limit, "{} MiB of anonymous memory, the limit is {mib}", peak / MIB);
    assert!(peak > 8 * MIB, "the group has measured nothing: {peak}");
    assert_eq!(names(&folder), ["out", "q.npy", "s", "x.npy"], "no temporary file is left");

    let (ended, out) = run_within(&folder, asked, "bench s q.npy -k 10 --json").unwrap();
    assert!(ended.status.success(), "{:?}", ended.status);
    let out: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(out["mismatches"], 0);
    let verified: Value = serde_json::from_str(&ok(&folder, "verify s --deep --json")).unwrap();
    assert_eq!(verified["ok"], true);

    // Far fewer points than that do not fit without a limit; and they answer the same.
    let (ended, plain) = run_within(&folder, 64 * group, "build plain x.npy --json").unwrap();
    assert!(ended.status.success());
    assert!(ended.anonymous_peak > limit, "the test shows nothing: {ended:?}");
    let plain: Value = serde_json::from_str(&plain).unwrap();
    eprintln!("without a limit: {} s, peak {} MiB", plain["seconds"], ended.anonymous_peak / MIB);
    let queries = "q.npy -k 10";
    assert_eq!(
        ok(&folder, &format!("query s {queries}")),
        ok(&folder, &format!("query plain {queries}"))
    );
}

#[test]
fn a_build_keeps_its_limit() {
    let made = Made::Sheets(Sheets::new(100, 16, 4, 0.01, 42));
    the_limit_is_kept(&made, 400_000, 56 * MIB, 80 * MIB, 32 * MIB);
}

#[test]
fn insertion_and_compaction_keep_their_limits() {
    let made = Made::Uniform { dim: 3 };
    let (_guard, folder) = folder_with(&made, 700_000, 100);
    let limit = 48 * MIB;
    let within = |line: &str| {
        let line = format!("{line} --memory-limit 48MiB --quiet");
        run_within(&folder, 80 * MIB, &line).map(|(ended, _)| {
            assert!(ended.status.success(), "{line}: {:?}", ended.status);
            assert!(ended.anonymous_peak <= limit, "{line}: {} MiB", ended.anonymous_peak / MIB);
        })
    };
    // Ids that are neither consecutive nor in order.
    let ids = |from: u64, to: u64| -> String {
        (from..to).map(|i| format!("{}\n", i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 8)).collect()
    };
    fs::write(folder.join("ids.txt"), ids(0, 700_000)).unwrap();
    fs::write(folder.join("more.txt"), ids(700_000, 850_000)).unwrap();
    write_npy(&folder.join("more.npy"), &made, 150_000, 2);
    if let Err(why) = within("build s x.npy --ids ids.txt") {
        eprintln!("skipped: {why}");
        return;
    }
    within("insert s more.npy --ids more.txt").unwrap();
    within("insert s more.npy --ids more.txt --on-duplicate replace").unwrap();
    let before = ok(&folder, "query s q.npy -k 5");
    within("compact s").unwrap();
    assert_eq!(ok(&folder, "query s q.npy -k 5"), before);
    let brute = ok(&folder, "query s q.npy -k 5 --brute-force");
    assert_eq!(brute, before);
    let verified: Value = serde_json::from_str(&ok(&folder, "verify s --all --json")).unwrap();
    assert_eq!((&verified["ok"], &verified["versions_checked"]), (&true.into(), &4.into()));
}

/// A build that fails must leave nothing behind and say all of `parts`.
fn fails(folder: &Path, code: i32, mut command: Command, parts: &[&str]) {
    let before = names(folder);
    let output = command.current_dir(folder).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    for part in parts {
        assert!(errors.contains(part), "`{part}` is missing in: {errors}");
    }
    assert_eq!(names(folder), before, "something was left behind");
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &script.replace("treering", TREERING)]);
    command
}

#[test]
fn what_cannot_be_done_is_said_and_leaves_nothing() {
    let (_guard, folder) = folder_with(&Made::Uniform { dim: 8 }, 300_000, 1);
    // The least limit is named, and is enough.
    let output = run(&folder, "build s x.npy --memory-limit 1MiB");
    assert_eq!(output.status.code(), Some(6));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let least = errors.split("at least ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    let one_less = least.parse::<u64>().unwrap() - 1;
    fails(&folder, 6, shell(&format!("treering build s x.npy --memory-limit {one_less}")), &[]);

    let limit = format!("--memory-limit {least} --quiet");
    let elsewhere = format!("treering build s x.npy --temporary-folder missing {limit}");
    fails(&folder, 1, shell(&elsewhere), &["temporary file in missing", "No such file"]);
    // A file that may not grow beyond 4 MiB stands for a full disk.
    let full = format!("trap '' XFSZ; ulimit -f 8192; exec treering build s x.npy {limit}");
    fails(&folder, 6, shell(&full), &["cannot write a temporary file"]);

    // An input that ends too early, which shows only in the middle.
    let whole = fs::read(folder.join("x.npy")).unwrap();
    fs::write(folder.join("cut"), &whole[..whole.len() / 2]).unwrap();
    let cut = format!("cat cut | treering build s /dev/stdin --format npy {limit}");
    fails(&folder, 1, shell(&cut), &["truncated: its header promises 300000 rows"]);

    // The same for a store that is there already, which takes a little more for twice the points.
    ok(&folder, &format!("build s x.npy {limit}"));
    let limit = format!("--memory-limit {} --quiet", one_less + (2 << 20));
    let tell = || (ok(&folder, "log s --json"), ok(&folder, "query s q.npy -k 3"));
    let (before, told) = (fs::read(folder.join("s")).unwrap(), tell());
    let full = format!("trap '' XFSZ; ulimit -f 8192; exec treering insert s x.npy {limit}");
    fails(&folder, 6, shell(&full), &["cannot write a temporary file"]);
    let cut = format!("cat cut | treering insert s /dev/stdin --format npy {limit}");
    fails(&folder, 1, shell(&cut), &["truncated"]);
    // The temporary folder is fine, and the store has no room for what is written early.
    let blocks = before.len() / 512 + 8000;
    let full = format!("trap '' XFSZ; ulimit -f {blocks}; exec treering compact s {limit}");
    fails(&folder, 6, shell(&full), &["disk is full"]);
    // What was written early lies where nothing refers to, and the next writer cuts it off.
    assert_eq!(tell(), told);
    ok(&folder, "tag s name --at 1");
    assert!(fs::read(folder.join("s")).unwrap().len() < before.len() + (1 << 20));
    ok(&folder, "verify s --all");
}

#[test]
fn an_interrupt_in_the_middle_leaves_no_temporary_file() {
    let (_guard, folder) = folder_with(&Made::Uniform { dim: 8 }, 300_000, 1);
    ok(&folder, "build t q.npy");
    let before = (names(&folder), fs::read(folder.join("t")).unwrap());
    let mut interrupted = 0;
    for (line, wait, signal) in [
        ("build s x.npy --memory-limit 64MiB", 150, "INT"),
        ("build s x.npy --memory-limit 64MiB", 700, "INT"),
        ("build s x.npy --memory-limit 64MiB", 700, "KILL"),
        ("insert t x.npy --memory-limit 64MiB", 400, "INT"),
        ("insert t x.npy --memory-limit 64MiB", 1000, "INT"),
        ("insert t x.npy --memory-limit 64MiB", 1000, "KILL"),
    ] {
        let mut child = Command::new(TREERING)
            .current_dir(&folder)
            .args(line.split(' '))
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        let interrupt = format!("kill -{signal} {}", child.id());
        Command::new("sh").args(["-c", &interrupt]).status().unwrap();
        let status = child.wait().unwrap();
        if status.success() {
            // It was faster than the signal.
            let _ = fs::remove_file(folder.join("s"));
            fs::write(folder.join("t"), &before.1).unwrap();
            continue;
        }
        interrupted += 1;
        // Before its handler is in place, an interrupt kills it.
        let killed = status.signal().is_some();
        assert!(killed || status.code() == Some(130), "{line}: {status:?}");
        for name in names(&folder).iter().filter(|name| !before.0.contains(name)) {
            // Killed, a build leaves the store that it was making; temporary files have no name.
            assert!(killed && name.starts_with(".treering-"), "{line}: {name} was left behind");
            fs::remove_file(folder.join(name)).unwrap();
        }
        ok(&folder, "verify t --all");
        assert_eq!(ok(&folder, "stats t --json").matches("\"version\":1").count(), 1);
        // What was written early is cut off by the next writer.
        ok(&folder, "tag t name --at 1");
        ok(&folder, "verify t --all");
        fs::write(folder.join("t"), &before.1).unwrap();
    }
    assert!(interrupted > 0, "every build was faster than its interrupt");
}

/// What the system refuses is a full disk or memory, with their exit code: a limit on the size of
/// files, and one on memory.
#[cfg(target_os = "linux")]
#[test]
fn limits_of_the_system_are_like_a_full_disk() {
    let bench = Bench::new();
    let row = |row: &[f32]| format!("{},{},{}\n", row[0], row[1], row[2]);
    let many: String = crate::common::Random(1).points(60_000, 3).chunks(3).map(row).collect();
    bench.write("many.csv", many);
    bench.write("few.csv", crate::cli::points(0..10));
    bench.ok("build s few.csv --quiet");
    let names = bench.names();
    let before = bench.read("s");
    let within = |limit: &str, line: &str| {
        let mut shell = std::process::Command::new("sh");
        let script = format!("ulimit {limit}; exec \"$0\" {line}");
        shell.current_dir(bench.path("."));
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_treering")]).output().unwrap()
    };
    for (limit, line) in [
        // Blocks of 512 bytes: 1 MiB, more than a store has without points.
        ("-f 2048", "build t many.csv"),
        ("-f 2048", "insert s many.csv"),
        ("-f 100", "export s out.csv --at 1"),
        // Kilobytes.
        ("-v 30000", "build t many.csv --threads 1"),
        ("-v 30000", "insert s many.csv --threads 1"),
    ] {
        let output = within(limit, line);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let is_small = line.starts_with("export");
        let code = if is_small { 0 } else { 6 };
        assert_eq!(output.status.code(), Some(code), "{limit}: {line}: {errors}");
        if is_small {
            std::fs::remove_file(bench.path("out.csv")).unwrap();
        }
        assert_eq!(bench.names(), names, "{limit}: {line}");
        assert!(bench.read("s") == before, "{limit}: {line}");
    }
}
