//! Nodes and what is between them: beginnings, losses, broken connections, strangers.

mod broken_connections;
mod cluster_start;
mod compression;
mod driver_end;
mod going_away;
mod leaving;
mod liveness;
mod membership;
mod node_loss;
mod strangers;
