//! The head's records in etcd: a [`MetadataStore`](mobula_head::store::MetadataStore) for several heads, of which one leads.
//!
//! With the feature `etcd` start at `EtcdStore`; without it this crate is empty, for etcd's client is built with protoc, which cargo alone does not bring.
//! `leadership` says who leads and until when, `transaction` makes transactions of etcd's out of ours, `changes` watches. Why it is made so:
//! `docs/decisions/0018-several-heads-with-etcd.md`.
#[cfg(feature = "etcd")]
mod changes;
#[cfg(feature = "etcd")]
mod failure;
#[cfg(feature = "etcd")]
mod leadership;
#[cfg(feature = "etcd")]
mod options;
#[cfg(feature = "etcd")]
mod store;
#[cfg(feature = "etcd")]
mod transaction;

#[cfg(feature = "etcd")]
pub use leadership::{Leader, Leadership};
#[cfg(feature = "etcd")]
pub use options::{EtcdOptions, EtcdOptionsError};
#[cfg(feature = "etcd")]
pub use store::EtcdStore;
