//! Trust: no acknowledged version is lost, no damaged byte becomes a wrong neighbour or a panic.

mod crashes;
mod disk;
mod figures;
mod medium;
mod model;
mod workload;
