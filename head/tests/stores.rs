//! One suite for every store, and what is special to each.

mod suite;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mobula_core::{SplitMix64, limits};
use mobula_head::store::{Clock, Kill, MemoryStore, MetadataStore, RedbStore, StoreError, Transaction};

use crate::suite::{delete, keys, put, suite, writes};

/// A clock that is set by hand.
#[derive(Clone, Default)]
struct Hand(Arc<AtomicU64>);

impl Hand {
    fn clock(&self) -> Clock {
        let hand = self.clone();
        Clock::new(move || Duration::from_millis(hand.0.load(Ordering::Relaxed)))
    }

    fn pass(&self, milliseconds: u64) {
        self.0.fetch_add(milliseconds, Ordering::Relaxed);
    }
}

async fn leases(store: &dyn MetadataStore, hand: &Hand) {
    let ttl = Duration::from_secs(10);
    let lease = store.grant(ttl).await.expect("given");
    let other = store.grant(ttl).await.expect("given");
    assert_ne!(lease, other);
    let with = |lease, key| Transaction { lease: Some(lease), ..writes([put(key, "x")]) };
    store.commit(with(lease, "leased")).await.expect("it holds");
    store.commit(with(lease, "kept")).await.expect("it holds");
    store.commit(with(other, "other")).await.expect("it holds");
    // Put again without it: it stays when the lease goes.
    let from = store.commit(writes([put("kept", "y")])).await.expect("written");
    let mut watch = store.watch("", from).await.expect("it is open");
    hand.pass(9_000);
    store.keep_alive(other).await.expect("it holds");
    hand.pass(1_000);
    assert_eq!(keys(store, "").await, ["kept", "other"]);
    let told = watch.next().await.expect("known");
    assert_eq!((told.len(), told[0].key.as_str(), &told[0].value), (1, "leased", &None));
    assert_eq!(store.keep_alive(lease).await, Err(StoreError::NoSuchLease { lease }));
    assert_eq!(store.commit(with(lease, "late")).await, Err(StoreError::NoSuchLease { lease }));
    hand.pass(8_999);
    assert_eq!(keys(store, "").await, ["kept", "other"]);
    store.revoke(other).await.expect("it holds");
    store.revoke(other).await.expect("it is over, as was wished");
    assert_eq!(keys(store, "").await, ["kept"]);
    store.commit(writes([delete("kept")])).await.expect("written");
}

/// Of stores that are part of this process.
async fn too_slow(store: &dyn MetadataStore) {
    let from = store.range("").await.expect("it is open").revision;
    let mut watch = store.watch("", from).await.expect("it is open");
    for _ in 0..2 {
        let many = (0..limits::STORE_HISTORY_EVENTS).map(|at| put(&format!("many/{at}"), "x"));
        store.commit(writes(many)).await.expect("written");
    }
    let error = watch.next().await.expect_err("long ago");
    assert_eq!(error, StoreError::Compacted { from, oldest: from + 1 });
    let mut again = store.watch("", from + 1).await.expect("it is open");
    assert_eq!(again.next().await.expect("known").len(), limits::STORE_HISTORY_EVENTS);
}

#[tokio::test]
async fn memory_does_what_a_store_does() {
    let hand = Hand::default();
    let store = MemoryStore::new(hand.clock());
    suite(&store).await;
    leases(&store, &hand).await;
    too_slow(&store).await;
}

#[tokio::test]
async fn a_file_does_what_a_store_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let hand = Hand::default();
    let store = RedbStore::open(&folder.path().join("head"), hand.clock()).expect("a new file");
    suite(&store).await;
    leases(&store, &hand).await;
    too_slow(&store).await;
}

#[tokio::test]
async fn what_is_in_a_file_is_there_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("head");
    let hand = Hand::default();
    let (before, lease) = {
        let store = RedbStore::open(&path, hand.clock()).expect("a new file");
        assert_eq!(store.lead().await, Ok(1));
        let lease = store.grant(Duration::from_secs(10)).await.expect("given");
        store.commit(writes([put("a", "1"), put("b", "2")])).await.expect("written");
        let leased = Transaction { lease: Some(lease), ..writes([put("c", "3")]) };
        store.commit(leased).await.expect("written");
        store.commit(writes([delete("a")])).await.expect("written");
        (store.range("").await.expect("it is open"), lease)
    };
    hand.pass(9_000);
    let store = opened(&path, &hand).await;
    assert_eq!(store.range("").await.expect("it is open"), before);
    assert_eq!(store.lead().await, Ok(2), "no term comes back");
    let store = store.with_terms_from(1_000);
    assert_eq!(
        [store.lead().await, store.lead().await],
        [Ok(1_000), Ok(1_001)],
        "also of those that a copy has not seen"
    );
    assert_ne!(store.grant(Duration::from_secs(10)).await, Ok(lease));
    let error = store.watch("", 0).await.expect("it is open").next().await.expect_err("of an earlier process");
    assert!(matches!(error, StoreError::Compacted { from: 0, oldest } if oldest == before.revision));
    // Its lease has its whole time again, and then goes.
    hand.pass(9_000);
    assert_eq!(keys(&store, "").await, ["b", "c"]);
    hand.pass(1_000);
    assert_eq!(keys(&store, "").await, ["b"]);
    drop(store);
    assert_eq!(keys(&opened(&path, &hand).await, "").await, ["b"]);
}

/// Opened again: the blocking thread that had the store last may still be about to let go of it.
async fn opened(path: &Path, hand: &Hand) -> RedbStore {
    for _ in 0..3_000 {
        match RedbStore::open(path, hand.clock()) {
            Err(StoreError::InUse { .. }) => tokio::time::sleep(Duration::from_millis(10)).await,
            opened => return opened.expect("its own file"),
        }
    }
    panic!("it stays in use");
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_named_and_not_changed() {
    let folder = tempfile::tempdir().expect("a folder");
    let hand = Hand::default();
    let path = folder.path().join("head");
    let store = RedbStore::open(&path, hand.clock()).expect("a new file");
    let second = RedbStore::open(&path, hand.clock()).expect_err("open twice");
    assert_eq!(second, StoreError::InUse { path: path.clone() });
    store.commit(writes([put("a", "1")])).await.expect("written");
    drop(store);
    drop(opened(&path, &hand).await);
    let whole = std::fs::read(&path).expect("a file");
    let mut random = SplitMix64::new(5);
    let mut refused = 0;
    let noise = (0..4096).map(|_| random.bits() as u8).collect();
    let half = whole[..whole.len() / 2].to_vec();
    for bytes in [Vec::new(), b"#!/bin/sh\n".to_vec(), noise, half, vec![0; whole.len()]] {
        std::fs::write(&path, &bytes).expect("written");
        let Err(error) = RedbStore::open(&path, hand.clock()) else { continue };
        refused += 1;
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains("was not changed"), "{error}");
        assert!(std::fs::read(&path).expect("a file") == bytes, "{error}");
    }
    assert_eq!(refused, 5);
    // A database of somebody else, and a newer one of ours.
    let table = redb::TableDefinition::<&str, u64>::new("numbers");
    for (name, number, what) in [("else", 1, "no format is 0"), ("format", 2, "start a newer one")] {
        std::fs::remove_file(&path).expect("a file");
        let database = redb::Database::create(&path).expect("a file");
        let transaction = database.begin_write().expect("open");
        transaction.open_table(table).expect("a table").insert(name, number).expect("written");
        transaction.commit().expect("written");
        drop(database);
        let bytes = std::fs::read(&path).expect("a file");
        let error = RedbStore::open(&path, hand.clock()).expect_err("not ours").to_string();
        assert!(error.contains(what) && error.contains("was not changed"), "{error}");
        assert!(std::fs::read(&path).expect("a file") == bytes, "{error}");
    }
}

#[tokio::test]
async fn a_killed_process_leaves_all_of_a_write_or_nothing() {
    for (kill, left) in [(Kill::Before(1), 1), (Kill::After(1), 3), (Kill::Within(1), 2)] {
        let store = MemoryStore::new(Hand::default().clock());
        store.kill_at(kill);
        store.commit(writes([put("a", "1")])).await.expect("written");
        let error = store.commit(writes([put("b", "2"), put("c", "3")])).await.expect_err("killed");
        assert!(!error.outcome().is_retry_safe());
        store.range("").await.expect_err("it is dead");
        let next = store.reopen();
        assert_eq!(keys(&next, "").await.len(), left, "{kill:?}");
        next.commit(writes([put("d", "4")])).await.expect("the next process lives");
    }
}
