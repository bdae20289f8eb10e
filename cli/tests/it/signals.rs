//! Signals end the command wherever it waits for others, at the first asking: the writer's lock is
//! free then, the store as it was, and nothing is left in the folder.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cli::{Bench, points};

const SIGNALS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Long enough for any machine, and shorter than for ever.
const LIMIT: Duration = Duration::from_secs(20);

/// The longest that a verb may compute on after a signal, on a machine that is busy with other
/// tests.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// Waits until the process catches the signal, and then sleeps, as one that waits for others does.
fn until_it_waits(pid: u32, signal: Signal) {
    let start = Instant::now();
    let mut asleep = 0;
    while asleep < 10 {
        assert!(start.elapsed() < LIMIT, "it never waits");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let caught = u64::from_str_radix(field("SigCgt:").trim(), 16).unwrap();
        let catches = caught >> (signal as i32 - 1) & 1 == 1;
        asleep = if catches && field("State:").trim().starts_with('S') { asleep + 1 } else { 0 };
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal and says how long the process lasted.
fn ends(mut child: Child, signal: Signal, what: &str) -> Duration {
    until_it_waits(child.id(), signal);
    let start = Instant::now();
    kill(Pid::from_raw(child.id() as i32), signal).unwrap();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert_eq!(status.code(), Some(130), "{what}, {signal}");
            return start.elapsed();
        }
        assert!(start.elapsed() < LIMIT, "{what}: {signal} does not end it");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn whoever_waits_ends_at_the_first_signal() {
    let bench = Bench::new();
    bench.write("many.csv", points(0..60_000));
    bench.write("a.csv", points(0..300));
    bench.ok("build s many.csv --quiet");
    bench.ok("insert s a.csv --quiet");
    nix::unistd::mkfifo(&bench.path("pipe.csv"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let names = bench.names();
    let before = bench.read("s");
    let mut slowest = Duration::ZERO;
    for line in [
        // Nothing comes.
        "build t -",
        "insert s -",
        "insert s a.csv --ids -",
        "insert s - --on-duplicate replace --id-column 1",
        "delete s --ids -",
        "query s - -k 1",
        "query s - --radius 1",
        "diff s 1 2 --queries - -k 1",
        "receive t -",
        // Nobody writes to the pipe.
        "build t pipe.csv",
        "query s pipe.csv -k 1",
        "receive t pipe.csv",
        // Nobody reads.
        "export s -",
        "backup s -",
        "export s pipe.csv",
        "query s many.csv -k 5",
    ] {
        for signal in SIGNALS {
            let mut command = bench.command(line);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            let held = (child.stdin.take(), child.stdout.take());
            slowest = slowest.max(ends(child, signal, line));
            drop(held);
            assert_eq!(bench.names(), names, "{line}, {signal}");
        }
    }
    // For another writer.
    for signal in SIGNALS {
        let mut command = bench.command("insert s -");
        let mut other = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        until_it_waits(other.id(), signal);
        let mut command = bench.command("insert s a.csv --wait 1h");
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        slowest = slowest.max(ends(child, signal, "insert --wait"));
        other.kill().unwrap();
        other.wait().unwrap();
    }
    assert!(bench.read("s") == before);
    // The lock is free.
    bench.ok("insert s a.csv --quiet");
    println!("slowest end: {slowest:?}");
}

/// A verb, and what it makes.
type Verb = (&'static str, &'static [&'static str]);

/// While it computes, each verb ends cleanly at the first signal, wherever that comes: the writer's
/// lock is free, the store as it was or a version further, and nothing is left.
#[test]
fn whoever_works_ends_cleanly() {
    const VERBS: [Verb; 20] = [
        ("build t many.csv", &["t"]),
        ("build t many.csv --memory-limit 48M", &["t"]),
        ("insert s many.csv", &[]),
        ("insert s many.csv --memory-limit 48M", &[]),
        ("insert s many.csv --ids ids.txt --on-duplicate replace", &[]),
        ("delete s --ids ids.txt", &[]),
        ("compact s", &[]),
        ("compact s --memory-limit 48M", &[]),
        ("vacuum s", &[]),
        ("backup s full", &["full"]),
        ("receive t stream", &["t"]),
        ("recover s --write t", &["t"]),
        ("verify s --all --deep", &[]),
        ("verify s --scrub --rate 8M", &[]),
        ("query s some.csv -k 10 --output o.csv", &["o.csv"]),
        ("query s some.csv -k 10 --brute-force --output o.csv", &["o.csv"]),
        ("query s many.npy -k 10 --output o.csv", &["o.csv"]),
        ("query s some.csv --radius 0.5 --output o.csv", &["o.csv"]),
        ("export s o.csv", &["o.csv"]),
        ("diff s 1 2 --queries some.csv -k 10", &[]),
    ];
    const ROWS: usize = 120_000;
    let bench = Bench::new();
    let rows: Vec<String> = crate::common::Random(1)
        .points(ROWS, 8)
        .chunks(8)
        .map(|row| row.iter().map(f32::to_string).collect::<Vec<_>>().join(",") + "\n")
        .collect();
    bench.write("many.csv", rows.concat());
    bench.write("some.csv", rows[..4_000].concat());
    let values = crate::common::Random(2).points(20_000, 8);
    bench.write("many.npy", crate::cli::f32_npy("(20000, 8)", &values));
    bench.write("ids.txt", (0..ROWS).map(|id| format!("{id}\n")).collect::<String>());
    bench.ok("build s many.csv --quiet");
    bench.ok("compact s --quiet");
    bench.ok("backup s stream --quiet");
    let (names, before) = (bench.names(), bench.read("s"));
    println!("{:<60} {:>8}  after a signal", "verb", "whole");
    for (line, made) in VERBS {
        let run = |wait: Option<(Duration, Signal)>| {
            let mut command = bench.command(line);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let begin = Instant::now();
            let mut child = command.spawn().unwrap();
            if let Some((wait, signal)) = wait {
                std::thread::sleep(wait);
                // It may have ended, on a fast machine.
                let _ = kill(Pid::from_raw(child.id() as i32), signal);
            }
            let begin = wait.map_or(begin, |_| Instant::now());
            let code = child.wait().unwrap().code();
            let took = begin.elapsed();
            if code == Some(0) {
                made.iter().for_each(|name| std::fs::remove_file(bench.path(name)).unwrap());
            }
            (code, took)
        };
        let (code, whole) = run(None);
        assert_eq!(code, Some(0), "{line}");
        let mut told = String::new();
        let mut interrupted = 0;
        for (part, signal) in [0.2, 0.5, 0.8].into_iter().zip(SIGNALS) {
            bench.write("s", &before);
            let (code, took) = run(Some((whole.mul_f64(part), signal)));
            let ended_first = code == Some(0);
            assert!(ended_first || code == Some(130), "{line}, {signal}: {code:?}");
            assert_eq!(bench.names(), names, "{line}, {signal}");
            assert!(took < ENDS_WITHIN, "{line}, {signal}: {took:?}");
            interrupted += usize::from(!ended_first);
            told += &match ended_first {
                true => format!("{:>11}", "done"),
                false => format!("{:>8} ms", took.as_millis()),
            };
            // The lock is free, and the store as it was.
            let store = treering::Store::open(bench.path("s")).unwrap();
            assert_eq!(store.latest().unwrap().version().0, 2 + made_version(line, ended_first));
        }
        println!("{line:<60} {:>5} ms {told}", whole.as_millis());
        assert!(interrupted > 0 || whole < Duration::from_millis(100), "{line}: never interrupted");
        bench.ok("verify s --all");
        bench.write("s", &before);
    }
}

/// How many versions a line has made.
fn made_version(line: &str, is_done: bool) -> u64 {
    let makes = ["insert", "delete", "compact"].iter().any(|verb| line.starts_with(verb));
    u64::from(makes && is_done)
}

/// A writer that waits for another loses nothing.
#[test]
fn two_shells_insert_in_turn() {
    let bench = Bench::new();
    bench.write("a.csv", "1,2\n");
    bench.ok("build s a.csv --quiet");
    let loop_of = |_: usize| {
        let mut shell = Command::new("sh");
        let line = "for i in 1 2 3 4 5 6 7 8 9 10; do \"$0\" insert s a.csv --wait 60s --quiet || exit 1; done";
        shell.current_dir(bench.path(".")).args(["-c", line, env!("CARGO_BIN_EXE_treering")]);
        shell.spawn().unwrap()
    };
    for mut shell in [0, 1].map(loop_of) {
        assert!(shell.wait().unwrap().success());
    }
    let stats = bench.json("stats s");
    assert_eq!((&stats["version"], &stats["points"]), (&21.into(), &21.into()));
    // Without waiting it is told at once.
    let mut command = bench.command("insert s -");
    let mut other = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    until_it_waits(other.id(), Signal::SIGINT);
    bench.fails(4, "insert s a.csv", &["another writer"]);
    // Telling what would go needs no lock.
    assert_eq!(
        bench.json("expire s --keep-last 1 --dry-run")["expired"].as_array().unwrap().len(),
        20
    );
    other.kill().unwrap();
    other.wait().unwrap();
}
