//! The decoders of the trust suite, as modules of a fuzz target.

#[path = "../tests/it/trust/decoders.rs"]
pub(crate) mod decoders;
#[path = "../tests/it/trust/disk.rs"]
mod disk;
#[path = "../tests/it/trust/forge.rs"]
mod forge;
#[path = "../tests/it/trust/hostile.rs"]
pub(crate) mod hostile;
#[path = "../cli/tests/it/trust/inputs.rs"]
pub(crate) mod inputs;
#[path = "../tests/it/trust/model.rs"]
mod model;
#[path = "../tests/it/trust/packed.rs"]
mod packed;
#[path = "../tests/it/trust/workload.rs"]
mod workload;
