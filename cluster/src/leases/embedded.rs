//! A head inside the driver, for clusters that end with it: the decisions of a running cluster's head, about nodes that this process knows.
//!
//! Its nodes have no leases of their own: whether they live, the members say. Nothing is written down, since nothing is left when the driver is gone.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use mobula_actors::{NodeResources, PlacementError};
use mobula_core::cluster::{
    Beat, Executable, ExecutableHash, GroupId, JobId, JobKind, LeaseId, NewGroup, NewJob, Place, Placed,
    PlacementGroupRow, Placing, Refused, Registration, Running, UnixTime, WorkerPolicy,
};
use mobula_core::{LeaseTimes, NodeUid, SplitMix64};
use mobula_head::{Effect, Head, HeadConfig, Moment};
use mobula_transport::now;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Unplaced, Wanted};
use crate::members::Members;
use crate::own_processes::{OwnProcess, OwnProcesses};

/// A head of this process alone.
pub(crate) struct Embedded {
    state: Mutex<State>,
    members: Arc<Mutex<Members>>,
    /// For actors in processes of their own, where this process starts any.
    processes: Option<Arc<OwnProcesses>>,
    begun: Instant,
    changed: watch::Sender<()>,
    own: Weak<Embedded>,
}

struct State {
    head: Head,
    chance: SplitMix64,
    known: BTreeSet<NodeUid>,
}

/// The only job.
const JOB: JobId = JobId(1);

/// Nobody has this uid: the driver may be one of the nodes.
const DRIVER: NodeUid = NodeUid(u64::MAX);

/// Longer than any process lives.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

impl Embedded {
    pub(crate) fn new(members: Arc<Mutex<Members>>, processes: Option<Arc<OwnProcesses>>) -> Arc<Self> {
        let head = Head::new(HeadConfig::new(LeaseTimes::of(NEVER)), 1);
        let state = Mutex::new(State { head, chance: SplitMix64::new(1), known: BTreeSet::new() });
        let (begun, changed) = (now(), watch::Sender::new(()));
        let embedded = Arc::new_cyclic(|own| Embedded { state, members, processes, begun, changed, own: own.clone() });
        let executable = Executable { hash: ExecutableHash([0; 32]), bytes: 0 };
        let job = NewJob {
            request: 1,
            kind: JobKind::Outside { driver: DRIVER },
            entrypoint: "driver".to_owned(),
            executable,
            arguments: Vec::new(),
            environment: std::collections::BTreeMap::new(),
            submitter: "local".to_owned(),
            workers: WorkerPolicy::WhereLeased,
            platform: None,
        };
        if let Err(error) = embedded.decide(|head, moment| head.create_job(job, moment)) {
            tracing::error!(%error, "no job in a new head");
        }
        embedded
    }

    pub(crate) fn job(&self) -> JobId {
        JOB
    }

    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub(crate) async fn take(&self, wanted: &Wanted, until: Instant) -> Result<Placed, Unplaced> {
        if wanted.isolated && self.processes.is_none() {
            let reason = "an isolated actor takes a process of its own, and this cluster has none but its driver's: start node processes with \
                `Cluster::local`, or hosts with `mobula start`";
            return Err(Unplaced::Refused(PlacementError::Bad { reason: reason.to_owned() }));
        }
        let (mut members, mut changes) = (self.members.lock().subscribe(), self.changes());
        loop {
            let place = Place {
                lease: LeaseId { job: JOB, number: wanted.number },
                resources: wanted.resources.clone(),
                strategy: wanted.strategy.clone(),
                near: None,
                wait: until.saturating_duration_since(now()),
                for_new_nodes: false,
                isolated: wanted.isolated,
            };
            match self.decide(|head, moment| head.place(place, moment)) {
                Ok(Placing::Placed(placed)) => return Ok(placed),
                Ok(_) => {}
                Err(Refused::WaitedInVain { .. }) => return Err(Unplaced::InVain),
                Err(Refused::Repeated { .. }) => return Err(Unplaced::Over),
                Err(refused) => return Err(Unplaced::Refused(refused.into())),
            }
            let changed = tokio::time::timeout_at(until.into(), async {
                tokio::select! {
                    _ = changes.changed() => {}
                    _ = members.changed() => {}
                }
            });
            if changed.await.is_err() {
                self.give_back(wanted.number);
                return Err(Unplaced::InVain);
            }
        }
    }

    pub(crate) fn give_back(&self, number: u64) {
        let lease = LeaseId { job: JOB, number };
        if let Err(error) = self.decide(|head, moment| head.release(lease, moment)) {
            tracing::debug!(%lease, %error, "a lease was not given back");
        }
    }

    pub(crate) fn group(&self, group: NewGroup) -> Result<PlacementGroupRow, PlacementError> {
        self.decide(|head, moment| head.create_group(group, moment)).map_err(Into::into)
    }

    pub(crate) fn remove_group(&self, group: GroupId) -> Result<(), PlacementError> {
        self.decide(|head, moment| head.remove_group(group, moment)).map_err(Into::into)
    }

    pub(crate) fn nodes(&self) -> Vec<NodeResources> {
        // Down are only those of which the head has been told, and that it shows without resources.
        let rows = self.decide(|head, moment| head.nodes(moment.now));
        let live = rows.into_iter().filter(|row| row.death.is_none());
        live.map(|row| NodeResources::new(row.name, row.total, row.available, row.labels)).collect()
    }

    /// The process of an isolated actor was reaped.
    pub(crate) fn process_ended(&self, process: NodeUid, reason: &str) {
        self.decide(|head, moment| head.worker_ended(process, reason, true, moment));
    }

    /// Looks at the members whenever they change: with a node go the processes beside it.
    pub(crate) async fn follow_members(head: Weak<Embedded>, mut changes: watch::Receiver<()>) {
        while changes.changed().await.is_ok() {
            let Some(head) = head.upgrade() else { return };
            head.decide(|_, _| ());
        }
    }

    /// Asks the head, which knows the members as they are now.
    fn decide<T>(&self, decide: impl FnOnce(&mut Head, Moment) -> T) -> T {
        let nodes = self.members.lock().nodes();
        let mut state = self.state.lock();
        let State { head, chance, known } = &mut *state;
        let mut moment = || Moment { now: self.begun.elapsed(), unix: UnixTime::now(), chance: chance.bits() };
        for node in nodes {
            let uid = node.id.uid;
            if node.alive && known.insert(uid) {
                let registration = Registration {
                    uid,
                    name: node.id.name.clone(),
                    address: node.address.map(|address| address.to_string()).unwrap_or_default(),
                    resources: node.resources.clone(),
                    labels: node.labels.clone(),
                    cores: node.cpus,
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    architecture: std::env::consts::ARCH.to_owned(),
                    running: Running::default(),
                    replaces: None,
                    number: 0,
                };
                let entered = head.register_node(registration, moment());
                // The first beat makes it one on which something is placed.
                let entered = entered.and_then(|_| head.beat(uid, &Beat::default(), moment()));
                if let Err(error) = entered {
                    tracing::warn!(node = %node.id, %error, "nothing that takes resources is placed on this node");
                }
            } else if !node.alive && known.remove(&uid) {
                head.leave(uid, moment());
            }
        }
        let decided = decide(head, moment());
        let effects = head.take_effects().unwrap_or_default();
        if let Some(processes) = &self.processes {
            // Under the lock, so that the newest comes last.
            let workers = known.iter().filter_map(|node| Some((*node, head.assignment(*node)?.workers)));
            let isolated = workers.flat_map(|(node, workers)| {
                workers
                    .into_iter()
                    .filter_map(move |spec| Some((spec.uid, OwnProcess { node, gpus: spec.isolated?.gpus })))
            });
            processes.reconcile(isolated.collect(), &self.own);
        }
        drop(state);
        let is_news = |effect: &Effect| matches!(effect, Effect::Decided(_) | Effect::JobChanged(_));
        if effects.iter().any(is_news) {
            self.changed.send_replace(());
        }
        decided
    }
}

#[cfg(test)]
mod tests {
    use mobula_core::NodeId;
    use mobula_core::cluster::{Amount, PlaceStrategy, Resources};

    use super::*;
    use crate::members::NodeInfo;

    fn one_node(cpus: u64) -> (NodeInfo, Arc<Mutex<Members>>) {
        let id = NodeId::new("node-1", NodeUid(7));
        let info = NodeInfo::new(id, 0, None, cpus as u32);
        (info.clone(), Arc::new(Mutex::new(Members::new(vec![info]))))
    }

    fn wanted(number: u64, cpus: u64) -> Wanted {
        let resources = Resources::cpus(Amount::units(cpus));
        Wanted { number, resources, strategy: PlaceStrategy::Default, isolated: false }
    }

    #[tokio::test]
    async fn leases_follow_the_members() {
        let (node, members) = one_node(2);
        let head = Embedded::new(Arc::clone(&members), None);
        let soon = now();
        let placed = head.take(&wanted(1, 2), soon).await.ok().expect("it is free");
        assert_eq!(placed.node, node.id.uid);
        assert!(matches!(head.take(&wanted(2, 1), soon).await, Err(Unplaced::InVain)));
        assert!(matches!(head.take(&wanted(3, 3), soon).await, Err(Unplaced::Refused(PlacementError::Infeasible(_)))));
        assert_eq!(head.nodes()[0].available.cpus, Amount::ZERO);
        head.give_back(1);
        assert_eq!(head.nodes()[0].available.cpus, Amount::units(2));
        // What waits is served when something comes back.
        head.take(&wanted(4, 2), soon).await.ok().expect("it is free");
        let five = wanted(5, 1);
        let waits = head.take(&five, now() + Duration::from_secs(60));
        let (waited, ()) = tokio::join!(waits, async { head.give_back(4) });
        assert_eq!(waited.ok().expect("there is room now").lease.number, 5);
        members.lock().down(&node.id);
        assert!(head.nodes().is_empty());
        assert!(matches!(head.take(&five, soon).await, Err(Unplaced::Over)), "its node is gone");
        let isolated = Wanted { isolated: true, ..wanted(6, 0) };
        assert!(matches!(head.take(&isolated, soon).await, Err(Unplaced::Refused(PlacementError::Bad { .. }))));
    }
}
