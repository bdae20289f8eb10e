//! Stores that are sent to each other: whatever expires at which end, in whatever order, what a
//! store retains it can open, and its accounts of space are right.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use treering::{ReceiveError, Retention, Store, VersionId};

use super::decoders::repair;
use super::figures::{in_parallel, say, scale};
use crate::common::{Random, assert_sound, threads, tiny};
use crate::format::{Spec, frames};

/// Copies that were received, looked at whole, and looked at again after every later step.
static KEPT: AtomicU64 = AtomicU64::new(0);

fn stream(store: &Store, since: Option<u64>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    store.backup(since.map(VersionId), &mut out).ok().map(|_| out)
}

/// Ids of the points of every retained version.
fn contents(store: &Store) -> BTreeMap<u64, Vec<u64>> {
    let ids = |version| {
        let mut ids = Vec::new();
        store.at(version).unwrap().for_each(|id, _| ids.push(id)).unwrap();
        ids.sort_unstable();
        ids
    };
    let versions = store.versions().unwrap();
    versions.iter().map(|info| (info.version.0, ids(info.version))).collect()
}

/// The copy retains a version that the sender has let go, and gets one whose segments the sender no
/// longer shares through it. What the two of them share must not be freed when the third goes.
#[test]
fn a_received_version_shares_with_neighbours_only() {
    let dir = tempfile::tempdir().unwrap();
    let [path, copy] = ["a.tre", "b.tre"].map(|name| dir.path().join(name));
    let mut store = Store::create_with(&path, tiny(2, 4), threads(1)).unwrap();
    let mut random = Random(1);
    store.insert(&random.points(60, 2)).unwrap();
    store.insert(&random.points(60, 2)).unwrap();
    let send = |store: &Store, since: Option<u64>| {
        let stream = stream(store, since).unwrap();
        Store::receive(&copy, Cursor::new(stream), threads(1)).unwrap();
    };
    send(&store, None);
    store.restore(VersionId(1)).unwrap();
    send(&store, Some(2));
    store.insert(&random.points(3, 2)).unwrap();
    store.tag("kept", VersionId(1)).unwrap();
    store.expire(Retention::new().keep_last(1)).unwrap();
    send(&store, None);
    let expected = contents(&store)[&4].clone();
    let mut other = Store::open_with(&copy, threads(1)).unwrap();
    assert_sound(&other, "received");
    other.delete_tag("kept").unwrap();
    other.expire(Retention::new().keep_last(2)).unwrap();
    assert_sound(&other, "expired at the copy");
    assert_eq!(contents(&other)[&4], expected);
    other.insert(&random.points(60, 2)).unwrap();
    other.insert(&random.points(60, 2)).unwrap();
    assert_sound(&other, "and its space used again");
    assert_eq!(contents(&other)[&4], expected);
}

/// A store of the group: where it lies, and what its versions hold.
struct Member {
    path: PathBuf,
    versions: BTreeMap<u64, Vec<u64>>,
}

/// Three stores: the first is written to, the second follows it, the third follows either.
fn history(seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(seed);
    let members = ["a.tre", "b.tre", "c.tre"].map(|name| dir.path().join(name));
    let first = Store::create_with(&members[0], tiny(1, 2), threads(1)).unwrap();
    drop(first);
    let mut members = members.map(|path| Member { path, versions: BTreeMap::new() });
    for step in 0..25 {
        let what = format!("history {seed}, step {step}");
        let which = match random.below(3) {
            0 => random.below(3) as usize,
            _ => 0,
        };
        if random.below(3) > 0 {
            change(&mut members[which], which, &mut random);
        } else {
            let (from, to) = [(0, 1), (0, 2), (1, 2)][random.below(3) as usize];
            send(&mut members, from, to, &mut random);
        }
        for member in members.iter().filter(|member| member.path.exists()) {
            let store = Store::open_with(&member.path, threads(1).read_only(true)).unwrap();
            assert_sound(&store, &what);
            assert_eq!(contents(&store), member.versions, "{what}: {}", member.path.display());
        }
    }
}

fn change(member: &mut Member, which: usize, random: &mut Random) {
    let Ok(mut store) = Store::open_with(&member.path, threads(1)) else { return };
    let newest = store.latest().unwrap().version();
    let any = VersionId(random.below(newest.0 + 1));
    match (random.below(7), which) {
        // Only the first makes versions, so that the others can follow.
        (0 | 1, 0) => drop(store.insert(&random.points(6, 1)).unwrap()),
        (2, 0) => drop(store.restore(any)),
        (3, 0) => drop(store.compact().unwrap()),
        (4, _) => drop(store.tag(["x", "y"][random.below(2) as usize], any)),
        (5, _) => drop(store.delete_tag(["x", "y"][random.below(2) as usize])),
        _ => drop(store.expire(Retention::new().keep_last(1 + random.below(3))).unwrap()),
    }
    member.versions = contents(&store);
}

fn send(members: &mut [Member; 3], from: usize, to: usize, random: &mut Random) {
    let Ok(store) = Store::open_with(&members[from].path, threads(1).read_only(true)) else {
        return;
    };
    let newest = store.latest().unwrap().version().0;
    let since = (random.below(2) == 0).then(|| random.below(newest + 1));
    let Some(mut stream) = stream(&store, since) else { return };
    // Who writes streams by hand may name any version to share with.
    let forged = random.below(4) == 0 && forge(&mut stream, random);
    match Store::receive(&members[to].path, Cursor::new(stream), threads(1)) {
        Ok(_) => {}
        Err(ReceiveError::MissingBase { .. }) if !forged => return,
        // A version shares with one that has expired here; those before it have been taken over.
        Err(ReceiveError::At(_)) => {}
        // What came before the forged version may have been taken over.
        Err(e) if forged => println!("refused: {e}"),
        Err(e) => panic!("{e}"),
    }
    let Ok(copy) = Store::open_with(&members[to].path, threads(1).read_only(true)) else { return };
    let expected = &members[from].versions;
    let now = contents(&copy);
    if !forged {
        for (version, ids) in &now {
            let sent = expected.get(version);
            let had = members[to].versions.get(version);
            assert_eq!(Some(ids), sent.or(had), "version {version} is what was sent");
        }
    }
    members[to].versions = now;
    KEPT.fetch_add(1, Ordering::Relaxed);
}

/// Gives a random version frame another version to be relative to, and repairs the checksums.
fn forge(stream: &mut [u8], random: &mut Random) -> bool {
    let frames = frames(&Spec::parse(), stream);
    let versions: Vec<_> = frames.iter().filter(|(kind, _)| *kind == 2).collect();
    if versions.is_empty() {
        return false;
    }
    let (_, payload) = versions[random.below(versions.len() as u64) as usize];
    let at = payload.end - 8;
    stream[at..at + 8].copy_from_slice(&random.below(6).to_le_bytes());
    repair(stream);
    true
}

#[test]
fn stores_that_follow_each_other_stay_sound() {
    in_parallel(scale(60, 400), |unit| history(unit as u64));
    say("copies kept", KEPT.load(Ordering::Relaxed));
}
