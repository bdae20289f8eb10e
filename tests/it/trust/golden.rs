//! A store file that an earlier release wrote. Format 1 is not read any more, and says so; golden
//! files of format 2 will be made when it is released.

use treering::{OpenError, Store};

use super::preamble::reading;
use crate::common::threads;

#[test]
fn a_file_of_format_version_1_is_refused_with_what_to_do() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/format-1.tre");
    let bytes = std::fs::read(golden).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("old.tre");
    // Longer than any preamble of today, too.
    for content in [bytes.clone(), [bytes, vec![0; 1 << 20]].concat()] {
        std::fs::write(&path, &content).unwrap();
        for open in [reading(), threads(1)] {
            let refused = Store::open_with(&path, open).map(drop).unwrap_err();
            assert!(matches!(refused, OpenError::OldFormat { format_version: 1 }), "{refused}");
            let text = refused.to_string();
            assert!(text.contains("treering export") && text.contains("treering build"), "{text}");
        }
        assert!(std::fs::read(&path).unwrap() == content, "the file was changed");
    }
}
