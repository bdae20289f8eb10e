//! Arbitrary bytes for every decoder: store files with fields changed and checksums repaired,
//! backup streams likewise, and sequences of operations against a model. Each takes any input and
//! must not panic, hang or allocate without measure; what a store answers need not be right,
//! because checksums that were repaired prove nothing.
//!
//! The targets of `fuzz/` call these functions; the test at the end calls them with seeded input.

use std::io::Cursor;
use std::sync::OnceLock;

use treering::{Store, VerifyOptions, VersionId, simulation};

use super::disk::Disk;
use super::model::{State, check};
use super::workload::{LOCAL, Planned, formatted, open, options, seasoned};
use crate::common::Random;
use crate::common::crc32;
use crate::format::{Image, Lie, Spec};

/// A store file, and the fields of it that can be given other values.
struct Base {
    spec: Spec,
    bytes: Vec<u8>,
}

fn base() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| {
        let (disk, _) = seasoned(&mut Random(5), 4);
        let mut store = open(&disk).unwrap();
        store.tag("name", VersionId(2)).unwrap();
        drop(store);
        Base { spec: Spec::parse(), bytes: disk.content() }
    })
}

/// Opens a file, if it opens, verifies it and asks every version everything.
fn ask(bytes: Vec<u8>) {
    let disk = Disk::with(bytes);
    let Ok(mut store) = simulation::open(disk.handle(), options()) else { return };
    let _ = (store.tags(), store.latest().map(drop));
    let _ = store.verify(VerifyOptions::all().deep(true));
    for info in store.versions().into_iter().flatten() {
        let Ok(snapshot) = store.at(info.version) else { continue };
        let query = vec![0.5; snapshot.dim()];
        let _ = (snapshot.knn(&query, 4), snapshot.within(&query, 0.5), snapshot.get(3));
        let _ = (snapshot.brute_knn(&query, 4), snapshot.count_within(&query, 0.5));
        let _ = snapshot.for_each(|_, _| ());
    }
    let _ = store.backup(None, std::io::sink());
    let row = vec![0.5; store.dim()];
    let _ = (store.insert(&row).map(drop), store.delete(&[1]).map(drop), store.unique_bytes());
}

/// Header, slots, hint, table nodes, version rows, tags and the rows of every array: `data` names
/// fields and gives them values, three bytes for the field and eight for the value. The checksums
/// are repaired.
pub(crate) fn store_file(data: &[u8]) {
    let Base { spec, bytes } = base();
    let mut image = Image::new(spec, bytes);
    let versions = image.versions();
    let version = versions[data.len() % versions.len()];
    let places = image.places(version);
    let changes: Vec<(&Lie, &[u8])> = data
        .chunks_exact(11)
        .map(|chunk| {
            let which =
                usize::from(chunk[0]) << 16 | usize::from(chunk[1]) << 8 | usize::from(chunk[2]);
            (&places[which % places.len()], &chunk[3..])
        })
        .filter(|(place, value)| place.bytes <= value.len())
        .map(|(place, value)| (place, &value[..place.bytes]))
        .collect();
    ask(image.with(&changes));
}

/// Header, slots and hint as they come: `data` is laid over the beginning of a file, the checksums
/// of header and slots repaired if its first bit says so.
pub(crate) fn preamble(data: &[u8]) {
    let Base { spec, bytes } = base();
    let mut bytes = bytes.clone();
    let Some((&first, data)) = data.split_first() else { return };
    for (i, chunk) in data.chunks(64).enumerate() {
        let at = i * 65_536 % spec.data_start();
        bytes[at..at + chunk.len()].copy_from_slice(chunk);
    }
    for record in ["header", "slot"] {
        let field = spec.records[record].field("crc").offset;
        for at in spec.pages_of(record).into_iter().filter(|_| first & 1 == 1) {
            let crc = crc32(&bytes[at..at + field]);
            bytes[at + field..at + field + 4].copy_from_slice(&crc.to_le_bytes());
        }
    }
    ask(bytes);
}

/// A backup stream: `data` changes bytes of one, two for the place and one for the value; then the
/// frames' checksums are repaired. Received into an empty store of the same lineage.
pub(crate) fn stream(data: &[u8]) {
    static STREAM: OnceLock<Vec<u8>> = OnceLock::new();
    let whole = STREAM.get_or_init(|| {
        let mut stream = Vec::new();
        open(&Disk::with(base().bytes.clone())).unwrap().backup(None, &mut stream).unwrap();
        stream
    });
    let mut stream = whole.clone();
    for chunk in data.chunks_exact(3) {
        let at = usize::from(chunk[0]) << 8 | usize::from(chunk[1]);
        let at = at * 7 % stream.len();
        stream[at] = chunk[2];
    }
    repair(&mut stream);
    let disk = formatted();
    let store = open(&disk).unwrap();
    if simulation::receive(&store, Cursor::new(stream)).is_ok() {
        drop(store);
        ask(disk.content());
    }
}

/// Frames: kind, checksum, length, payload; each checksum goes over that of the frame before.
pub(crate) fn repair(stream: &mut [u8]) {
    let (mut at, mut before) = (0, 0u32);
    while at + 16 <= stream.len() {
        let bytes = u64::from_le_bytes(stream[at + 8..at + 16].try_into().expect("eight bytes"));
        let end = usize::try_from(bytes).ok().and_then(|bytes| (at + 16).checked_add(bytes));
        let Some(end) = end.filter(|&end| end <= stream.len()) else { return };
        let mut covered = before.to_le_bytes().to_vec();
        covered.extend_from_slice(&stream[at..at + 4]);
        covered.extend_from_slice(&stream[at + 8..end]);
        before = crc32(&covered);
        stream[at + 4..at + 8].copy_from_slice(&before.to_le_bytes());
        at = end;
    }
}

/// Operations against a model: each byte is one, with a seed. Answers must be right.
pub(crate) fn operations(data: &[u8]) {
    let disk = formatted();
    let mut store = open(&disk).unwrap();
    let mut state = State::default();
    for (number, &byte) in data.iter().take(40).enumerate() {
        let mut random = Random(u64::from(byte) << 8 | number as u64);
        if byte & 0xF0 == 0xF0 {
            drop(store);
            store = open(&disk).unwrap();
        }
        let operation = LOCAL[usize::from(byte) % LOCAL.len()];
        let plan = Planned::new(operation, &state, &mut random, None);
        plan.run(&mut store).unwrap_or_else(|e| panic!("{operation:?}: {e}"));
        state = plan.states.last().expect("there is one").clone();
    }
    check(&store, &[state]).unwrap_or_else(|wrong| panic!("{wrong:?}"));
}

type Target = fn(&[u8]);

#[cfg(test)]
#[test]
fn no_input_breaks_a_decoder() {
    use super::figures::{in_parallel, say, scale};
    let targets: [(&str, Target, usize); 4] = [
        ("store_file", store_file, 60),
        ("preamble", preamble, 16 * 64 + 1),
        ("stream", stream, 30),
        ("operations", operations, 12),
    ];
    let rounds = scale(60, 1500);
    in_parallel(targets.len() * rounds, |unit| {
        let (name, target, most) = targets[unit % targets.len()];
        let mut random = Random(unit as u64);
        let len = random.below(most as u64 + 1);
        let mut data: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
        if name != "operations" && random.below(2) == 0 {
            // Small numbers, and numbers of all ones, are the ones that lie best.
            data.iter_mut().for_each(|byte| *byte = if *byte & 1 == 0 { *byte & 3 } else { 0xFF });
            let head = data.len().min(3);
            data[..head].iter_mut().for_each(|byte| *byte = random.next() as u8);
        }
        let done = std::panic::catch_unwind(|| target(&data));
        assert!(done.is_ok(), "{name} with {data:?}");
    });
    say("inputs to decoders", targets.len() * rounds);
}

/// A store on which nothing is left to chance is a store all the same.
#[cfg(test)]
#[test]
fn an_input_that_changes_nothing_is_a_whole_store() {
    let disk = Disk::with(base().bytes.clone());
    let store: Store = open(&disk).unwrap();
    assert!(store.verify(VerifyOptions::all().deep(true)).unwrap().is_ok());
    ask(base().bytes.clone());
    stream(&[]);
}

/// Checksums repaired around a center of which a component was infinite or no number: an insert
/// took its sums for real ones and found levels for them that no node can have. The same in a row
/// that is moved would split for ever.
#[cfg(test)]
#[test]
fn a_center_that_is_no_point_is_damage() {
    store_file(&[
        7, 245, 237, 229, 112, 117, 130, 108, 134, 155, 188, 176, 114, 169, 80, 87, 165, 45, 147,
        25, 150, 204, 205, 66, 162, 77, 15, 196, 96, 57, 219, 74, 255, 234, 12, 162, 139, 112, 9,
        159, 136, 99, 13,
    ]);
}

/// The first and last row of each array of points are what no store takes.
#[cfg(test)]
#[test]
fn rows_that_are_no_points_are_damage() {
    let Base { spec, bytes } = base();
    let mut image = Image::new(spec, bytes);
    for version in image.versions() {
        let places = image.places(version);
        let lies = places.iter().filter(|place| {
            place.name.starts_with("centers") || place.name.starts_with("coordinates")
        });
        for place in lies {
            for value in [f32::NAN, f32::INFINITY, -f32::NAN, f32::MAX] {
                let row = [value.to_le_bytes(); 2].concat();
                ask(image.with(&[(place, &row[..place.bytes])]));
            }
        }
    }
}

/// A stream whose frames are sealed and one of which names a segment so far out that its first row
/// overflows.
#[cfg(test)]
#[test]
fn a_segment_of_a_stream_too_far_out_is_refused() {
    stream(&[
        221, 128, 196, 176, 148, 245, 122, 254, 46, 1, 21, 22, 61, 225, 183, 24, 135, 145, 146,
        166, 57,
    ]);
}
