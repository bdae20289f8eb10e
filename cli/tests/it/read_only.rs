//! A file system that cannot be written: what reads works, what writes says so.
//!
//! Mounting one needs a namespace of one's own or the rights of root; where neither can be had,
//! this says so and passes.

use std::process::Command;

use crate::common::with_a_mount;

const SCRIPT: &str = r#"
mount -t tmpfs tmpfs "$1" || exit 77
cd "$1" || exit 77
printf '0,0\n1,1\n2,2\n' > p.csv
"$2" build s p.csv --quiet > out && "$2" insert s p.csv --quiet > out || exit 1
before=$(cksum s)
mount -o remount,ro "$1" || exit 77
for verb in 'query s p.csv -k 1' 'log s' 'diff s 1 2' 'stats s' 'verify s --all --deep' 'get s 1' 'tag s'; do
    "$2" $verb --quiet > /dev/null 2>&1
    echo "$? $verb"
done
for verb in 'insert s p.csv' 'delete s 1' 'tag s name' 'restore s 1' 'expire s --keep-last 1' 'compact s'; do
    "$2" $verb --quiet 2>&1 > /dev/null | grep -q -i 'read-only'
    echo "$? says so: $verb"
done
test "$before" = "$(cksum s)" && echo unchanged
"#;

#[test]
fn a_read_only_file_system_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut unshare = Command::new("unshare");
    unshare
        .args(["--mount", "--map-root-user", "sh", "-c", SCRIPT, "sh"])
        .args([dir.path().as_os_str(), env!("CARGO_BIN_EXE_treering").as_ref()]);
    let Some(output) = with_a_mount(&mut unshare) else { return };
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    let lines: Vec<&str> = text.lines().collect();
    let (last, verbs) = lines.split_last().unwrap();
    assert_eq!((*last, verbs.len()), ("unchanged", 13), "{text}{errors}");
    assert!(verbs.iter().all(|line| line.starts_with("0 ")), "{text}{errors}");
}
