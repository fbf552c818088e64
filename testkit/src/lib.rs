#![doc = include_str!("../README.md")]
//!
//! # What there is
//!
//! | for | use |
//! |---|---|
//! | an actor that remembers | [`Probe`] |
//! | a cluster in the test's process | [`TestCluster`] |
//! | waiting with a bound | [`within`], [`eventually`] |
//! | time that passes at once | [`virtual_time`] |
mod clock;
mod cluster;
mod probe;
mod wait;
mod wire;

pub use clock::{VIRTUAL_TIME_MAX, virtual_time};
pub use cluster::TestCluster;
pub use probe::{Probe, ProbeActor};
pub use wait::{eventually, within};
