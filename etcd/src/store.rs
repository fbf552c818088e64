//! The store.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, GetOptions, KeyValue, Txn, TxnOp, TxnOpResponse, TxnResponse};
use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt};
use mobula_core::limits;
use mobula_head::store::{Entry, LeaseToken, MetadataStore, Snapshot, StoreError, Transaction, Watch};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};

use crate::changes::{changes, end_of, key_under};
use crate::failure::Failure;
use crate::leadership::{Leader, Leadership, Seat, Tried, term_of, try_to_lead, within};
use crate::options::EtcdOptions;
use crate::transaction;

/// The rest between two tries.
const RETRY: Duration = Duration::from_millis(200);
/// A standby looks by itself so often whether anybody leads, should etcd have told it nothing.
const LOOK: Duration = Duration::from_secs(2);
/// Entries that are asked for at once; fewer if they are large.
const PAGE: i64 = 1024;

/// Records in etcd. Several processes may have it open; the one that [leads](MetadataStore::lead) writes. Clones are the same store.
///
/// What is written in a term is written by one transaction of etcd's, which also compares who leads. If its answer is lost it is asked for again, for
/// [`limits::STORE_OUTAGE_MAX`], and done once all the same: each bears a number that it leaves in the store.
///
/// A tokio runtime with a clock has to be there.
#[derive(Clone)]
pub struct EtcdStore {
    shared: Arc<Shared>,
    /// In front of every key: `<prefix>/<scope>/`.
    scope: String,
}

struct Shared {
    client: Client,
    /// The one in which it was opened: connections live there, and so does what keeps the lease.
    runtime: Handle,
    /// For those who read what has gone wrong.
    place: String,
    prefix: String,
    seat: Seat,
    led: Mutex<Option<Leadership>>,
    order: tokio::sync::Mutex<Order>,
}

/// Transactions of this process's term, one behind the other.
#[derive(Debug, Default)]
struct Order {
    term: u64,
    /// Of the last that was tried.
    number: u64,
    /// What `written` was last written by, as far as is known.
    written: i64,
}

impl fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdStore")
            .field("place", &self.shared.place)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

impl EtcdStore {
    /// Opens the records under `<prefix>/records/`, in the runtime of the caller: what keeps connections and lease lives there, whoever asks. Tries for [`limits::STORE_READ_WITHIN`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if nobody answers, [`StoreError::Denied`]. Nothing was written. Cancel-safe.
    pub async fn open(options: &EtcdOptions) -> Result<Self, StoreError> {
        let place = options.to_string();
        let at = |reason: String| StoreError::Unavailable { reason: format!("{place}: {reason}") };
        let until = Instant::now() + limits::STORE_READ_WITHIN;
        let client = loop {
            match within(Client::connect(&options.endpoints, Some(options.for_client()))).await {
                Ok(client) => break client,
                Err(Failure::Denied(reason)) => {
                    return Err(StoreError::Denied { reason: format!("{place}: {reason}") });
                }
                Err(failure) if failure.is_silence() && Instant::now() < until => sleep(RETRY).await,
                Err(failure) => return Err(at(failure.text())),
            }
        };
        let prefix = options.prefix.clone();
        let seat = Seat {
            key: format!("{prefix}/leader"),
            written: format!("{prefix}/written"),
            name: options.name.clone(),
            ttl: options.ttl,
        };
        let scope = format!("{prefix}/records/");
        let (led, order) = (Mutex::new(None), tokio::sync::Mutex::new(Order::default()));
        let store = EtcdStore {
            shared: Arc::new(Shared { client, runtime: Handle::current(), place, prefix, seat, led, order }),
            scope,
        };
        // Whether anybody is there.
        store.leader().await?;
        Ok(store)
    }

    /// The same etcd, and the same leader, with keys of their own: under `<prefix>/<name>/`.
    #[must_use]
    pub fn beside(&self, name: &str) -> Self {
        EtcdStore { shared: Arc::clone(&self.shared), scope: format!("{}/{name}/", self.shared.prefix) }
    }

    /// Who leads, if anybody does.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Denied`].
    pub async fn leader(&self) -> Result<Option<Leader>, StoreError> {
        let key = self.shared.seat.key.as_str();
        let found = self.patiently(|client| async move { client.kv_client().get(key, None).await }).await;
        Ok(found.map_err(|failure| self.of_reading(failure))?.kvs().first().map(Leader::of))
    }

    /// The leadership of this process, since it leads; also if it is over.
    pub fn leadership(&self) -> Option<Leadership> {
        self.shared.led.lock().clone()
    }

    /// Leads no longer: the next may at once. If etcd cannot be told, the next waits for the lease.
    pub async fn resign(&self) {
        let Some(led) = self.shared.led.lock().take() else { return };
        led.end("it was given up");
        let revoked = within(self.shared.client.lease_client().revoke(led.lease())).await;
        if let Err(failure) = revoked {
            tracing::debug!(reason = failure.text(), "etcd was not told that this head leads no longer");
        }
    }

    /// Asks again while nobody answers. For what may be done twice.
    async fn patiently<T, F>(&self, mut ask: impl FnMut(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let until = Instant::now() + limits::STORE_READ_WITHIN;
        loop {
            match within(ask(self.shared.client.clone())).await {
                Err(failure) if failure.is_silence() && Instant::now() < until => sleep(RETRY).await,
                answer => return answer,
            }
        }
    }

    fn of_reading(&self, failure: Failure) -> StoreError {
        match failure.of_reading() {
            StoreError::Unavailable { reason } => {
                StoreError::Unavailable { reason: format!("{}: {reason}", self.shared.place) }
            }
            StoreError::Denied { reason } => StoreError::Denied { reason: format!("{}: {reason}", self.shared.place) },
            error => error,
        }
    }

    async fn take_the_lead(&self) -> Result<u64, StoreError> {
        self.resign().await;
        let Shared { client, seat, runtime, .. } = &*self.shared;
        loop {
            let tried = match within(client.kv_client().get(seat.key.as_str(), None)).await {
                Ok(found) if found.kvs().is_empty() => try_to_lead(client, seat, runtime).await.map(|tried| (tried, 0)),
                Ok(found) => Ok((Tried::Taken, found.header().map_or(0, |header| header.revision()))),
                Err(failure) => Err(failure),
            };
            match tried {
                Ok((Tried::Leads(leadership, written), _)) => {
                    let term = leadership.term();
                    *self.shared.order.lock().await = Order { term, number: 0, written };
                    *self.shared.led.lock() = Some(leadership);
                    return Ok(term);
                }
                Ok((Tried::Taken, since)) if since > 0 => {
                    let since = u64::try_from(since).unwrap_or_default();
                    let mut news = changes(client.clone(), seat.key.clone(), since);
                    // Whatever it is, it is looked at.
                    if let Ok(Some(Err(_))) = timeout(LOOK, news.next()).await {
                        sleep(RETRY).await;
                    }
                }
                // Another was faster.
                Ok(_) => {}
                Err(failure) if failure.is_silence() => {
                    tracing::warn!(reason = failure.text(), "etcd does not say who leads");
                    sleep(RETRY).await;
                }
                Err(failure) => return Err(self.of_reading(failure)),
            }
        }
    }

    async fn read(&self, prefix: &str) -> Result<Snapshot, StoreError> {
        // A page that is compacted while the next is read: all again.
        for _ in 0..5 {
            if let Some(snapshot) = self.read_pages(prefix).await? {
                return Ok(snapshot);
            }
        }
        let reason = format!("{}: its history is compacted faster than it can be read", self.shared.place);
        Err(StoreError::Unavailable { reason })
    }

    /// All pages at one revision; none if that is not known any more.
    async fn read_pages(&self, prefix: &str) -> Result<Option<Snapshot>, StoreError> {
        let begin = format!("{}{prefix}", self.scope);
        let (mut from, end) = (begin.clone().into_bytes(), end_of(&begin));
        let (mut page, mut revision, mut bytes) = (PAGE, 0, 0);
        let mut entries = Vec::new();
        loop {
            let mut options = GetOptions::new().with_range(end.clone()).with_limit(page);
            if revision > 0 {
                options = options.with_revision(revision);
            }
            let most = limits::STORE_MESSAGE_BYTES_MAX;
            let ask = |client: Client| {
                let (from, options) = (from.clone(), options.clone());
                async move { client.kv_client().max_decoding_message_size(most).get(from, Some(options)).await }
            };
            let mut found = match self.patiently(ask).await {
                Ok(found) => found,
                Err(Failure::Compacted) => return Ok(None),
                Err(Failure::AnswerTooLarge) if page > 1 => {
                    page = (page / 8).max(1);
                    continue;
                }
                Err(failure) => return Err(self.of_reading(failure)),
            };
            if revision == 0 {
                revision = found.header().map_or(0, |header| header.revision());
            }
            let more = found.more();
            let rows = found.take_kvs();
            let Some(last) = rows.last().filter(|_| more).map(|row| row.key().to_vec()) else {
                self.take_in(rows, prefix, &mut bytes, &mut entries)?;
                let revision = u64::try_from(revision).unwrap_or_default();
                return Ok(Some(Snapshot { revision, entries }));
            };
            self.take_in(rows, prefix, &mut bytes, &mut entries)?;
            from = last;
            from.push(0);
        }
    }

    fn take_in(
        &self,
        rows: Vec<KeyValue>,
        prefix: &str,
        bytes: &mut usize,
        entries: &mut Vec<Entry>,
    ) -> Result<(), StoreError> {
        for row in rows {
            *bytes += row.key().len() + row.value().len();
            let limit = limits::STORE_SNAPSHOT_BYTES_MAX;
            if *bytes > limit {
                return Err(StoreError::TooMuch { prefix: format!("{}{prefix}", self.scope), limit });
            }
            let revision = u64::try_from(row.mod_revision()).unwrap_or_default();
            let key = key_under(&self.scope, row.key())?;
            entries.push(Entry { key, value: row.into_key_value().1, revision });
        }
        Ok(())
    }

    async fn write(&self, transaction: Transaction) -> Result<u64, StoreError> {
        let lease = transaction.lease.map(|lease| lease.0.cast_signed());
        let writes = transaction::writes(&transaction)?;
        let size = (writes.len(), transaction::bytes(&writes));
        let operations = transaction::operations(&self.scope, &writes, lease);
        let written = match transaction.term {
            None => self.write_once(&transaction, operations).await,
            Some(term) => self.write_in_term(term, &transaction, operations).await,
        };
        written.map_err(|failed| match failed {
            Failed::Store(error) => error,
            Failed::Etcd(failure) => match failure {
                Failure::RequestTooLarge(reason) => {
                    StoreError::TransactionTooLarge { writes: size.0, bytes: size.1, reason }
                }
                Failure::NoLease => match transaction.lease {
                    Some(lease) => StoreError::NoSuchLease { lease },
                    None => StoreError::Io { reason: format!("{}: a lease is over", self.shared.place) },
                },
                Failure::Denied(reason) => StoreError::Denied { reason: format!("{}: {reason}", self.shared.place) },
                Failure::Refused(reason) => StoreError::Unavailable { reason },
                failure => StoreError::Io { reason: format!("{}: {}", self.shared.place, failure.text()) },
            },
        })
    }

    /// Without a term: tried once.
    async fn write_once(&self, transaction: &Transaction, operations: Vec<TxnOp>) -> Result<u64, Failed> {
        let ask = Txn::new()
            .when(self.unchanged(transaction))
            .and_then(layered(operations)?)
            .or_else(self.looks(transaction));
        let answer = within(self.shared.client.kv_client().txn(ask)).await?;
        if answer.succeeded() {
            return Ok(revision_of(&answer));
        }
        Err(self.conflict(transaction, &found(&answer)))
    }

    /// In a term: tried until it is known what has become of it.
    async fn write_in_term(
        &self,
        term: u64,
        transaction: &Transaction,
        mut operations: Vec<TxnOp>,
    ) -> Result<u64, Failed> {
        let Seat { key, written, .. } = &self.shared.seat;
        // One behind the other, also those whose future was dropped.
        let mut order = self.shared.order.lock().await;
        if order.term != term {
            let current = self.leader().await?.map_or(0, |leader| leader.term);
            return Err(StoreError::Fenced { term, current }.into());
        }
        order.number += 1;
        let mark = format!("{term} {}", order.number);
        let is_silent = operations.is_empty();
        if !is_silent {
            operations.push(TxnOp::put(written.as_str(), mark.as_str(), None));
        }
        let operations = layered(operations)?;
        let created = i64::try_from(term).unwrap_or(i64::MAX);
        let until = Instant::now() + limits::STORE_OUTAGE_MAX;
        loop {
            let mut compares = vec![Compare::create_revision(key.as_str(), CompareOp::Equal, created)];
            if !is_silent {
                compares.push(Compare::mod_revision(written.as_str(), CompareOp::Equal, order.written));
            }
            compares.extend(self.unchanged(transaction));
            let mut looks = vec![TxnOp::get(key.as_str(), None), TxnOp::get(written.as_str(), None)];
            looks.extend(self.looks(transaction));
            let ask = Txn::new().when(compares).and_then(operations.clone()).or_else(looks);
            let answer = match within(self.shared.client.kv_client().txn(ask)).await {
                Ok(answer) => answer,
                Err(failure) if failure.is_silence() && Instant::now() < until && !self.is_over() => {
                    tracing::warn!(reason = failure.text(), "etcd has not answered a write: it is asked again");
                    sleep(RETRY).await;
                    continue;
                }
                Err(failure) => return Err(failure.into()),
            };
            let revision = revision_of(&answer);
            if answer.succeeded() {
                order.written = if is_silent { order.written } else { revision.cast_signed() };
                return Ok(revision);
            }
            let mut found = found(&answer);
            let last = found.get_mut(1).and_then(Option::take);
            let leader = found.get_mut(0).and_then(Option::take);
            // Whatever leads now: an earlier try of this very transaction may have been done before.
            if let Some(last) = last.as_ref().filter(|last| !is_silent && last.value() == mark.as_bytes()) {
                order.written = last.mod_revision();
                return Ok(last.mod_revision().cast_unsigned());
            }
            let current = leader.as_ref().map_or(0, term_of);
            if current != term {
                if let Some(led) = self.leadership().filter(|led| led.term() == term) {
                    led.end("another head has led");
                }
                return Err(StoreError::Fenced { term, current }.into());
            }
            let last = last.map_or(0, |last| last.mod_revision());
            if !is_silent && last != order.written {
                // One whose future was dropped has been done after all.
                order.written = last;
                continue;
            }
            return Err(self.conflict(transaction, found.get(2..).unwrap_or_default()));
        }
    }

    fn is_over(&self) -> bool {
        self.leadership().is_none_or(|led| led.is_over())
    }

    fn unchanged(&self, transaction: &Transaction) -> Vec<Compare> {
        let compare = |(key, revision): &(String, u64)| {
            Compare::mod_revision(format!("{}{key}", self.scope), CompareOp::Equal, revision.cast_signed())
        };
        transaction.unchanged.iter().map(compare).collect()
    }

    fn looks(&self, transaction: &Transaction) -> Vec<TxnOp> {
        let keys_only = || Some(GetOptions::new().with_keys_only());
        let look = |(key, _): &(String, u64)| TxnOp::get(format!("{}{key}", self.scope), keys_only());
        transaction.unchanged.iter().map(look).collect()
    }

    /// Which of the entries is not what it was to be.
    fn conflict(&self, transaction: &Transaction, found: &[Option<KeyValue>]) -> Failed {
        for ((key, expected), row) in transaction.unchanged.iter().zip(found) {
            let found = row.as_ref().map_or(0, |row| row.mod_revision().cast_unsigned());
            if found != *expected {
                return StoreError::Conflict { key: key.clone(), expected: *expected, found }.into();
            }
        }
        let reason = format!("{}: it has refused a transaction and does not say why", self.shared.place);
        StoreError::Unavailable { reason }.into()
    }
}

/// Why a transaction was not done.
enum Failed {
    Store(StoreError),
    Etcd(Failure),
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Failed::Store(error)
    }
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Failed::Etcd(failure)
    }
}

fn layered(operations: Vec<TxnOp>) -> Result<Vec<TxnOp>, Failure> {
    let too_many = || Failure::RequestTooLarge("more operations than fit into three layers of 40".to_owned());
    transaction::in_layers(operations).ok_or_else(too_many)
}

fn revision_of(answer: &TxnResponse) -> u64 {
    answer.header().map_or(0, |header| header.revision().cast_unsigned())
}

/// What the looks of a transaction have found, one by one.
fn found(answer: &TxnResponse) -> Vec<Option<KeyValue>> {
    let one = |response| match response {
        TxnOpResponse::Get(mut got) => got.take_kvs().into_iter().next(),
        _ => None,
    };
    answer.op_responses().into_iter().map(one).collect()
}

impl MetadataStore for EtcdStore {
    fn lead(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.take_the_lead().boxed()
    }

    fn range(&self, prefix: &str) -> BoxFuture<'_, Result<Snapshot, StoreError>> {
        let prefix = prefix.to_owned();
        async move { self.read(&prefix).await }.boxed()
    }

    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.write(transaction).boxed()
    }

    fn watch(&self, prefix: &str, from: u64) -> BoxFuture<'_, Result<Watch, StoreError>> {
        let scope = self.scope.clone();
        let all = changes(self.shared.client.clone(), format!("{scope}{prefix}"), from);
        let prefix = prefix.to_owned();
        let whole = all.map(move |told| {
            told.map(|mut events| {
                events.iter_mut().for_each(|event| event.key.insert_str(0, &prefix));
                events
            })
        });
        async move { Ok(Watch::of_stream(whole.boxed())) }.boxed()
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseToken, StoreError>> {
        let seconds = i64::try_from(ttl.as_millis().div_ceil(1000)).unwrap_or(i64::MAX);
        let ask = move |client: Client| async move { client.lease_client().grant(seconds, None).await };
        async move {
            let granted = self.patiently(ask).await.map_err(|failure| self.of_reading(failure))?;
            Ok(LeaseToken(granted.id().cast_unsigned()))
        }
        .boxed()
    }

    fn keep_alive(&self, lease: LeaseToken) -> BoxFuture<'_, Result<(), StoreError>> {
        let id = lease.0.cast_signed();
        let ask = move |client: Client| async move { client.lease_client().keep_alive(id).await.map(drop) };
        async move {
            self.patiently(ask).await.map_err(|failure| match failure {
                Failure::NoLease => StoreError::NoSuchLease { lease },
                failure => self.of_reading(failure),
            })
        }
        .boxed()
    }

    fn revoke(&self, lease: LeaseToken) -> BoxFuture<'_, Result<(), StoreError>> {
        let id = lease.0.cast_signed();
        let ask = move |client: Client| async move { client.lease_client().revoke(id).await.map(drop) };
        async move {
            match self.patiently(ask).await {
                Err(Failure::NoLease) => Ok(()),
                revoked => revoked.map_err(|failure| self.of_reading(failure)),
            }
        }
        .boxed()
    }
}
