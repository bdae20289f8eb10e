//! A store file that an earlier build of this format version wrote, opened by every later one: the file never changes, and
//! neither do its answers.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use treering::{OpenOptions, Provenance, Store, VersionId};

use crate::common::{Random, assert_sound, threads, tiny};
use crate::format::{Spec, compare};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// What every version of a store holds and answers, bit for bit, as text.
fn told(store: &Store) -> String {
    let mut text = String::new();
    for tag in store.tags().unwrap() {
        writeln!(text, "tag {} {}", tag.name, tag.version).unwrap();
    }
    let queries = Random(3).points(4, store.dim());
    for info in store.versions().unwrap() {
        let snapshot = store.at(info.version).unwrap();
        writeln!(text, "version {} {} {} points", info.version, info.kind, snapshot.len()).unwrap();
        for query in queries.chunks_exact(store.dim()) {
            let near = snapshot.knn(query, 3).unwrap();
            let near = near.iter().map(|n| format!("{}:{:08x}", n.id, n.distance.to_bits()));
            writeln!(text, "  {}", near.collect::<Vec<_>>().join(" ")).unwrap();
        }
    }
    text
}

/// Writes the files, if they are not there yet. They are made once for a format version, and then kept for ever.
fn make(path: &Path) {
    let start = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let open: OpenOptions = threads(1).provenance(Provenance::Fixed { start, seed: 1 });
    let mut store = Store::create_with(path, tiny(3, 4), open).unwrap();
    let mut random = Random(1);
    store.insert(&random.points(60, 3)).unwrap();
    store.insert_with_ids(&random.points(5, 3), &[1000, 7000, 9_000_000, 8000, 2000]).unwrap();
    store.delete(&[3, 5, 7, 1000]).unwrap();
    store.insert(&[0.25, 0.5, 0.75].repeat(9)).unwrap();
    store.tag("grün", VersionId(3)).unwrap();
    store.restore(VersionId(2)).unwrap();
    store.insert(&random.points(20, 3)).unwrap();
    store.tag("last", VersionId(6)).unwrap();
    store.expire(treering::Retention::new().keep_last(3)).unwrap();
    store.compact().unwrap();
    store.insert(&random.points(3, 3)).unwrap();
}

#[test]
fn the_file_of_format_version_1_opens_for_ever() {
    let (path, answers) = (golden("format-1.tre"), golden("format-1.answers"));
    if std::env::var_os("TREERING_MAKE_GOLDEN").is_some() && !path.exists() {
        make(&path);
        std::fs::write(&answers, told(&Store::open(&path).unwrap())).unwrap();
    }
    let bytes = std::fs::read(&path).unwrap();
    let expected = std::fs::read_to_string(&answers).unwrap();
    let store = Store::open_with(&path, threads(1).read_only(true)).unwrap();
    assert_eq!(told(&store), expected);
    assert_sound(&store, "golden");
    compare(&Spec::parse(), &bytes, &store);
    drop(store);
    assert!(std::fs::read(&path).unwrap() == bytes, "reading changes nothing");

    // And today's writer goes on from it.
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy.tre");
    std::fs::write(&copy, &bytes).unwrap();
    let mut store = Store::open_with(&copy, threads(1)).unwrap();
    let newest = store.latest().unwrap().version().0;
    assert_eq!(store.insert(&[0.5, 0.5, 0.5]).unwrap().version.0, newest + 1);
    assert!(told(&store).starts_with(&expected));
    assert_sound(&store, "gone on from");
}
