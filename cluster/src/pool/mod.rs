//! Pools: equal actors, started and replaced by the pool, used like one reference.
//!
//! `slots` decides what is started and retired, `keeper` does it; the choice among the members is a router's.
mod keeper;
mod slots;

use std::hash::Hash;
use std::ops::Deref;

use mobula_actors::{ActorRef, ActorSpec, RemoteActor, Router, Routing, SpawnError};
use mobula_core::RemoteMessage;
use tokio::sync::{mpsc, oneshot, watch};

use crate::cluster::Cluster;
use keeper::{Keeper, Order};

/// Equal actors behind one handle, which is used like a single reference: it is a [`Router`] to them.
///
/// A member that ends is replaced, on another node if its own is lost and its placement allows that: after a rest of
/// 50 ms, which doubles up to 10 s as long as members end soon, give or take a fifth. While there is no member, asks
/// wait for one until their deadline; tells fail, except where work is pulled. State dies with a member: what has to
/// outlive it belongs elsewhere.
///
/// The members end with the pool: by [`stop`](Self::stop), and when its last handle is dropped.
///
/// ```no_run
/// # use mobula_cluster::Cluster;
/// # use mobula_actors::{RemoteActor, SpawnError};
/// # async fn start<Worker: RemoteActor<Args = ()>>(cluster: &Cluster) -> Result<(), SpawnError> {
/// let pool = cluster.pool(Worker::spec(())).size(8).spread().least_loaded().start().await?;
/// pool.resize(16).await?;
/// # Ok(())
/// # }
/// ```
pub struct Pool<A: RemoteActor> {
    router: Router<ActorRef<A>>,
    orders: mpsc::UnboundedSender<Order>,
    /// Closed when the keeper has ended.
    over: watch::Receiver<()>,
}

impl<A: RemoteActor> Pool<A> {
    /// Changes the number of members. New ones are started at once; those that are too many take no further message,
    /// finish what was sent to them through this pool, and end. Returns when all new ones have started.
    ///
    /// # Errors
    /// [`SpawnError`] if one could not be started. The pool goes on trying.
    /// # Cancel safety
    /// Dropping the future takes nothing back.
    pub async fn resize(&self, size: usize) -> Result<(), SpawnError> {
        let (done, resized) = oneshot::channel();
        self.orders.send(Order::Resize { size, done }).map_err(|_| SpawnError::NodeEnding)?;
        resized.await.unwrap_or(Err(SpawnError::NodeEnding))
    }

    /// Ends the pool: no further call is taken, what waits for a member fails with
    /// [`CallError::Stopped`](mobula_core::CallError::Stopped), and the members finish what they were sent. Returns when
    /// the last has been told to end.
    pub async fn stop(&self) {
        let _ = self.orders.send(Order::Stop);
        let mut over = self.over.clone();
        while over.changed().await.is_ok() {}
    }
}

impl<A: RemoteActor> Deref for Pool<A> {
    type Target = Router<ActorRef<A>>;

    fn deref(&self) -> &Router<ActorRef<A>> {
        &self.router
    }
}

impl<A: RemoteActor> Clone for Pool<A> {
    fn clone(&self) -> Self {
        Pool { router: self.router.clone(), orders: self.orders.clone(), over: self.over.clone() }
    }
}

impl<A: RemoteActor> std::fmt::Debug for Pool<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Pool").field(&self.router).finish()
    }
}

impl Cluster {
    /// Describes a pool of equal actors, which is used like a single one. Options first, then
    /// [`start`](PoolBuilder::start).
    pub fn pool<A: RemoteActor>(&self, member: ActorSpec<A>) -> PoolBuilder<A> {
        PoolBuilder::new(self.clone(), member)
    }
}

/// Options of a pool; made by [`Cluster::pool`].
#[must_use = "nothing is started before `start`"]
pub struct PoolBuilder<A: RemoteActor> {
    cluster: Cluster,
    spec: ActorSpec<A>,
    name: Option<String>,
    size: usize,
    routing: Routing,
    set_up: Vec<SetUp<A>>,
}

/// What is done to the router once it is made.
type SetUp<A> = Box<dyn FnOnce(Router<ActorRef<A>>) -> Router<ActorRef<A>> + Send>;

impl<A: RemoteActor> PoolBuilder<A> {
    fn new(cluster: Cluster, spec: ActorSpec<A>) -> Self {
        PoolBuilder { cluster, spec, name: None, size: 1, routing: Routing::default(), set_up: Vec::new() }
    }

    /// The number of members. Default 1.
    pub fn size(mut self, size: usize) -> Self {
        self.size = size;
        self
    }

    /// Names the members `<name>-0`, `<name>-1` and so on; who replaces a member takes its name.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Places each member on the next node in turn.
    pub fn spread(mut self) -> Self {
        self.spec = self.spec.spread();
        self
    }

    /// How the member that takes a message is chosen. Default [`Routing::RoundRobin`].
    pub fn routing(mut self, routing: Routing) -> Self {
        self.routing = routing;
        self
    }

    /// Each member in turn: the default.
    pub fn round_robin(self) -> Self {
        self.routing(Routing::RoundRobin)
    }

    /// The member with the fewest unanswered asks of this pool: [`Routing::LeastLoaded`].
    pub fn least_loaded(self) -> Self {
        self.routing(Routing::LeastLoaded)
    }

    /// The member that a message's key belongs to. Say what the key is with [`key`](Self::key). A member's successor
    /// takes over its keys, and a new size moves only as many as it must.
    pub fn consistent_hash(self) -> Self {
        self.routing(Routing::ConsistentHash)
    }

    /// Members take the next message when they have answered the one before: [`Routing::WorkPulling`].
    pub fn work_pulling(self) -> Self {
        self.routing(Routing::WorkPulling)
    }

    /// As [`Router::key`].
    pub fn key<M, K>(mut self, key: impl Fn(&M) -> K + Send + Sync + 'static) -> Self
    where
        M: RemoteMessage,
        K: Hash,
    {
        self.set_up.push(Box::new(|router| router.key(key)));
        self
    }

    /// As [`Router::queue`].
    pub fn queue(mut self, messages: usize) -> Self {
        self.set_up.push(Box::new(move |router| router.queue(messages)));
        self
    }

    /// Starts the members and waits until all have started.
    ///
    /// # Errors
    /// [`SpawnError`] if one cannot be started; the others are ended.
    pub async fn start(self) -> Result<Pool<A>, SpawnError> {
        let PoolBuilder { cluster, spec, name, size, routing, set_up } = self;
        let (router, members) = Router::kept(routing, cluster.node().clone());
        let router = set_up.into_iter().fold(router, |router, set_up| set_up(router));
        let keeper = Keeper::start(&cluster, spec, name, size, members).await?;
        let (orders, given) = mpsc::unbounded_channel();
        let (over, watched) = watch::channel(());
        cluster.node().control_runtime().spawn(async move {
            keeper.keep(given).await;
            drop(over);
        });
        Ok(Pool { router, orders, over: watched })
    }
}

impl<A: RemoteActor> std::fmt::Debug for PoolBuilder<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PoolBuilder").field("size", &self.size).field("routing", &self.routing).finish()
    }
}
