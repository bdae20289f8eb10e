//! The suite can fail: each of the deliberate bugs of the library is planted in a process of its
//! own, which runs the suite until it complains.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use treering::simulation::SeededBug;

use super::figures::{Tally, finished, in_parallel, say};
use super::{crashes, faults, flips, preamble, schedules, sectors, trees, used};

/// Names the bug to the process in which it is planted.
pub(super) const PLANTED: &str = "TREERING_TRUST_BUG";

/// Exit code of a process in which the suite found something.
const CAUGHT: i32 = 3;

/// Parts of the suite, each of which panics or complains if it finds something.
const PARTS: [(&str, fn()); 12] = [
    ("trees", trees::awkward_data_stays_exact),
    ("one bad copy of a slot", preamble::one_bad_copy_of_a_slot_costs_nothing),
    ("both copies of a slot", preamble::without_both_slots_the_hint_decides),
    ("an unreadable page", sectors::one_unreadable_page_that_is_kept_twice_costs_nothing),
    ("an unreadable place", sectors::a_place_that_cannot_be_read_at_all_is_never_passed_over),
    ("one good copy", sectors::the_only_good_copy_of_a_slot_is_never_at_stake),
    ("bytes that went bad later", used::what_went_bad_gets_no_fresh_checksum),
    ("flipped bits", flips::a_few),
    ("schedules", || schedules::schedules(&telling(), 0..1_000)),
    ("syncs that fail in a row", || faults::syncs_fail_in_a_row(&telling())),
    ("operations that fail", || faults::every_operation_fails(&telling(), 9)),
    ("crashes", || {
        crashes::every_short_sequence(&telling(), 7);
        crashes::histories(&telling(), 12);
        // Some use space again before it is durable, if there is that bug.
        crashes::histories_with_shared_syncs(&telling(), 0..4);
    }),
];

/// The part that sees a bug soonest. What it misses the others may find; that takes longer, no
/// more.
fn seen_soonest_by(bug: SeededBug) -> &'static str {
    use SeededBug::*;
    match bug {
        ReuseAtOnce | OneSlotCopy | ForgetAncestorRadii | LevelAtPowersOfTwo | DropSlack => "trees",
        FallBackSilently => "both copies of a slot",
        AcceptTornSlot | TrustUnreadablePlaces => "an unreadable place",
        SkipFirstSync
        | SkipSecondSync
        | SlotBeforeFirstSync
        | HintBeforeSecondSync
        | SyncWithoutLength
        | RewriteTheGoodCopyFirst => "one good copy",
        SkipChecksums | SealWithoutLooking => "bytes that went bad later",
        FreeRevivedSegments => "flipped bits",
        SkipConfirmation | CutBeforeConfirmation => "syncs that fail in a row",
        ForgetPoison => "operations that fail",
        _ => "schedules",
    }
}

/// Runs the parts, the one named `first` before the others.
fn suite(first: &str) {
    let (soonest, others): (Vec<_>, Vec<_>) =
        PARTS.into_iter().partition(|(name, _)| *name == first);
    assert_eq!(soonest.len(), 1, "{first}");
    for (name, part) in soonest.into_iter().chain(others) {
        if std::panic::catch_unwind(part).is_err() {
            complain(name);
        }
    }
}

/// A tally that ends the process with the first failure.
fn telling() -> Tally {
    Tally::telling(complain)
}

fn complain(what: &str) {
    super::figures::say("caught by", what);
    std::process::exit(CAUGHT);
}

/// Not a test by itself: the process in which a bug is planted. Without one only the first part
/// runs: that the others find nothing in a library without bugs is what the rest of the suite
/// tests.
#[test]
fn with_a_bug() {
    let Ok(name) = std::env::var(PLANTED) else { return };
    match SeededBug::ALL.into_iter().find(|bug| format!("{bug:?}") == name) {
        Some(bug) => {
            bug.plant();
            suite(seen_soonest_by(bug));
        }
        None => PARTS[0].1(),
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
    finished(None);
}
