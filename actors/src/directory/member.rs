//! A member: claims names for its actors, keeps its lease, and ends its named actors when that is over.

use std::sync::Arc;
use std::time::Instant;

use mobula_core::directory::{Answer, Found, Refusal, Request};
use mobula_core::planted::{self, Bug};
use mobula_core::{ActorAddress, ActorId, CallError, Deadline, NodeId, limits};
use mobula_transport::now;

use super::Tenure;
use crate::actor::RemoteActor;
use crate::actor_ref::ActorRef;
use crate::ask;
use crate::control::{self, Control, ControlReply, SpawnError};
use crate::mailbox::Order;
use crate::node::{Node, WeakNode, unexpected};
use crate::scope;

impl Node {
    /// From now on `head` keeps the directory of names for this node, which keeps a lease there: to be called before
    /// the node has named actors, and before it is connected. A node that was never told is its own head.
    pub fn set_head(&self, head: &NodeId) {
        let directory = self.directory_end();
        *directory.head.write() = head.clone();
        if head != self.id() {
            directory.lease.begin();
            self.control_runtime().spawn(keep_lease(self.downgrade()));
        }
    }

    /// True if an actor may still act under that name, as far as this node, which keeps the names of its cluster, knows: also after its end
    /// was told, as long as its node may live.
    pub fn may_bear(&self, name: &str, actor: &ActorAddress) -> bool {
        self.directory_end().may_bear(name, actor)
    }

    /// The node that keeps the directory of names.
    pub fn head(&self) -> NodeId {
        self.directory_end().head()
    }

    /// Resolves once this node's lease with the head is over. Its actors are ended by then, and it is shut down: only a
    /// new life of it may come back.
    pub fn fenced(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut fenced = self.directory_end().fenced.subscribe();
        async move {
            if fenced.wait_for(|fenced| *fenced).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The live actor that bears `name`, anywhere in the cluster, if it is an `A`. Takes one question to the head.
    ///
    /// # Errors
    /// [`CallError`] if the head cannot be asked.
    pub async fn find<A: RemoteActor>(&self, name: &str) -> Result<Option<ActorRef<A>>, CallError> {
        let request = Request::Find { name: name.to_owned(), actor_type: A::NAME.to_owned() };
        match self.ask_directory(request).await? {
            Answer::Found(found) => Ok(found.map(|Found { node, actor }| self.reference(&node, actor))),
            Answer::Refused(refusal) => Err(self.refused(&refusal)),
            _ => Err(unexpected()),
        }
    }

    /// Claims `identity` for an actor that does not run yet.
    pub(crate) async fn claim(&self, actor: ActorId, identity: &str, actor_type: &str) -> Result<Tenure, SpawnError> {
        let bytes = identity.len();
        if !(1..=limits::NAME_BYTES_MAX).contains(&bytes) {
            let refusal = Refusal::BadName { bytes: bytes as u64, limit: limits::NAME_BYTES_MAX as u64 };
            return Err(SpawnError::NoGrant(refusal));
        }
        self.ensure_lease().await.map_err(SpawnError::NoGrant)?;
        let directory = self.directory_end();
        // From here on its end is told, whatever becomes of the claim.
        directory.listed.lock().insert(actor);
        let (name, actor_type) = (identity.to_owned(), actor_type.to_owned());
        match self.change_directory(move |number| Request::Claim { number, name, actor, actor_type }).await? {
            // The answer may have been under way for longer than the lease lasts.
            Answer::Granted(_) if !directory.lease.holds(now()) => Err(SpawnError::NoGrant(Refusal::LeaseOver)),
            Answer::Granted(fence) => Ok(Tenure { fence, lease: Arc::clone(&directory.lease) }),
            Answer::Taken(Found { node, actor }) => {
                Err(SpawnError::NameTaken { name: identity.to_owned(), holder: actor, node })
            }
            Answer::Refused(refusal) => Err(SpawnError::NoGrant(refusal)),
            _ => Err(unexpected().into()),
        }
    }

    /// The actor has ended. `after` runs when whatever it held is free, or when nobody is left who could free it.
    pub(crate) fn release(&self, actor: ActorId, after: Afterwards) {
        let directory = self.directory_end();
        if !directory.listed.lock().remove(&actor) {
            return drop(after);
        }
        let head = directory.head();
        if head == *self.id() {
            let number = directory.next_number();
            directory.serve(self.id(), Request::End { number, actor });
            return drop(after);
        }
        let Some(link) = self.control_link(&head) else { return drop(after) };
        let request = Request::End { number: directory.next_number(), actor };
        // Sent now, so that no later claim of this node overtakes it.
        let answer = control::request_for_ever(&link, &Control::Directory(request));
        self.control_runtime().spawn(async move {
            let _ = answer.await;
            drop(after);
        });
    }

    pub(crate) async fn ask_directory(&self, request: Request) -> Result<Answer, CallError> {
        match self.request(&self.head(), Control::Directory(request)).await? {
            ControlReply::Directory(answer) => Ok(answer),
            _ => Err(unexpected()),
        }
    }

    /// Asks the head for a change: `request` makes it with its number, which is taken when nothing but the connection can
    /// keep the request from being sent. So it has a deadline of its own; that of the call that is served only ends the
    /// wait for the answer.
    pub(crate) async fn change_directory(&self, request: impl FnOnce(u64) -> Request) -> Result<Answer, CallError> {
        let (directory, head) = (self.directory_end(), self.head());
        if head == *self.id() {
            return Ok(directory.serve(self.id(), request(directory.next_number())));
        }
        let within = scope::deadline();
        if within.is_over(now()) {
            return Err(CallError::DeadlineExceeded { started: false });
        }
        let Some(link) = self.control_link(&head) else { return Err(self.unreachable(&head)) };
        let control = Control::Directory(request(directory.next_number()));
        let asked = control::request_until(&link, &control, ask::default_deadline());
        let answer = match within.instant() {
            Some(instant) => tokio::time::timeout_at(instant.into(), asked)
                .await
                .map_err(|_| CallError::DeadlineExceeded { started: true })?,
            None => asked.await,
        };
        match answer? {
            ControlReply::Directory(answer) => Ok(answer),
            _ => Err(unexpected()),
        }
    }

    pub(crate) fn refused(&self, refusal: &Refusal) -> CallError {
        CallError::Unreachable { node: self.head(), sent: false, reason: refusal.to_string() }
    }

    /// Begins the lease, if nothing has yet.
    pub(crate) async fn ensure_lease(&self) -> Result<(), Refusal> {
        let lease = &self.directory_end().lease;
        if lease.holds(now()) {
            return Ok(());
        }
        let sent = now();
        let answer = self.ask_directory(Request::Renew { heard: None }).await.map_err(|_| Refusal::LeaseOver)?;
        self.renewed(sent, answer);
        if lease.holds(now()) { Ok(()) } else { Err(Refusal::LeaseOver) }
    }

    fn renewed(&self, sent: Instant, answer: Answer) {
        let directory = self.directory_end();
        match answer {
            Answer::Renewed { at } => {
                directory.heard(at);
                directory.lease.granted(sent, now());
            }
            Answer::Refused(_) => directory.lease.refused(),
            _ => {}
        }
    }

    /// The lease is over: nothing here acts any more, and this life of the node is at its end.
    fn fence_off(&self) {
        tracing::error!(node = %self.id(), head = %self.head(), "the lease is over: this node ends");
        let listed: Vec<ActorId> = self.directory_end().listed.lock().iter().copied().collect();
        for actor in listed.into_iter().filter_map(|actor| self.actor(actor)) {
            actor.order(Order::Kill);
        }
        self.shut_down("its lease with the head was over");
        self.directory_end().fenced.send_replace(true);
    }
}

/// What is to happen at last. Happens also when it is dropped on the way.
pub(crate) struct Afterwards(Option<Box<dyn FnOnce() + Send>>);

impl Afterwards {
    pub(crate) fn new(what: impl FnOnce() + Send + 'static) -> Self {
        Afterwards(Some(Box::new(what)))
    }
}

impl Drop for Afterwards {
    fn drop(&mut self) {
        if let Some(what) = self.0.take() {
            what();
        }
    }
}

/// Renews the node's lease until it is over.
async fn keep_lease(node: WeakNode) {
    loop {
        let (reached, wake) = {
            let Some(node) = node.upgrade().filter(|node| !node.is_closed()) else { return };
            let directory = Arc::clone(node.directory_end());
            let now = now();
            if directory.lease.is_over(now) && !planted::is(Bug::LeaseIgnored) {
                return node.fence_off();
            }
            renew(&node, now);
            let next = now + directory.times.heartbeat;
            let wake = directory.lease.until().map_or(next, |until| until.min(next));
            (directory, wake)
        };
        let _ = tokio::time::timeout_at(wake.into(), reached.head_reached.notified()).await;
    }
}

/// Sends one renewal, if the head can be reached. An answer that comes after the lease is of no use.
fn renew(node: &Node, now: Instant) {
    let directory = node.directory_end();
    let Some(link) = node.control_link(&directory.head()) else { return };
    let request = Control::Directory(Request::Renew { heard: *directory.heard.lock() });
    let answer = control::request_until(&link, &request, Deadline::after(now, directory.times.lease));
    let node = node.downgrade();
    tokio::spawn(async move {
        if let Ok(ControlReply::Directory(answer)) = answer.await
            && let Some(node) = node.upgrade()
        {
            node.renewed(now, answer);
        }
    });
}
