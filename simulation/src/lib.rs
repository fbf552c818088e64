//! Whole clusters from a seed: the real sessions, credits, handshakes and restart budgets of many nodes, in one thread
//! and virtual time, under faults, watched by oracles.
//!
//! Start at [`Params::draw`](params::Params::draw), which makes a world of a seed, and [`run`], which runs it.
//! What is tested, and how to add to it: `docs/testing.md`. Only [`tier1`], which runs whole nodes instead of their
//! decisions, knows actix and tokio; nothing here knows sockets or threads.
pub mod campaign;
pub mod fact;
pub mod head;
pub mod identity;
pub mod judge;
pub mod kind;
pub mod ledger;
pub mod oracles;
pub mod params;
pub mod random;
pub mod reach;
pub mod shrink;
pub mod tier1;
mod world;

pub use judge::Violation;
pub use world::{Report, run};
