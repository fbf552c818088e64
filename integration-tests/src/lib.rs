//! What the tests in `tests/` share: actors and tasks to be called, and the places to call them in.
//!
//! A suite is an async function over a [`Stage`]; [`suites!`] runs it on every [`Kind`] of stage that it names.
//! [`actors`], [`mortals`], [`patient`], [`streamer`] and [`tasks`] are linked into the test processes and into their node processes (`src/bin/node_host.rs`)
//! alike. [`gates`] hold a handler where a test wants it, so that no test has to sleep. [`process`] looks at other
//! processes through `/proc`, so these tests run on Linux only.
pub mod accounts;
pub mod actors;
pub mod door;
pub mod fragile;
pub mod gates;
pub mod hermit;
pub mod holders;
pub mod ledger;
pub mod mortals;
pub mod patient;
pub mod process;
pub mod proxy;
pub mod slow_start;
pub mod stage;
pub mod streamer;
pub mod stubborn;
pub mod switchboard;
pub mod tally;
pub mod tasks;
pub mod tenant;
pub mod timekeeper;
pub mod wait;
pub mod waiter;

pub use stage::{Held, Kind, Stage};
pub use wait::{eventually, within};
