//! Where the head's records lie: a store with the semantics of etcd, whatever it is made of.
//!
//! Start at [`MetadataStore`]. [`MemoryStore`] is for tests and simulations and has faults to switch on; [`RedbStore`] is one file, for one head;
//! several heads share the one of the crate `mobula-etcd`.
//! [`take_over`] makes a head of what a store has. All of them pass the same tests: `head/tests/suite/mod.rs`.
mod error;
mod history;
mod memory;
#[cfg(feature = "redb")]
mod redb_file;
mod table;
mod take_over;

use std::fmt;
use std::time::Duration;

use futures::future::BoxFuture;

pub use error::StoreError;
pub use history::Watch;
pub use memory::{Kill, MemoryStore};
#[cfg(feature = "redb")]
pub use redb_file::RedbStore;
pub use table::Clock;
pub use take_over::{TakeOverError, take_over};

use crate::Write;

/// A place for records. Keys are ordered by their bytes; every transaction that writes raises the revision, by one where
/// nobody else writes to the same store.
///
/// The futures do I/O. One that is dropped may have been done or not; whoever has several writes waits for one before the next.
pub trait MetadataStore: Send + Sync + fmt::Debug {
    /// Becomes the one who writes: the term that comes back is larger than all before, and whoever had an earlier one is refused from here on.
    /// With several heads it waits until the one before is gone.
    ///
    /// # Errors
    /// [`StoreError`].
    fn lead(&self) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// The entries whose keys begin with `prefix`, in order, and the revision at which they are so.
    ///
    /// # Errors
    /// [`StoreError`].
    fn range(&self, prefix: &str) -> BoxFuture<'_, Result<Snapshot, StoreError>>;

    /// Does all of a transaction or nothing, and gives the revision that it made. On disk when it is answered.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] and [`StoreError::Conflict`]: nothing was done. After [`StoreError::Io`] it may have been.
    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// What is changed under `prefix` after the revision `from`, from now on.
    ///
    /// # Errors
    /// [`StoreError`].
    fn watch(&self, prefix: &str, from: u64) -> BoxFuture<'_, Result<Watch, StoreError>>;

    /// A lease: entries that are put with it go when it has not been renewed for `ttl`.
    ///
    /// # Errors
    /// [`StoreError`].
    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseToken, StoreError>>;

    /// Renews a lease.
    ///
    /// # Errors
    /// [`StoreError::NoSuchLease`] if it is over.
    fn keep_alive(&self, lease: LeaseToken) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Ends a lease, and deletes what was put with it.
    ///
    /// # Errors
    /// [`StoreError`]; a lease that is over already is none.
    fn revoke(&self, lease: LeaseToken) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// A lease of a store.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LeaseToken(pub u64);

/// What there is under a prefix.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Snapshot {
    /// When.
    pub revision: u64,
    /// In the order of their keys.
    pub entries: Vec<Entry>,
}

impl Snapshot {
    /// Keys and values, as a head is made of.
    pub fn records(self) -> impl Iterator<Item = (String, Vec<u8>)> {
        self.entries.into_iter().map(|entry| (entry.key, entry.value))
    }
}

/// An entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Which.
    pub key: String,
    /// Its bytes.
    pub value: Vec<u8>,
    /// The revision that has written it last.
    pub revision: u64,
}

/// Writes that belong together, and what has to hold for them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Transaction {
    /// Only while this is the newest term.
    pub term: Option<u64>,
    /// Only if these keys were last written by these revisions; 0 for one that is not there.
    pub unchanged: Vec<(String, u64)>,
    /// What is written.
    pub writes: Vec<Write>,
    /// The entries that are put go with this lease.
    pub lease: Option<LeaseToken>,
}

impl Transaction {
    /// What a head of this term wants written.
    pub fn of_head(term: u64, writes: Vec<Write>) -> Self {
        Transaction { term: Some(term), writes, ..Transaction::default() }
    }
}

/// An entry was changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Event {
    /// By which revision.
    pub revision: u64,
    /// Which.
    pub key: String,
    /// What it is now; none if it is no more.
    pub value: Option<Vec<u8>>,
}
