//! Small inputs of every kind, each with the value that it means or the message and exit code that
//! it deserves: text, ids, times, sizes.

use crate::cli::Bench;

/// What comes of an input.
enum Fate {
    /// The store that is built of it, as exported.
    Gives(&'static str),
    /// Exit code, and words of the message.
    Fails(i32, &'static [&'static str]),
}
use Fate::{Fails, Gives};

/// Text, and how it is to be read.
const CSV: &[(&[u8], &str, Fate)] = &[
    (b"1,2\n3,4\n", "", Gives("0,1,2\n1,3,4\n")),
    (b"x,y\n1,2\n", "", Gives("0,1,2\n")),
    (b"x,y\r\n1,2\r\n\r\n3,4", "", Gives("0,1,2\n1,3,4\n")),
    (b" 1 , 2 \n   \n\t\n3,4\n", "", Gives("0,1,2\n1,3,4\n")),
    (b"\xEF\xBB\xBFx,y\n1,2\n", "", Gives("0,1,2\n")),
    (b"\"x\",\"y\"\n\"1\",\"2\"\n", "", Gives("0,1,2\n")),
    (b"0,1\n2,3\n", "", Gives("0,0,1\n1,2,3\n")),
    (b"0,1\n0.5,3\n", "", Fails(1, &["`0,1`", "--header", "--no-header"])),
    (b"0,1\n0.5,3\n", "--header", Gives("0,0.5,3\n")),
    (b"0,1\n0.5,3\n", "--no-header", Gives("0,0,1\n1,0.5,3\n")),
    (b"1,2\n3,4\n", "--header", Gives("0,3,4\n")),
    (b"x,y\n3,4\n", "--no-header", Fails(1, &["line 1, column 1: `x` is not a number"])),
    (b"1;2\n3;4\n", "", Fails(1, &["line 1", "--delimiter ';'"])),
    (b"1;2;3", "", Fails(1, &["--delimiter ';'"])),
    (b"1;2\n3;4\n", "--delimiter ;", Gives("0,1,2\n1,3,4\n")),
    (b"a;b\n3;4\n", "", Fails(1, &["line 2", "--delimiter ';'"])),
    (b"1\t2\n", "", Fails(1, &["--delimiter tab"])),
    (b"1\t2\n", "--delimiter tab", Gives("0,1,2\n")),
    (b"1  2\n 3 4\n", "", Fails(1, &["--delimiter space"])),
    (b"1  2\n 3 4\n", "--delimiter space", Gives("0,1,2\n1,3,4\n")),
    (b"1|2\n", "", Fails(1, &["--delimiter '|'"])),
    (b"1,5;2,5\n", "--delimiter ;", Fails(1, &["`1,5`", "decimal point"])),
    (b"1,2\n", "--delimiter ab", Fails(2, &["separator"])),
    (b"1,2\n", "--delimiter .", Fails(2, &["separator"])),
    (b"\"3\n1\n", "", Fails(1, &["line 1, field 1", "not closed"])),
    (b"1,2\n3,\"4\n5,6\n", "", Fails(1, &["line 2, field 2", "not closed"])),
    (b"1,\"2\"5\n", "", Fails(1, &["line 1, field 2", "closing quote"])),
    (b"1,2\"\n", "", Fails(1, &["line 1, field 2", "quote"])),
    (b"NA,NA\n1,2\n", "", Fails(1, &["line 1, column 1: `NA` is not a number"])),
    (b"1,2\n,4\n", "", Fails(1, &["line 2, column 1: `` is not a number"])),
    (b"1,2\nnull,4\n", "", Fails(1, &["line 2, column 1: `null`"])),
    (b"1,2\nnan,4\n", "", Fails(1, &["line 2, column 1: `nan` is not finite"])),
    (b"1,2\n1e39,4\n", "", Fails(1, &["line 2, column 1: `1e39` is not finite"])),
    (b"1,2\n1e20,4\n", "", Fails(1, &["row 1, column 0: |1e20| is beyond"])),
    (b"1,2\n3\n", "", Fails(1, &["line 2 has 1 fields, the first row has 2"])),
    (b"x,y\n1,2,3\n", "", Fails(1, &["line 2 has 3 fields"])),
    (b"", "", Fails(1, &["empty"])),
    (b"\n\n  \n", "", Fails(1, &["empty"])),
    (b"x,y\n", "", Fails(1, &["a header and no rows"])),
    (b"\xFF\xFEx\0,\0y\0\n\0", "", Fails(1, &["line 1", "UTF-16", "UTF-8"])),
    (b"1\x00,\x002\x00\n\x00", "", Fails(1, &["line 1", "zero byte"])),
    (&[0; 4096], "", Fails(1, &["zero byte"])),
    (b"1,2\n3,\xE9\n", "", Fails(1, &["line 2", "not UTF-8"])),
    (b"1,2\r3,4\r", "", Fails(1, &["carriage return"])),
    (b",x,y\n0,1,2\n", "", Fails(1, &["column 1 is named ``", "--id-column", "--columns"])),
    (b"index,x\n0,1\n", "", Fails(1, &["column 1 is named `index`"])),
    (b"x,Unnamed: 0\n0,1\n", "", Fails(1, &["column 2 is named `Unnamed: 0`"])),
    (b"x,point_id\n0,1\n", "", Fails(1, &["column 2 is named `point_id`"])),
    (b"x,y,ID\n0,1,5\n", "", Fails(1, &["column 3 is named `ID`"])),
    (b"x,y,ID\n0,1,5\n", "--id-column ID", Gives("5,0,1\n")),
    (b"x,y,ID\n0,1,5\n", "--id-column 3", Gives("5,0,1\n")),
    (b"x,y,ID\n0,1,5\n", "--columns y,x", Gives("0,1,0\n")),
    (b"x,y,ID\n0,1,5\n", "--columns 2", Gives("0,1\n")),
    (b"x,y,ID\n0,1,5\n", "--columns z", Fails(1, &["column `z`", "no column of this name"])),
    (b"x,y,ID\n0,1,-5\n", "--id-column ID", Fails(1, &["line 2: `-5` is not an id"])),
    (b"x,x\n0,1\n", "--columns x", Fails(1, &["several have this name"])),
    (b"id\n4\n", "--id-column id", Fails(1, &["no column of coordinates"])),
    (b"width,hidden\n0,1\n", "", Gives("0,0,1\n")),
];

#[test]
fn rows_of_text() {
    let bench = Bench::new();
    for (text, how, fate) in CSV {
        let what = String::from_utf8_lossy(text).into_owned();
        bench.write("in.csv", text);
        let words = how.split(' ').filter(|word| !word.is_empty());
        let mut command = bench.command("build s in.csv --quiet");
        let output = command.args(words).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        match fate {
            Gives(rows) => {
                assert_eq!(output.status.code(), Some(0), "{what:?} {how}: {errors}");
                let export = bench.ok("export s -");
                assert_eq!(export.split_once('\n').unwrap().1, *rows, "{what:?} {how}");
                std::fs::remove_file(bench.path("s")).unwrap();
            }
            Fails(code, parts) => {
                assert_eq!(output.status.code(), Some(*code), "{what:?} {how}: {errors}");
                for part in *parts {
                    assert!(errors.contains(part), "{what:?} {how}: `{part}` in {errors}");
                }
                assert!(!bench.path("s").exists(), "{what:?} {how}");
            }
        }
    }
}

/// Ids of a file, and what comes of deleting them from a store of the ids 0 to 9.
const IDS: &[(&[u8], Fate)] = &[
    (b"3\n4\n", Gives("8")),
    (b"id\n3\n", Gives("9")),
    (b"\xEF\xBB\xBF3\r\n\"4\"\r\n\r\n 5 \r\n", Gives("7")),
    (b"\"point id\"\r\n3\r\n", Gives("9")),
    (b"", Gives("10")),
    (b"id\n", Fails(1, &["line 1: `id` is not an id"])),
    (b"3\nid\n", Fails(1, &["line 2: `id` is not an id"])),
    (b"2.5\n", Fails(1, &["line 1: `2.5`"])),
    (b"-1\n", Fails(1, &["line 1: `-1`"])),
    (b"1,2\n", Fails(1, &["line 1: `1,2`"])),
    (b"18446744073709551616\n", Fails(1, &["line 1"])),
    (b"\"3\n", Fails(1, &["line 1", "not closed"])),
    (b"3\0\n", Fails(1, &["zero byte"])),
    (b"11\n", Fails(5, &["11"])),
    (b"3\n3\n", Fails(1, &["3"])),
];

#[test]
fn lists_of_ids() {
    let bench = Bench::new();
    bench.write("a.csv", (0..10).map(|i| format!("{i},0.5\n")).collect::<String>());
    for (text, fate) in IDS {
        let what = String::from_utf8_lossy(text).into_owned();
        bench.ok("build s a.csv --quiet");
        bench.write("ids", text);
        match fate {
            Gives(points) => {
                let made = bench.json("delete s --ids ids");
                assert_eq!(made["points"].to_string(), *points, "{what:?}");
                assert_eq!(made["new"], (*points != "10"), "{what:?}");
            }
            Fails(code, parts) => bench.refuses(*code, "delete s --ids ids", parts),
        }
        std::fs::remove_file(bench.path("s")).unwrap();
    }
}

#[test]
fn times_sizes_and_names() {
    let bench = Bench::new();
    bench.write("a.csv", "1,2\n3,4\n");
    bench.ok("build s a.csv --quiet");
    bench.ok("insert s a.csv --quiet");
    for (when, version) in [
        ("latest", 2),
        ("2", 2),
        ("1", 1),
        ("9999-12-31T23:59:59Z", 2),
        ("9999-01-01T00:00:00+14:00", 2),
    ] {
        assert_eq!(bench.json(&format!("stats s --at {when}"))["version"], version, "{when}");
    }
    for (when, part) in [
        ("2026-02-30T00:00:00Z", "there is no such time"),
        ("2026-01-01T24:00", "there is no such time"),
        ("2026-01-01T24:00:00Z", "there is no such time"),
        ("2026-13-01", "there is no such time"),
        ("2026-01-01T10:00:00", "offset"),
        ("20260101T100000", "offset"),
    ] {
        bench.refuses(2, &format!("stats s --at {when}"), &[part]);
        bench.refuses(2, &format!("tag s {when}"), &["time"]);
    }
    bench.refuses(2, "tag s latest", &["reserved"]);
    bench.refuses(2, "tag s 17", &["version number"]);
    bench.refuses(5, "stats s --at 3", &["3"]);
    bench.refuses(5, "stats s --at release", &["no tag `release`"]);
    let output = bench.run("stats s --at 0");
    assert!(String::from_utf8_lossy(&output.stderr).contains("the empty store"));
    for (size, is_one) in [
        ("64M", true),
        ("64MiB", true),
        ("64mb", true),
        ("0.5G", true),
        ("67108864", true),
        ("1g", true),
        ("", false),
        ("0", false),
        ("M", false),
        ("64X", false),
        ("-64M", false),
        ("nan", false),
        ("1e400", false),
    ] {
        let output = bench.run(&format!("build t a.csv --quiet --memory-limit={size}"));
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = if is_one { 0 } else { 2 };
        assert_eq!(output.status.code(), Some(code), "{size}: {errors}");
        assert!(is_one || errors.contains("512MiB"), "{size}: {errors}");
        let _ = std::fs::remove_file(bench.path("t"));
    }
}

/// Nothing to do makes no version, so that a rule does not push out real ones; with a message it
/// does.
#[test]
fn versions_that_nobody_asked_for_are_not_made() {
    let bench = Bench::new();
    bench.write("a.csv", "1,2\n3,4\n");
    bench.write("none.npy", crate::cli::f32_npy("(0, 2)", &[]));
    bench.write("none", "");
    bench.ok("build s a.csv --quiet");
    bench.ok("expire s --keep-last 1 --save-policy --quiet");
    for line in ["insert s none.npy", "delete s --ids none"] {
        let before = bench.read("s");
        assert!(bench.ok(line).contains("no version is made: version 1 stays"), "{line}");
        assert_eq!(bench.json(line)["new"], false);
        assert!(bench.read("s") == before, "{line}");
    }
    assert_eq!(bench.json("insert s none.npy --message why")["version"], 2);
    // A version is made of nothing where one is asked for.
    assert_eq!(bench.json("build t none.npy")["version"], 1);
}

/// Errors as objects, for programs.
#[test]
fn errors_are_objects_if_answers_are() {
    let bench = Bench::new();
    bench.write("a.csv", "1,2\n");
    bench.ok("build s a.csv --quiet");
    for (line, kind, exit) in [
        ("query s a.csv --json", "usage", 2),
        ("stats nowhere --json", "failure", 1),
        ("stats s --at 7 --json", "not_found", 5),
        ("stats a.csv --json", "corrupt", 3),
    ] {
        let output = bench.run(line);
        assert_eq!(output.status.code(), Some(exit), "{line}");
        let text = String::from_utf8(output.stderr).unwrap();
        let object: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(object["error"]["kind"], kind, "{line}");
        assert_eq!(object["error"]["exit"], exit, "{line}");
        assert!(object["error"]["message"].as_str().is_some_and(|text| !text.is_empty()));
    }
}
