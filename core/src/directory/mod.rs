//! The directory: which actor holds which name, and which are in which group, decided in one place for the whole cluster.
//!
//! One node of the cluster is its head and keeps the [`Directory`]. Every other node is a member and holds a lease there:
//! [`Lease`] is the member's end of it. A member whose lease is over must not run its named actors any more, and the
//! head gives their names to others only when the lease and a margin have passed, or when the member is known to be
//! dead. So no two actors ever act under one name at the same time, whatever the network does.
//!
//! Both ends are plain state machines: requests and the time go in, answers come out. The time at the head is a
//! [`Duration`](std::time::Duration) since its start, so that the state can be written down and read again.
mod gone;
mod groups;
mod lease;
mod repeats;
mod state;
mod times;
mod wire;

pub use lease::Lease;
pub use state::Directory;
pub use times::LeaseTimes;
pub use wire::{Answer, Fence, Found, GroupName, Members, Refusal, Request};

#[cfg(test)]
mod tests;
