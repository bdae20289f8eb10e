//! A store on a real overlay file system, where there may be one: a file moves when it is first
//! written to, and a reader that mapped it before must not answer from the old place.

use std::path::PathBuf;
use std::process::Command;

use treering::{Retention, Store};

use super::preamble::{answers, reading, small};
use crate::common::{Random, threads};

const CHILD: &str = "TREERING_TRUST_OVERLAY";

/// Not a test by itself: runs where the file is below an overlay.
#[test]
fn child_reads_beside_the_first_writer() {
    let Some(path) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    for guarded in [false, true] {
        // A file for each, because each moves once.
        let path = path.join(if guarded { "guarded.tre" } else { "plain.tre" });
        let reader = Store::open_with(&path, reading().catch_faults(guarded)).unwrap();
        let before = answers(&reader, 1).unwrap();
        let old = reader.latest().unwrap();
        let mut random = Random(2);
        for round in 0..8 {
            let mut writer = Store::open_with(&path, threads(1)).unwrap();
            writer.insert(&random.points(300, 2)).unwrap();
            if round == 5 {
                // Space is used again, where the old place has something else.
                writer.expire(Retention::new().keep_last(2)).unwrap();
            }
            let newest = writer.latest().unwrap().version().0;
            let truth = answers(&writer, newest).unwrap();
            assert_eq!(answers(&reader, newest), Ok(truth), "round {round}");
        }
        assert_eq!(answers(&reader, 1).unwrap(), before);
        assert_eq!(old.len(), 300);
    }
    println!("\noverlay=done");
}

#[test]
fn a_reader_follows_a_file_that_moves_up() {
    let dir = tempfile::tempdir().unwrap();
    let folders = ["lower", "upper", "work", "merged"].map(|name| dir.path().join(name));
    folders.iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
    for name in ["plain.tre", "guarded.tre"] {
        let path = folders[0].join(name);
        let mut store = Store::create_with(path, small(), threads(1)).unwrap();
        store.insert(&Random(1).points(300, 2)).unwrap();
    }
    let script = "mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged \
                  || exit 77; exec \"$0\" \"$@\"";
    let output = Command::new("unshare")
        .args(["-Urm", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .args(["trust::overlay::child_reads_beside_the_first_writer", "--exact", "--nocapture"])
        .env(CHILD, &folders[3])
        .current_dir(dir.path())
        .output();
    let output = match output {
        Ok(output) if output.status.code() != Some(77) && output.status.code() != Some(1) => output,
        _ => return println!("skipped: no overlay can be mounted here"),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("overlay=done"), "{:?}: {text}\n{errors}", output.status);
}
