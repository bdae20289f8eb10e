//! Plain values that every floor may name: ids, options, rules, errors. They know of no file and of
//! no tree.

pub(crate) mod budget;
pub(crate) mod error;
pub(crate) mod ids;
pub(crate) mod memory;
pub(crate) mod options;
pub mod printable;
pub(crate) mod retention;
#[cfg_attr(
    not(feature = "simulation"),
    allow(
        unreachable_pub,
        dead_code,
        reason = "public through `simulation`, which is not compiled"
    )
)]
pub(crate) mod seeded_bug;
pub(crate) mod source;
pub(crate) mod tag_name;
pub(crate) mod time_text;
pub(crate) mod when;
