//! The suite can fail: each of the deliberate bugs of the library is planted in a process of its own, which runs the
//! suite until it complains.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use treering::simulation::SeededBug;

use super::figures::{Tally, in_parallel, say};
use super::{crashes, faults, flips, preamble, trees};

/// Names the bug to the process in which it is planted.
const PLANTED: &str = "TREERING_TRUST_BUG";

/// Exit code of a process in which the suite found something.
const CAUGHT: i32 = 3;

/// The parts of the suite, cheapest first, until one fails.
fn suite() -> Result<(), String> {
    let parts: [(&str, fn()); 6] = [
        ("trees", trees::awkward_data_stays_exact),
        ("one bad copy of a slot", preamble::one_bad_copy_of_a_slot_costs_nothing),
        ("both copies of a slot", preamble::without_both_slots_the_hint_decides),
        ("flipped bits", flips::a_few),
        ("crashes", || {
            let tally = Tally::default();
            crashes::every_short_sequence(&tally, 7);
            crashes::histories(&tally, 12);
            tally.assert_clean();
        }),
        ("faults", || {
            let tally = Tally::default();
            faults::every_operation_fails(&tally, 5);
            tally.assert_clean();
        }),
    ];
    for (name, part) in parts {
        std::panic::catch_unwind(part).map_err(|_| name.to_string())?;
    }
    Ok(())
}

/// Not a test by itself: the process in which a bug is planted.
#[test]
fn with_a_bug() {
    let Ok(name) = std::env::var(PLANTED) else { return };
    if let Some(bug) = SeededBug::ALL.into_iter().find(|bug| format!("{bug:?}") == name) {
        bug.plant();
    }
    if let Err(part) = suite() {
        super::figures::say("caught by", part);
        std::process::exit(CAUGHT);
    }
}

/// Runs the suite in another process. The part that found something, if one did.
fn caught(bug: &str) -> Option<String> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["trust::bugs::with_a_bug", "--exact", "--test-threads=1"])
        .env(PLANTED, bug)
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.code() {
        Some(0) => None,
        Some(CAUGHT) => {
            text.lines().find_map(|l| l.strip_prefix("caught by: ")).map(str::to_string)
        }
        other => panic!("{bug}: the process ended with {other:?}: {text}"),
    }
}

#[test]
fn every_deliberate_bug_is_caught() {
    let bugs = SeededBug::ALL;
    let found = AtomicUsize::new(0);
    in_parallel(bugs.len() + 1, |unit| match bugs.get(unit) {
        Some(bug) => match caught(&format!("{bug:?}")) {
            Some(part) => {
                found.fetch_add(1, Ordering::Relaxed);
                println!("{bug:?}: caught by {part}");
            }
            None => println!("{bug:?}: NOT caught"),
        },
        // Without a bug the suite finds nothing.
        None => assert_eq!(caught("none"), None),
    });
    let found = found.into_inner();
    say("seeded bugs caught", format!("{found} of {}", bugs.len()));
    assert_eq!(found, bugs.len());
}
