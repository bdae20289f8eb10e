//! Damaged files: flipped bits, fields that lie behind good checksums. Each is reported, or
//! harmless, or refused; none is a panic, an endless loop or a wrong answer.

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use treering::{Store, VerifyOptions};

use super::preamble::{Answers, PAGE, answers, reading, small};
use crate::common::Random;
use crate::format::{Image, Spec, busy_store};

/// Runs `f` elsewhere. A panic, or a run of more than a minute, is an error.
fn guarded<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || drop(sender.send(f())));
    receiver.recv_timeout(Duration::from_secs(60)).map_err(|e| {
        if e == mpsc::RecvTimeoutError::Timeout {
            return "does not come to an end".to_string();
        }
        let panic = thread.join().expect_err("it ended without a value");
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
        format!("panicked: {}", text.unwrap_or_default())
    })
}

/// Opens a hurt file and asks it everything. True if damage was reported; each answer that comes is
/// handed to `check`.
fn examine(path: &Path, newest: u64, mut check: impl FnMut(u64, Answers)) -> bool {
    let store = match Store::open_with(path, reading()) {
        Ok(store) => store,
        Err(_) => return true,
    };
    let mut reported = store.versions().is_err() || store.latest().is_err();
    match store.verify(VerifyOptions::all()) {
        Ok(report) => {
            reported |= !report.is_ok();
            report.problems.iter().for_each(|problem| assert!(!problem.to_string().is_empty()));
        }
        Err(_) => reported = true,
    }
    for version in 0..=newest {
        match answers(&store, version) {
            Ok(found) => check(version, found),
            Err(_) => reported = true,
        }
    }
    reported
}

#[test]
fn every_flipped_bit_is_reported_or_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    let store = busy_store(&path, small(), 8);
    let newest = store.latest().unwrap().version().0;
    let truth: Vec<Answers> =
        (0..=newest).map(|version| answers(&store, version).unwrap()).collect();
    drop(store);
    let spec = Spec::parse();
    let original = std::fs::read(&path).unwrap();
    let mut image = Image::new(&spec, &original);
    image.check_all();
    let pieces: Vec<_> = image.pieces.values().collect();
    let newest_slot = [0, 1].map(|copy| spec.slot_page(image.commit, copy));

    let mut random = Random(77);
    for round in 0..450 {
        let at = match round % 3 {
            // Anywhere, and most often where it hurts: every array gets its share.
            0 => random.below(original.len() as u64) as usize,
            _ => {
                let piece = pieces[random.below(pieces.len() as u64) as usize];
                piece.range.start + random.below(piece.range.len() as u64) as usize
            }
        };
        let bit = random.below(8);
        let piece = pieces.iter().find(|piece| piece.range.contains(&at));
        let what = format!("bit {bit} of byte {at} ({piece:?})");
        let mut hurt = original.clone();
        hurt[at] ^= 1 << bit;
        std::fs::write(&path, &hurt).unwrap();
        let (path, truth, name) = (path.clone(), truth.clone(), what.clone());
        let reported = guarded(move || {
            examine(&path, newest, |version, found| {
                assert!(found == truth[version as usize], "{name}: wrong answers, and no error");
            })
        })
        .unwrap_or_else(|e| panic!("{what}: {e}"));
        let twice = spec.pages_of("header").into_iter().chain(newest_slot);
        let in_copy = twice.into_iter().any(|page| (page..page + PAGE).contains(&at));
        assert!(reported || piece.is_none() && !in_copy, "{what}: not reported");
        // An older slot, the hint, free space: all is well.
        assert!(!reported || piece.is_some() || in_copy, "{what}: damage where there is none");
    }
}

/// Checksums cannot help against values that are wrong and sealed; bounds must. Every field of
/// every kind of row is set to values that lie, and all checksums above it are repaired. Answers
/// may then be wrong; crashes may not be.
#[test]
fn fields_that_lie_end_in_errors_not_in_panics() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    drop(busy_store(&path, small(), 4));
    let spec = Spec::parse();
    let original = std::fs::read(&path).unwrap();
    let mut image = Image::new(&spec, &original);
    let versions = image.versions();
    let newest = versions.len() as u64;
    image.check_all();
    let mut random = Random(12);
    let (mut tried, mut believed) = (0, 0);
    let mut failures = Vec::new();
    for place in image.places(*versions.last().unwrap()) {
        let current = &original[place.at..place.at + place.bytes];
        let mut values: Vec<Vec<u8>> = vec![
            vec![0; place.bytes],
            vec![0xFF; place.bytes],
            (0..place.bytes).map(|_| random.next() as u8).collect(),
        ];
        for delta in [1u8, 0xFF] {
            let mut near = current.to_vec();
            near[0] = near[0].wrapping_add(delta);
            values.push(near);
        }
        for value in values.into_iter().filter(|value| value != current) {
            let hurt = image.with(&[(&place, &value)]);
            std::fs::write(&path, &hurt).unwrap();
            let what = format!("{} = {value:02x?}", place.name);
            let path = path.clone();
            match guarded(move || examine(&path, newest, |_, _| {})) {
                Ok(reported) => believed += u32::from(!reported),
                Err(e) => failures.push(format!("{what}: {e}")),
            }
            tried += 1;
        }
    }
    // Some lies nobody can tell: the checksums were repaired as intended.
    assert!(tried > 300 && believed > tried / 20, "{believed} of {tried}");
    assert!(failures.is_empty(), "{failures:#?}");
}

/// A segment that passes a multiple of 1 GiB cannot be mapped as one. No writer makes one; a file
/// may claim one.
#[test]
fn a_segment_across_two_windows_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    drop(busy_store(&path, small(), 2));
    let spec = Spec::parse();
    let original = std::fs::read(&path).unwrap();
    let mut image = Image::new(&spec, &original);
    let newest = *image.versions().last().unwrap();
    let places = image.places(newest);
    let place = |name: &str| places.iter().find(|place| place.name == name).unwrap();
    // The segment of coordinates is two blocks of 128 bytes long.
    let (window, len) = (1u64 << 30, (1u64 << 30) + (1 << 20));
    let hurt = image.with(&[
        (place("table node of coordinates.address[0]"), &(window - 128).to_le_bytes()),
        (place("slot.file_bytes[0]"), &len.to_le_bytes()),
    ]);
    std::fs::write(&path, hurt).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(len).unwrap();
    let examined = guarded(move || examine(&path, 7, |_, _| {}));
    assert_eq!(examined, Ok(true));
}
