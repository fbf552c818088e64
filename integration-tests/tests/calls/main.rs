//! Messages and tasks: what arrives, in which order, in which form, and what a caller hears.

mod back_pressure;
mod call_context;
mod dead_letters;
mod deadlines;
mod encode_local;
mod forward;
mod handler_shapes;
mod large;
mod mailbox_policies;
mod order;
mod recipients;
mod references;
mod streams;
mod tasks;
mod tell_acked;
mod types;
