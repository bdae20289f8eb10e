//! Accounts of space that are wrong although every checksum is right: `verify --all` says so, and
//! where.

use treering::{Durability, Retention, Store, VerifyOptions, VersionId};

use crate::common::{Random, threads, tiny};
use crate::format::{Image, Spec};

/// A store with versions that share, one that has expired, and space that is out of use.
fn file() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    let mut store = Store::create_with(&path, tiny(2, 4), threads(1)).unwrap();
    let mut random = Random(6);
    for _ in 0..4 {
        store.insert(&random.points(30, 2)).unwrap();
    }
    store.restore(VersionId(2)).unwrap();
    store.expire(Retention::new().keep_last(3)).unwrap();
    store.insert(&random.points(9, 2)).unwrap();
    drop(store);
    std::fs::read(&path).unwrap()
}

fn problems(bytes: &[u8], options: VerifyOptions) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    std::fs::write(&path, bytes).unwrap();
    let store = Store::open_with(&path, threads(1).read_only(true)).unwrap();
    let report = store.verify(options).unwrap();
    report.problems.iter().map(ToString::to_string).collect()
}

/// The file with one bit of its free map changed: the bit of the block at `address`.
fn with_bit_changed(spec: &Spec, bytes: &[u8], address: usize, block: usize) -> Vec<u8> {
    let mut image = Image::new(spec, bytes);
    let word = address / block / 64;
    let rows = image.state("free_map");
    image.check_all();
    let at = rows.at[word];
    let mut value: [u8; 8] = bytes[at..at + 8].try_into().unwrap();
    let bit = address / block % 64;
    value[bit / 8] ^= 1 << (bit % 8);
    let lie = crate::format::Lie { name: "free_map".into(), at, bytes: 8 };
    image.with(&[(&lie, &value)])
}

#[test]
fn a_block_in_use_that_is_marked_free_and_one_that_nobody_uses() {
    const BLOCK: usize = 256;
    let (spec, bytes) = (Spec::parse(), file());
    assert_eq!(problems(&bytes, VerifyOptions::all()), Vec::<String>::new());
    let mut image = Image::new(&spec, &bytes);
    image.check_all();
    let pieces: Vec<_> = image.pieces.values().cloned().collect();
    let end = image.file_bytes;
    let used = |at: usize| pieces.iter().any(|piece| piece.range.contains(&at));
    for piece in pieces.iter().step_by(7) {
        let hurt = with_bit_changed(&spec, &bytes, piece.range.start, BLOCK);
        let told = problems(&hurt, VerifyOptions::all());
        assert!(told.iter().any(|what| what.contains("marked as free")), "{piece:?}: {told:?}");
    }
    // What is free now: neither reached, nor listed as out of use.
    let mut leaks = 0;
    for at in (spec.data_start()..end).step_by(BLOCK).filter(|&at| !used(at)) {
        let hurt = with_bit_changed(&spec, &bytes, at, BLOCK);
        let told = problems(&hurt, VerifyOptions::all());
        // A range that is listed must be marked; changed, the list itself is refused.
        let is_told = told.iter().any(|what| what.contains("nothing is there"));
        leaks += usize::from(is_told);
        assert!(!told.is_empty(), "the block at {at}");
    }
    assert!(leaks > 0, "some of what is free is a leak when it is marked");
}

/// A writer that goes by a map which has a used block as free gets an error, or writes over
/// something that is then told as damage; it never panics, whether its versions wait or not.
#[test]
fn writing_by_a_wrong_map_ends_in_an_error_at_most() {
    const BLOCK: usize = 256;
    let (spec, bytes) = (Spec::parse(), file());
    let mut image = Image::new(&spec, &bytes);
    image.check_all();
    let (mut refused, mut random) = (0, Random(7));
    for piece in image.pieces.values() {
        let hurt = with_bit_changed(&spec, &bytes, piece.range.start, BLOCK);
        for durability in [Durability::Full, Durability::Deferred { versions: 10 }] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("s.tre");
            std::fs::write(&path, &hurt).unwrap();
            let opened = Store::open_with(&path, threads(1).durability(durability));
            let mut store = opened.expect("the map is not read yet");
            for round in 0..4 {
                let inserted = store.insert(&random.points(5, 2)).is_ok();
                let tagged = store.tag(&format!("{round}"), VersionId(4)).is_ok();
                refused += u32::from(!inserted || !tagged);
                let _ = store.delete(&[40 + round]);
            }
            let _ = store.sync();
        }
    }
    assert!(refused > 0, "some of it is seen");
}

/// Two entries for one place: checksums that are seeded with what a piece is do not let it pass, so
/// the second is made to lead to a copy of itself elsewhere, in the middle of another piece.
#[test]
fn two_owners_of_one_block() {
    let (spec, bytes) = (Spec::parse(), file());
    let mut image = Image::new(&spec, &bytes);
    image.check_all();
    let root = spec.records["slot"].field("roots").offset;
    // The tags' root, which is empty, leads to the row of the newest version's piece.
    let slot = image.slot_at;
    let tags = slot + root + 32 * 3;
    let versions = slot + root;
    let entry = bytes[versions..versions + 24].to_vec();
    let mut row = entry.clone();
    row.extend_from_slice(&1u64.to_le_bytes());
    let lie = crate::format::Lie { name: "tags".into(), at: tags, bytes: 32 };
    let hurt = image.with(&[(&lie, &row)]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    std::fs::write(&path, &hurt).unwrap();
    // Refused where it is read, or told by verify; never taken for tags.
    match Store::open_with(&path, threads(1).read_only(true)) {
        Ok(store) => {
            assert!(store.tags().is_err());
            let told = store.verify(VerifyOptions::all()).map(|report| report.problems);
            assert!(told.map_or(true, |problems| !problems.is_empty()));
        }
        Err(e) => println!("refused: {e}"),
    }
}
