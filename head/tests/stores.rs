//! One suite for every store, and what is special to each.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mobula_core::{SplitMix64, limits};
use mobula_head::Write;
use mobula_head::store::{Clock, Event, Kill, MemoryStore, MetadataStore, RedbStore, StoreError, Transaction};

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

fn put(key: &str, value: &str) -> Write {
    Write::Put { key: key.to_owned(), value: value.as_bytes().to_vec() }
}

fn delete(key: &str) -> Write {
    Write::Delete { key: key.to_owned() }
}

fn writes(writes: impl IntoIterator<Item = Write>) -> Transaction {
    Transaction { writes: writes.into_iter().collect(), ..Transaction::default() }
}

async fn keys(store: &dyn MetadataStore, prefix: &str) -> Vec<String> {
    let snapshot = store.range(prefix).await.expect("it is open");
    snapshot.entries.into_iter().map(|entry| entry.key).collect()
}

fn event(revision: u64, key: &str, value: Option<&str>) -> Event {
    Event { revision, key: key.to_owned(), value: value.map(|value| value.as_bytes().to_vec()) }
}

/// All that is promised of every store.
async fn suite(store: &dyn MetadataStore, hand: &Hand) {
    revisions_and_ranges(store).await;
    compare_and_set(store).await;
    fencing(store).await;
    watching(store).await;
    leases(store, hand).await;
    like_a_map(store).await;
}

async fn revisions_and_ranges(store: &dyn MetadataStore) {
    let begin = store.range("").await.expect("it is open").revision;
    let first = store.commit(writes([put("a/1", "one"), put("b", "x"), put("a/2", "two")])).await.expect("written");
    assert_eq!(first, begin + 1, "one for each transaction");
    let second = store.commit(writes([put("a/1", "uno"), delete("b"), delete("c")])).await.expect("written");
    assert_eq!(second, begin + 2);
    assert_eq!(store.commit(Transaction::default()).await, Ok(second), "nothing written, nothing raised");
    let snapshot = store.range("a/").await.expect("it is open");
    let entries: Vec<_> =
        snapshot.entries.iter().map(|entry| (entry.key.as_str(), entry.value.as_slice(), entry.revision)).collect();
    assert_eq!(entries, [("a/1", &b"uno"[..], second), ("a/2", b"two", first)]);
    assert_eq!((snapshot.revision, keys(store, "").await), (second, vec!["a/1".to_owned(), "a/2".to_owned()]));
    store.commit(writes([delete("a/1"), delete("a/2")])).await.expect("written");
}

async fn compare_and_set(store: &dyn MetadataStore) {
    let create = |value: &str| Transaction { unchanged: vec![("one".to_owned(), 0)], ..writes([put("one", value)]) };
    let at = store.commit(create("first")).await.expect("it is not there");
    let refused = store.commit(create("second")).await;
    assert_eq!(refused, Err(StoreError::Conflict { key: "one".to_owned(), expected: 0, found: at }));
    let change = |from| Transaction {
        unchanged: vec![("one".to_owned(), from)],
        ..writes([put("one", "new"), put("two", "new")])
    };
    let next = store.commit(change(at)).await.expect("unchanged");
    let refused = store.commit(change(at)).await.expect_err("changed since");
    assert!(refused.outcome().is_retry_safe(), "{refused}");
    assert_eq!(store.range("one").await.expect("it is open").entries[0].revision, next);
    let limit = limits::STORE_VALUE_BYTES_MAX;
    let large = Write::Put { key: "large".to_owned(), value: vec![0; limit + 1] };
    let refused = store.commit(writes([put("beside", "x"), large])).await;
    assert_eq!(refused, Err(StoreError::TooLarge { key: "large".to_owned(), bytes: limit + 1, limit }));
    assert_eq!(keys(store, "").await, ["one", "two"], "all or nothing");
    store.commit(writes([delete("one"), delete("two")])).await.expect("written");
}

async fn fencing(store: &dyn MetadataStore) {
    let old = store.lead().await.expect("led");
    let of = |term, value| Transaction::of_head(term, vec![put("led", value)]);
    store.commit(of(old, "old")).await.expect("it leads");
    let new = store.lead().await.expect("led");
    assert!(new > old);
    let late = store.commit(of(old, "late")).await;
    assert_eq!(late, Err(StoreError::Fenced { term: old, current: new }));
    assert_eq!(store.range("led").await.expect("it is open").entries[0].value, b"old");
    store.commit(of(new, "new")).await.expect("it leads");
    store.commit(writes([delete("led")])).await.expect("written");
}

async fn watching(store: &dyn MetadataStore) {
    let from = store.range("").await.expect("it is open").revision;
    let mut watch = store.watch("w/", from).await.expect("it is open");
    let first = store.commit(writes([put("w/1", "a"), put("v", "x"), put("w/2", "b")])).await.expect("written");
    let all = watch.next().await.expect("known");
    assert_eq!(all, [event(first, "w/1", Some("a")), event(first, "w/2", Some("b"))], "what belongs together");
    store.commit(writes([put("v", "y")])).await.expect("written");
    let third = store.commit(writes([delete("w/1"), put("w/2", "c")])).await.expect("written");
    assert_eq!(watch.next().await, Ok(vec![event(third, "w/1", None), event(third, "w/2", Some("c"))]));
    // From the past.
    let mut late = store.watch("w/", from).await.expect("it is open");
    let mut told = Vec::new();
    while told.len() < 4 {
        told.extend(late.next().await.expect("known"));
    }
    assert_eq!(told.iter().map(|event| event.revision).collect::<Vec<_>>(), [first, first, third, third]);
    // Whoever waits is woken.
    let waits = async { watch.next().await };
    let writes = async { store.commit(writes([put("w/3", "d")])).await.expect("written") };
    let (told, revision) = futures::future::join(waits, writes).await;
    assert_eq!(told, Ok(vec![event(revision, "w/3", Some("d"))]));
    let rest: Vec<_> = keys(store, "").await.iter().map(|key| delete(key)).collect();
    store.commit(self::writes(rest)).await.expect("written");
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

/// Random transactions beside a map.
async fn like_a_map(store: &dyn MetadataStore) {
    let mut random = SplitMix64::new(11);
    let mut map: BTreeMap<String, (String, u64)> = BTreeMap::new();
    for round in 0..60 {
        let mut transaction = Transaction::default();
        for _ in 0..random.bits() % 4 {
            let key = format!("k{}", random.bits() % 6);
            let is_put = random.bits().is_multiple_of(2);
            transaction.writes.push(if is_put { put(&key, &round.to_string()) } else { delete(&key) });
        }
        let key = format!("k{}", random.bits() % 6);
        let found = map.get(&key).map_or(0, |(_, revision)| *revision);
        let stale = random.bits().is_multiple_of(3);
        transaction.unchanged.push((key, if stale { found + 1 } else { found }));
        match store.commit(transaction.clone()).await {
            Ok(revision) => {
                assert!(!stale, "round {round}");
                for write in transaction.writes {
                    match write {
                        Write::Put { key, .. } => drop(map.insert(key, (round.to_string(), revision))),
                        Write::Delete { key } => drop(map.remove(&key)),
                    }
                }
            }
            Err(error) => assert!(stale && matches!(error, StoreError::Conflict { .. }), "round {round}: {error}"),
        }
        let snapshot = store.range("k").await.expect("it is open");
        let found: BTreeMap<_, _> = snapshot
            .entries
            .into_iter()
            .map(|entry| (entry.key, (String::from_utf8(entry.value).expect("text"), entry.revision)))
            .collect();
        assert_eq!(found, map, "round {round}");
    }
    let rest: Vec<_> = map.keys().map(|key| delete(key)).collect();
    store.commit(writes(rest)).await.expect("written");
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
    suite(&store, &hand).await;
    too_slow(&store).await;
}

#[tokio::test]
async fn a_file_does_what_a_store_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let hand = Hand::default();
    let store = RedbStore::open(&folder.path().join("head"), hand.clock()).expect("a new file");
    suite(&store, &hand).await;
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
