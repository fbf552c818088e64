//! An actor that remembers what it was told.

use std::any::Any;
use std::collections::HashMap;
use std::future::Future;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::{Actor, Context, Handler, Message, MessageResult};
use mobula::{ActorRef, MessageTable, Node, Recipient, RemoteActor, RemoteMessage, schema_hash};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// An actor of the test: other actors send it messages of type `M`, the test takes them out, in their order.
///
/// ```
/// use std::time::Duration;
///
/// use mobula::prelude::*;
/// use mobula_testkit::{Probe, TestCluster, virtual_time};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize, RemoteMessage)]
/// struct Ready(u32);
///
/// virtual_time(async {
///     let cluster = TestCluster::start(2).await;
///     let mut probe = Probe::<Ready>::start(cluster.node(0)).await;
///     let recipient: Recipient<Ready> = probe.recipient();
///     recipient.tell(Ready(7)).await.expect("there is room");
///     assert_eq!(probe.expect_message(Duration::from_secs(1)).await, Ready(7));
///     probe.expect_no_message(Duration::from_secs(60)).await;
/// });
/// ```
///
/// When it is dropped, its actor stops.
#[derive(Debug)]
pub struct Probe<M: Asked> {
    received: mpsc::UnboundedReceiver<M>,
    actor: ActorRef<ProbeActor<M>>,
    /// Its row among the probes of this process.
    key: u64,
}

/// A message whose answer is the same for actix and for the wire: every `#[derive(RemoteMessage)]`.
pub trait Asked: RemoteMessage + Message<Result = <Self as RemoteMessage>::Reply> {}

impl<M> Asked for M where M: RemoteMessage + Message<Result = <M as RemoteMessage>::Reply> {}

impl<M: Asked> Probe<M> {
    /// A probe on `node`, which must be of this process. It answers with the reply type's default.
    ///
    /// # Panics
    /// If it cannot be spawned.
    pub async fn start(node: &Node) -> Self
    where
        M::Reply: Default,
    {
        Self::answering(node, |_| M::Reply::default()).await
    }

    /// A probe that answers with what `answer` makes of a message.
    ///
    /// # Panics
    /// If it cannot be spawned.
    pub async fn answering(node: &Node, answer: impl FnMut(&M) -> M::Reply + Send + 'static) -> Self {
        let (sender, received) = mpsc::unbounded_channel();
        let key = enter(Arc::new(Mouth { sender, answer: Mutex::new(Box::new(answer)) }));
        match node.spawn(ProbeActor::<M>::spec(Key(key))).await {
            Ok(actor) => Probe { received, actor, key },
            Err(error) => panic!("cannot spawn a probe on {}: {error}", node.id()),
        }
    }

    /// What the code under test is given.
    pub fn recipient(&self) -> Recipient<M> {
        Recipient::from(self.actor.clone())
    }

    /// The probe's actor, to be monitored or stopped.
    pub fn actor(&self) -> &ActorRef<ProbeActor<M>> {
        &self.actor
    }

    /// The next message, if there is one.
    pub fn try_message(&mut self) -> Option<M> {
        self.received.try_recv().ok()
    }

    /// The next message.
    ///
    /// # Panics
    /// With the place of the call, if none comes within `bound`.
    #[track_caller]
    pub fn expect_message(&mut self, bound: Duration) -> impl Future<Output = M> {
        let caller = Location::caller();
        async move {
            match timeout(bound, self.received.recv()).await {
                Ok(Some(message)) => message,
                Ok(None) => panic!("{caller}: the probe's actor has ended"),
                Err(_) => panic!("{caller}: no `{}` within {bound:?}", M::NAME),
            }
        }
    }

    /// Waits for `bound`.
    ///
    /// # Panics
    /// With the place of the call, if a message is there or comes.
    #[track_caller]
    pub fn expect_no_message(&mut self, bound: Duration) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            if let Ok(Some(_)) = timeout(bound, self.received.recv()).await {
                panic!("{caller}: a `{}` where none was expected", M::NAME);
            }
        }
    }
}

impl<M: Asked> Drop for Probe<M> {
    fn drop(&mut self) {
        leave(self.key);
        // The order is given by the first poll; nobody waits for the end.
        let _ = futures::FutureExt::now_or_never(self.actor.stop());
    }
}

/// The actor behind a [`Probe`].
pub struct ProbeActor<M: Asked>(Option<Arc<Mouth<M>>>);

impl<M: Asked> std::fmt::Debug for ProbeActor<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ProbeActor({})", M::NAME)
    }
}

struct Mouth<M: RemoteMessage> {
    sender: mpsc::UnboundedSender<M>,
    answer: Mutex<Answer<M>>,
}

type Answer<M> = Box<dyn FnMut(&M) -> <M as RemoteMessage>::Reply + Send>;

/// Which of the process's probes an actor belongs to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Key(u64);

impl<M: Asked> Actor for ProbeActor<M> {
    type Context = Context<Self>;
}

impl<M: Asked> Handler<M> for ProbeActor<M> {
    type Result = MessageResult<M>;

    fn handle(&mut self, message: M, _: &mut Context<Self>) -> Self::Result {
        let Some(mouth) = &self.0 else { panic!("the test has dropped this probe") };
        let answer = (mouth.answer.lock())(&message);
        // The test may be over.
        let _ = mouth.sender.send(message);
        MessageResult(answer)
    }
}

impl<M: Asked> RemoteActor for ProbeActor<M> {
    // Never registered, so no other process can ask for one by this name.
    const NAME: &'static str = "mobula-testkit::Probe";
    const SCHEMA: u64 = schema_hash("1");
    type Args = Key;

    fn make(Key(key): Key) -> Self {
        ProbeActor(find(key))
    }

    fn messages(table: &mut MessageTable<Self>) {
        table.accept::<M>();
    }
}

/// The probes of this process: constructor arguments have to be serializable, and a channel is not.
static PROBES: Mutex<Option<HashMap<u64, Arc<dyn Any + Send + Sync>>>> = Mutex::new(None);

fn enter(mouth: Arc<dyn Any + Send + Sync>) -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let key = NEXT.fetch_add(1, Ordering::Relaxed);
    PROBES.lock().get_or_insert_default().insert(key, mouth);
    key
}

fn find<M: RemoteMessage>(key: u64) -> Option<Arc<Mouth<M>>> {
    PROBES.lock().get_or_insert_default().get(&key).cloned()?.downcast().ok()
}

fn leave(key: u64) {
    // What is dropped with it is the user's, and must not find the table locked.
    let left = PROBES.lock().get_or_insert_default().remove(&key);
    drop(left);
}
