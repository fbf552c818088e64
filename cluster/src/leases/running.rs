//! Leases of a running cluster: its head is asked, again and again if it is away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mobula_actors::{Node, NodeResources, PlacementError};
use mobula_control::{
    Client, ControlError, CreateGroup, FindDetached, HoldName, ListNodes, OpenKeeper, PlaceLease, Question, Refusal,
    ReleaseLease, ReleaseName, RemoveGroup, Target,
};
use mobula_core::cluster::{
    GroupId, JobId, JobView, LeaseId, NewGroup, NodePhase, Place, Placed, PlacementGroupRow, Refused,
};
use mobula_core::limits;
use mobula_transport::now;
use tokio::sync::watch;

use super::{Unplaced, Wanted};

/// The first rest after the head could not be asked; it doubles.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// So long one question may take, before it is asked again.
const QUESTION: Duration = Duration::from_secs(5);

/// What a wait at the head may take longer, on its way.
const ON_THE_WAY: Duration = Duration::from_secs(1);

/// The head of a running cluster, asked by the driver of a job.
pub(crate) struct Running {
    target: Target,
    /// Its questions have their answers at once.
    client: Arc<Client>,
    job: JobId,
    changed: watch::Receiver<()>,
    begun: watch::Receiver<bool>,
}

impl Running {
    /// `views` are those of the job, which change with its groups. `begun` is true once the driver knows the first workers of the job.
    pub(crate) fn new(
        node: &Node,
        target: Target,
        job: JobId,
        mut views: watch::Receiver<Option<JobView>>,
        begun: watch::Receiver<bool>,
    ) -> Self {
        let (tell, changed) = watch::channel(());
        node.control_runtime().spawn(async move {
            while views.changed().await.is_ok() {
                if tell.send(()).is_err() {
                    return;
                }
            }
        });
        Running { client: Arc::new(Client::new(target.clone())), target, job, changed, begun }
    }

    pub(crate) fn job(&self) -> JobId {
        self.job
    }

    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.clone()
    }

    /// Waits until the driver knows the workers that its job began with, for [`limits::NODE_START_DEADLINE`] at most.
    pub(crate) async fn begun(&self) {
        let mut begun = self.begun.clone();
        let _ = tokio::time::timeout(limits::NODE_START_DEADLINE, begun.wait_for(|begun| *begun)).await;
    }

    pub(crate) async fn take(&self, wanted: &Wanted, until: Instant) -> Result<Placed, Unplaced> {
        let begun = now();
        let place = |wait| PlaceLease {
            place: Place {
                lease: LeaseId { job: self.job, number: wanted.number },
                resources: wanted.resources.clone(),
                strategy: wanted.strategy.clone(),
                near: None,
                wait,
                for_new_nodes: false,
                isolated: wanted.isolated,
            },
        };
        let mut rest = RETRY_MIN;
        // Without a wait first: nobody else's question has to stand behind this one.
        let mut waits = false;
        loop {
            let left = until.saturating_duration_since(now());
            let asked = match waits {
                false => self.client.ask_within(place(Duration::ZERO), QUESTION.min(left + ON_THE_WAY)).await,
                true => Client::new(self.target.clone()).ask_within(place(left), left + ON_THE_WAY).await,
            };
            match asked {
                Ok(placed) => return Ok(placed),
                Err(ControlError::Refused(Refusal::Head(Refused::WaitedInVain { .. }))) if waits || left.is_zero() => {
                    return Err(Unplaced::InVain);
                }
                Err(ControlError::Refused(Refusal::Head(Refused::WaitedInVain { .. }))) => waits = true,
                Err(ControlError::Refused(Refusal::Head(Refused::Repeated { .. }))) => return Err(Unplaced::Over),
                Err(ControlError::Refused(Refusal::Head(refused))) => return Err(Unplaced::Refused(refused.into())),
                Err(error) => {
                    rest_or_give_up(&error, begun, until, &mut rest).await.map_err(Unplaced::Refused)?;
                }
            }
        }
    }

    /// The head is told, however long that takes: until it knows, nobody else has it.
    pub(crate) fn give_back(&self, node: &Node, number: u64) {
        let lease = LeaseId { job: self.job, number };
        self.tell(node, move || ReleaseLease { lease });
    }

    /// Tells the head, as often as it takes.
    fn tell<Q: Question<Answer = ()>>(&self, node: &Node, what: impl Fn() -> Q + Send + 'static) {
        let (client, node_lives) = (Arc::clone(&self.client), node.downgrade());
        node.control_runtime().spawn(async move {
            let (mut rest, question) = (RETRY_MIN, std::any::type_name::<Q>());
            loop {
                match client.ask_within(what(), QUESTION).await {
                    Ok(()) => return,
                    Err(error) if error.is_final() => {
                        return tracing::debug!(question, %error, "nothing was given back");
                    }
                    Err(error) => {
                        tracing::debug!(question, %error, "something is to be given back, and the head is away")
                    }
                }
                if node_lives.upgrade().is_none_or(|node| node.is_closed()) {
                    return;
                }
                tokio::time::sleep(rest).await;
                rest = (rest * 2).min(RETRY_MAX);
            }
        });
    }

    /// The job that keeps the detached actors of this job's program, or the one of that name.
    pub(crate) async fn keeper(&self, of: Option<String>) -> Result<Option<JobId>, PlacementError> {
        let (job, until) = (self.job, now() + QUESTION);
        match of {
            Some(name) => self.ask(|| FindDetached { job, name: name.clone() }, until).await,
            None => self.ask(|| OpenKeeper { job }, until).await.map(Some),
        }
    }

    pub(crate) async fn hold_name(&self, number: u64, name: &str, until: Instant) -> Result<(), PlacementError> {
        self.ask(|| HoldName { job: self.job, number, name: name.to_owned() }, until).await
    }

    /// As [`give_back`](Self::give_back).
    pub(crate) fn release_name(&self, node: &Node, number: u64) {
        let job = self.job;
        self.tell(node, move || ReleaseName { job, number });
    }

    pub(crate) async fn group(&self, group: NewGroup, until: Instant) -> Result<PlacementGroupRow, PlacementError> {
        self.ask(|| CreateGroup { group: group.clone() }, until).await
    }

    pub(crate) async fn remove_group(&self, group: GroupId, until: Instant) -> Result<(), PlacementError> {
        self.ask(|| RemoveGroup { group }, until).await
    }

    pub(crate) async fn nodes(&self) -> Result<Vec<NodeResources>, PlacementError> {
        let rows = self.ask(|| ListNodes { job: self.job }, now() + QUESTION).await?;
        // Nothing is free where nothing new is placed.
        let live = rows.into_iter().filter(|row| row.phase != NodePhase::Down);
        let row = |row: mobula_core::cluster::NodeRow| {
            let available = if row.phase == NodePhase::Up { row.available } else { Default::default() };
            NodeResources::new(row.name, row.total, available, row.labels)
        };
        Ok(live.map(row).collect())
    }

    async fn ask<Q: Question>(&self, question: impl Fn() -> Q, until: Instant) -> Result<Q::Answer, PlacementError> {
        let (begun, mut rest) = (now(), RETRY_MIN);
        loop {
            match self.client.ask_within(question(), QUESTION).await {
                Ok(answer) => return Ok(answer),
                Err(ControlError::Refused(Refusal::Head(refused))) => return Err(refused.into()),
                Err(error) => rest_or_give_up(&error, begun, until, &mut rest).await?,
            }
        }
    }
}

/// A head that is away may come back; what it refuses it refuses again.
async fn rest_or_give_up(
    error: &ControlError,
    begun: Instant,
    until: Instant,
    rest: &mut Duration,
) -> Result<(), PlacementError> {
    let at = now();
    if error.is_final() || at >= until {
        let (waited, reason) = (at.saturating_duration_since(begun), error.to_string());
        return Err(PlacementError::NoHead { waited, reason });
    }
    tracing::debug!(%error, "the head cannot be asked for resources");
    tokio::time::sleep((*rest).min(until - at)).await;
    *rest = (*rest * 2).min(RETRY_MAX);
    Ok(())
}
