//! Keeps a pool at its size: starts members, hears of their ends, lets those that are too many finish.

use std::sync::Arc;

use futures::StreamExt;
use futures::future::{BoxFuture, join_all};
use futures::stream::FuturesUnordered;
use mobula_actors::{ActorRef, ActorSpec, MemberId, Node, RemoteActor, RouterKeeper, SpawnError};
use mobula_transport::now;
use tokio::sync::{mpsc, oneshot};

use super::slots::{Slots, Step};
use crate::cluster::{Cluster, WeakCluster};

/// What the pool's handles tell its keeper.
pub(super) enum Order {
    Resize { size: usize, done: oneshot::Sender<Result<(), SpawnError>> },
    Stop,
}

pub(super) struct Keeper<A: RemoteActor> {
    cluster: WeakCluster,
    node: Node,
    spec: ActorSpec<A>,
    name: Option<String>,
    router: Arc<RouterKeeper<ActorRef<A>>>,
    slots: Slots,
    members: Vec<Option<Member<A>>>,
    /// Lives of members so far: news of an earlier life of a slot are none.
    lives: u64,
    events: FuturesUnordered<BoxFuture<'static, Event<A>>>,
    /// Those who wait until all have started.
    resizing: Vec<oneshot::Sender<Result<(), SpawnError>>>,
    /// Why the last one has not.
    failure: Option<SpawnError>,
    /// Members that are finishing.
    retiring: usize,
}

struct Member<A: RemoteActor> {
    actor: ActorRef<A>,
    id: MemberId,
    life: u64,
}

enum Event<A: RemoteActor> {
    Spawned { slot: usize, result: Result<ActorRef<A>, SpawnError> },
    Ended { slot: usize, life: u64 },
    Retired,
}

impl<A: RemoteActor> Keeper<A> {
    /// Starts `size` members.
    pub(super) async fn start(
        cluster: &Cluster,
        spec: ActorSpec<A>,
        name: Option<String>,
        size: usize,
        router: RouterKeeper<ActorRef<A>>,
    ) -> Result<Self, SpawnError> {
        let mut keeper = Keeper {
            cluster: cluster.downgrade(),
            node: cluster.node().clone(),
            spec,
            name,
            router: Arc::new(router),
            slots: Slots::new(size, now()),
            members: Vec::new(),
            lives: 0,
            events: FuturesUnordered::new(),
            resizing: Vec::new(),
            failure: None,
            retiring: 0,
        };
        let spawned = join_all((0..size).map(|slot| cluster.spawn(keeper.spec_of(slot)))).await;
        if let Some(Err(error)) = spawned.iter().find(|spawned| spawned.is_err()) {
            let error = error.clone();
            join_all(spawned.iter().flatten().map(ActorRef::kill)).await;
            return Err(error);
        }
        for (slot, actor) in spawned.into_iter().flatten().enumerate() {
            keeper.add(slot, actor);
        }
        Ok(keeper)
    }

    /// Works until the pool is stopped, or nobody has a handle to it.
    pub(super) async fn keep(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        loop {
            while let Some(step) = self.slots.next(now()) {
                self.step(step);
            }
            self.tell_resized();
            let rest = self.slots.wake_at();
            let rest_over = async move {
                match rest {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Resize { size, done }) => {
                        self.failure = None;
                        self.slots.resize(size);
                        self.resizing.push(done);
                    }
                    Some(Order::Stop) | None => break,
                },
                Some(event) = self.events.next(), if !self.events.is_empty() => self.heard(event),
                () = rest_over => {}
            }
        }
        self.wind_up(orders).await;
    }

    /// Lets every member finish.
    async fn wind_up(mut self, orders: mpsc::UnboundedReceiver<Order>) {
        drop(orders);
        self.router.shut();
        self.slots.resize(0);
        loop {
            while let Some(step) = self.slots.next(now()) {
                self.step(step);
            }
            if self.retiring == 0 && !self.slots.is_starting() {
                return;
            }
            let Some(event) = self.events.next().await else { return };
            self.heard(event);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Spawn { slot } => {
                let (cluster, spec) = (self.cluster.clone(), self.spec_of(slot));
                self.events.push(Box::pin(async move {
                    let result = match cluster.upgrade() {
                        Some(cluster) => cluster.spawn(spec).await,
                        None => Err(SpawnError::NodeEnding),
                    };
                    Event::Spawned { slot, result }
                }));
            }
            Step::Retire { slot } => {
                let Some(member) = self.members.get_mut(slot).and_then(Option::take) else { return };
                self.router.close(member.id);
                self.retiring += 1;
                let router = Arc::clone(&self.router);
                self.events.push(Box::pin(async move {
                    // Asks first: some of their handlers may answer later. Tells are ahead of the order in the mailbox.
                    let finished = async {
                        router.drained(member.id).await;
                        member.actor.stop_gracefully().await
                    };
                    // A member that has ended meanwhile needs no order.
                    tokio::select! {
                        told = finished => {
                            if let Err(error) = told {
                                tracing::debug!(actor = ?member.actor, %error, "a member of a pool was not told to end");
                            }
                        }
                        _ = member.actor.monitor() => {}
                    }
                    Event::Retired
                }));
            }
        }
    }

    fn heard(&mut self, event: Event<A>) {
        match event {
            Event::Spawned { slot, result: Ok(actor) } => {
                self.slots.started(slot, now());
                self.add(slot, actor);
            }
            Event::Spawned { slot, result: Err(error) } => {
                tracing::warn!(actor_type = A::NAME, slot, %error, "a member of a pool cannot be started");
                self.failure = Some(error);
                self.slots.ended(slot, now(), self.node.jitter());
            }
            Event::Ended { slot, life } => {
                let Some(ended) = self.members.get_mut(slot).and_then(|member| member.take_if(|m| m.life == life))
                else {
                    return;
                };
                tracing::info!(actor = ?ended.actor, slot, "a member of a pool has ended");
                self.router.close(ended.id);
                self.slots.ended(slot, now(), self.node.jitter());
            }
            Event::Retired => self.retiring -= 1,
        }
    }

    fn add(&mut self, slot: usize, actor: ActorRef<A>) {
        self.lives += 1;
        let life = self.lives;
        let monitor = actor.monitor();
        self.events.push(Box::pin(async move {
            monitor.await;
            Event::Ended { slot, life }
        }));
        let id = self.router.add(slot as u64, actor.clone());
        if self.members.len() <= slot {
            self.members.resize_with(slot + 1, || None);
        }
        self.members[slot] = Some(Member { actor, id, life });
    }

    fn spec_of(&self, slot: usize) -> ActorSpec<A> {
        let spec = self.spec.clone();
        match &self.name {
            Some(name) => spec.name(format!("{name}-{slot}")),
            None => spec,
        }
    }

    fn tell_resized(&mut self) {
        if self.slots.is_starting() {
            return;
        }
        for done in self.resizing.drain(..) {
            let _ = done.send(self.failure.clone().map_or(Ok(()), Err));
        }
    }
}
