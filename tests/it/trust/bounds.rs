//! Hostile stores and streams under a limit of memory, stack and time: each lie by which an audit
//! made the process end, hang or take gigabytes, by name, and many more that follow from seeds.
//! Each is opened, verified, asked, sent, received, recovered and changed in a process that is
//! refused memory beyond a small multiple of what is stored.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use treering::{CreateOptions, Store};

use super::figures::{say, scale};
use super::forge::{Forge, Forgery, put};
use super::hostile::{exercise, folder, forged, lie_by_runs, real, spec};
use crate::allocation;
use crate::common::{Random, threads};
use crate::format::frames as frames_of;

/// Memory that a store may cost beyond [`PER_BYTE`] times what it stores.
const ALLOWANCE: usize = 96 << 20;
const PER_BYTE: usize = 24;

/// Time of the processor that one may take: far more than any does.
const SECONDS: u64 = 60;

/// A file of 8 TiB, nearly all of it a hole.
const SPARSE: u64 = 8 << 40;

/// A store of one version of points on a line, in pieces of so many bytes.
fn plain(points: usize, dim: usize, block: u32, segment: u32) -> Forge<'static> {
    let options = CreateOptions::new(dim)
        .leaf_capacity(8)
        .block_bytes(block)
        .topology_segment_bytes(segment)
        .coordinate_segment_bytes(segment);
    let bytes = real(options, |store| {
        store.insert(&Random(9).points(points, dim)).unwrap();
    });
    Forge::of(spec(), &bytes)
}

/// Tags by the name of their number.
fn tags(count: usize) -> Vec<u8> {
    let record = &spec().records["tag"];
    let mut rows = Vec::new();
    for number in 0..count {
        let mut row = vec![0; record.bytes];
        put(record, "version", &mut row, 1);
        put(record, "name_bytes", &mut row, 6);
        let at = record.field("name").offset;
        row[at..at + 6].copy_from_slice(format!("t{number:05}").as_bytes());
        rows.extend(row);
    }
    rows
}

/// 3.9 MB that claim 16 GB: entry upon entry for the same segment of tags.
fn tags_of_one_segment() -> Forgery {
    let mut forge = plain(10, 2, 128, 1 << 20);
    forge.tags = tags(8192);
    let lie = forge.table(0, "tags");
    (lie.rows, lie.aliased) = (Some(16 * 8192 * 1024), true);
    forge.write()
}

/// The same of an array of the store state, or of a version, in a file that is said to be 8 TiB
/// long.
fn one_segment_of(array: &'static str, rows: u64) -> impl Fn() -> Forgery {
    move || {
        let mut forge = plain(600, 2, 256, 4096);
        forge.len = Some(SPARSE);
        forge.freed = [1 << 20, 256u64].map(u64::to_le_bytes).concat();
        forge.tags = tags(32);
        let lie = forge.table(0, array);
        (lie.rows, lie.aliased) = (Some(rows), true);
        forge.write()
    }
}

/// A file of holes whose slot claims so many rows of an array of the store state.
fn claim(array: &'static str, rows: u64) -> impl Fn() -> Forgery {
    move || {
        let mut forge = plain(600, 2, 4096, 4096);
        forge.len = Some(SPARSE);
        match array {
            "versions" => {
                forge.slot_lies.push(("rows versions", rows));
                forge.slot_lies.push(("newest_version", rows));
            }
            "free_map" => forge.slot_lies.push(("rows free_map", rows)),
            "freed" => forge.slot_lies.push(("rows freed", rows)),
            _ => forge.slot_lies.push(("rows tags", rows)),
        }
        forge.write()
    }
}

/// All arrays of slots claim 2^29 rows, in segments that are holes.
fn slots_in_holes() -> Forgery {
    let mut forge = plain(600, 2, 4096, 1 << 20);
    forge.len = Some(SPARSE);
    let slots = 1u64 << 29;
    for (array, rows) in
        [("ids", slots), ("coordinates", slots), ("tombstones", slots.div_ceil(64))]
    {
        let lie = forge.table(0, array);
        (lie.rows, lie.holes) = (Some(rows), true);
    }
    forge.write()
}

/// The free map is 8 GiB of holes.
fn map_of_holes() -> Forgery {
    let mut forge = plain(600, 2, 4096, 1 << 20);
    forge.len = Some(SPARSE);
    let lie = forge.table(0, "free_map");
    (lie.rows, lie.holes) = (Some(1 << 30), true);
    forge.write()
}

/// Every array of a version claims as many rows as it can.
fn every_array() -> Forgery {
    let mut forge = plain(600, 2, 4096, 4096);
    forge.len = Some(SPARSE);
    let slots = u64::from(u32::MAX) - 1;
    for array in 0..spec().data_arrays() {
        let name = spec().array_name(array);
        let rows = match name {
            "tombstones" => slots.div_ceil(64),
            "boxes" => slots.div_ceil(16),
            "index_runs" | "index_pieces" | "index_keys" | "index_slots" => 1 << 38,
            _ => slots,
        };
        forge.table(0, name).rows = Some(rows);
    }
    forge.write()
}

/// Something lies at the end of the largest file that there can be.
fn far_away() -> Forgery {
    let mut forge = plain(600, 2, 4096, 4096);
    forge.start_at((1 << 62) - (1 << 40));
    forge.write()
}

/// Nodes that hang one below the other, all of one level.
fn chain(nodes: usize) -> Forgery {
    let mut forge = plain(40, 2, 4096, 4096);
    for name in ["nodes", "links", "counts", "radii", "centers"] {
        let row = forge.row(0, name, 0).to_vec();
        forge.fill(0, name, row.repeat(nodes));
    }
    let boxes = forge.row(0, "boxes", 0).to_vec();
    forge.fill(0, "boxes", boxes.repeat(nodes.div_ceil(16)));
    for node in 0..nodes as u64 {
        let row = node as usize;
        forge.set(0, "nodes", row, "parent", if row == 0 { u64::from(u32::MAX) } else { node - 1 });
        forge.set(0, "links", row, "child_start", node + 1);
        forge.set(0, "links", row, "child_count", u64::from(row + 1 < nodes));
        forge.set(0, "counts", row, "span", 0);
        forge.set(0, "counts", row, "run_count", 0);
        if row > 0 {
            forge.set(0, "links", row, "twin_count", 0);
            forge.set(0, "links", row, "bucket_count", 0);
        }
    }
    forge.write()
}

/// A node with as many later ranges as there can be, each of which is everything.
fn runs(kind: u64) -> impl Fn() -> Forgery {
    move || {
        let mut forge = plain(4_000, 2, 4096, 4096);
        lie_by_runs(&mut forge, 0, 0, 65_535, kind);
        forge.set(0, "counts", 0, "span", 0);
        forge.write()
    }
}

/// Pieces of the id index that overlap, or come in the wrong order, in runs that the next insert
/// merges.
fn overlapping_pieces() -> Forgery {
    let options = CreateOptions::new(2).block_bytes(256).topology_segment_bytes(256);
    let bytes = real(options.coordinate_segment_bytes(256), |store| {
        let ids = |from: u64| Vec::from_iter((0..60).map(|i| from + i * 40));
        store.insert_with_ids(&Random(1).points(60, 2), &ids(7)).unwrap();
    });
    let mut forge = Forge::of(spec(), &bytes);
    let keys = forge.rows(0, "index_keys");
    assert!(keys >= 60, "the pieces are sparse");
    for row in 0..keys / 2 {
        let (low, high) = (forge.row(0, "index_keys", row).to_vec(), keys - 1 - row);
        let other = forge.row(0, "index_keys", high).to_vec();
        forge.row(0, "index_keys", row).copy_from_slice(&other);
        forge.row(0, "index_keys", high).copy_from_slice(&low);
    }
    forge.write()
}

/// The same of pieces without keys.
fn overlapping_dense_pieces() -> Forgery {
    let options = CreateOptions::new(2).block_bytes(256).topology_segment_bytes(256);
    let bytes = real(options.coordinate_segment_bytes(256), |store| {
        let ids = [Vec::from_iter(0..20), Vec::from_iter(1000..1009)].concat();
        store.insert_with_ids(&Random(1).points(29, 2), &ids).unwrap();
    });
    let mut forge = Forge::of(spec(), &bytes);
    assert_eq!(forge.rows(0, "index_pieces"), 2);
    forge.set(0, "index_pieces", 0, "first_id", 5000);
    forge.write()
}

/// A slot or version with a number beyond which there is none.
fn number(field: &'static str, value: u64) -> impl Fn() -> Forgery {
    move || {
        let mut forge = plain(30, 2, 256, 256);
        match field {
            "commit" | "time_ns" | "first_commit" | "keep_for_ns" | "keep_last" => {
                forge.slot_lies.push((field, value));
                if field == "commit" {
                    forge.slot_lies.push(("first_commit", value));
                }
            }
            _ => forge.set_version(0, field, value),
        }
        forge.write()
    }
}

/// Two versions one after the other whose tables say that all was written by another commit.
fn births_in_turns() -> Forgery {
    let options = CreateOptions::new(2).leaf_capacity(8).block_bytes(128);
    let options = options.topology_segment_bytes(128).coordinate_segment_bytes(128);
    let bytes = real(options, |store| {
        store.insert(&Random(9).points(500, 2)).unwrap();
    });
    let mut forge = Forge::of(spec(), &bytes);
    let first = forge.versions[0].clone();
    for version in 1..64u64 {
        let mut next = first.clone();
        let record = &spec().records["version"];
        put(record, "version", &mut next.row, version + 1);
        put(record, "parent", &mut next.row, version);
        for array in 0..spec().data_arrays() {
            next.lies.entry(array).or_default().birth = Some(version % 2);
        }
        forge.versions.push(next);
    }
    forge.write()
}

type Case = (&'static str, Box<dyn Fn() -> Forgery>);

/// What an audit found, and its kin.
fn found() -> Vec<Case> {
    fn case(name: &'static str, make: impl Fn() -> Forgery + 'static) -> Case {
        (name, Box::new(make))
    }
    let most = u64::MAX;
    vec![
        case("tags of one segment", tags_of_one_segment),
        case("tags of one segment, sparse", one_segment_of("tags", 1 << 34)),
        case("freed of one segment", one_segment_of("freed", 1 << 34)),
        case("free_map of one segment", one_segment_of("free_map", 1 << 36)),
        case("versions of one segment", one_segment_of("versions", 1 << 30)),
        case("ids of one segment", one_segment_of("ids", (1 << 32) - 2)),
        case("index_runs of one segment", one_segment_of("index_runs", 1 << 32)),
        case("claim of versions", claim("versions", 1 << 33)),
        case("claim of free_map", claim("free_map", 1 << 39)),
        case("claim of freed", claim("freed", 1 << 38)),
        case("claim of tags", claim("tags", 1 << 35)),
        case("claim of tags without end", claim("tags", u64::MAX)),
        case("claim of free_map without end", claim("free_map", u64::MAX)),
        case("slots in holes", slots_in_holes),
        case("map of holes", map_of_holes),
        case("every array", every_array),
        case("far away", far_away),
        case("chain of 4,000", || chain(4_000)),
        case("chain of 20,000", || chain(20_000)),
        case("runs of children", runs(0)),
        case("runs of buckets", runs(1)),
        case("runs of twins", runs(2)),
        case("runs of nothing", runs(3)),
        case("overlapping pieces", overlapping_pieces),
        case("overlapping dense pieces", overlapping_dense_pieces),
        case("commit 2^64 - 1", number("commit", most)),
        case("commit 2^64 - 2", number("commit", most - 1)),
        case("commit 2^64 - 4", number("commit", most - 3)),
        case("time 2^64 - 1", number("time_ns", most)),
        case("time 2^64 - 2", number("time_ns", most - 1)),
        case("kept without end", number("keep_for_ns", most)),
        case("points 2^64 - 1", number("points", most)),
        case("held 2^64 - 1", number("held", most)),
        case("ids to the end", number("next_id", most)),
        case("births in turns", births_in_turns),
    ]
}

/// A real stream, up to the frame with this number; then a frame whose head claims `bytes` of
/// `kind`, in a hole.
fn stream(frames: usize, kind: u32, bytes: u64) -> impl Fn(&Path) -> File {
    move |folder| {
        let mut store = Store::create(folder.join("sender"), CreateOptions::new(2)).unwrap();
        store.insert(&Random(9).points(600, 2)).unwrap();
        let mut whole = Vec::new();
        store.backup(None, &mut whole).unwrap();
        let ranges = frames_of(spec(), &whole);
        let end = ranges.get(frames).map_or(0, |(_, payload)| payload.start - 16);
        let path = folder.join("hostile stream");
        let mut lie = whole[..end].to_vec();
        lie.extend(kind.to_le_bytes());
        lie.extend([0; 4]);
        lie.extend(bytes.to_le_bytes());
        std::fs::write(&path, lie).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        file.set_len(SPARSE).unwrap();
        file
    }
}

type Stream = (&'static str, Box<dyn Fn(&Path) -> File>);

/// Streams that say more than they have.
fn streams() -> Vec<Stream> {
    fn case(name: &'static str, make: impl Fn(&Path) -> File + 'static) -> Stream {
        (name, Box::new(make))
    }
    let much = SPARSE / 2;
    vec![
        case("stream that begins without end", stream(0, 1, much)),
        case("stream of a version without end", stream(1, 2, much)),
        case("stream of a segment without end", stream(2, 3, much)),
        case("stream of tags without end", stream(3, 4, much)),
        case("stream that ends without end", stream(3, 5, much)),
        case("stream of nothing without end", stream(2, 77, much)),
    ]
}

/// A version of 50 MB is received in less memory than that.
fn receive_much(folder: &Path) {
    let (dim, rows) = (128, 100_000);
    let points: Vec<f32> = (0..rows * dim).map(|i| (i / dim * (1 + i % dim)) as f32).collect();
    let mut store = Store::create(folder.join("sender"), CreateOptions::new(dim)).unwrap();
    store.insert(&points).unwrap();
    let mut out = File::create(folder.join("stream")).unwrap();
    store.backup(None, &mut out).unwrap();
    drop((store, points));
    let input = BufReader::new(File::open(folder.join("stream")).unwrap());
    allocation::allow(Some(40 << 20));
    let report = Store::receive(folder.join("copy"), input, threads(1)).unwrap();
    allocation::allow(None);
    assert!(report.bytes > 50 << 20, "{} bytes", report.bytes);
    let copy = Store::open(folder.join("copy")).unwrap();
    assert!(copy.verify(treering::VerifyOptions::all()).unwrap().is_ok());
    assert_eq!(copy.latest().unwrap().len(), rows as u64);
}

/// Verifies 64 versions of 20,000 points, all at once and one by one, and compares the work.
fn verify_shared() {
    let dir = folder();
    let mut random = Random(3);
    let mut store = Store::create(dir.path().join("s"), CreateOptions::new(3)).unwrap();
    store.insert(&random.points(20_000, 3)).unwrap();
    for version in 1..64 {
        match version % 4 {
            0 => store.delete(&Vec::from_iter((0..20).map(|i| version * 100 + i))).unwrap(),
            _ => store.insert(&random.points(20, 3)).unwrap(),
        };
    }
    let start = Instant::now();
    let work = |options: treering::VerifyOptions| {
        let before = ticks(start);
        assert!(store.verify(options.deep(true)).unwrap().is_ok());
        ticks(start) - before
    };
    let one_by_one: u64 = (1..=64)
        .map(|version| work(treering::VerifyOptions::version(treering::VersionId(version))))
        .sum();
    let at_once = work(treering::VerifyOptions::all());
    say("took", format!("{at_once} ticks at once, {one_by_one} one by one"));
    assert!(at_once < one_by_one / 4, "{at_once} at once, {one_by_one} one by one");
}

const SHARED: &str = "versions that share";
const MUCH: &str = "much is received";

/// Hundredths of a second for which this process has kept a processor busy; where that is not told,
/// since `start`. Not those of a clock: other tests and other programs run meanwhile.
fn ticks(start: Instant) -> u64 {
    let told = std::fs::read_to_string("/proc/self/stat").ok();
    let ticks = told.as_deref().and_then(|text| text.rsplit(')').next()).and_then(|rest| {
        let fields: Vec<u64> = rest
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse().ok())
            .collect();
        <[u64; 2]>::try_from(fields).ok()
    });
    ticks.map_or(start.elapsed().as_millis() as u64 / 10, |[user, system]| user + system)
}

fn busy(start: Instant) -> u64 {
    ticks(start) / 100
}

/// Runs cases `from..to` in this process under their limits. Says which one before each.
fn run(cases: impl Iterator<Item = (String, Box<dyn Fn() -> Forgery>)>) {
    static BEGAN: AtomicU64 = AtomicU64::new(u64::MAX);
    let start = Instant::now();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_millis(200));
            let now = busy(start);
            if now.saturating_sub(BEGAN.load(Ordering::SeqCst)) > SECONDS {
                println!("takes more than {SECONDS} s");
                std::process::abort();
            }
        }
    });
    for (name, make) in cases {
        let dir = folder();
        let path = dir.path().join("s");
        let forgery = make();
        let stored = forgery.stored();
        forgery.save(&path);
        drop(forgery);
        say("case", &name);
        allocation::allow(Some(ALLOWANCE + PER_BYTE * stored));
        let began = busy(start);
        BEGAN.store(began, Ordering::SeqCst);
        exercise(&path);
        BEGAN.store(u64::MAX, Ordering::SeqCst);
        allocation::allow(None);
        say("took", format!("{} s for {stored} bytes", busy(start) - began));
    }
}

const CHILD: &str = "TREERING_TRUST_BOUNDS";

/// The process in which memory is limited: for one of the stores by name, or for a range of seeds.
#[test]
fn in_its_own_process() {
    let Ok(asked) = std::env::var(CHILD) else { return };
    match asked.split_once("..") {
        Some((from, to)) => {
            let (from, to): (u64, u64) = (from.parse().unwrap(), to.parse().unwrap());
            run((from..to).map(|seed| {
                let make: Box<dyn Fn() -> Forgery> = Box::new(move || forged(seed));
                (format!("seed {seed}"), make)
            }));
        }
        None if asked == SHARED => verify_shared(),
        None if asked == MUCH => {
            receive_much(folder().path());
            say("took", "as little as it should");
        }
        None if asked.starts_with("stream") => {
            for (name, make) in streams().into_iter().filter(|stream| stream.0 == asked) {
                let dir = folder();
                let file = make(dir.path());
                say("case", name);
                allocation::allow(Some(ALLOWANCE));
                let received =
                    Store::receive(dir.path().join("copy"), BufReader::new(file), threads(1));
                allocation::allow(None);
                assert!(received.is_err(), "{received:?}");
                say("took", "as little as it should");
            }
        }
        None => {
            let of_name = found().into_iter().filter(|case| case.0 == asked);
            run(of_name.map(|(name, make)| (name.to_string(), make)));
        }
    }
}

/// What a process of its own says, and an error if it ends in any other way than well.
fn apart(asked: &str) -> Result<String, String> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["trust::bounds::in_its_own_process", "--exact", "--nocapture"])
        .env(CHILD, asked)
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() && text.contains("took: ") {
        return Ok(text);
    }
    let last = text.lines().rev().find(|line| line.starts_with("case: ")).unwrap_or("no case");
    let errors = String::from_utf8_lossy(&output.stderr);
    let why: Vec<&str> = errors.lines().chain(text.lines().rev().take(4)).take(12).collect();
    Err(format!("{asked}: {last}: {}: {}", output.status, why.join(" | ")))
}

#[test]
fn what_an_audit_found_is_bounded() {
    let names: Vec<&str> = found().iter().map(|case| case.0).collect();
    refused_or_done(&names);
    say("hostile stores by name", names.len());
}

fn refused_or_done(names: &[&str]) {
    let failures: Vec<String> = names.iter().filter_map(|name| apart(name).err()).collect();
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), names.len(), failures.join("\n"));
}

#[test]
fn verification_walks_what_versions_share_once() {
    let told = apart(SHARED).unwrap();
    let line = told.lines().find_map(|line| line.strip_prefix("took: ")).unwrap();
    say("deep verification of 64 versions", line);
}

#[test]
fn streams_are_bounded() {
    let names: Vec<&str> = streams().iter().map(|stream| stream.0).chain([MUCH]).collect();
    refused_or_done(&names);
    say("hostile streams", names.len() - 1);
}

#[test]
fn hostile_stores_are_bounded() {
    let seeds = scale(120, 600) as u64;
    const AT_ONCE: u64 = 40;
    let failures: Vec<String> = (0..seeds)
        .step_by(AT_ONCE as usize)
        .filter_map(|from| apart(&format!("{from}..{}", (from + AT_ONCE).min(seeds))).err())
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    say("hostile stores", seeds + found().len() as u64);
}

/// Without a lie the forged file is a whole store that answers like the one that was taken apart.
#[test]
fn a_forgery_without_lies_is_a_whole_store() {
    let dir = folder();
    let path = dir.path().join("s");
    let forge = plain(600, 3, 256, 512);
    forge.write().save(&path);
    whole(&path);
}

fn whole(path: &Path) {
    let store = Store::open(path).unwrap();
    crate::common::assert_sound(&store, "forged");
    assert_eq!(store.latest().unwrap().len(), 600);
}
