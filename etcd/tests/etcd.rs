//! The store in a real etcd, which each test starts. Where there is none, the tests say so and pass.
#![cfg(feature = "etcd")]

mod proxy;
mod server;
#[path = "../../head/tests/suite/mod.rs"]
mod suite;

use std::time::Duration;

use mobula_core::limits;
use mobula_etcd::{EtcdOptions, EtcdStore};
use mobula_head::store::{LeaseToken, MetadataStore, StoreError, Transaction, take_over};
use mobula_head::{HeadConfig, Moment, Write};
use tokio::time::{Instant, sleep, timeout};

use crate::proxy::{Proxy, Wire};
use crate::server::Etcd;
use crate::suite::{delete, event, keys, put, suite, writes};

/// A bound that only something broken reaches.
const LONG: Duration = Duration::from_secs(60);

async fn open(url: &str, name: &str) -> EtcdStore {
    let mut options = EtcdOptions::parse(url).expect("an address");
    options.name = name.to_owned();
    options.ttl = Duration::from_secs(2);
    EtcdStore::open(&options).await.expect("it is there")
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !is_so().await {
        assert!(Instant::now() < end, "{what}: not within {LONG:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

fn of(term: u64, writes: impl IntoIterator<Item = Write>) -> Transaction {
    Transaction::of_head(term, writes.into_iter().collect())
}

#[tokio::test]
async fn etcd_does_what_a_store_does() {
    let Some(etcd) = Etcd::start() else { return };
    suite(&open(&etcd.url(), "").await).await;
    // Beside it is another one.
    let beside = open(&format!("{}/other", etcd.url()), "").await;
    suite(&beside).await;
    suite(&beside.beside("more")).await;
}

#[tokio::test]
async fn entries_go_with_their_lease() {
    let Some(etcd) = Etcd::start() else { return };
    let store = open(&etcd.url(), "").await;
    let short = store.grant(Duration::from_secs(2)).await.expect("given");
    let long = store.grant(Duration::from_secs(300)).await.expect("given");
    assert_ne!(short, long);
    let with = |lease, key| Transaction { lease: Some(lease), ..writes([put(key, "x")]) };
    for (lease, key) in [(short, "leased"), (short, "kept"), (long, "other")] {
        store.commit(with(lease, key)).await.expect("it holds");
    }
    let from = store.commit(writes([put("kept", "y")])).await.expect("written");
    let mut watch = store.watch("", from).await.expect("it is open");
    let told = timeout(LONG, watch.next()).await.expect("in time").expect("known");
    assert_eq!((told.len(), told[0].key.as_str(), &told[0].value), (1, "leased", &None));
    assert_eq!(keys(&store, "").await, ["kept", "other"]);
    assert_eq!(store.keep_alive(short).await, Err(StoreError::NoSuchLease { lease: short }));
    assert_eq!(store.commit(with(short, "late")).await, Err(StoreError::NoSuchLease { lease: short }));
    store.keep_alive(long).await.expect("it holds");
    store.revoke(long).await.expect("it holds");
    store.revoke(long).await.expect("it is over, as was wished");
    assert_eq!(keys(&store, "").await, ["kept"]);
    let none = LeaseToken(77);
    assert_eq!(store.keep_alive(none).await, Err(StoreError::NoSuchLease { lease: none }));
}

#[tokio::test]
async fn a_lease_that_is_renewed_holds() {
    let Some(etcd) = Etcd::start() else { return };
    let store = open(&etcd.url(), "").await;
    // On a machine that stands still for so long nothing is proven: then again.
    for _ in 0..10 {
        let lease = store.grant(Duration::from_secs(4)).await.expect("given");
        store.commit(Transaction { lease: Some(lease), ..writes([put("a", "x")]) }).await.expect("it holds");
        let begun = Instant::now();
        let mut last = begun;
        let is_valid = loop {
            sleep(Duration::from_millis(300)).await;
            let kept = store.keep_alive(lease).await;
            let is_in_time = last.elapsed() < Duration::from_secs(3);
            last = Instant::now();
            if !is_in_time {
                break false;
            }
            kept.expect("it was renewed in time");
            if begun.elapsed() > Duration::from_secs(9) {
                break true;
            }
        };
        if is_valid {
            assert_eq!(keys(&store, "").await, ["a"]);
            return;
        }
    }
    panic!("this machine stands still too often");
}

#[tokio::test]
async fn a_transaction_of_thousands_is_one_and_all_is_read_again() {
    let Some(etcd) = Etcd::start() else { return };
    let store = open(&etcd.url(), "").await;
    let term = store.lead().await.expect("nobody leads");
    let many = |count: usize| (0..count).map(|at| put(&format!("many/{at:05}"), "x"));
    let mut watch = store.watch("many/", store.range("").await.expect("open").revision).await.expect("open");
    for count in [121, 4000] {
        let revision = store.commit(of(term, many(count))).await.expect("etcd takes it");
        let snapshot = store.range("many/").await.expect("open");
        assert_eq!(snapshot.entries.len(), count);
        assert!(snapshot.entries.iter().all(|entry| entry.revision == revision), "one revision for all");
        assert!(snapshot.entries.is_sorted_by(|a, b| a.key < b.key));
        let told = timeout(LONG, watch.next()).await.expect("in time").expect("known");
        assert_eq!(told.len(), count, "all of a revision together");
    }
    // Pages that are larger than one message may be.
    let large = |key: &str| Write::Put { key: key.to_owned(), value: vec![7; limits::STORE_VALUE_BYTES_MAX] };
    for at in 0..20 {
        store.commit(of(term, [large(&format!("large/{at:02}"))])).await.expect("etcd takes it");
    }
    let snapshot = store.range("large/").await.expect("page by page");
    assert_eq!((snapshot.entries.len(), snapshot.entries[19].value.len()), (20, limits::STORE_VALUE_BYTES_MAX));
    // What etcd does not take at once.
    let refused = store.commit(of(term, [large("a"), large("b")])).await.expect_err("more than 1.5 MiB");
    assert!(matches!(refused, StoreError::TransactionTooLarge { writes: 2, .. }), "{refused}");
    assert!(refused.outcome().is_retry_safe());
    store.commit(of(term, [put("a", "small")])).await.expect("it leads as before");
}

#[tokio::test]
async fn who_asks_from_too_long_ago_is_told() {
    let Some(etcd) = Etcd::start() else { return };
    let store = open(&etcd.url(), "").await;
    let first = store.commit(writes([put("a", "1")])).await.expect("written");
    store.commit(writes([put("a", "2")])).await.expect("written");
    let third = store.commit(writes([put("a", "3")])).await.expect("written");
    let client = etcd_client::Client::connect([etcd.address.to_string()], None).await.expect("it is there");
    client.kv_client().compact(third as i64, None).await.expect("compacted");
    let mut watch = store.watch("", first).await.expect("open");
    let error = watch.next().await.expect_err("long ago");
    assert_eq!(error, StoreError::Compacted { from: first, oldest: third });
    assert_eq!(watch.next().await, Err(error), "and stays so");
    let mut again = store.watch("", third).await.expect("open");
    let fourth = store.commit(writes([delete("a")])).await.expect("written");
    assert_eq!(again.next().await, Ok(vec![event(fourth, "a", None)]));
    assert_eq!(keys(&store, "").await, Vec::<String>::new());
}

fn moment() -> Moment {
    Moment { now: Duration::ZERO, unix: mobula_core::cluster::UnixTime(1_800_000_000), chance: 7 }
}

#[tokio::test]
async fn a_second_head_leads_when_the_first_is_gone_and_not_before() {
    let Some(etcd) = Etcd::start() else { return };
    let (first, second) = (open(&etcd.url(), "first").await, open(&etcd.url(), "second").await);
    let head = take_over(&first, HeadConfig::default(), moment).await.expect("an empty store");
    first.commit(of(head.term(), [])).await.expect("it leads");
    assert_eq!(first.leader().await.expect("open").map(|leader| leader.name), Some("first".to_owned()));
    let waiting = take_over(&second, HeadConfig::default(), moment);
    tokio::pin!(waiting);
    // Longer than a lease.
    assert!(timeout(Duration::from_secs(5), &mut waiting).await.is_err(), "one leads");
    assert!(first.leadership().expect("it leads").is_held());
    // Its process ends, and tells nobody.
    drop(first);
    let next = timeout(LONG, waiting).await.expect("in time").expect("its records");
    assert!(next.term() > head.term());
    // One that gives up is followed at once.
    let third = open(&etcd.url(), "third").await;
    let leading = third.lead();
    tokio::pin!(leading);
    assert!(timeout(Duration::from_millis(300), &mut leading).await.is_err(), "one leads");
    second.resign().await;
    assert!(timeout(LONG, leading).await.expect("in time").expect("nobody leads") > next.term());
    let late = second.commit(of(next.term(), [put("a", "late")])).await.expect_err("it has given up");
    assert!(matches!(late, StoreError::Fenced { term, current } if term == next.term() && current > term), "{late}");
}

#[tokio::test]
async fn a_leader_that_is_cut_off_knows_it_before_another_leads_and_writes_nothing_more() {
    let Some(etcd) = Etcd::start() else { return };
    let proxy = Proxy::start(etcd.address).await;
    let first = open(&format!("etcd://{}", proxy.address), "first").await;
    let second = open(&etcd.url(), "second").await;
    let old = first.lead().await.expect("nobody leads");
    first.commit(of(old, [put("a", "old")])).await.expect("it leads");
    let led = first.leadership().expect("it leads");
    proxy.set(Wire::Cut);
    // A write that is on its way when the wire is cut.
    let late = tokio::spawn({
        let first = first.clone();
        async move { first.commit(of(old, [put("a", "late")])).await }
    });
    let new = timeout(LONG, second.lead()).await.expect("in time").expect("the first is silent");
    assert!(!led.is_held(), "it knew before");
    second.commit(of(new, [put("b", "new")])).await.expect("it leads");
    proxy.set(Wire::Whole);
    let ended = timeout(LONG, led.ended()).await.expect("in time");
    assert!(!ended.is_empty());
    let late = timeout(LONG, late).await.expect("in time").expect("no panic");
    assert!(late.is_err(), "{late:?}");
    assert_eq!(first.commit(of(old, [put("a", "later")])).await, Err(StoreError::Fenced { term: old, current: new }));
    assert!(!led.is_held());
    assert_eq!(second.range("a").await.expect("open").entries[0].value, b"old");
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_done_once() {
    let Some(etcd) = Etcd::start() else { return };
    let proxy = Proxy::start(etcd.address).await;
    let store = open(&format!("etcd://{}", proxy.address), "first").await;
    let beside = open(&etcd.url(), "").await;
    let term = store.lead().await.expect("nobody leads");
    let from = store.commit(of(term, [put("a", "0")])).await.expect("it leads");
    let mut watch = beside.watch("a", from).await.expect("open");
    proxy.set(Wire::Mute);
    let writing = store.commit(of(term, [put("a", "1")]));
    tokio::pin!(writing);
    assert!(timeout(Duration::from_millis(500), &mut writing).await.is_err(), "no answer comes");
    let told = timeout(LONG, watch.next()).await.expect("in time").expect("known");
    proxy.set(Wire::Whole);
    let revision = timeout(LONG, writing).await.expect("in time").expect("it was done");
    assert_eq!(told, [event(revision, "a", Some("1"))]);
    // One that nobody waits for any more is done before the next, or not at all.
    proxy.set(Wire::Mute);
    assert!(timeout(Duration::from_millis(500), store.commit(of(term, [put("a", "2")]))).await.is_err());
    proxy.set(Wire::Whole);
    let last = timeout(LONG, store.commit(of(term, [put("a", "3")]))).await.expect("in time").expect("it leads");
    let mut values = Vec::new();
    while values.last().is_none_or(|(revision, _)| *revision != last) {
        let told = timeout(LONG, watch.next()).await.expect("in time").expect("known");
        values.extend(told.into_iter().map(|event| (event.revision, event.value)));
    }
    let values: Vec<_> = values.iter().map(|(_, value)| value.as_deref().unwrap_or_default()).collect();
    assert!(values == [&b"2"[..], b"3"] || values == [b"3"], "{values:?}");
}

#[tokio::test]
async fn what_a_leader_has_written_outlives_etcd_and_it_goes_on() {
    let Some(mut etcd) = Etcd::start() else { return };
    let store = open(&etcd.url(), "first").await;
    let term = store.lead().await.expect("nobody leads");
    let from = store.commit(of(term, [put("a", "1")])).await.expect("it leads");
    let mut watch = store.watch("a", from).await.expect("open");
    etcd.kill();
    let writing = tokio::spawn({
        let store = store.clone();
        async move { store.commit(of(term, [put("a", "2")])).await }
    });
    let led = store.leadership().expect("it leads");
    until("it does not know whether it leads", async || !led.is_held()).await;
    etcd.start_again();
    let revision = timeout(LONG, writing).await.expect("in time").expect("no panic").expect("it still leads");
    assert_eq!(timeout(LONG, watch.next()).await.expect("in time"), Ok(vec![event(revision, "a", Some("2"))]));
    until("it leads again", async || led.is_held()).await;
    assert_eq!(store.leader().await.expect("open").map(|leader| leader.term), Some(term));
}

#[tokio::test]
async fn where_no_etcd_is_that_is_said() {
    let options = EtcdOptions::parse("etcd://127.0.0.1:1/here").expect("an address");
    let error = EtcdStore::open(&options).await.expect_err("nobody is there");
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("127.0.0.1:1/here") && error.outcome().is_retry_safe(), "{text}");
}
