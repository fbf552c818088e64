//! Finding an actor: by name, key, group, pool, or by what its node has.

mod busy_leases;
mod groups;
mod isolated;
mod keyed;
mod names;
mod placement;
mod pools;
mod routers;
