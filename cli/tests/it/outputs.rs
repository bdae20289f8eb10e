//! Where the command writes: over files, through links, into pipes and devices, and never over a
//! store or its own input.
//!
//! One table of all verbs that write a file, met with everything that a path can be.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::cli::Bench;
use crate::common::with_a_mount;

/// A verb that writes a file, or one of the two that it writes.
struct Verb {
    /// `STORE`, `QUERIES` and `OUT` stand for paths.
    line: &'static str,
    /// The file that is looked at, and what stands for `OUT` if it is that one.
    file: &'static str,
    out: &'static str,
}

const VERBS: [Verb; 7] = [
    Verb { line: "backup STORE OUT", file: "o.bak", out: "o.bak" },
    Verb { line: "export STORE OUT", file: "o.csv", out: "o.csv" },
    Verb { line: "export STORE OUT", file: "o.npy", out: "o.npy" },
    Verb { line: "export STORE OUT", file: "o_ids.npy", out: "o.npy" },
    Verb { line: "query STORE QUERIES -k 2 --output OUT", file: "o.csv", out: "o.csv" },
    Verb { line: "query STORE QUERIES -k 2 --output OUT", file: "o.npy", out: "o.npy" },
    Verb { line: "query STORE QUERIES -k 2 --output OUT", file: "o_distances.npy", out: "o.npy" },
];

impl Verb {
    fn with(&self, store: &str, queries: &str, out: &str) -> String {
        self.line.replace("STORE", store).replace("QUERIES", queries).replace("OUT", out)
    }

    fn plain(&self) -> String {
        self.with("s", "q.csv", self.out)
    }

    /// What it writes into a file that was not there.
    fn expected(&self) -> (Bench, Vec<u8>) {
        let bench = Bench::with_store();
        bench.ok(&self.plain());
        let bytes = bench.read(self.file);
        assert!(!bytes.is_empty());
        // The rest of the test works on the same store, whose identity a backup has.
        fs::remove_file(bench.path(self.file)).unwrap();
        let _ = fs::remove_file(bench.path(self.out));
        for name in bench.names() {
            assert!(!name.starts_with('.'), "{name} was left behind");
        }
        (bench, bytes)
    }
}

/// Everything there is to know of a folder: names, kinds, inodes, contents.
fn picture(bench: &Bench) -> Vec<(String, u64, u32, Vec<u8>)> {
    let one = |name: String| {
        let path = bench.path(&name);
        let found = fs::symlink_metadata(&path).unwrap();
        let kind = found.file_type();
        let content = match (kind.is_file(), kind.is_symlink()) {
            (true, _) => fs::read(&path).unwrap(),
            (_, true) => fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
            _ => Vec::new(),
        };
        (name, found.ino(), found.mode(), content)
    };
    bench.names().into_iter().map(one).collect()
}

/// Runs a line that must be refused with `code`, say something of `part`, and change nothing at
/// all.
fn changes_nothing(bench: &Bench, code: i32, line: &str, part: &str) {
    let before = picture(bench);
    bench.fails(code, line, &[part]);
    assert!(picture(bench) == before, "{line}: something was changed");
}

#[test]
fn a_store_is_never_an_output_whatever_leads_to_it() {
    type Lay = fn(&Bench, &Path);
    let ways: [(&str, Lay); 7] = [
        ("another store", |bench, to| {
            bench.ok("build other a.csv --quiet");
            fs::rename(bench.path("other"), to).unwrap();
        }),
        ("a hard link to it", |bench, to| fs::hard_link(bench.path("s"), to).unwrap()),
        ("a link to it", |_, to| symlink("s", to).unwrap()),
        ("a link to a link to it", |bench, to| {
            symlink("s", bench.path("between")).unwrap();
            symlink("between", to).unwrap();
        }),
        ("a hard link to another store", |bench, to| {
            bench.ok("build other a.csv --quiet");
            fs::hard_link(bench.path("other"), to).unwrap();
        }),
        ("a store whose first header is damaged", |bench, to| {
            let mut bytes = bench.read("s");
            bytes[..512].fill(0);
            fs::write(to, bytes).unwrap();
        }),
        ("a store whose second header is damaged, cut", |bench, to| {
            let bytes = bench.read("s");
            fs::write(to, &bytes[..10_000]).unwrap();
        }),
    ];
    for verb in &VERBS {
        for (what, lay) in ways {
            let bench = Bench::with_store();
            lay(&bench, &bench.path(verb.file));
            println!("{} onto {what} at {}", verb.plain(), verb.file);
            changes_nothing(&bench, 2, &verb.plain(), "is a treering store");
        }
        // The store itself, under a name that such an output could have.
        let bench = Bench::with_store();
        fs::rename(bench.path("s"), bench.path(verb.file)).unwrap();
        changes_nothing(&bench, 2, &verb.with(verb.file, "q.csv", verb.out), verb.file);
    }
}

#[test]
fn an_input_is_never_an_output() {
    type Lay = fn(&Bench, &Path);
    let ways: [(&str, Lay); 3] = [
        ("itself", |bench, to| fs::rename(bench.path("q.csv"), to).unwrap()),
        ("a hard link", |bench, to| fs::hard_link(bench.path("q.csv"), to).unwrap()),
        ("a link", |_, to| symlink("q.csv", to).unwrap()),
    ];
    for verb in VERBS.iter().filter(|verb| verb.line.contains("QUERIES")) {
        for (what, lay) in ways {
            let bench = Bench::with_store();
            lay(&bench, &bench.path(verb.file));
            let queries = if what == "itself" { verb.file } else { "q.csv" };
            let line = verb.with("s", queries, verb.out) + " --format csv";
            println!("{line}: {what}");
            changes_nothing(&bench, 2, &line, "is an input");
        }
    }
    // Two outputs of one verb that are one file.
    for verb in VERBS.iter().filter(|verb| verb.file != verb.out) {
        let bench = Bench::with_store();
        bench.write(verb.file, "old");
        symlink(verb.file, bench.path(verb.out)).unwrap();
        changes_nothing(&bench, 2, &verb.plain(), "both");
    }
}

#[test]
fn files_are_replaced_whole_through_links_and_keep_their_modes() {
    let umask = {
        let bench = Bench::new();
        bench.write("new", "");
        bench.path("new").metadata().unwrap().mode() & 0o777
    };
    for verb in &VERBS {
        let (bench, expected) = verb.expected();
        let path = bench.path(verb.file);
        let mode = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o7777;
        bench.ok(&verb.plain());
        assert_eq!(mode(&path), umask, "{}: a new file", verb.plain());
        for bits in [0o600, 0o644, 0o640, 0o666, 0o755] {
            fs::write(&path, "old and longer than what comes, perhaps").unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(bits)).unwrap();
            let names = bench.names();
            bench.ok(&verb.plain());
            assert!(fs::read(&path).unwrap() == expected, "{}", verb.plain());
            assert_eq!(mode(&path), bits, "{}: {bits:o}", verb.plain());
            assert_eq!(bench.names(), names);
        }
        // Links stay links, to what is there and to what is not yet.
        fs::create_dir(bench.path("far")).unwrap();
        for old in [true, false] {
            fs::remove_file(&path).unwrap();
            let far = bench.path("far/file");
            let _ = fs::remove_file(&far);
            if old {
                fs::write(&far, "old").unwrap();
                fs::set_permissions(&far, PermissionsExt::from_mode(0o600)).unwrap();
            }
            symlink("far/file", bench.path("far/../between")).unwrap();
            symlink("between", &path).unwrap();
            bench.ok(&verb.plain());
            assert!(fs::symlink_metadata(&path).unwrap().is_symlink(), "{}", verb.plain());
            assert!(fs::read(&far).unwrap() == expected, "{}", verb.plain());
            assert_eq!(mode(&far), if old { 0o600 } else { umask });
            fs::remove_file(bench.path("between")).unwrap();
            assert_eq!(fs::read_dir(bench.path("far")).unwrap().count(), 1);
        }
        // One that leads round in a circle is nothing to write to.
        fs::remove_file(&path).unwrap();
        symlink(verb.file, &path).unwrap();
        changes_nothing(&bench, 1, &verb.plain(), verb.file);
    }
}

#[test]
fn pipes_and_devices_are_written_to_and_not_replaced() {
    for verb in &VERBS {
        let (bench, expected) = verb.expected();
        let path = bench.path(verb.file);
        mkfifo(&path, Mode::from_bits_truncate(0o600)).unwrap();
        let reading = {
            let path = path.clone();
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                fs::File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
                bytes
            })
        };
        bench.ok(&verb.plain());
        assert!(reading.join().unwrap() == expected, "{}", verb.plain());
        assert!(fs::metadata(&path).unwrap().file_type().is_fifo(), "{}", verb.plain());
        fs::remove_file(&path).unwrap();
        for (device, code) in [("/dev/null", 0), ("/dev/full", 6)] {
            symlink(device, &path).unwrap();
            let output = bench.run(&verb.plain());
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{} to {device}: {errors}", verb.plain());
            assert!(fs::metadata(device).unwrap().file_type().is_char_device());
            assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
            fs::remove_file(&path).unwrap();
        }
    }
}

#[test]
fn what_cannot_be_written_is_told_and_left() {
    for verb in &VERBS {
        let bench = Bench::with_store();
        let missing = format!("missing/{}", verb.out);
        changes_nothing(&bench, 1, &verb.with("s", "q.csv", &missing), "cannot write missing/");
        // Nobody can make a file there.
        let proc = format!("/proc/{}", verb.out);
        changes_nothing(&bench, 1, &verb.with("s", "q.csv", &proc), "cannot write /proc/");
        fs::create_dir(bench.path(verb.file)).unwrap();
        changes_nothing(&bench, 1, &verb.plain(), verb.file);
        fs::remove_dir(bench.path(verb.file)).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(bench.path(verb.file)).unwrap();
        changes_nothing(&bench, 1, &verb.plain(), verb.file);
    }
}

#[test]
fn a_full_disk_leaves_the_old_file() {
    for verb in &VERBS {
        let bench = Bench::with_store();
        fs::create_dir(bench.path("small")).unwrap();
        let line = verb.with("s", "many.csv", &format!("small/{}", verb.out));
        bench.write("many.csv", "1,2,3\n".repeat(20_000));
        bench.ok("insert s many.csv --quiet");
        let script = format!(
            "mount -t tmpfs -o size=16k none small || exit 77; echo old > small/{file}; \
             '{treering}' {line}; code=$?; cat small/{file}; ls -A small; exit $code",
            file = verb.file,
            treering = env!("CARGO_BIN_EXE_treering"),
        );
        let mut unshare = std::process::Command::new("unshare");
        unshare.args(["-rm", "sh", "-c", &script]).current_dir(bench.path("."));
        let Some(output) = with_a_mount(&mut unshare) else { return };
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(6), "{line}: {errors}");
        let out = String::from_utf8_lossy(&output.stdout);
        assert_eq!(out, format!("old\n{}\n", verb.file), "{line}");
    }
}

#[test]
fn a_dash_is_standard_output_and_no_file() {
    let csv = ["export STORE OUT", "query STORE QUERIES -k 2 --output OUT"];
    for line in csv.iter().chain(&["backup STORE OUT"]) {
        let file = if line.starts_with("backup") { "o.bak" } else { "o.csv" };
        let verb = Verb { line, file, out: file };
        let (bench, expected) = verb.expected();
        for out in ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
            if out != "-" && file == "o.csv" {
                // Its ending says nothing of the format.
                continue;
            }
            let output = bench.run(&verb.with("s", "q.csv", out));
            assert_eq!(output.status.code(), Some(0), "{line}: {out}");
            assert!(output.stdout == expected, "{line}: {out}");
            assert!(!bench.names().iter().any(|name| name == "-" || name == "stdout"));
        }
        if !line.starts_with("query") {
            bench.fails(2, &format!("{} --json", verb.with("s", "q.csv", "-")), &["--json"]);
        }
    }
    // A store cannot be a stream, and is not to be found under such a name by accident.
    let bench = Bench::with_store();
    bench.ok("backup s s.bak --quiet");
    for line in ["build - a.csv", "receive - s.bak", "recover s --write -"] {
        changes_nothing(&bench, 2, line, "./-");
    }
    // What a backup writes can be received from where it goes.
    let output = bench.run("backup s -");
    let mut child = bench.command("receive t -");
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), &output.stdout).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(bench.ok("export t -"), bench.ok("export s -"));
}

#[test]
fn standard_output_is_not_the_store_or_an_input() {
    for (line, file) in [
        ("query s q.csv -k 1", "s"),
        ("export s -", "s"),
        ("log s", "s"),
        ("backup s -", "s"),
        ("delete s 1", "s"),
        ("verify s", "s"),
        ("query s q.csv -k 1", "q.csv"),
        ("query s q.csv -k 1 --output -", "q.csv"),
    ] {
        let bench = Bench::with_store();
        let before = picture(&bench);
        let out = fs::File::options().append(true).open(bench.path(file)).unwrap();
        let mut command = bench.command(line);
        let output = command.stdin(Stdio::null()).stdout(out).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{line} >> {file}");
        assert!(picture(&bench) == before, "{line} >> {file}");
    }
}

#[test]
fn new_stores_replace_nothing() {
    type Lay = fn(&Path);
    let ways: [Lay; 6] = [
        |to| fs::write(to, "old").unwrap(),
        |to| symlink("s", to).unwrap(),
        |to| symlink("q.csv", to).unwrap(),
        |to| symlink("nowhere", to).unwrap(),
        |to| mkfifo(to, Mode::from_bits_truncate(0o600)).unwrap(),
        |to| symlink("/dev/null", to).unwrap(),
    ];
    for lay in ways {
        let bench = Bench::with_store();
        lay(&bench.path("t"));
        for line in ["build t a.csv", "recover s --write t"] {
            changes_nothing(&bench, 1, line, "t exists already");
        }
    }
    let bench = Bench::with_store();
    for line in ["build s a.csv", "recover s --write s"] {
        changes_nothing(&bench, 1, line, "s exists already");
    }
    let made: PathBuf = bench.path("fresh");
    bench.write("new", "");
    bench.ok("build fresh a.csv");
    bench.ok("recover s --write rescued");
    let usual = bench.path("new").metadata().unwrap().mode();
    assert_eq!(made.metadata().unwrap().mode(), usual);
    assert_eq!(bench.path("rescued").metadata().unwrap().mode(), usual);
}
