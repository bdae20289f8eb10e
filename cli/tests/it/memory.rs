//! Anonymous memory of every reader and every verb, on inputs and stores that are larger than what
//! they may take: whoever held one of them whole would show. `cargo test --test it memory --
//! --nocapture` prints the figures.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::limits::{MIB, ok};

/// The limit that verbs are given which know one.
const LIMIT: u64 = 64 * MIB;

/// What a verb without a limit may take on any of these inputs and stores: buffers, and no version.
const BOUND: u64 = 40 * MIB;

/// Bytes of an input: more than either, so that whoever holds it shows.
const LARGE: usize = 80 << 20;

/// Dimensions of the stores and of the arrays.
const DIM: usize = 256;

/// What comes down standard input.
#[derive(Clone, Copy)]
enum Stdin<'a> {
    Nothing,
    /// A file through a pipe.
    Pipe(&'a str),
}

/// Where it works, and what it has measured.
struct Desk {
    folder: tempfile::TempDir,
    failures: Vec<String>,
}

impl Desk {
    fn new() -> Desk {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
        println!("{:<72} {:>6} {:>9} {:>8}", "verb and input", "exit", "anonymous", "time");
        Desk { folder: tempfile::tempdir_in(root).unwrap(), failures: Vec::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn create(&self, name: &str) -> BufWriter<File> {
        BufWriter::with_capacity(1 << 20, File::create(self.path(name)).unwrap())
    }

    /// `head`, then `piece` again and again for [`LARGE`] bytes, then `tail`.
    fn repeat(&self, name: &str, head: &[u8], piece: &[u8], tail: &[u8]) {
        self.repeat_for(name, head, piece, LARGE, tail);
    }

    fn repeat_for(&self, name: &str, head: &[u8], piece: &[u8], bytes: usize, tail: &[u8]) {
        let mut file = self.create(name);
        file.write_all(head).unwrap();
        for _ in 0..bytes.div_ceil(piece.len()) {
            file.write_all(piece).unwrap();
        }
        file.write_all(tail).unwrap();
        file.flush().unwrap();
    }

    fn remove(&self, names: &[&str]) {
        for name in names {
            std::fs::remove_file(self.path(name)).unwrap();
        }
    }

    /// Runs a line and keeps the most anonymous memory that is seen, looked at a thousand times a
    /// second.
    fn run(&mut self, code: i32, line: &str, stdin: Stdin<'_>) {
        let start = Instant::now();
        let mut command = Command::new(env!("CARGO_BIN_EXE_treering"));
        command.current_dir(self.folder.path()).args(line.split(' '));
        command.stdout(Stdio::null()).stderr(self.create("err").into_inner().unwrap());
        command.stdin(if matches!(stdin, Stdin::Nothing) { Stdio::null() } else { Stdio::piped() });
        let mut child = command.spawn().unwrap();
        let feeder = child.stdin.take().map(|mut pipe| {
            let Stdin::Pipe(name) = stdin else { unreachable!("it has a pipe") };
            let mut file = File::open(self.path(name)).unwrap();
            // Who has seen enough does not read on.
            std::thread::spawn(move || drop(std::io::copy(&mut file, &mut pipe)))
        });
        let (mut peak, status) = (0, format!("/proc/{}/status", child.id()));
        let exit = loop {
            peak = peak.max(anonymous(&status));
            if let Some(exit) = child.try_wait().unwrap() {
                break exit;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        if let Some(feeder) = feeder {
            feeder.join().unwrap();
        }
        let errors = std::fs::read_to_string(self.path("err")).unwrap();
        let from = match stdin {
            Stdin::Nothing => String::new(),
            Stdin::Pipe(name) => format!(" < {name}"),
        };
        let what = format!("{line}{from}");
        let short = what.replace(" --memory-limit 64MiB --quiet", "");
        let what = if short == what { what } else { format!("{short} (limit)") };
        let mib = peak as f64 / MIB as f64;
        let seconds = start.elapsed().as_secs_f64();
        println!("{what:<72} {:>6} {mib:>5.1} MiB {seconds:>6.2} s", exit.code().unwrap());
        if exit.code() != Some(code) {
            self.failures.push(format!("{what}: {exit}, not {code}: {errors}"));
        }
        if peak > if what.ends_with("(limit)") { LIMIT } else { BOUND } {
            self.failures.push(format!("{what}: {mib:.1} MiB"));
        }
    }

    fn limited(&mut self, code: i32, line: &str, stdin: Stdin<'_>) {
        self.run(code, &format!("{line} --memory-limit 64MiB --quiet"), stdin);
    }

    fn end(self) {
        assert!(self.failures.is_empty(), "{:#?}", self.failures);
    }
}

/// Anonymous memory of a process now; 0 if it has ended.
fn anonymous(status: &str) -> u64 {
    let text = std::fs::read_to_string(status).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.map_or(0, |line| line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10)
}

fn npy_header(descr: &str, is_fortran: bool, shape: &str) -> Vec<u8> {
    let order = if is_fortran { "True" } else { "False" };
    let text = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}");
    let text = format!("{text:<117}\n");
    [b"\x93NUMPY\x01\x00", &(text.len() as u16).to_le_bytes()[..], text.as_bytes()].concat()
}

/// Rows of a few thousand values: much data, and little work to build a tree of.
fn block() -> Vec<u8> {
    let points = crate::common::Random(3).points(4 * 1024, DIM);
    points.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Text of any shape, from a file and down a pipe. What is wrong with it stands at its end, so that
/// all is read.
#[test]
fn texts_are_not_held() {
    let mut desk = Desk::new();
    let row = format!("{}1.5\n", "0.25,-3,".repeat(31));
    desk.repeat("rows.csv", b"", row.repeat(64).as_bytes(), b"the,end\n");
    desk.repeat("line.csv", b"1,2\n", &b"1,".repeat(1 << 16), b"");
    desk.repeat("digits.csv", b"1,2\n", &b"1".repeat(1 << 16), b"");
    desk.repeat("quote.csv", b"1,2\n\"3,4\n", &b"5,6\n".repeat(1 << 14), b"");
    desk.repeat("blank.csv", b"1,2\n", &b"\n".repeat(1 << 16), b"x\n");
    desk.repeat("zeros.csv", b"", &[0; 1 << 16], b"");
    desk.repeat("header.csv", b"", &b"name,".repeat(1 << 14), b"\n1,2\n");
    let header = format!("id{}\n", (0..31).map(|i| format!(",x{i}")).collect::<String>());
    let row = format!("7{}\n", ",0.5".repeat(31));
    desk.repeat("ids.csv", header.as_bytes(), row.repeat(64).as_bytes(), b"8\n");
    for name in
        ["rows.csv", "line.csv", "digits.csv", "quote.csv", "blank.csv", "zeros.csv", "header.csv"]
    {
        desk.limited(1, &format!("build t {name}"), Stdin::Nothing);
        desk.limited(1, "build t -", Stdin::Pipe(name));
    }
    desk.limited(1, "build t ids.csv --id-column id", Stdin::Nothing);
    desk.limited(1, "build t - --id-column id", Stdin::Pipe("ids.csv"));
    desk.end();
}

/// Arrays in both orders and of every width, from a file and down a pipe.
#[test]
fn arrays_are_not_held() {
    let mut desk = Desk::new();
    let piece = vec![0x3c; 1 << 20];
    let mut ids = desk.create("twice.txt");
    // As coordinates all of them are as large.
    let rows = LARGE / 4 / DIM;
    (0..rows - 1).for_each(|id| writeln!(ids, "{id}").unwrap());
    // Known to be wrong only when all have been read.
    writeln!(ids, "0").unwrap();
    ids.flush().unwrap();
    drop(ids);
    for (descr, width) in [("|u1", 1), ("<f4", 4), ("<f8", 8)] {
        for is_fortran in [false, true] {
            println!("{descr}, in Fortran order: {is_fortran}");
            let bytes = rows * DIM * width;
            let head = npy_header(descr, is_fortran, &format!("({rows}, {DIM})"));
            desk.repeat_for("x.npy", &head, &piece, bytes, b"");
            desk.limited(1, "build t x.npy --ids twice.txt", Stdin::Nothing);
            let more = npy_header(descr, is_fortran, &format!("({}, {DIM})", rows + 1));
            desk.repeat_for("cut.npy", &more, &piece, bytes, b"");
            desk.limited(1, "build t cut.npy", Stdin::Nothing);
            desk.limited(1, "build t - --format npy", Stdin::Pipe("cut.npy"));
        }
    }
    // One row is more than the limit; and a promise is more than everything.
    let wide = npy_header("<f4", false, &format!("(1, {})", LARGE / 4));
    desk.repeat("wide.npy", &wide, &piece, b"");
    desk.limited(1, "build t wide.npy", Stdin::Nothing);
    desk.limited(1, "build t - --format npy", Stdin::Pipe("wide.npy"));
    let promise = npy_header("<f4", true, "(4000000000, 1000)");
    desk.repeat("promise.npy", &promise, &piece, b"");
    desk.limited(1, "build t promise.npy", Stdin::Nothing);
    desk.limited(1, "build t - --format npy", Stdin::Pipe("promise.npy"));
    desk.end();
}

/// Every verb on a store of two versions that share nothing, each of them larger than the bound.
#[test]
fn verbs_do_not_hold_a_version() {
    let mut desk = Desk::new();
    let block = block();
    let rows = LARGE / 4 / DIM;
    let head = npy_header("<f4", false, &format!("({rows}, {DIM})"));
    desk.repeat("x.npy", &head, &block, b"");
    let few = npy_header("<f4", false, &format!("(16, {DIM})"));
    std::fs::write(desk.path("few.npy"), [&few, &block[..64 * DIM]].concat()).unwrap();
    desk.repeat("ids.txt", b"", &b"123456\n".repeat(1 << 14), b"");
    let mut all = desk.create("all.txt");
    (0..rows).for_each(|id| writeln!(all, "{id}").unwrap());
    all.flush().unwrap();
    let mut alive = desk.create("alive.txt");
    (3..rows).for_each(|id| writeln!(alive, "{id}").unwrap());
    alive.flush().unwrap();
    drop((all, alive));

    desk.limited(0, "build s x.npy", Stdin::Nothing);
    desk.limited(0, "compact s", Stdin::Nothing);
    for line in ["backup s full", "receive r full", "export s o.npy"] {
        desk.run(0, line, Stdin::Nothing);
    }
    desk.run(0, "receive piped -", Stdin::Pipe("full"));
    desk.remove(&["o.npy", "o_ids.npy", "piped"]);
    for line in [
        "verify s --all",
        "verify s --deep",
        "verify s --scrub",
        "diff s 1 2",
        "diff s 1 2 --queries few.npy -k 3",
        "query s few.npy -k 4",
        "query s few.npy -k 20000 --brute-force",
        "query s few.npy --radius 1e9",
        "query s few.npy --radius 1e9 --brute-force",
        "get s 1 2 3",
        "stats s",
        "log s",
        "vacuum r",
        "recover r --write saved",
    ] {
        desk.run(0, line, Stdin::Nothing);
    }
    desk.remove(&["saved", "full"]);

    // Many points of few bytes: what is held for each of them would show.
    let head = npy_header("<f4", false, "(2000000, 1)");
    desk.repeat_for("many.npy", &head, &[0; 8_000], 8_000_000, b"");
    desk.limited(0, "build many many.npy", Stdin::Nothing);
    for line in ["export many o.csv", "verify many --deep", "stats many"] {
        desk.run(0, line, Stdin::Nothing);
    }

    // What later versions are relative to has gone at the sender, so that a version is copied.
    ok(desk.folder.path(), "tag s base --at 2");
    for (id, name) in [(1, "first"), (2, "later")] {
        ok(desk.folder.path(), &format!("delete s {id} --quiet"));
        if id == 2 {
            ok(desk.folder.path(), "expire s --keep-last 1");
        }
        desk.run(0, &format!("backup s {name} --since 2"), Stdin::Nothing);
        desk.run(0, &format!("receive r {name}"), Stdin::Nothing);
        desk.remove(&[name]);
    }
    ok(desk.folder.path(), "verify r --all");

    // More ids than there are points, by far; and all of them at once.
    desk.run(1, "delete r --ids -", Stdin::Pipe("ids.txt"));
    desk.run(1, "delete r --ids ids.txt", Stdin::Nothing);
    desk.limited(1, "insert r few.npy --ids -", Stdin::Pipe("ids.txt"));
    let replace = "insert r few.npy --on-duplicate replace --ids -";
    desk.limited(1, replace, Stdin::Pipe("all.txt"));
    let replace = "insert r x.npy --on-duplicate replace --ids";
    desk.limited(0, &format!("{replace} all.txt"), Stdin::Nothing);
    desk.limited(0, &format!("{replace} -"), Stdin::Pipe("all.txt"));
    desk.run(0, "restore r 2", Stdin::Nothing);
    desk.run(0, "delete s --ids -", Stdin::Pipe("alive.txt"));
    desk.run(0, "expire s --keep-last 1", Stdin::Nothing);
    ok(desk.folder.path(), "verify r --all");
    desk.end();
}
