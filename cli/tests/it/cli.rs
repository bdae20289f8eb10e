//! The command as scripts see it: arguments in, exit code, standard output and files out.
//!
//! Every test runs the real binary in a folder of its own. That answers are right is for other
//! files; here a lattice full of ties must come out the same through every door of the command.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// A folder to work in, and the command run in it.
pub(crate) struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Bench {
        Bench { folder: tempfile::tempdir().unwrap() }
    }

    /// A folder with the store `s`: version 1 has `points(0..300)`, version 2 also
    /// `points(300..340)`, in version 3 ids 0, 7 and 310 are gone. The queries are in `q.csv`.
    pub(crate) fn with_store() -> Bench {
        let bench = Bench::new();
        bench.write("a.csv", points(0..300));
        bench.write("b.csv", points(300..340));
        bench.write("q.csv", "0.5,0.5,0.5\n3,2,1\n-1,9,0.25\n");
        bench.ok("build s a.csv --message first");
        bench.ok("insert s b.csv");
        bench.ok("delete s 0 7 310");
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_treering"));
        command
            .current_dir(self.folder.path())
            .args(line.split(' ').filter(|word| !word.is_empty()));
        command
    }

    pub(crate) fn run(&self, line: &str) -> Output {
        self.command(line).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs a line that must succeed and returns what it printed.
    pub(crate) fn ok(&self, line: &str) -> String {
        let output = self.run(line);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{line}: {errors}");
        assert_eq!(errors, "", "{line}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a line that must succeed with `--json`.
    pub(crate) fn json(&self, line: &str) -> Value {
        let text = self.ok(&format!("{line} --json"));
        assert_eq!(text.lines().count(), 1, "{line}: one object on one line");
        serde_json::from_str(&text).unwrap()
    }

    /// Runs a line that must fail with `code`, print nothing on standard output and explain itself
    /// with all of `parts`.
    pub(crate) fn fails(&self, code: i32, line: &str, parts: &[&str]) {
        let output = self.run(line);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{line}: {errors}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{line}");
        assert!(!errors.contains("panicked"), "{line}: {errors}");
        for part in parts {
            assert!(errors.contains(part), "{line}: `{part}` is missing in: {errors}");
        }
    }

    /// Like [`Bench::fails`], and no byte of the store `s` changes.
    pub(crate) fn refuses(&self, code: i32, line: &str, parts: &[&str]) {
        let before = self.read("s");
        let names = self.names();
        self.fails(code, line, parts);
        assert!(self.read("s") == before, "{line}: the store was changed");
        assert_eq!(self.names(), names, "{line}: files were left behind");
    }
}

/// Points of a lattice, each position several times: ties everywhere.
pub(crate) fn points(range: std::ops::Range<usize>) -> String {
    range.map(|i| format!("{},{},{}\n", i * 37 % 7, i * 11 % 5, i % 4)).collect()
}

pub(crate) fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    bytes.extend(format!("{header:<117}\n").as_bytes());
    bytes.extend(data);
    bytes
}

pub(crate) fn f32_npy(shape: &str, values: &[f32]) -> Vec<u8> {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    npy("<f4", shape, &data)
}

fn read_npy<T: npyz::Deserialize>(bytes: &[u8]) -> (Vec<u64>, Vec<T>) {
    let file = npyz::NpyFile::new(bytes).unwrap();
    (file.shape().to_vec(), file.into_vec().unwrap())
}

fn keys(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

fn has_keys(object: &Value, names: &[&str]) {
    for name in names {
        assert!(object.get(name).is_some(), "`{name}` is missing in {object}");
    }
}

#[test]
fn verbs_that_make_a_version_say_what_they_made() {
    let bench = Bench::new();
    bench.write("a.csv", points(0..300));
    bench.write("b.csv", points(300..340));
    for (line, version, points) in [
        ("build s a.csv --metric euclidean --leaf-capacity 8 --threads 2", 1, 300),
        ("insert s b.csv", 2, 340),
        ("delete s 0 7 310", 3, 337),
    ] {
        let made = bench.json(line);
        has_keys(&made, &["version", "points", "dim", "seconds", "bytes_written", "counters"]);
        assert_eq!(made["version"], version);
        assert_eq!(made["points"], points);
        assert_eq!(made["dim"], 3);
        assert!(made["seconds"].as_f64().unwrap() > 0.0);
        assert!(made["bytes_written"].as_u64().unwrap() > 0);
        has_keys(&made["counters"], &["distance_evaluations"]);
        assert!(!keys(&made["times_ms"]).is_empty());
    }
    assert!(
        bench.ok("insert s b.csv").starts_with("version 4: 377 points (+40 -0), dimension 3; ")
    );
    assert_eq!(bench.ok("delete s 1 --quiet"), "");
}

#[test]
fn the_log_is_newest_first_and_its_times_are_exact() {
    let bench = Bench::with_store();
    let log = bench.json("log s");
    let versions = log["versions"].as_array().unwrap();
    let column = |name: &str| -> Vec<Value> { versions.iter().map(|v| v[name].clone()).collect() };
    assert_eq!(column("version"), [3, 2, 1]);
    assert_eq!(column("parent"), [2, 1, 0]);
    assert_eq!(column("kind"), ["delete", "insert", "insert"]);
    assert_eq!(column("points"), [337, 340, 300]);
    assert_eq!(column("added"), [0, 40, 300]);
    assert_eq!(column("removed"), [3, 0, 0]);
    assert_eq!(column("message"), ["", "", "first"]);
    for version in versions {
        has_keys(version, &["bytes_written", "tags"]);
        assert!(version["bytes_unique"].as_u64() > Some(0));
        let time = version["time"].as_str().unwrap();
        assert_eq!((time.len(), &time[19..20], &time[29..]), (30, ".", "Z"), "{time}");
    }
    assert!(column("time").is_sorted_by(|a, b| a.as_str() > b.as_str()));

    let text = bench.ok("log s");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4);
    assert!(lines[0].trim_start().starts_with("version"));
    assert!(lines[3].trim_start().starts_with("1 ") && lines[3].ends_with("first"));
}

#[test]
fn the_past_is_found_by_number_tag_and_time() {
    let bench = Bench::with_store();
    assert_eq!(bench.json("tag s good --at 1"), serde_json::json!({"name": "good", "version": 1}));
    assert_eq!(bench.ok("tag s newer"), "newer: version 3\n");
    let log = bench.json("log s");
    assert_eq!(log["versions"][2]["tags"], serde_json::json!(["good"]));
    assert_eq!(log["versions"][0]["tags"], serde_json::json!(["newer"]));
    let first = bench.ok("query s q.csv -k 3 --at 1");
    assert_ne!(bench.ok("query s q.csv -k 3 --at 3"), first);
    assert_eq!(bench.ok("query s q.csv -k 3 --at good"), first);
    // Times as they are printed.
    for (i, version) in ["3", "2", "1"].iter().enumerate() {
        let time = log["versions"][i]["time"].as_str().unwrap();
        let by_time = bench.ok(&format!("query s q.csv -k 3 --at {time}"));
        assert_eq!(by_time, bench.ok(&format!("query s q.csv -k 3 --at {version}")));
    }
    assert_eq!(bench.ok("tag s"), "tag    version\ngood         1\nnewer        3\n");
    bench.refuses(2, "tag s newer --at good", &["version 3 is called `newer`", "--move"]);
    assert_eq!(bench.ok("tag s newer --at latest"), "newer: version 3\n");
    assert_eq!(bench.ok("tag s newer --at good --move"), "newer: version 1\n");
    bench.refuses(5, "get s 1 --at best", &["no tag `best`; there are good, newer"]);
    bench.ok("tag s newer --delete");
    assert_eq!(bench.json("tag s")["tags"], serde_json::json!([{"name": "good", "version": 1}]));

    let made = bench.json("restore s good --message back");
    assert_eq!((&made["version"], &made["points"]), (&4.into(), &300.into()));
    assert_eq!(bench.ok("query s q.csv -k 3"), first);
    let log = bench.json("log s");
    let newest = &log["versions"][0];
    assert_eq!((&newest["kind"], &newest["parent"]), (&"restore".into(), &1.into()));
    assert_eq!(newest["message"], "back");
    bench.ok("verify s --all --deep");
}

#[test]
fn differences_are_told_by_id_and_by_answer() {
    let bench = Bench::with_store();
    bench.write("moved.csv", "0.5,0.5,0.5\n");
    bench.write("moved.ids", "1\n");
    bench.ok("insert s moved.csv --ids moved.ids --on-duplicate replace --quiet");
    let changes = bench.ok("diff s 1 4");
    let lines: Vec<&str> = changes.lines().collect();
    assert_eq!((lines[0], lines.len()), ("change,id", 43));
    let with = |what: &str| lines.iter().filter(|line| line.starts_with(what)).count();
    assert_eq!((with("added,"), with("removed,"), with("replaced,")), (39, 2, 1));
    assert!(lines.contains(&"replaced,1"));
    let count = bench.ok("diff s 1 4 --count");
    assert_eq!(count, "change,count\nadded,39\nremoved,2\nreplaced,1\n");
    let object = bench.json("diff s 4 1");
    has_keys(&object, &["from", "to", "added", "removed", "replaced", "segments_read"]);
    assert_eq!(object["added"].as_array().unwrap().len(), 2);
    assert_eq!(bench.ok("diff s 3 3"), "change,id\n");
    bench.refuses(5, "diff s 1 9", &["no version 9"]);
    bench.fails(2, "diff s 1 4 -k 3", &[]);
    bench.fails(2, "diff s 1", &[]);

    // Answers: those that differ, with what they were and what they are.
    let answers = bench.json("diff s 1 4 --queries q.csv -k 3");
    has_keys(&answers, &["from", "to", "k", "queries", "changed", "answers"]);
    let rows = |at: &str| bench.json(&format!("query s q.csv -k 3 --at {at}"))["answers"].clone();
    let (old, new) = (rows("1"), rows("4"));
    let mut changed = 0;
    for (i, (old, new)) in old.as_array().unwrap().iter().zip(new.as_array().unwrap()).enumerate() {
        let told = answers["answers"].as_array().unwrap().iter().find(|c| c["query"] == i);
        assert_eq!(told.is_some(), old != new, "query {i}");
        if let Some(told) = told {
            changed += 1;
            assert_eq!((&told["old"]["ids"], &told["new"]["ids"]), (&old["ids"], &new["ids"]));
        }
    }
    assert_eq!(answers["changed"], changed);
    let text = bench.ok("diff s 1 4 --queries q.csv -k 3");
    assert_eq!(text.lines().count(), 1 + 6 * changed);
    let none = bench.ok("diff s 2 2 --queries q.csv -k 3");
    assert_eq!(none, "query,version,rank,id,distance\n");
    let count = bench.ok("diff s 1 4 --queries q.csv -k 3 --count");
    let queries = answers["queries"].clone();
    assert_eq!(count, format!("queries,changed\n{queries},{changed}\n"));
}

#[test]
fn backups_go_round() {
    let bench = Bench::with_store();
    bench.ok("tag s first --at 1");
    let made = bench.json("backup s full.bak");
    has_keys(&made, &["since", "newest", "versions", "segments", "bytes", "seconds"]);
    assert_eq!((&made["since"], &made["newest"]), (&0.into(), &3.into()));
    assert_eq!(made["bytes"], bench.read("full.bak").len());
    let received = bench.json("receive t full.bak");
    has_keys(&received, &["version", "versions", "segments", "bytes", "seconds"]);
    assert_eq!((&received["version"], &received["versions"]), (&3.into(), &3.into()));
    bench.ok("delete s 50 --quiet");
    bench.ok("backup s more.bak --since 3 --quiet");
    assert!(bench.ok("receive t more.bak").starts_with("1 versions received, the newest is 4;"));
    for at in ["first", "2", "3", "4"] {
        let line = format!("q.csv -k 5 --at {at}");
        assert_eq!(bench.ok(&format!("query s {line}")), bench.ok(&format!("query t {line}")));
    }
    bench.ok("verify t --all --deep");
    bench.fails(3, "receive u q.csv", &["q.csv: this is not a backup stream"]);
    bench.fails(1, "receive u missing", &["missing"]);
    bench.fails(1, "receive u more.bak", &["goes on from version 3"]);
    bench.fails(5, "backup s x.bak --since 9", &["no version 9"]);
    assert!(!bench.names().iter().any(|name| name == "u" || name == "x.bak"));
}

#[test]
fn old_versions_go_by_a_rule() {
    let bench = Bench::with_store();
    bench.refuses(2, "expire s", &["--keep-last"]);
    bench.fails(2, "expire s --keep-last 0", &[]);
    bench.fails(2, "expire s --keep-for 30", &["30d, 12h"]);
    bench.ok("tag s first --at 1");
    let before = bench.ok("log s");
    let would = bench.json("expire s --keep-last 1 --dry-run");
    assert_eq!(bench.ok("log s"), before, "a dry run changes nothing");
    assert_eq!(would["expired"], serde_json::json!([2]));
    assert_eq!(bench.json("expire s --keep-for 1d")["expired"], serde_json::json!([]));
    let did = bench.json("expire s --keep-last 1");
    for field in ["expired", "pinned", "bytes_freed"] {
        assert_eq!(did[field], would[field], "{field}");
    }
    let size = bench.read("s").len() as u64;
    assert_eq!(did["file_bytes"], size);
    let parts = ["version 2 expired at 2", "rule \"keep last 1\"", "oldest version left is 1"];
    bench.refuses(5, "query s q.csv -k 1 --at 2", &parts);
    bench.refuses(5, "restore s 2", &parts);
    bench.refuses(5, "tag s x --at 2", &parts);
    let listed = bench.json("log s");
    let listed: Vec<u64> = listed["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v["version"].as_u64().unwrap())
        .collect();
    assert_eq!(listed, [3, 1]);
    let saved = bench.json("expire s --keep-last 2 --keep-for 0s --save-policy");
    assert_eq!(saved["saved_policy"], "keep last 2, keep for 1ns");
    bench.ok("delete s 50 --quiet");
    bench.ok("delete s 51 --quiet");
    assert_eq!(bench.json("log s")["versions"].as_array().unwrap().len(), 3);
    assert_eq!(bench.json("expire s --save-policy")["saved_policy"], Value::Null);
    bench.ok("verify s --all --deep");
}

#[test]
fn answers_have_the_documented_form() {
    let bench = Bench::new();
    bench.write("a.csv", "x,y\n0,0\n3,4\n0,0.1\n-3,-4\n");
    bench.write("q.csv", "0,0\n3,4\n");
    bench.ok("build s a.csv");
    let header = "query,rank,id,distance\n";
    assert_eq!(
        bench.ok("query s q.csv -k 3"),
        format!("{header}0,0,0,0\n0,1,2,0.1\n0,2,1,5\n1,0,1,0\n1,1,2,4.920366\n1,2,0,5\n")
    );
    assert_eq!(
        bench.ok("query s q.csv --radius 5"),
        format!("{header}0,0,0,0\n0,1,2,0.1\n0,2,1,5\n0,3,3,5\n1,0,1,0\n1,1,2,4.920366\n1,2,0,5\n")
    );
    assert_eq!(bench.ok("query s q.csv -k 0"), header);
    assert_eq!(bench.ok("query s q.csv -k 9").lines().count(), 1 + 2 * 4);
    assert_eq!(bench.ok("query s q.csv -k 2 --at 0 --quiet"), header);
    let object = bench.json("query s q.csv -k 2");
    assert_eq!(
        object,
        serde_json::from_str::<Value>(
            r#"{"version":1,"points":4,"dim":2,"k":2,"queries":2,"answers":[
                {"query":0,"ids":[0,2],"distances":[0,0.1]},
                {"query":1,"ids":[1,2],"distances":[0,4.920366]}]}"#
        )
        .unwrap()
    );
    assert_eq!(bench.json("query s q.csv --radius 1")["answers"][1]["ids"], serde_json::json!([1]));
}

#[test]
fn a_version_answers_the_same_for_ever_and_as_brute_force_does() {
    let bench = Bench::new();
    bench.write("q.csv", "0.5,0.5,0.5\n3,2,1\n-1,9,0.25\n");
    bench.write("a.csv", points(0..300));
    bench.ok("build s a.csv --leaf-capacity 2");
    let asks = ["-k 10", "-k 1000", "--radius 2", "--radius 0"];
    let mut then = Vec::new();
    for version in 1..=5 {
        for ask in asks {
            let answer = bench.ok(&format!("query s q.csv {ask}"));
            let brute = format!("query s q.csv {ask} --brute-force --threads 1");
            assert_eq!(answer, bench.ok(&brute), "version {version}, {ask}");
            then.push((version, ask, answer));
        }
        if version % 2 == 1 {
            bench.write("b.csv", points(300 * version..300 * version + 50));
            bench.ok("insert s b.csv");
        } else {
            bench.ok(&format!("delete s {} {} {}", version, 2 * version + 100, 299 - version));
        }
    }
    for (version, ask, answer) in then {
        let now = bench.ok(&format!("query s q.csv {ask} --at {version}"));
        assert_eq!(now, answer, "version {version}, {ask}");
    }
}

#[test]
fn answers_go_to_files() {
    let bench = Bench::with_store();
    let csv = bench.ok("query s q.csv -k 5");
    assert!(bench.ok("query s q.csv -k 5 --output out.csv").contains("3 queries"));
    assert_eq!(bench.read("out.csv"), csv.as_bytes());
    assert_eq!(bench.ok("query s q.csv -k 5 --output -"), csv);

    let summary = bench.json("query s q.csv -k 5 --output out.npy");
    assert_eq!(summary["files"], serde_json::json!(["out.npy", "out_distances.npy"]));
    let (shape, ids) = read_npy::<u64>(&bench.read("out.npy"));
    let (distance_shape, distances) = read_npy::<f32>(&bench.read("out_distances.npy"));
    assert_eq!((&shape[..], &distance_shape[..]), (&[3, 5][..], &[3, 5][..]));
    for (line, (id, distance)) in csv.lines().skip(1).zip(ids.iter().zip(&distances)) {
        let fields: Vec<&str> = line.split(',').collect();
        assert_eq!(fields[2].parse::<u64>().unwrap(), *id);
        assert_eq!(fields[3].parse::<f32>().unwrap().to_bits(), distance.to_bits());
    }

    bench.ok("query s q.csv --radius 2 --output radius.csv --quiet");
    assert_eq!(bench.read("radius.csv"), bench.ok("query s q.csv --radius 2").as_bytes());
    bench.refuses(2, "query s q.csv --radius 2 --output r.npy", &[".csv"]);
    bench.refuses(2, "query s q.csv -k 2 --output r.txt", &[".csv or .npy"]);
    bench.refuses(1, "query s q.csv -k 2 --output missing/r.csv", &["cannot write missing/r.csv"]);
    bench.write("bad.csv", "1,2,3\n1,2,x\n");
    bench.refuses(1, "query s bad.csv -k 2 --output out.csv", &["bad.csv", "line 2, column 3"]);
    assert_eq!(bench.read("out.csv"), csv.as_bytes());
}

#[test]
fn export_and_build_go_round() {
    let bench = Bench::with_store();
    let csv = bench.ok("export s - --at 2");
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!((lines.len(), lines[0], lines[1]), (341, "id,x0,x1,x2", "0,0,0,0"));
    assert_eq!(lines[8], format!("7,{}", points(7..8).trim_end()));
    bench.ok("export s out.csv --at 2");
    assert_eq!(bench.read("out.csv"), csv.as_bytes());

    let object = bench.json("export s p.npy");
    assert_eq!((&object["points"], &object["dim"]), (&337.into(), &3.into()));
    assert_eq!(object["files"], serde_json::json!(["p.npy", "p_ids.npy"]));
    assert_eq!(read_npy::<f32>(&bench.read("p.npy")).0, [337, 3]);
    let (shape, ids) = read_npy::<u64>(&bench.read("p_ids.npy"));
    assert_eq!(shape, [337]);
    assert!(ids.is_sorted() && !ids.contains(&310));
    bench.ok("build copy p.npy --ids p_ids.npy");
    assert_eq!(bench.ok("query copy q.csv -k 20"), bench.ok("query s q.csv -k 20"));
    assert_eq!(bench.ok("export copy -"), bench.ok("export s -"));

    bench.fails(2, "export s out.txt", &[".csv or .npy"]);
    bench.fails(2, "export s - --json", &["name a file"]);
    bench.fails(1, "build t out.csv", &["out.csv", "named `id`", "--id-column"]);
    bench.ok("export s out.csv");
    bench.ok("build t out.csv --id-column id");
    assert_eq!(bench.ok("export t -"), bench.ok("export s -"));
    bench.ok("build u out.csv --columns x0,x1,x2");
    assert_eq!(bench.json("stats u")["points"], bench.json("stats t")["points"]);
}

#[test]
fn points_are_found_by_id() {
    let bench = Bench::new();
    bench.write("a.csv", "0.1,1e-40\n-2.5,3e15\n");
    bench.write("ids.txt", "18446744073709551615\n5\n");
    bench.ok("build s a.csv --ids ids.txt");
    let text = bench.ok("get s 5 18446744073709551615");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("id,x0,x1"));
    assert_eq!(lines.next(), Some("5,-2.5,3000000000000000"));
    let fields: Vec<&str> = lines.next().unwrap().split(',').collect();
    assert_eq!(fields[0], u64::MAX.to_string());
    assert_eq!(fields[2].parse::<f32>().unwrap(), 1e-40);
    let object = bench.json("get s 5");
    assert_eq!(object["points"][0]["id"], 5);
    assert_eq!(object["points"][0]["point"][1].as_f64(), Some(3e15));

    bench.ok("delete s 5");
    bench.refuses(5, "get s 18446744073709551615 5", &["no point has id 5 in version 2"]);
    assert!(bench.ok("get s 5 --at 1").ends_with("5,-2.5,3000000000000000\n"));
}

#[test]
fn live_ids_are_refused_or_replaced() {
    let bench = Bench::with_store();
    bench.write("ids.txt", "5\n900\n");
    bench.write("c.csv", "50,50,50\n60,60,60\n");
    bench.refuses(1, "insert s c.csv --ids ids.txt", &["c.csv", "row 0", "id 5 is live"]);
    let made = bench.json("insert s c.csv --ids ids.txt --on-duplicate replace");
    assert_eq!((&made["version"], &made["points"]), (&4.into(), &338.into()));
    assert_eq!(bench.ok("get s 5 900"), "id,x0,x1,x2\n5,50,50,50\n900,60,60,60\n");
    assert_eq!(bench.json("log s")["versions"][0]["kind"], "mixed");
    bench.write("twice.txt", "6\n6\n");
    for how in ["error", "replace"] {
        let line = format!("insert s c.csv --ids twice.txt --on-duplicate {how}");
        let part = if how == "error" { "id 6" } else { "row 1: id 6 already appears in row 0" };
        bench.refuses(1, &line, &[part]);
    }
    bench.write("three.txt", "1000\n1001\n1002\n");
    bench.refuses(1, "insert s c.csv --ids three.txt", &["3 ids for 2 points"]);
}

#[test]
fn every_format_of_points_gives_the_same_store() {
    let bench = Bench::new();
    let values = [0.0f32, 1.0, 2.0, 3.0, 4.0, 255.0];
    bench.write("a.csv", "0,1\n2,3\n4,255\n");
    bench.write("a.npy", f32_npy("(3, 2)", &values));
    let doubles: Vec<u8> = values.iter().flat_map(|&v| f64::from(v).to_le_bytes()).collect();
    bench.write("b.npy", npy("<f8", "(3, 2)", &doubles));
    bench.write("c.npy", npy("|u1", "(3, 2)", &[0, 1, 2, 3, 4, 255]));
    bench.write("d.dat", bench.read("a.csv"));
    bench.ok("build a a.csv");
    let export = bench.ok("export a -");
    for line in ["a.npy", "b.npy", "c.npy", "d.dat --format csv"] {
        bench.ok(&format!("build s {line}"));
        assert_eq!(bench.ok("export s -"), export, "{line}");
        fs::remove_file(bench.path("s")).unwrap();
    }
    bench.fails(1, "build s d.dat", &["d.dat: unknown format", ".npy, .csv"]);

    let feed = |line: &str, input: &str| {
        let mut command = bench.command(line);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        finish_with_input(child.unwrap(), input)
    };
    assert_eq!(feed("build s - --quiet", "0,1\n2,3\n4,255\n").status.code(), Some(0));
    assert_eq!(bench.ok("export s -"), export);
    let output = feed("query s - -k 1", "2,2\n");
    assert_eq!(output.stdout, b"query,rank,id,distance\n0,0,1,1\n");
    bench.fails(2, "insert s - --ids -", &["standard input"]);
}

fn finish_with_input(mut child: Child, input: &str) -> Output {
    let mut stdin = child.stdin.take().unwrap();
    // One that is being stopped reads no more.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().unwrap()
}

#[test]
fn bad_input_is_named_and_changes_nothing() {
    let bench = Bench::with_store();
    let floats = f32_npy("(2, 3)", &[1.0, 2.0, 3.0, 4.0, f32::NAN, 6.0]);
    bench.write("nan.npy", &floats);
    bench.write("short.npy", &floats[..floats.len() - 1]);
    bench.write("claims.npy", f32_npy("(1000000000000000, 3)", &[0.0; 6]));
    bench.write("half.npy", npy("<f2", "(2, 3)", &[0; 12]));
    bench.write("big.npy", npy(">f4", "(2, 3)", &[0; 24]));
    bench.write("flat.npy", f32_npy("(6,)", &[0.0; 6]));
    bench.write("wide.npy", f32_npy("(3, 2)", &[0.0; 6]));
    bench.write("text.npy", "1,2,3\n");
    bench.write("far.npy", f32_npy("(2, 3)", &[1.0, 2.0, 3.0, 4.0, 5.0, 1e30]));
    bench.write("ragged.csv", "1,2,3\n4,5,6\n7,8\n");
    bench.write("word.csv", "1,2,3\n4,five,6\n");
    bench.write("nan.csv", "1,2,3\n4,nan,6\n");
    bench.write("wide.csv", "1,2\n3,4\n5,6\n");
    bench.write("empty.csv", "");
    for (input, parts) in [
        ("nan.npy", &["nan.npy", "row 1, column 1", "NaN"][..]),
        ("short.npy", &["short.npy: truncated", "152", "151"]),
        ("claims.npy", &["claims.npy: truncated", "1000000000000000 rows"]),
        ("half.npy", &["half.npy", "<f2", "float32, float64 or uint8"]),
        ("big.npy", &["big.npy", ">f4"]),
        ("flat.npy", &["flat.npy", "shape (6)", "n rows x d columns"]),
        ("wide.npy", &["wide.npy", "points have 2 dimensions, the store has 3"]),
        ("text.npy", &["text.npy: not an .npy file"]),
        ("far.npy", &["far.npy", "row 1, column 2"]),
        ("ragged.csv", &["ragged.csv: line 3 has 2 fields, the first row has 3"]),
        ("word.csv", &["word.csv: line 2, column 2: `five` is not a number"]),
        ("nan.csv", &["nan.csv: line 2, column 2: `nan` is not finite"]),
        ("wide.csv", &["wide.csv", "points have 2 dimensions, the store has 3"]),
        ("empty.csv", &["empty.csv: empty"]),
        ("missing.csv", &["cannot open missing.csv"]),
    ] {
        bench.refuses(1, &format!("insert s {input}"), parts);
        bench.refuses(1, &format!("query s {input} -k 3"), parts);
        if !input.starts_with("wide") {
            bench.refuses(1, &format!("build t {input}"), parts);
        }
    }
    bench.refuses(1, "bench s wide.csv -k 3", &["points have 2 dimensions"]);

    bench.write("ids.npy", npy("<i8", "(2,)", &[-1i64, 5].map(i64::to_le_bytes).concat()));
    bench.write("ids.txt", "1\n2\nthree\n");
    bench.write("twice.txt", "1\n2\n1\n");
    bench.refuses(1, "delete s --ids ids.npy", &["ids.npy", "entry 0 (from 0) is -1"]);
    bench.refuses(1, "delete s --ids ids.txt", &["ids.txt: line 3: `three`"]);
    bench.refuses(1, "delete s --ids twice.txt", &["id 1 appears twice"]);
    bench.refuses(5, "delete s 1 2 310 3", &["no live point has id 310"]);
    bench.refuses(1, "build s a.csv", &["s exists already"]);
}

#[test]
fn exit_codes_tell_what_kind_of_failure_it_was() {
    let bench = Bench::with_store();
    for line in [
        "",
        "grow s",
        "query s q.csv",
        "query s q.csv -k 1 --radius 1",
        "query s q.csv --radius -1",
        "query s q.csv -k 1 --at 2026-11-25T22:00:00",
        "tag s 17",
        "tag s latest",
        "tag s a\u{202e}b",
        "tag s --delete",
        "restore s",
        "delete s",
        "delete s one",
        "get s -1",
        "build t a.csv --metric cosine",
        "build t a.csv --leaf-capacity 0",
    ] {
        bench.fails(2, line, &[]);
    }
    bench.fails(2, "query s q.csv -k 1 --at 2026-11-25", &["offset from UTC"]);
    bench.fails(2, &format!("delete s 1 --message {}", "m".repeat(257)), &["257 bytes"]);
    for verb in ["log", "stats", "verify", "get 1", "export out.csv", "query q.csv -k 1"] {
        let (verb, rest) = verb.split_once(' ').unwrap_or((verb, ""));
        bench.fails(1, &format!("{verb} missing {rest}"), &["missing", "cannot open"]);
        bench.fails(3, &format!("{verb} a.csv {rest}"), &["a.csv", "not a treering file"]);
        if !matches!(verb, "log" | "stats" | "verify") {
            let part = "there is no version 4; the newest is 3";
            bench.fails(5, &format!("{verb} s {rest} --at 4"), &["s: ", part]);
        }
    }
    bench.refuses(5, "query s q.csv -k 1 --at tuesday", &["no tag `tuesday`", "no tags"]);
    let first = "the store had no version at 1999-12-31T23:00:00.000000000Z; version 1 is of 2";
    bench.refuses(5, "get s 1 --at 2000-01-01T00:00:00+01:00", &[first]);
    for line in ["tag s x --at 4", "restore s 4", "verify s --at 4"] {
        bench.refuses(5, line, &["there is no version 4"]);
    }
    bench.refuses(5, "tag s x --at 0", &["there is no version 0"]);
    bench.refuses(5, "tag s x --delete", &["no tag `x`"]);
    bench.fails(5, "stats s --at 4", &["there is no version 4"]);
    bench.fails(3, "insert a.csv b.csv", &["not a treering file"]);
    assert!(bench.ok("--help").contains("Exit codes"));
    assert!(bench.ok("--version").starts_with("treering "));

    let held = treering::Store::open(bench.path("s")).unwrap();
    bench.refuses(4, "insert s b.csv", &["s: another writer"]);
    bench.refuses(4, "delete s 1", &["another writer"]);
    assert_eq!(bench.ok("query s q.csv -k 1").lines().count(), 4);
    drop(held);
    bench.ok("delete s 1");
}

#[test]
fn a_store_may_be_emptied_and_filled_again() {
    let bench = Bench::with_store();
    let csv = bench.ok("export s -");
    let ids: String =
        csv.lines().skip(1).map(|line| line.split(',').next().unwrap().to_owned() + "\n").collect();
    bench.write("all.txt", ids);
    assert_eq!(bench.json("delete s --ids all.txt")["points"], 0);
    assert_eq!(bench.ok("query s q.csv -k 3"), "query,rank,id,distance\n");
    assert_eq!(bench.ok("query s q.csv --radius 9 --brute-force"), "query,rank,id,distance\n");
    assert_eq!(bench.ok("export s -"), "id,x0,x1,x2\n");
    bench.ok("query s q.csv -k 3 --output none.npy");
    assert_eq!(read_npy::<u64>(&bench.read("none.npy")).0, [3, 0]);
    assert_eq!(bench.json("insert s b.csv")["points"], 40);
    assert!(bench.ok("get s 340").starts_with("id,"), "ids are never given twice");
    assert_eq!(bench.json("verify s --all --deep")["ok"], true);
}

#[test]
fn stats_and_bench_have_their_fields() {
    let bench = Bench::with_store();
    let stats = bench.json("stats s");
    has_keys(
        &stats,
        &["height", "nodes", "file_bytes", "live_bytes", "pinned_bytes", "reclaimable_bytes"],
    );
    assert_ne!(stats["checksum"], bench.json("stats s --at 1")["checksum"]);
    assert_eq!(
        (&stats["version"], &stats["live"], &stats["dim"]),
        (&3.into(), &337.into(), &3.into())
    );
    assert_eq!(stats["metric"], "euclidean");
    assert_eq!(stats["file_bytes"], bench.read("s").len());
    assert_eq!(bench.json("stats s --at 1")["live"], 300);
    assert!(bench.ok("stats s").contains("metric             euclidean\n"));

    let measured = bench.json("bench s q.csv -k 4 --threads 1");
    assert_eq!((&measured["queries"], &measured["k"]), (&3.into(), &4.into()));
    assert_eq!((&measured["threads"], &measured["mismatches"]), (&1.into(), &0.into()));
    for value in [
        &measured["queries_per_second"],
        &measured["distance_evaluations_per_query"],
        &measured["latency_us"]["p50"],
        &measured["latency_us"]["p99"],
    ] {
        assert!(value.as_f64().unwrap() > 0.0, "{measured}");
    }
}

#[test]
fn verify_finds_damage_and_says_where() {
    let bench = Bench::with_store();
    // These bytes stand in a segment of coordinates and can be found there.
    bench.write("odd.csv", "1234.5,-9876.25,4321.75\n");
    bench.ok("insert s odd.csv");
    for line in ["verify s", "verify s --at 2", "verify s --all", "verify s --all --deep"] {
        let report = bench.json(line);
        assert_eq!(report["ok"], true, "{line}: {report}");
        assert_eq!(report["problems"], serde_json::json!([]));
        assert!(report["versions_checked"].as_u64().unwrap() >= 1);
        assert!(report["segments_checked"].as_u64().unwrap() >= 1);
        assert!(bench.ok(line).starts_with("ok: "));
    }
    assert_eq!(bench.json("verify s --all")["versions_checked"], 4);
    bench.fails(2, "verify s --all --at 1", &[]);

    bench.fails(2, "verify s --scrub --all", &[]);
    bench.fails(2, "verify s --rate 1MiB", &["--scrub"]);
    let whole = bench.json("verify s --scrub");
    has_keys(&whole, &["ok", "bytes_checked", "next", "problems"]);
    assert_eq!((&whole["ok"], &whole["next"]), (&true.into(), &Value::Null));
    let part = bench.json("verify s --scrub --at-most 4KiB --rate 100MiB");
    let next = part["next"].as_u64().unwrap();
    assert!(bench.ok("verify s --scrub --at-most 4KiB").contains(&format!("--from {next}")));
    let rest = bench.json(&format!("verify s --scrub --from {next}"));
    let bytes = |report: &Value| report["bytes_checked"].as_u64().unwrap();
    assert_eq!(bytes(&part) + bytes(&rest), bytes(&whole));

    let sound = bench.read("s");
    let mut bytes = sound.clone();
    let needle: Vec<u8> =
        [1234.5f32, -9876.25, 4321.75].iter().flat_map(|v| v.to_le_bytes()).collect();
    let at = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    bytes[at + 1] ^= 0x40;
    bench.write("s", &bytes);
    let output = bench.run("verify s --all --json");
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ok"], false);
    has_keys(&report["problems"][0], &["place", "defect", "versions"]);
    let output = bench.run("verify s --all");
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("byte") && text.contains("NOT OK"), "{text}");
    let output = bench.run("verify s --scrub");
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("byte") && text.contains("NOT OK"), "{text}");

    bench.write("s", &sound[..sound.len() / 2]);
    let output = bench.run("verify s --json");
    assert_eq!(output.status.code(), Some(3));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ok"], false);
    bench.fails(3, "query s q.csv -k 1", &["s: "]);
}

#[test]
fn recover_says_what_is_left_and_writes_only_when_asked() {
    let bench = Bench::with_store();
    let whole = bench.json("recover s");
    let all = ["commit", "newest_commit", "file_bytes", "needed_bytes"];
    has_keys(&whole, &[&all[..], &["in_doubt", "intact", "lost", "problems", "written"]].concat());
    assert_eq!((whole["lost"].as_array().unwrap().len(), &whole["written"]), (0, &false.into()));
    let versions = whole["intact"].as_array().unwrap().len();
    // The newest version is cut off.
    let bytes = bench.read("s");
    bench.write("odd.csv", "1234.5,-9876.25,4321.75\n");
    bench.ok("insert s odd.csv");
    let longer = bench.read("s");
    let cut = &longer[..bytes.len().min(longer.len() - 1)];
    bench.write("s", cut);
    bench.fails(3, "log s", &["truncated", "recover"]);
    let output = bench.run("recover s");
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(&format!("lost: {}\n", versions + 1)), "{text}");
    assert!(text.contains("nothing was written"), "{text}");
    assert!(bench.read("s") == cut);
    // What is lost is lost, though the rest was written.
    let output = bench.run("recover s --write new --json");
    assert_eq!(output.status.code(), Some(3));
    let written: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&written["written"], &written["in_doubt"]), (&true.into(), &false.into()));
    assert!(bench.read("s") == cut);
    assert_eq!(bench.json("verify new --all --deep")["ok"], true);
    bench.fails(1, "recover s --write new", &["new exists already"]);
    bench.fails(3, "recover odd.csv", &["not a treering file"]);
}

/// What a writer is about to change is not damage.
#[test]
fn recover_refuses_beside_a_writer_and_keeps_writers_out() {
    let bench = Bench::with_store();
    let path = bench.path("s");
    let before = bench.read("s");
    let writer = treering::Store::open(&path).unwrap();
    bench.fails(4, "recover s", &["another writer"]);
    bench.fails(4, "recover s --write new", &["another writer"]);
    drop(writer);
    let reader =
        treering::Store::open_with(&path, treering::OpenOptions::new().read_only(true)).unwrap();
    bench.ok("recover s --write new");
    drop(reader);
    assert!(bench.read("s") == before);
}

#[test]
fn the_demo_tells_a_true_story() {
    let bench = Bench::new();
    let story = bench.json("demo");
    let versions = story["versions"].as_array().unwrap();
    assert!(versions.len() >= 6);
    assert!(versions.iter().map(|v| v["added"].as_u64().unwrap()).sum::<u64>() >= 100_000);
    assert!(versions.iter().any(|v| v["removed"].as_u64().unwrap() > 0));
    assert!(versions.iter().all(|v| v["mismatches"] == 0));
    assert!(bench.names().is_empty());
}

/// Whoever asks one question after the other down a pipe gets each answer before the next question.
#[test]
fn a_question_down_a_pipe_is_answered_at_once() {
    use std::io::BufRead;
    let bench = Bench::with_store();
    for line in ["query s - -k 1", "query s - -k 1 --brute-force"] {
        let mut command = bench.command(line);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut questions = child.stdin.take().unwrap();
        let mut answers = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        for number in 0..3 {
            questions.write_all(b"0,1,2\n").unwrap();
            if number == 0 {
                assert_eq!(answers.next().unwrap().unwrap(), "query,rank,id,distance");
            }
            let answer = answers.next().unwrap().unwrap();
            assert!(answer.starts_with(&format!("{number},")), "{answer}");
        }
        drop(questions);
        assert_eq!(answers.count(), 0);
        assert!(child.wait().unwrap().success());
    }
}

#[cfg(unix)]
#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let bench = Bench::with_store();
    let queries: String = (0..2_000).map(|i| format!("{},1,2\n", i % 7)).collect();
    bench.write("many.csv", queries);
    let mut command = bench.command("query s many.csv -k 300");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

#[cfg(target_os = "linux")]
#[test]
fn an_interrupt_leaves_things_as_they_were() {
    let bench = Bench::with_store();
    let before = bench.read("s");
    for line in ["build t -", "insert s -"] {
        let mut command = bench.command(line);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let pid = child.id();
        // The handler of SIGINT is in place before the input is read.
        let catches = || {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
            u64::from_str_radix(caught.trim(), 16).unwrap() & 2 != 0
        };
        while !catches() {
            std::thread::yield_now();
        }
        let sent = Command::new("sh").args(["-c", &format!("kill -INT {pid}")]).status().unwrap();
        assert!(sent.success());
        // The token is set on another thread; give it the time that a person would.
        std::thread::sleep(std::time::Duration::from_millis(200));
        let output = finish_with_input(child, "1,2,3\n");
        assert_eq!(output.status.code(), Some(130), "{line}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("interrupted"));
    }
    assert!(bench.read("s") == before);
    assert_eq!(bench.names(), ["a.csv", "b.csv", "q.csv", "s"]);
}
