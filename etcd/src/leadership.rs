//! Who leads, and until when: one key with a lease of etcd's. The revision that has created the key is the term.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, GetResponse, KeyValue, PutOptions, Txn, TxnOp, TxnOpResponse};
use mobula_core::limits;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::failure::Failure;

/// Who leads.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Leader {
    /// Its term.
    pub term: u64,
    /// What it is called: [`EtcdOptions::name`](crate::EtcdOptions::name).
    pub name: String,
}

impl Leader {
    pub(crate) fn of(key: &KeyValue) -> Leader {
        Leader { term: term_of(key), name: String::from_utf8_lossy(key.value()).into_owned() }
    }
}

pub(crate) fn term_of(key: &KeyValue) -> u64 {
    u64::try_from(key.create_revision()).unwrap_or_default()
}

/// That this process leads, for a while. It is renewed on a task of its own. Clones are the same.
#[derive(Clone, Debug)]
pub struct Leadership {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    term: u64,
    lease: i64,
    standing: Arc<Standing>,
    task: AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
struct Standing {
    /// Nobody else leads before.
    until: Mutex<Instant>,
    /// Why it is over for good.
    ended: watch::Sender<Option<String>>,
}

impl Leadership {
    /// The term.
    pub fn term(&self) -> u64 {
        self.inner.term
    }

    /// True while no other head can lead. It is false when etcd has not answered for so long that another one may lead, and can become true again if
    /// nobody does. Each write is refused by etcd itself once another has led.
    pub fn is_held(&self) -> bool {
        Instant::now() < *self.inner.standing.until.lock() && self.inner.standing.ended.borrow().is_none()
    }

    /// Waits until it is over for good, and says why. Cancel-safe.
    pub async fn ended(&self) -> String {
        let mut ended = self.inner.standing.ended.subscribe();
        let reason = ended.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        reason.unwrap_or_default()
    }

    pub(crate) fn lease(&self) -> i64 {
        self.inner.lease
    }

    pub(crate) fn is_over(&self) -> bool {
        self.inner.standing.ended.borrow().is_some()
    }

    pub(crate) fn end(&self, reason: &str) {
        self.inner.standing.end(reason);
    }
}

impl Standing {
    fn end(&self, reason: &str) {
        self.ended.send_if_modified(|ended| {
            let is_first = ended.is_none();
            if is_first {
                *ended = Some(reason.to_owned());
            }
            is_first
        });
    }
}

/// The key that the leader holds, and who holds it.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    pub(crate) key: String,
    /// Written by each transaction of a term: see `EtcdStore`.
    pub(crate) written: String,
    pub(crate) name: String,
    pub(crate) ttl: Duration,
}

/// What came of trying to take the seat.
pub(crate) enum Tried {
    /// This process leads. With it comes the revision that `written` was last written by.
    Leads(Leadership, i64),
    /// Another does.
    Taken,
}

/// Takes the seat if nobody has it.
pub(crate) async fn try_to_lead(client: &Client, seat: &Seat, runtime: &Handle) -> Result<Tried, Failure> {
    let sent = Instant::now();
    let seconds = i64::try_from(seat.ttl.as_millis().div_ceil(1000)).unwrap_or(i64::MAX).max(2);
    let granted = within(client.lease_client().grant(seconds, None)).await?;
    let (lease, ttl) = (granted.id(), Duration::from_secs(u64::try_from(granted.ttl()).unwrap_or_default()));
    let free = Compare::create_revision(seat.key.as_str(), CompareOp::Equal, 0);
    let put = TxnOp::put(seat.key.as_str(), seat.name.as_str(), Some(PutOptions::new().with_lease(lease)));
    let take = Txn::new().when([free]).and_then([put, TxnOp::get(seat.written.as_str(), None)]);
    let taken = within(client.kv_client().txn(take)).await;
    let Some(answer) = taken.as_ref().ok().filter(|answer| answer.succeeded()) else {
        // If it cannot be given back it goes by itself.
        let _ = within(client.lease_client().revoke(lease)).await;
        return taken.map(|_| Tried::Taken);
    };
    let revision = answer.header().map_or(0, |header| header.revision());
    let written = match answer.op_responses().get(1) {
        Some(TxnOpResponse::Get(found)) => found.kvs().first().map_or(0, KeyValue::mod_revision),
        _ => 0,
    };
    let term = u64::try_from(revision).unwrap_or_default();
    let standing = Arc::new(Standing { until: Mutex::new(sent + certain(ttl)), ended: watch::Sender::new(None) });
    let keeping = keep(client.clone(), Arc::clone(&standing), seat.key.clone(), term, lease, ttl);
    let task = runtime.spawn(keeping).abort_handle();
    Ok(Tried::Leads(Leadership { inner: Arc::new(Inner { term, lease, standing, task }) }, written))
}

/// Of its time a lease holds so long whatever the clocks do.
fn certain(ttl: Duration) -> Duration {
    ttl - ttl / 10
}

/// Renews the lease until it is over.
async fn keep(client: Client, standing: Arc<Standing>, key: String, term: u64, lease: i64, ttl: Duration) {
    loop {
        sleep(ttl / 6).await;
        let sent = Instant::now();
        let renewed = timeout(ttl / 3, client.lease_client().keep_alive(lease)).await;
        match renewed.map(|renewed| renewed.map_err(Failure::from)) {
            Ok(Ok(_)) => {}
            Ok(Err(Failure::NoLease)) => return standing.end("its lease in etcd is over: another head may lead"),
            Ok(Err(failure)) => {
                tracing::warn!(reason = failure.text(), "etcd does not renew this head's lease");
                continue;
            }
            Err(_) => {
                tracing::warn!("etcd does not answer: this head's lease is not renewed");
                continue;
            }
        }
        // Somebody may have deleted the key by hand: then the lease says nothing.
        match timeout(ttl / 3, client.kv_client().get(key.as_str(), None)).await {
            Ok(Ok(found)) if leads(&found) != Some(term) => return standing.end("another head leads"),
            Ok(Ok(_)) => *standing.until.lock() = sent + certain(ttl),
            _ => {}
        }
    }
}

fn leads(found: &GetResponse) -> Option<u64> {
    found.kvs().first().map(term_of)
}

/// One request, for as long as etcd may take.
pub(crate) async fn within<T>(asked: impl Future<Output = Result<T, etcd_client::Error>>) -> Result<T, Failure> {
    let after = limits::STORE_REQUEST_DEADLINE;
    match timeout(after, asked).await {
        Ok(answer) => answer.map_err(Failure::from),
        Err(_) => Err(Failure::Silent(format!("no answer within {} s", after.as_secs()))),
    }
}
