//! A node's side of its membership: registers, says every half second that it lives, follows what is to run, and ends everything when its lease is over.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mobula_control::{BeatNode, Client, ControlError, LeaveNode, Refusal, Register, Target, WatchAssignment, follow};
use mobula_core::cluster::{Assignment, Beat, Labels, Refused, Registration, Resources, Revision, Running, Usage};
use mobula_core::{LeaseTimes, NodeId, NodeUid};
use mobula_head::NodeLease;
use tokio::sync::{Notify, watch};

use crate::error::DaemonError;
use crate::host;
use crate::name_wait::{NameHolder, NameWait};

const RETRY: Duration = Duration::from_millis(200);
const REGISTER_WITHIN: Duration = Duration::from_secs(5);
/// How long what is to run may take to come after the head has said that there is something newer.
const ASSIGNMENT_WITHIN: Duration = Duration::from_secs(3);
/// How long processes have to be gone when the node is stopped.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// What a node says of itself when it enters.
pub struct About {
    /// Its operator's name and this life.
    pub id: NodeId,
    /// Where others reach it.
    pub address: SocketAddr,
    /// What it gives.
    pub resources: Resources,
    /// What its operator says of it.
    pub labels: Labels,
    /// The life before, all of whose processes are known to be dead.
    pub replaces: Option<NodeUid>,
}

/// What runs on a node, as far as its membership has to do with it.
pub trait Hosted: Send + Sync + 'static {
    /// What runs, for the head.
    fn running(&self) -> Running;
    /// True if nothing of any job runs.
    fn is_idle(&self) -> bool;
    /// The times of leases.
    fn times(&self) -> LeaseTimes;
    /// The times of leases are these, in the whole cluster.
    fn set_times(&self, times: LeaseTimes);
    /// Something about what runs has changed: the head is to hear of it.
    fn changed(&self) -> &Notify;
    /// Makes what runs what the head wants. Older than what was seen is nothing new.
    fn reconcile(self: &Arc<Self>, assignment: Assignment);
    /// Asks all workers to leave, and waits until they have, or their time is over.
    fn leave(&self, reason: &str) -> impl Future<Output = ()> + Send;
    /// Ends everything at once, for ever.
    fn fence(&self);
}

/// How a node's life has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// It was told to, or has finished what it had.
    Left,
    /// Its lease is over.
    Fenced,
}

/// What came of registering.
enum Registering {
    /// The head has taken the node.
    Taken,
    /// It could not be asked, or does not take the node yet.
    Later,
    /// Another node has the name.
    NameInUse(NameHolder),
}

/// A node's membership.
pub struct Agent<P> {
    /// The node.
    pub about: About,
    /// The head.
    pub target: Target,
    /// What runs on the node.
    pub processes: Arc<P>,
    /// Looks at how busy the host is.
    pub load: Box<dyn FnMut() -> Usage + Send>,
    /// Set when the node is to stop.
    pub stop: watch::Receiver<bool>,
    /// Set once the head has taken the node.
    pub ready: watch::Sender<bool>,
}

impl<P: Hosted> Agent<P> {
    /// Lives until it is told to stop, has been drained, or has lost its lease.
    ///
    /// # Errors
    /// [`DaemonError`] if the head will never take it.
    pub async fn run(mut self) -> Result<End, DaemonError> {
        let client = Arc::new(Client::new(self.target.clone()));
        let tell = Arc::new(Told::default());
        let mut assignments = tell.assignment.subscribe();
        let mut lease = NodeLease::new(LeaseTimes::default());
        let mut name = NameWait::default();
        loop {
            let sent = mobula_transport::now();
            let rest = match self.register(&client, &mut lease, &tell).await? {
                Registering::Taken => break,
                Registering::Later => RETRY,
                Registering::NameInUse(holder) => name.wait(holder, sent, mobula_transport::now())?,
            };
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                () = stopped(&self.stop) => return Ok(self.leave(&client).await),
            }
        }
        // With it the node is up: whoever has waited for it may use it.
        self.beat(&client, &mut lease, &tell).await?;
        self.ready.send_replace(true);
        let following = tokio::spawn(follow_assignment(Arc::clone(&client), self.about.id.uid, Arc::clone(&tell)));
        let end = loop {
            let now = mobula_transport::now();
            let beat_at = lease.next_beat().unwrap_or(now);
            let until = lease.until().unwrap_or(now);
            tokio::select! {
                // One that was frozen ends what runs here before it says or hears anything.
                biased;
                () = sleep_until(until) => {
                    if lease.fence(mobula_transport::now()) {
                        self.processes.fence();
                        break End::Fenced;
                    }
                }
                () = stopped(&self.stop) => break self.leave(&client).await,
                () = sleep_until(beat_at) => self.beat(&client, &mut lease, &tell).await?,
                // The head is not to wait half a second for what has just happened.
                () = self.processes.changed().notified() => self.beat(&client, &mut lease, &tell).await?,
                Ok(()) = assignments.changed() => {
                    let assignment = assignments.borrow_and_update().clone();
                    if assignment.fenced {
                        self.processes.fence();
                        break End::Fenced;
                    }
                    let draining = assignment.draining;
                    self.processes.reconcile(assignment);
                    if draining && self.processes.is_idle() {
                        break self.leave(&client).await;
                    }
                }
            }
            if assignments.borrow().draining && self.processes.is_idle() {
                break self.leave(&client).await;
            }
        };
        following.abort();
        Ok(end)
    }

    /// Registers, for the first time or again.
    async fn register(&self, client: &Client, lease: &mut NodeLease, tell: &Told) -> Result<Registering, DaemonError> {
        let sent = mobula_transport::now();
        let registration = Registration {
            uid: self.about.id.uid,
            name: self.about.id.name.clone(),
            address: self.about.address.to_string(),
            resources: self.about.resources.clone(),
            labels: self.about.labels.clone(),
            cores: host::cores(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            architecture: host::architecture(),
            running: self.processes.running(),
            replaces: self.about.replaces,
            number: lease.register(),
        };
        match client.ask_within(Register { registration }, within(lease, REGISTER_WITHIN)).await {
            Ok(registered) => {
                if lease.registered(&registered, sent, mobula_transport::now()) {
                    self.processes.set_times(registered.times);
                    tell.newer(registered.assignment);
                    return Ok(Registering::Taken);
                }
            }
            Err(ControlError::Refused(Refusal::Head(Refused::NameInUse { name, holder, retry_after, address }))) => {
                return Ok(Registering::NameInUse(NameHolder { name, holder, address, free_after: retry_after }));
            }
            Err(error) if error.is_final() => return Err(error.into()),
            Err(error) => tracing::warn!(%error, "the head cannot be asked yet"),
        }
        Ok(Registering::Later)
    }

    async fn beat(&mut self, client: &Client, lease: &mut NodeLease, tell: &Told) -> Result<(), DaemonError> {
        let sent = mobula_transport::now();
        let beat = Beat { running: self.processes.running(), used: (self.load)(), ..lease.beat(sent) };
        // One that gets no answer must not keep the node from its next try.
        let after = self.processes.times().heartbeat.max(Duration::from_millis(100)) * 2;
        match client.ask_within(BeatNode { node: self.about.id.uid, beat }, within(lease, after)).await {
            Ok(answer) => {
                lease.answered(sent, answer.at, mobula_transport::now());
                tell.announced.send_replace(answer.assignment);
            }
            Err(ControlError::Refused(Refusal::Head(refused))) => {
                if lease.refused(&refused) {
                    // What runs here goes on; the head only has to hear of it again. If it does not, it refuses the next heartbeat, too.
                    self.register(client, lease, tell).await?;
                } else {
                    tracing::warn!(%refused, "the head has refused a heartbeat");
                }
            }
            Err(error) => tracing::debug!(%error, "a heartbeat has got no answer"),
        }
        Ok(())
    }

    /// Ends what runs, and tells the head.
    async fn leave(&self, client: &Client) -> End {
        self.processes.leave("its node is stopped").await;
        self.processes.fence();
        let gone = async {
            while !self.processes.is_idle() {
                self.processes.changed().notified().await;
            }
        };
        let _ = tokio::time::timeout(STOP_WITHIN, gone).await;
        let left = client.ask_within(LeaveNode { node: self.about.id.uid }, Duration::from_secs(2)).await;
        if let Err(error) = left {
            tracing::warn!(%error, "the head was not told that this node goes");
        }
        End::Left
    }
}

/// `at_most`, or what is left of the lease: nothing that is asked may keep the node from noticing its end.
fn within(lease: &NodeLease, at_most: Duration) -> Duration {
    let left = lease.until().map(|until| until.saturating_duration_since(mobula_transport::now()));
    left.map_or(at_most, |left| left.min(at_most))
}

/// Resolves when the node is to stop. Cancel-safe.
async fn stopped(stop: &watch::Receiver<bool>) {
    // Whoever could say so is gone only with the process.
    if stop.clone().wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// What the head has said that is to run.
#[derive(Default)]
struct Told {
    assignment: watch::Sender<Assignment>,
    /// The newest that there is, by the answers to heartbeats.
    announced: watch::Sender<Revision>,
}

impl Told {
    /// Keeps the newest.
    fn newer(&self, assignment: Assignment) {
        self.assignment.send_if_modified(|known| {
            let is_newer = assignment.revision > known.revision;
            if is_newer {
                *known = assignment;
            }
            is_newer
        });
    }

    /// Resolves when something has not come in time that was announced. Cancel-safe.
    async fn overdue(&self) {
        let (mut known, mut announced) = (self.assignment.subscribe(), self.announced.subscribe());
        loop {
            // Neither is dropped before this is.
            let _ = announced.wait_for(|newest| *newest > self.assignment.borrow().revision).await;
            let newest = *announced.borrow();
            let comes = known.wait_for(|known| known.revision >= newest);
            if tokio::time::timeout(ASSIGNMENT_WITHIN, comes).await.is_err() {
                return;
            }
        }
    }
}

/// Follows what is to run. A connection on which nothing comes any more looks like one on which there is nothing to say: the answers to
/// heartbeats tell them apart.
async fn follow_assignment(client: Arc<Client>, node: NodeUid, tell: Arc<Told>) {
    loop {
        let following = follow(&client, WatchAssignment { node }, |assignment| {
            assignment.into_iter().for_each(|assignment| tell.newer(assignment));
            true
        });
        tokio::select! {
            () = following => {}
            () = tell.overdue() => tracing::warn!("what is to run here has not come from the head, which is asked anew"),
        }
    }
}

async fn sleep_until(at: Instant) {
    tokio::time::sleep_until(at.into()).await;
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicBool, Ordering};

    use mobula_control::{Home, Peer, Reply, Request, SOCKET, Service};
    use mobula_core::cluster::{BeatAnswer, HeadTime, Registered};
    use mobula_transport::unix::{Directory, Listener};

    use super::*;
    use crate::local_door;
    use crate::output::Output;
    use crate::processes::{NodeFacts, Processes};
    use crate::programs::Programs;

    /// A head that takes a node once, forgets it, and has no time for it any more.
    #[derive(Default)]
    struct Forgetful {
        has_taken: AtomicBool,
    }

    impl Service for Forgetful {
        async fn serve(&self, _peer: &Peer, request: Request, mut reply: Reply<'_>) -> io::Result<()> {
            match request {
                Request::Register(_) if !self.has_taken.swap(true, Ordering::Relaxed) => {
                    let times = LeaseTimes::of(Duration::from_secs(1));
                    let at = HeadTime { term: 1, at: Duration::ZERO };
                    let assignment = Assignment::default();
                    reply.answer::<Register>(Ok(Registered { assignment, times, at })).await
                }
                Request::Register(_) => reply.refuse(Refusal::NotNow("it is busy".to_owned())).await,
                Request::BeatNode(said) => reply.refuse(Refusal::Head(Refused::NotRegistered { uid: said.node })).await,
                _ => {
                    reply.gone().await;
                    Ok(())
                }
            }
        }
    }

    fn agent_of(
        place: &tempfile::TempDir,
        head: impl Service + 'static,
    ) -> (Agent<Processes>, tokio::task::JoinHandle<()>) {
        let home = Home::create(&place.path().join("home")).expect("made");
        let socket = Listener::bind(home.directory(), SOCKET).expect("a socket");
        let door = tokio::spawn(local_door::keep(socket, Arc::new(head)));
        let (uid, target) = (NodeUid(7), Target::Local(home.directory().path().to_owned()));
        let client = Arc::new(Client::new(target.clone()));
        let programs = Programs::new(Directory::create(place.path().join("executables")).expect("made"), 0);
        let facts = NodeFacts {
            uid,
            name: "node".to_owned(),
            home: home.directory().path().to_owned(),
            cpus: 1,
            arbiters: 1,
            resources: Resources::new(),
            labels: Labels::new(),
        };
        let output = Output::start(Arc::clone(&client), uid);
        let agent = Agent {
            about: About {
                id: NodeId::new("node", uid),
                address: SocketAddr::from(([127, 0, 0, 1], 1)),
                resources: Resources::default(),
                labels: Labels::new(),
                replaces: None,
            },
            target,
            processes: Processes::new(facts, client, Arc::new(programs), output),
            load: Box::new(Usage::default),
            stop: watch::Sender::new(false).subscribe(),
            ready: watch::Sender::new(false),
        };
        (agent, door)
    }

    #[tokio::test]
    async fn a_node_that_the_head_has_forgotten_is_fenced_when_its_lease_is_over() {
        let place = tempfile::tempdir().expect("a directory");
        let (agent, door) = agent_of(&place, Forgetful::default());
        let ended = tokio::time::timeout(Duration::from_secs(30), agent.run()).await.expect("its lease ends");
        assert_eq!(ended.expect("no error"), End::Fenced);
        door.abort();
    }

    /// A head whose first subscription carries nothing, as after a machine that was off.
    #[derive(Default)]
    struct Mute {
        has_been_followed: AtomicBool,
    }

    fn revision(number: u64) -> Revision {
        Revision { term: 1, number }
    }

    impl Service for Mute {
        async fn serve(&self, _peer: &Peer, request: Request, mut reply: Reply<'_>) -> io::Result<()> {
            let at = HeadTime { term: 1, at: Duration::ZERO };
            let assignment =
                |number, fenced| Assignment { revision: revision(number), fenced, ..Assignment::default() };
            match request {
                Request::Register(_) => {
                    let registered = Registered { assignment: assignment(1, false), times: LeaseTimes::default(), at };
                    reply.answer::<Register>(Ok(registered)).await
                }
                Request::BeatNode(_) => reply.answer::<BeatNode>(Ok(BeatAnswer { at, assignment: revision(2) })).await,
                Request::WatchAssignment(_) if self.has_been_followed.swap(true, Ordering::Relaxed) => {
                    reply.item(&assignment(2, true)).await
                }
                _ => {
                    reply.gone().await;
                    Ok(())
                }
            }
        }
    }

    #[tokio::test]
    async fn what_is_to_run_is_asked_for_anew_when_its_connection_is_mute() {
        let place = tempfile::tempdir().expect("a directory");
        let (agent, door) = agent_of(&place, Mute::default());
        let ended = tokio::time::timeout(Duration::from_secs(30), agent.run()).await.expect("it hears its end");
        assert_eq!(ended.expect("no error"), End::Fenced);
        door.abort();
    }
}
