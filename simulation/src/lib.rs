//! Whole clusters from a seed: the real sessions, credits, handshakes and restart budgets of many nodes, in one thread
//! and virtual time, under faults, watched by oracles.
//!
//! Start at [`Params::draw`](params::Params::draw), which makes a world of a seed, and [`run`], which runs it.
//! What is tested, and how to add to it: `docs/testing.md`. This crate does not know actix, tokio or threads.
pub mod campaign;
pub mod fact;
pub mod judge;
pub mod ledger;
pub mod oracles;
pub mod params;
pub mod random;
pub mod reach;
pub mod shrink;
mod world;

pub use judge::Violation;
pub use world::{Report, run};
