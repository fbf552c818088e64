//! The command and what it starts: whole clusters of real processes.

mod book;
mod common;
mod deploy;
mod failures;
mod hostile;
mod jobs;
mod namespaces;
mod nodes;
mod placement;
