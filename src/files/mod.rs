//! Whole files: writing one so that it appears whole, temporaries that leave nothing behind, and
//! waits for pipes that end when somebody says so. Public for the `treering` command alone, and no
//! part of what the library promises.

pub mod publish;
pub mod temporary;
pub mod waiting;
