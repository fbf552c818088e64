//! The command and what it starts: whole clusters of real processes.

mod book;
mod cgroups;
mod common;
mod deploy;
mod detached;
mod doctor;
#[cfg(feature = "etcd")]
#[path = "../../../etcd/tests/server/mod.rs"]
mod etcd;
mod failures;
mod hostile;
mod isolated;
mod jobs;
mod lists;
mod logins;
mod namespaces;
mod nodes;
mod placement;
mod programs;
mod returning;
mod several_heads;
