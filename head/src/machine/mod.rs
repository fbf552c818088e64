//! The head's decisions. One file for each thing it decides about; here is what they share.
mod drivers;
mod groups;
mod isolated;
mod jobs;
mod keepers;
mod nodes;
mod placing;
mod printing;
mod recover;
mod state;
mod views;
mod workers;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use mobula_core::cluster::{GroupId, JobId, LeaseId, Revision, WorkerId};
use mobula_core::codec::EncodeError;
use mobula_core::{NodeUid, SplitMix64};

pub use self::printing::Printer;
use self::state::{Gone, Group, Job, Lease, Node, Slot, Waiting};
use crate::effect::{Changes, Effect, Write};
use crate::records::{self, Key, MetaRecord, NameRecord, WorkerPlace};
use crate::{HeadConfig, Moment};

/// All that the head knows, and what it decides about it.
///
/// Every request is a method. After one or several of them [`take_effects`](Self::take_effects) gives what has to be done, in order, before
/// their answers may leave. A request that is refused has changed nothing of what it was about. Requests that come again, since their answer
/// was lost, have one effect.
#[derive(Debug)]
pub struct Head {
    config: HeadConfig,
    term: u64,
    meta: MetaRecord,
    nodes: BTreeMap<NodeUid, Node>,
    names: BTreeMap<Arc<str>, NodeUid>,
    gone: Gone,
    jobs: BTreeMap<JobId, Job>,
    /// Jobs by submitter and the number of the request.
    requests: BTreeMap<(String, u64), JobId>,
    /// Jobs that are over, the oldest first.
    over: VecDeque<JobId>,
    slots: BTreeMap<WorkerPlace, Slot>,
    workers: BTreeMap<WorkerId, WorkerPlace>,
    groups: BTreeMap<GroupId, Group>,
    leases: BTreeMap<LeaseId, Lease>,
    /// Names of detached actors, by the job that keeps them and the number that it has drawn.
    names_held: BTreeMap<(JobId, u64), NameRecord>,
    /// The other direction.
    detached: BTreeMap<String, (JobId, u64)>,
    /// Requests that wait, in the order in which they came.
    waiting: BTreeMap<u64, Waiting>,
    waiting_by_lease: BTreeMap<LeaseId, u64>,
    next_waiting: u64,
    changes: Changes,
    view: u64,
    /// Jobs whose drivers wait for a node, and groups with bundles that do.
    pending_drivers: BTreeSet<JobId>,
    pending_groups: BTreeSet<GroupId>,
    /// Stirred with every moment's.
    chance: SplitMix64,
    /// Slots that have to be looked at again.
    unsettled: BTreeSet<WorkerPlace>,
    /// Something may have become free since requests that wait were last tried.
    freed: bool,
    /// Nothing happens by itself before.
    due: Duration,
}

impl Head {
    /// A head that knows nothing yet. `term` is the token that fences its writes: larger than that of any head before.
    pub fn new(config: HeadConfig, term: u64) -> Self {
        Head {
            config,
            term,
            meta: MetaRecord::default(),
            nodes: BTreeMap::new(),
            names: BTreeMap::new(),
            gone: Gone::default(),
            jobs: BTreeMap::new(),
            requests: BTreeMap::new(),
            over: VecDeque::new(),
            slots: BTreeMap::new(),
            workers: BTreeMap::new(),
            groups: BTreeMap::new(),
            leases: BTreeMap::new(),
            names_held: BTreeMap::new(),
            detached: BTreeMap::new(),
            waiting: BTreeMap::new(),
            waiting_by_lease: BTreeMap::new(),
            next_waiting: 0,
            changes: Changes::default(),
            view: 1,
            pending_drivers: BTreeSet::new(),
            pending_groups: BTreeSet::new(),
            chance: SplitMix64::new(0),
            unsettled: BTreeSet::new(),
            freed: false,
            due: Duration::MAX,
        }
    }

    /// Its term.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// The number of the state that lists show. Differs whenever that does, but for how busy hosts are and how long nodes are silent.
    pub fn revision(&self) -> Revision {
        Revision { term: self.term, number: self.view }
    }

    /// Does what is due by `moment`. Requests do it as well, first.
    pub fn tick(&mut self, moment: Moment) {
        self.chance = SplitMix64::new(self.chance.bits() ^ moment.chance);
        if moment.now < self.due {
            return;
        }
        self.expire_nodes(moment);
        self.expire_drivers(moment);
        self.expire_waiting(moment);
        self.wake_slots(moment);
        self.wind_up(moment);
        let due = [self.next_of_nodes(), self.next_of_drivers(), self.next_of_waiting(), self.next_of_slots()];
        self.due = due.into_iter().flatten().min().unwrap_or(Duration::MAX);
    }

    /// When [`tick`](Self::tick) may have something to do.
    pub fn next_wakeup(&self) -> Option<Duration> {
        (self.due < Duration::MAX).then_some(self.due)
    }

    /// What has to be done, in order; each is given once.
    ///
    /// # Errors
    /// [`EncodeError`] if a record cannot be written, which its plain data gives no reason for. The head has to end then.
    pub fn take_effects(&mut self) -> Result<Vec<Effect>, EncodeError> {
        let changes = std::mem::take(&mut self.changes);
        let mut effects = Vec::new();
        if !changes.dirty.is_empty() {
            let writes = changes.dirty.iter().map(|key| self.write(*key));
            effects.push(Effect::Persist(writes.collect::<Result<_, _>>()?));
        }
        effects.extend(changes.cut.into_iter().map(Effect::CutOff));
        effects.extend(changes.down.iter().map(|(uid, proof)| Effect::NodeDown { uid: *uid, proof: *proof }));
        effects.extend(changes.nodes.iter().map(|uid| Effect::NodeChanged(*uid)));
        effects.extend(changes.jobs.iter().map(|job| Effect::JobChanged(*job)));
        effects.extend(changes.decided.into_iter().map(Effect::Decided));
        if changes.view || !changes.nodes.is_empty() || !changes.jobs.is_empty() {
            self.view += 1;
            effects.push(Effect::ViewChanged(self.revision()));
        }
        Ok(effects)
    }

    fn write(&self, key: Key) -> Result<Write, EncodeError> {
        let value = match key {
            Key::Meta => Some(records::encode(&self.meta)?),
            Key::Node(uid) => self.nodes.get(&uid).map(|node| records::encode(&node.record)).transpose()?,
            Key::Gone(number) => self.gone.get(number).map(records::encode).transpose()?,
            Key::Job(job) => self.jobs.get(&job).map(|job| records::encode(&job.record)).transpose()?,
            Key::Slot(place) => self.slots.get(&place).map(|slot| records::encode(&slot.record)).transpose()?,
            Key::Group(group) => self.groups.get(&group).map(|group| records::encode(&group.record)).transpose()?,
            Key::Lease(lease) => self.leases.get(&lease).map(|lease| records::encode(&lease.record)).transpose()?,
            Key::Name(job, number) => self.names_held.get(&(job, number)).map(records::encode).transpose()?,
        };
        let key = key.to_string();
        Ok(match value {
            Some(value) => Write::Put { key, value },
            None => Write::Delete { key },
        })
    }

    /// What a request ends with: slots settle, and what waits is tried.
    fn wind_up(&mut self, moment: Moment) {
        loop {
            while let Some(place) = self.unsettled.pop_first() {
                self.settle_slot(place, moment);
            }
            if !std::mem::take(&mut self.freed) {
                break;
            }
            self.serve_waiting();
        }
    }

    /// Something is to happen at `at`.
    fn wake_at(&mut self, at: Duration) {
        self.due = self.due.min(at);
    }

    fn dirty(&mut self, key: Key) {
        self.changes.dirty.insert(key);
    }

    /// What is to run on a node has changed.
    fn touch_node(&mut self, uid: NodeUid) -> u64 {
        let Some(node) = self.nodes.get_mut(&uid) else { return 0 };
        node.assignment += 1;
        self.changes.nodes.insert(uid);
        node.assignment
    }

    /// What a job's driver sees has changed.
    fn touch_job(&mut self, id: JobId) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.view += 1;
            self.changes.jobs.insert(id);
        }
    }

    /// A uid that nothing in the cluster has, or had.
    fn new_uid(&mut self) -> NodeUid {
        loop {
            let uid = NodeUid(self.chance.bits());
            if uid.0 != 0 && !self.uid_is_known(uid) {
                return uid;
            }
        }
    }

    /// A place in 0..=1.
    fn jitter(&mut self) -> f64 {
        (self.chance.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True if something in the cluster has this uid, or had.
    fn uid_is_known(&self, uid: NodeUid) -> bool {
        self.nodes.contains_key(&uid) || self.workers.contains_key(&uid) || self.gone.contains(uid)
    }
}
