//! What f32 loses of an input is said once, with the number of rows and the first of them: on
//! `build` and on `insert`, of text and of `.npy` in either order. Of what loses nothing there is
//! no word.

use serde_json::{Value, json};
use treering::{OpenOptions, Store};

use crate::cli::{Bench, f32_npy, npy};

/// Name, contents, rows equal by rounding with the first pair, rows at distance 0 with the first
/// pair, rows near 0 with the first.
type Case =
    (&'static str, Vec<u8>, Option<(u64, [u64; 2])>, Option<(u64, [u64; 2])>, Option<(u64, u64)>);

fn f64s(shape: &str, values: &[f64]) -> Vec<u8> {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    npy("<f8", shape, &data)
}

/// The same array, whose values are given column by column.
fn by_columns(mut array: Vec<u8>) -> Vec<u8> {
    let (order, other) = (b"'fortran_order': False,", b"'fortran_order': True, ");
    let at = array.windows(order.len()).position(|part| part == order).unwrap();
    array[at..at + other.len()].copy_from_slice(other);
    array
}

fn cases() -> Vec<Case> {
    let text = |text: &str| text.as_bytes().to_vec();
    let many: String = (0..70_000).map(|i| format!("{i},1\n")).collect();
    vec![
        // Nothing is lost.
        ("a.csv", text("0.1,0.2\n0.3,0.4\n0.1,0.2\n"), None, None, None),
        ("a.csv", text("16777216\n16777218\n"), None, None, None),
        ("a.csv", text("0,0\n-0,0\n0.0,0e5\n"), None, None, None),
        ("a.csv", text("1e-30,1\n1e-30,1\n"), None, None, None),
        ("a.csv", text("1e-18\n2e-18\n3e-18\n"), None, None, None),
        ("a.npy", f64s("(3, 1)", &[0.1, 0.2, 0.1]), None, None, None),
        ("a.npy", f32_npy("(3, 1)", &[0.1, 0.2, 0.1]), None, None, None),
        // By rounding.
        ("a.csv", text("16777216\n16777217\n5\n"), Some((1, [1, 0])), None, None),
        (
            "a.csv",
            text("x\n1764493591\n7\n1764493592\n1764493591\n"),
            Some((3, [2, 0])),
            None,
            None,
        ),
        ("a.csv", text("1,0.1\n1,0.1000000001\n0.1,1\n"), Some((2, [1, 0])), None, None),
        ("a.csv", text(&(many + "69999.0001,1\n")), Some((1, [70_000, 69_999])), None, None),
        ("a.npy", f64s("(4, 1)", &[1e9, 1e9 + 1.0, 1e9 + 2.0, 3.0]), Some((2, [1, 0])), None, None),
        // Rows (1, 2), (1e9, 3), (1, 2), (1e9 + 1, 3).
        (
            "a.npy",
            by_columns(f64s("(4, 2)", &[1.0, 1e9, 1.0, 1e9 + 1.0, 2.0, 3.0, 2.0, 3.0])),
            Some((1, [3, 1])),
            None,
            None,
        ),
        ("a.csv", text("0,2\n1e-60,2\n"), Some((1, [1, 0])), None, None),
        // By what is below all squares.
        ("a.csv", text("0,0\n1e-30,0\n1,1\n"), None, Some((1, [1, 0])), None),
        ("a.csv", text("1,1e-30\n1,2e-30\n"), None, Some((2, [1, 0])), None),
        ("a.npy", f32_npy("(3, 1)", &[5.0, 1e-42, 2e-42]), None, Some((2, [2, 1])), Some((2, 1))),
        ("a.csv", text("1\n1e-21\n3e-21\n"), None, None, Some((2, 1))),
        // Both.
        (
            "a.csv",
            text("16777216\n16777217\n1e-30\n2e-30\n"),
            Some((1, [1, 0])),
            Some((2, [3, 2])),
            Some((2, 2)),
        ),
    ]
}

fn lost((rows, [row, like]): (u64, [u64; 2]), at_least: bool) -> Value {
    json!({ "rows": rows, "at_least": at_least, "row": row, "like": like })
}

#[test]
fn what_is_lost_is_counted_and_named_once() {
    for (i, (name, bytes, rounded, at_zero, near_zero)) in cases().into_iter().enumerate() {
        let bench = Bench::new();
        bench.write(name, &bytes);
        let columns = if name.ends_with("npy") && bytes.windows(4).any(|part| part == b", 2)")
            || bytes.contains(&b',') && name.ends_with("csv")
        {
            2
        } else {
            1
        };
        bench.write("none.npy", f32_npy(&format!("(0, {columns})"), &[]));
        bench.ok("build empty none.npy --quiet");
        for verb in ["build s", "insert empty"] {
            let output = bench.run(&format!("{verb} {name} --json"));
            let errors = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.success(), "case {i}: {errors}");
            let object: Value = serde_json::from_slice(&output.stdout).unwrap();
            let none = json!({ "rows": 0 });
            let expected = json!({
                "equal_by_rounding": rounded.map_or(none.clone(), |pair| lost(pair, false)),
                "at_distance_zero": at_zero.map_or(none.clone(), |pair| lost(pair, true)),
                "near_zero": near_zero
                    .map_or(none, |(rows, row)| json!({ "rows": rows, "row": row })),
            });
            assert_eq!(object["precision"], expected, "case {i}: {verb}");
            if rounded.is_none() && at_zero.is_none() && near_zero.is_none() {
                assert_eq!(errors, "", "case {i}: {verb}");
                continue;
            }
            assert_eq!(errors.lines().count(), 1, "case {i}: {errors}");
            let mut parts = vec!["note: ".to_owned(), "rows count from 0".to_owned()];
            if let Some((_, [row, like])) = rounded {
                parts.push(format!("rounded to f32 (first row {row}, now equal to row {like})"));
                parts.push("subtract".into());
            }
            if let Some((rows, [row, like])) = at_zero {
                parts.push(format!("at least {rows} row"));
                parts.push(format!("(first row {row}, which differs from row {like})"));
                parts.push("multiply".into());
            } else if let Some((_, row)) = near_zero {
                parts.push(format!("(first row {row})"));
                parts.push("multiply".into());
            }
            for part in parts {
                assert!(errors.contains(&part), "case {i}: `{part}` in {errors}");
            }
        }
        bench.ok(&format!("build quiet {name} --quiet"));
        assert_pairs(&bench, rounded.map(|lost| lost.1), at_zero.map(|lost| lost.1));
    }
}

/// The pairs of rows that are named are one in the store, or at distance 0.
fn assert_pairs(bench: &Bench, equal: Option<[u64; 2]>, at_zero: Option<[u64; 2]>) {
    let store = Store::open_with(bench.path("s"), OpenOptions::new().read_only(true)).unwrap();
    let snapshot = store.latest().unwrap();
    let row = |id: u64| snapshot.get(id).unwrap().unwrap();
    if let Some([a, b]) = equal {
        assert_eq!(row(a), row(b));
    }
    if let Some([a, b]) = at_zero {
        assert_ne!(row(a), row(b));
        let near = snapshot.within(&row(a), 0.0).unwrap();
        assert!(near.iter().any(|neighbor| neighbor.id == b));
    }
}

/// A limit of the memory bounds what is kept to compare with; what is counted then is a part.
#[test]
fn within_a_limit_the_count_is_a_lower_bound() {
    let bench = Bench::new();
    let rows = 200_000;
    let values: Vec<f64> =
        (0..rows).map(|i| f64::from(i / 2) + f64::from(i % 2) * 1e-9).skip(2).collect();
    bench.write("a.npy", f64s(&format!("({}, 1)", values.len()), &values));
    let output = bench.run("build s a.npy --memory-limit 64MiB --json");
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    let lost = &object["precision"]["equal_by_rounding"];
    assert_eq!(lost["at_least"], true, "{object}");
    let count = lost["rows"].as_u64().unwrap();
    assert!((20_000..99_000).contains(&count), "{lost}");
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("note: at least "));
    let object = bench.run("build all a.npy --json").stdout;
    let object: Value = serde_json::from_slice(&object).unwrap();
    assert_eq!(object["precision"]["equal_by_rounding"], lost_all(&values), "without a limit");
}

/// By a slow count of the rows that are changed and equal to a row that is different.
fn lost_all(values: &[f64]) -> Value {
    let changed: Vec<usize> =
        (0..values.len()).filter(|&i| f64::from(values[i] as f32) != values[i]).collect();
    // Neighbours in this data are the only ones that could be equal.
    let other = |i: usize| i ^ 1;
    let lost: Vec<usize> = changed
        .into_iter()
        .filter(|&i| values[i] != values[other(i)] && values[i] as f32 == values[other(i)] as f32)
        .collect();
    json!({ "rows": lost.len(), "at_least": false, "row": lost[0], "like": other(lost[0]) })
}
