//! Where snapshots of Mobula's actors lie: directories, and whatever else `object_store` reaches.
//!
//! [`open`] gives the store for a URL, [`Objects`] makes one of any `ObjectStore`. What the objects mean is decided in
//! `mobula-actors`; here they are bytes with names.
use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use mobula_actors::{MemorySnapshots, SnapshotError, SnapshotStore};
use mobula_core::limits;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use parking_lot::Mutex;

/// Opens the store for `url`: `file:///var/lib/mobula/snapshots` is a directory, which is created if need be; `memory:///any-name`
/// is in the memory of this process and ends with it, the same for each who opens it by this name. All nodes of a cluster have
/// to reach the same one.
///
/// # Errors
/// [`SnapshotError::Store`] if the URL is of another scheme, or the directory cannot be created.
pub fn open(url: &str) -> Result<Arc<dyn SnapshotStore>, SnapshotError> {
    static IN_MEMORY: Mutex<BTreeMap<String, Arc<MemorySnapshots>>> = Mutex::new(BTreeMap::new());

    let wrong = |reason: String| SnapshotError::Store { reason: format!("`{url}`: {reason}") };
    if let Some(name) = url.strip_prefix(MEMORY) {
        return Ok(Arc::clone(IN_MEMORY.lock().entry(name.to_owned()).or_default()) as _);
    }
    let Some(directory) = url.strip_prefix("file://").filter(|directory| directory.starts_with('/')) else {
        return Err(wrong(
            "a store is given as file:// and the absolute path of a directory, or as memory:///name".to_owned(),
        ));
    };
    std::fs::create_dir_all(directory).map_err(|error| wrong(error.to_string()))?;
    let store = LocalFileSystem::new_with_prefix(directory).map_err(|error| wrong(error.to_string()))?;
    Ok(Arc::new(Objects::new(Arc::new(store))))
}

/// True if the store lies in the memory of one process, where others do not reach it.
pub fn is_of_one_process(url: &str) -> bool {
    url.starts_with(MEMORY)
}

const MEMORY: &str = "memory:///";

/// Snapshots in an object store, which has to create objects only where there is none.
#[derive(Debug)]
pub struct Objects(Arc<dyn ObjectStore>);

impl Objects {
    /// Over `store`, from its root on.
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Objects(store)
    }
}

fn failed(error: impl Display) -> SnapshotError {
    SnapshotError::Store { reason: error.to_string() }
}

fn path(folder: &str, name: &str) -> Path {
    Path::from_iter([folder, name])
}

impl SnapshotStore for Objects {
    fn create<'a>(
        &'a self,
        folder: &'a str,
        name: &'a str,
        bytes: Vec<u8>,
    ) -> BoxFuture<'a, Result<bool, SnapshotError>> {
        async move {
            let options = PutOptions::from(PutMode::Create);
            match self.0.put_opts(&path(folder, name), bytes.into(), options).await {
                Ok(_) => Ok(true),
                Err(Error::AlreadyExists { .. }) => Ok(false),
                Err(error) => Err(failed(error)),
            }
        }
        .boxed()
    }

    fn list<'a>(&'a self, folder: &'a str) -> BoxFuture<'a, Result<Vec<String>, SnapshotError>> {
        async move {
            let objects = self.0.list(Some(&Path::from(folder))).try_collect::<Vec<_>>().await.map_err(failed)?;
            Ok(objects.iter().filter_map(|object| object.location.filename().map(str::to_owned)).collect())
        }
        .boxed()
    }

    fn read<'a>(&'a self, folder: &'a str, name: &'a str) -> BoxFuture<'a, Result<Vec<u8>, SnapshotError>> {
        async move {
            let object = self.0.get(&path(folder, name)).await.map_err(failed)?;
            // A header and some more than the state may have.
            let limit = limits::SNAPSHOT_BYTES_MAX as u64 + 4096;
            if object.meta.size > limit {
                return Err(SnapshotError::TooLarge { bytes: object.meta.size, limit });
            }
            Ok(object.bytes().await.map_err(failed)?.to_vec())
        }
        .boxed()
    }

    fn delete<'a>(&'a self, folder: &'a str, name: &'a str) -> BoxFuture<'a, Result<(), SnapshotError>> {
        async move {
            match self.0.delete(&path(folder, name)).await {
                Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(failed(error)),
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_directory_keeps_what_was_created_and_changes_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let url = format!("file://{}/not/yet/there", directory.path().display());
        let store = open(&url).expect("it is created");
        assert_eq!(store.list("a").await, Ok(Vec::new()));
        assert_eq!(store.create("a", "1", vec![1, 2]).await, Ok(true));
        assert_eq!(store.create("a", "1", vec![3]).await, Ok(false), "there is one");
        assert_eq!(store.create("b", "1", vec![4]).await, Ok(true));
        // Another process opens it anew.
        let again = open(&url).expect("it is there");
        assert_eq!(again.read("a", "1").await, Ok(vec![1, 2]));
        assert_eq!(again.list("a").await, Ok(vec!["1".to_owned()]));
        assert_eq!(again.delete("a", "1").await, Ok(()));
        assert_eq!(again.delete("a", "1").await, Ok(()), "it is gone already");
        assert!(matches!(again.read("a", "1").await, Err(SnapshotError::Store { .. })));
        // Nothing half-written is left beside the objects.
        assert_eq!(again.list("b").await, Ok(vec!["1".to_owned()]));
    }

    #[tokio::test]
    async fn a_store_in_memory_is_the_same_by_its_name() {
        let (one, other) = (open("memory:///one").expect("opened"), open("memory:///other").expect("opened"));
        assert_eq!(one.create("a", "1", vec![1]).await, Ok(true));
        assert_eq!(open("memory:///one").expect("opened").read("a", "1").await, Ok(vec![1]));
        assert_eq!(other.list("a").await, Ok(Vec::new()));
        assert!(is_of_one_process("memory:///one") && !is_of_one_process("file:///one"));
    }

    #[test]
    fn what_is_no_directory_is_refused_with_what_is_expected() {
        for url in ["", "memory://x", "s3://bucket/x", "file://relative/path", "/plain/path"] {
            let error = open(url).err().expect("no store");
            assert!(error.to_string().contains("file://"), "{url}: {error}");
        }
    }
}
