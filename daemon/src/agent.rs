//! A node's side of its membership: registers, says every half second that it lives, follows what is to run, and ends everything when its lease is over.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mobula_control::{BeatNode, Client, ControlError, LeaveNode, Refusal, Register, Target, WatchAssignment};
use mobula_core::cluster::{Assignment, Beat, Labels, Refused, Registration, Resources};
use mobula_core::{NodeId, NodeUid};
use mobula_head::NodeLease;
use tokio::sync::watch;

use crate::error::DaemonError;
use crate::host::{self, Load};
use crate::processes::Processes;

const RETRY: Duration = Duration::from_millis(200);
const REGISTER_WITHIN: Duration = Duration::from_secs(5);
/// How long processes have to be gone when the node is stopped.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// What a node says of itself when it enters.
pub(crate) struct About {
    pub(crate) id: NodeId,
    pub(crate) address: SocketAddr,
    pub(crate) resources: Resources,
    pub(crate) labels: Labels,
    pub(crate) replaces: Option<NodeUid>,
}

/// How a node's life has ended.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum End {
    /// It was told to, or has finished what it had.
    Left,
    /// Its lease is over.
    Fenced,
}

pub(crate) struct Agent {
    pub(crate) about: About,
    pub(crate) target: Target,
    pub(crate) processes: Arc<Processes>,
    pub(crate) stop: watch::Receiver<bool>,
    /// Set once the head has taken the node.
    pub(crate) ready: watch::Sender<bool>,
}

impl Agent {
    /// Lives until it is told to stop, has been drained, or has lost its lease.
    pub(crate) async fn run(self) -> Result<End, DaemonError> {
        let client = Client::new(self.target.clone());
        let (tell, mut assignments) = watch::channel(Assignment::default());
        let mut load = Load::default();
        let Some(mut lease) = self.register(&client, &tell).await? else {
            return Ok(self.leave(&client).await);
        };
        // With it the node is up: whoever has waited for it may use it.
        self.beat(&client, &mut lease, &mut load, &tell).await?;
        self.ready.send_replace(true);
        let following = tokio::spawn(follow(Client::new(self.target.clone()), self.about.id.uid, tell.clone()));
        let end = loop {
            let now = mobula_transport::now();
            let beat_at = lease.next_beat().unwrap_or(now);
            let until = lease.until().unwrap_or(now);
            tokio::select! {
                () = sleep_until(until) => {
                    if lease.fence(mobula_transport::now()) {
                        self.processes.fence();
                        break End::Fenced;
                    }
                }
                () = sleep_until(beat_at) => self.beat(&client, &mut lease, &mut load, &tell).await?,
                // The head is not to wait half a second for what has just happened.
                () = self.processes.changed.notified() => self.beat(&client, &mut lease, &mut load, &tell).await?,
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
                () = stopped(&self.stop) => break self.leave(&client).await,
            }
            if assignments.borrow().draining && self.processes.is_idle() {
                break self.leave(&client).await;
            }
        };
        following.abort();
        Ok(end)
    }

    /// Registers, as often as it takes. Gives the lease that the head grants; none if it is told to stop meanwhile.
    async fn register(
        &self,
        client: &Client,
        tell: &watch::Sender<Assignment>,
    ) -> Result<Option<NodeLease>, DaemonError> {
        loop {
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
            };
            match client.ask_within(Register { registration }, REGISTER_WITHIN).await {
                Ok(registered) => {
                    let mut lease = NodeLease::new(registered.times);
                    lease.answered(sent, registered.at, mobula_transport::now());
                    self.processes.set_times(registered.times);
                    newer(tell, registered.assignment);
                    return Ok(Some(lease));
                }
                Err(ControlError::Refused(Refusal::Head(Refused::NameInUse { retry_after, .. }))) => {
                    tracing::warn!(name = %self.about.id.name, ?retry_after, "an earlier life of this node still has its name");
                    tokio::select! {
                        () = tokio::time::sleep(retry_after.min(Duration::from_secs(1))) => {}
                        () = stopped(&self.stop) => return Ok(None),
                    }
                }
                Err(error) if error.is_final() => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(%error, "the head cannot be asked yet");
                    tokio::select! {
                        () = tokio::time::sleep(RETRY) => {}
                        () = stopped(&self.stop) => return Ok(None),
                    }
                }
            }
        }
    }

    async fn beat(
        &self,
        client: &Client,
        lease: &mut NodeLease,
        load: &mut Load,
        tell: &watch::Sender<Assignment>,
    ) -> Result<(), DaemonError> {
        let sent = mobula_transport::now();
        let beat = Beat { running: self.processes.running(), used: load.look(), ..lease.beat(sent) };
        // One that gets no answer must not keep the node from its next try, nor from the end of its lease.
        let after = self.processes.times().heartbeat.max(Duration::from_millis(100)) * 2;
        match client.ask_within(BeatNode { node: self.about.id.uid, beat }, after).await {
            Ok(answer) => {
                lease.answered(sent, answer.at, mobula_transport::now());
            }
            Err(ControlError::Refused(Refusal::Head(refused))) => {
                if lease.refused(&refused) {
                    // What runs here goes on; the head only has to hear of it again.
                    if let Some(granted) = self.register(client, tell).await? {
                        *lease = granted.follows(lease);
                    }
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
                self.processes.changed.notified().await;
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

/// Resolves when the node is to stop. Cancel-safe.
async fn stopped(stop: &watch::Receiver<bool>) {
    // Whoever could say so is gone only with the process.
    if stop.clone().wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Keeps the newest.
fn newer(tell: &watch::Sender<Assignment>, assignment: Assignment) {
    tell.send_if_modified(|known| {
        let is_newer = assignment.revision > known.revision;
        if is_newer {
            *known = assignment;
        }
        is_newer
    });
}

/// Follows what is to run, over as many connections as it takes.
async fn follow(client: Client, node: NodeUid, tell: watch::Sender<Assignment>) {
    loop {
        if let Ok(mut assignments) = client.subscribe(WatchAssignment { node }).await {
            while let Ok(Some(assignment)) = assignments.next().await {
                newer(&tell, assignment);
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn sleep_until(at: Instant) {
    tokio::time::sleep_until(at.into()).await;
}
