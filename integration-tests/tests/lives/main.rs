//! Lives of actors: beginnings, ends, restarts, and who hears of them.

mod links;
mod monitors;
mod panics;
mod snapshots;
mod spawns;
mod stashes;
mod stopping;
mod stuck;
mod supervision;
mod timers;
