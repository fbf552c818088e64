//! What every store has to do: for those of this crate, and for `mobula-etcd`.

use std::collections::BTreeMap;

use mobula_core::{SplitMix64, limits};
use mobula_head::Write;
use mobula_head::store::{Event, MetadataStore, StoreError, Transaction};

pub(crate) fn put(key: &str, value: &str) -> Write {
    Write::Put { key: key.to_owned(), value: value.as_bytes().to_vec() }
}

pub(crate) fn delete(key: &str) -> Write {
    Write::Delete { key: key.to_owned() }
}

pub(crate) fn writes(writes: impl IntoIterator<Item = Write>) -> Transaction {
    Transaction { writes: writes.into_iter().collect(), ..Transaction::default() }
}

pub(crate) async fn keys(store: &dyn MetadataStore, prefix: &str) -> Vec<String> {
    let snapshot = store.range(prefix).await.expect("it is open");
    snapshot.entries.into_iter().map(|entry| entry.key).collect()
}

pub(crate) fn event(revision: u64, key: &str, value: Option<&str>) -> Event {
    Event { revision, key: key.to_owned(), value: value.map(|value| value.as_bytes().to_vec()) }
}

/// All that is promised of every store, but for leases: how their time passes is for each to say.
pub(crate) async fn suite(store: &dyn MetadataStore) {
    revisions_and_ranges(store).await;
    compare_and_set(store).await;
    fencing(store).await;
    watching(store).await;
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
