//! The head of a cluster: who belongs to it, what runs where, and what has to survive the head itself.
//!
//! Start at [`Head`], which decides. Requests and a [`Moment`] go in; answers come out, and [`Effect`]s in the order in which they have to
//! be done: what is to be written down comes before any answer that depends on it. [`NodeLease`] is the node's end of its lease.
//! [`store`] has the places where the records lie. Why it is made so: `docs/decisions/0016-the-head.md`.
//!
//! The machine knows no clock, thread, socket, random number or actor.
mod config;
mod effect;
mod machine;
mod moment;
mod node_lease;
mod records;
mod scheduler;
pub mod store;

pub use config::HeadConfig;
pub use effect::{Effect, Write};
pub use machine::{Head, Printer};
pub use moment::Moment;
pub use node_lease::NodeLease;
pub use records::{RECORD_VERSION, RecordError};
