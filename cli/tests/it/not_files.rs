//! Paths that are no files where a store is expected, and text from a store that would deceive who
//! reads it on a terminal.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use treering::{OpenError, OpenOptions, ReceiveError, RecoverError, Store};

use crate::cli::Bench;
use crate::common::crc32;
use crate::common::threads;

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id() as i32)
}

/// Waits for a child that must end soon.
fn ended(mut child: Child, what: &str) -> Output {
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > Duration::from_secs(15) {
            kill(pid(&child), Signal::SIGKILL).unwrap();
            child.wait().unwrap();
            panic!("{what}: hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

#[test]
fn what_is_no_file_is_no_store_and_nothing_waits_for_it() {
    let bench = Bench::with_store();
    bench.ok("backup s s.bak --quiet");
    let fifo = || Mode::from_bits_truncate(0o600);
    mkfifo(&bench.path("fifo"), fifo()).unwrap();
    symlink("fifo", bench.path("link")).unwrap();
    fs::create_dir(bench.path("folder")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(bench.path("socket")).unwrap();
    let what = ["fifo", "link", "folder", "socket", "/dev/null", "/dev/zero", "/dev/full"];
    for store in what {
        for line in [
            "insert STORE a.csv",
            "delete STORE 1",
            "compact STORE",
            "query STORE q.csv -k 1",
            "get STORE 1",
            "export STORE o.csv",
            "log STORE",
            "diff STORE 1 2",
            "tag STORE",
            "tag STORE x",
            "restore STORE 1",
            "expire STORE --keep-last 1",
            "backup STORE o.bak",
            "receive STORE s.bak",
            "verify STORE",
            "recover STORE",
            "recover STORE --write new",
            "stats STORE",
            "bench STORE q.csv -k 1",
        ] {
            let line = line.replace("STORE", store);
            let mut command = bench.command(&line);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let output = ended(command.spawn().unwrap(), &line);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(3), "{line}: {errors}");
            if !line.starts_with("verify") {
                assert!(errors.contains("not a regular file"), "{line}: {errors}");
            }
        }
        let (path, open) = (bench.path(store), threads(1));
        let no_file = |e: &OpenError| matches!(e, OpenError::NotAFile { .. });
        assert!(no_file(&Store::open(&path).unwrap_err()), "{store}");
        let read = OpenOptions::new().read_only(true);
        assert!(no_file(&Store::open_with(&path, read).unwrap_err()), "{store}");
        let recovered = Store::recover(&path, None, open.clone()).unwrap_err();
        assert!(matches!(recovered, RecoverError::Open(e) if no_file(&e)), "{store}");
        let stream = fs::File::open(bench.path("s.bak")).unwrap();
        let received = Store::receive(&path, stream, open).unwrap_err();
        assert!(matches!(received, ReceiveError::Open(e) if no_file(&e)), "{store}");
    }
    assert!(!bench.path("new").exists() && !bench.path("o.bak").exists());
}

#[test]
fn a_verb_that_waits_for_a_reader_can_be_ended() {
    let bench = Bench::with_store();
    for (line, fifo) in [
        ("export s o.csv", "o.csv"),
        ("backup s o.bak", "o.bak"),
        ("query s q.csv -k 1 --output p.csv", "p.csv"),
        ("query s q.csv -k 1 --output o.npy", "o.npy"),
    ] {
        mkfifo(&bench.path(fifo), Mode::from_bits_truncate(0o600)).unwrap();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            let mut command = bench.command(line);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let child = command.spawn().unwrap();
            std::thread::sleep(Duration::from_millis(500));
            kill(pid(&child), signal).unwrap();
            assert_eq!(ended(child, line).status.code(), Some(130), "{line}, {signal}");
        }
    }
}

/// Names and messages with something in them that a terminal does not show, or shows as something
/// else.
const DECEPTIVE: [(&str, &str); 14] = [
    ("override", "a\u{202e}b"),
    ("isolate", "a\u{2066}b"),
    ("mark", "a\u{200f}b"),
    ("line separator", "a\u{2028}b"),
    ("paragraph separator", "a\u{2029}b"),
    ("no-break space", "a\u{a0}b"),
    ("zero width space", "a\u{200b}b"),
    ("byte order mark", "a\u{feff}b"),
    ("soft hyphen", "a\u{ad}b"),
    ("Hangul filler", "a\u{3164}b"),
    ("grapheme joiner", "a\u{34f}b"),
    ("variation selector", "a\u{fe0f}b"),
    ("tag letter", "a\u{e0041}b"),
    ("next line", "a\u{85}b"),
];

#[test]
fn names_that_deceive_are_refused_and_messages_printed_escaped() {
    let bench = Bench::with_store();
    for (what, text) in DECEPTIVE {
        let before = bench.read("s");
        let output = bench.command("tag s").arg(text).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{what}");
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(!errors.contains(text) && errors.contains("\\u{"), "{what}: {errors}");
        assert!(bench.read("s") == before, "{what}");

        let output = bench.command("delete s 5 --message").arg(text).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{what}");
        for line in ["log s", "log s --json"] {
            let log = bench.ok(line);
            assert!(!log.contains(text), "{what}: {line}: {log}");
        }
        // As JSON it is the same text.
        assert_eq!(bench.json("log s")["versions"][0]["message"], text, "{what}");
        bench.ok("restore s 3 --quiet");
    }
    for plain in ["größer", "日本語 2", "naïve", "v1.2-rc3", "Ω", "🎄"] {
        bench.command("tag s").arg(plain).output().unwrap();
        assert!(bench.ok("tag s").contains(plain), "{plain}");
    }
    bench.fails(2, "tag s latest", &["`latest`"]);
}

/// The stream with the name `from` of a tag replaced by `to`, and its checksums put right.
fn renamed(stream: &[u8], from: &str, to: &str) -> Vec<u8> {
    let mut new = Vec::new();
    let (mut at, mut before) = (0, 0u32);
    while at < stream.len() {
        let word = |from: usize| u32::from_le_bytes(stream[from..from + 4].try_into().unwrap());
        let bytes = u64::from_le_bytes(stream[at + 8..at + 16].try_into().unwrap()) as usize;
        let mut payload = stream[at + 16..at + 16 + bytes].to_vec();
        if word(at) == 4 {
            let row =
                payload.chunks_exact_mut(128).find(|row| row[16..].starts_with(from.as_bytes()));
            let row = row.unwrap();
            row[8..10].copy_from_slice(&(to.len() as u16).to_le_bytes());
            row[16..].fill(0);
            row[16..16 + to.len()].copy_from_slice(to.as_bytes());
        }
        let (kind, length) = (word(at).to_le_bytes(), (bytes as u64).to_le_bytes());
        before = crc32(&[&before.to_le_bytes()[..], &kind, &length, &payload].concat());
        new.extend([&kind[..], &before.to_le_bytes(), &length, &payload].concat());
        at += 16 + bytes;
    }
    new
}

/// Receives a store that has a tag under a name that no tag is given any more.
fn with_tag(bench: &Bench, store: &str, name: &str) {
    bench.write("t.bak", renamed(&bench.read("s.bak"), "some name", name));
    bench.ok(&format!("receive {store} t.bak --quiet"));
}

#[test]
fn old_tags_under_such_names_can_be_read_used_and_taken_away() {
    let bench = Bench::with_store();
    let output = bench.command("tag s --at 2").arg("some name").output().unwrap();
    assert!(output.status.success());
    bench.ok("backup s s.bak --quiet");
    let more = [
        ("reserved", "latest"),
        ("control", "a\u{1b}[2Jb"),
        ("number", "17"),
        ("time", "2026-11-25"),
    ];
    for (i, (what, name)) in DECEPTIVE.into_iter().chain(more).enumerate() {
        let store = format!("t{i}");
        with_tag(&bench, &store, name);
        for line in ["tag", "log", "tag --json", "log --json"] {
            let (verb, json) = line.split_once(' ').unwrap_or((line, ""));
            let text = bench.ok(&format!("{verb} {store} {json}"));
            if what != "reserved" && what != "number" && what != "time" {
                assert!(!text.contains(name), "{what}: {line}: {text}");
            }
        }
        let output = bench.run(&format!("get {store} 1 --at nowhere"));
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(5) && errors.contains("there are "), "{errors}");
        assert_eq!(bench.json(&format!("tag {store}"))["tags"][0]["name"], name, "{what}");
        assert_eq!(bench.json(&format!("verify {store} --all"))["ok"], true);
        if what != "number" && what != "time" {
            let found = bench.command(&format!("get {store} 1 --at")).arg(name).output().unwrap();
            assert_eq!(found.status.code(), Some(0), "{what}");
        }
        let gone = bench.command(&format!("tag {store} --delete")).arg(name).output().unwrap();
        assert_eq!(gone.status.code(), Some(0), "{what}");
        assert_eq!(bench.json(&format!("tag {store}"))["tags"], serde_json::json!([]));
    }
    assert!(Path::new(&bench.path("t0")).exists());
}
