//! Where snapshots lie: a store of small named objects that all nodes of a cluster reach.

use std::collections::BTreeMap;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use super::SnapshotError;

/// A store of objects in folders. Nothing is ever changed: objects are created, read and deleted.
///
/// Called on the node's control runtime, which is tokio's; what blocks belongs on `spawn_blocking`.
pub trait SnapshotStore: Send + Sync + 'static {
    /// Creates an object, whole or not at all. False, and nothing is changed, if there is one of that name.
    fn create<'a>(
        &'a self,
        folder: &'a str,
        name: &'a str,
        bytes: Vec<u8>,
    ) -> BoxFuture<'a, Result<bool, SnapshotError>>;
    /// The names of the objects in a folder, in any order; none if there is no such folder.
    fn list<'a>(&'a self, folder: &'a str) -> BoxFuture<'a, Result<Vec<String>, SnapshotError>>;
    /// An object's bytes.
    fn read<'a>(&'a self, folder: &'a str, name: &'a str) -> BoxFuture<'a, Result<Vec<u8>, SnapshotError>>;
    /// Deletes an object; one that is not there is no error.
    fn delete<'a>(&'a self, folder: &'a str, name: &'a str) -> BoxFuture<'a, Result<(), SnapshotError>>;
}

/// A store in the memory of this process: for tests, and for what need not outlive it.
#[derive(Debug, Default)]
pub struct MemorySnapshots(Mutex<BTreeMap<(String, String), Vec<u8>>>);

impl SnapshotStore for MemorySnapshots {
    fn create<'a>(
        &'a self,
        folder: &'a str,
        name: &'a str,
        bytes: Vec<u8>,
    ) -> BoxFuture<'a, Result<bool, SnapshotError>> {
        let mut objects = self.0.lock();
        let key = (folder.to_owned(), name.to_owned());
        let is_new = !objects.contains_key(&key);
        if is_new {
            objects.insert(key, bytes);
        }
        async move { Ok(is_new) }.boxed()
    }

    fn list<'a>(&'a self, folder: &'a str) -> BoxFuture<'a, Result<Vec<String>, SnapshotError>> {
        let objects = self.0.lock();
        let names = objects.keys().filter(|(of, _)| of == folder).map(|(_, name)| name.clone()).collect();
        async move { Ok(names) }.boxed()
    }

    fn read<'a>(&'a self, folder: &'a str, name: &'a str) -> BoxFuture<'a, Result<Vec<u8>, SnapshotError>> {
        let found = self.0.lock().get(&(folder.to_owned(), name.to_owned())).cloned();
        let missing = move || SnapshotError::Store { reason: format!("there is no {folder}/{name}") };
        async move { found.ok_or_else(missing) }.boxed()
    }

    fn delete<'a>(&'a self, folder: &'a str, name: &'a str) -> BoxFuture<'a, Result<(), SnapshotError>> {
        self.0.lock().remove(&(folder.to_owned(), name.to_owned()));
        async { Ok(()) }.boxed()
    }
}
