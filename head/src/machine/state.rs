//! What the head keeps of each thing: its record, which is written down, and what is forgotten with the process.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use mobula_core::NodeUid;
use mobula_core::cluster::{
    GroupId, HeadTime, JobId, JobPhase, LeaseId, NodePhase, Place, Resources, Usage, WorkerId, WorkerPhase,
};
use mobula_core::planted::{self, Bug};
use mobula_core::{LeaseTimes, codec, limits};

use crate::records::{GoneRecord, GroupRecord, JobRecord, LeaseRecord, NodeRecord, SlotRecord, WorkerPlace};
use crate::scheduler::{Candidate, Room, ShareRoom};

/// A node that is not over.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) record: NodeRecord,
    pub(super) room: Room,
    /// It was last heard then, or the head began.
    pub(super) last: Duration,
    /// It may believe in its lease up to here.
    pub(super) until: Duration,
    /// The newest of the head's answers that is known to have arrived.
    pub(super) heard: Duration,
    /// The number of the newest registration or heartbeat that has come to this head.
    newest: u64,
    /// Its lease is not renewed any more.
    pub(super) lost: bool,
    /// It has been heard by this head.
    pub(super) announced: bool,
    /// What lists show, to tell a change.
    pub(super) suspect: bool,
    pub(super) drain_until: Option<Duration>,
    pub(super) drain_over: bool,
    pub(super) used: Usage,
    pub(super) assignment: u64,
    /// Of workers that are here, or may come back here.
    pub(super) slots: BTreeSet<WorkerPlace>,
    pub(super) leases: BTreeSet<LeaseId>,
    /// Bundles of groups that are here.
    pub(super) bundles: BTreeSet<(GroupId, u32)>,
    /// The driver of a job that is to run here, and since which assignment.
    pub(super) drivers: BTreeMap<JobId, u64>,
}

impl Node {
    pub(super) fn new(record: NodeRecord, times: &LeaseTimes, now: Duration) -> Self {
        let room = Room::of(&record.resources);
        let drain_until = record.drain.map(|drain| now.saturating_add(drain));
        Node {
            record,
            room,
            last: now,
            until: now + times.lease,
            heard: now,
            newest: 0,
            lost: false,
            announced: false,
            suspect: false,
            drain_until,
            drain_over: false,
            used: Usage::default(),
            assignment: 1,
            slots: BTreeSet::new(),
            leases: BTreeSet::new(),
            bundles: BTreeSet::new(),
            drivers: BTreeMap::new(),
        }
    }

    pub(super) fn phase(&self) -> NodePhase {
        if self.lost || self.suspect {
            NodePhase::Suspect
        } else if self.record.drain.is_some() {
            NodePhase::Draining
        } else if self.announced {
            NodePhase::Up
        } else {
            NodePhase::Joining
        }
    }

    /// Something new may be placed on it.
    pub(super) fn takes_new(&self) -> bool {
        self.phase() == NodePhase::Up
    }

    /// Something new might be placed on it, now or later.
    pub(super) fn has_a_future(&self) -> bool {
        !self.lost && self.record.drain.is_none() && !self.record.removed
    }

    /// It can start what the program of that job was built for.
    pub(super) fn starts(&self, job: &JobRecord) -> bool {
        job.platform.as_ref().is_none_or(|program| program.runs_on(&self.record.architecture))
    }

    pub(super) fn candidate(&self) -> Candidate<'_> {
        Candidate {
            uid: self.record.uid,
            joined: self.record.joined,
            total: &self.record.resources,
            room: &self.room,
            leases: self.leases.len(),
        }
    }

    /// Its isolated workers are fewer than it may have.
    pub(super) fn takes_isolated(&self) -> bool {
        let isolated = self.slots.iter().filter(|place| place.lease.is_some()).count();
        isolated < limits::ISOLATED_WORKERS_MAX || planted::is(Bug::IsolatedUncounted)
    }

    /// It has said something, the `number`th of its life. False if that is a copy that was late or repeated: it was true once, and nobody
    /// knows when.
    pub(super) fn hears(&mut self, number: u64) -> bool {
        let is_news = number == 0 || number > self.newest || planted::is(Bug::OldIsNews);
        self.newest = self.newest.max(number);
        is_news
    }

    /// The head's answer at `heard` has arrived.
    pub(super) fn has_heard(&mut self, heard: Option<HeadTime>, term: u64, now: Duration) {
        let of_this_term = heard.filter(|heard| heard.term == term && heard.at <= now);
        self.heard = self.heard.max(of_this_term.map_or(Duration::ZERO, |heard| heard.at));
    }
}

/// A job.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) record: JobRecord,
    pub(super) view: u64,
    /// For a driver outside: its lease.
    pub(super) driver_until: Duration,
    pub(super) slots: BTreeSet<WorkerPlace>,
    pub(super) leases: BTreeSet<LeaseId>,
    pub(super) groups: BTreeSet<GroupId>,
    pub(super) past: Past,
    pub(super) past_groups: Past,
    /// The numbers of names that were given back.
    pub(super) past_names: Past,
    /// When somebody was last about to have a detached actor of it, or had one.
    pub(super) used: Duration,
}

impl Job {
    pub(super) fn new(record: JobRecord, driver_until: Duration, now: Duration) -> Self {
        Job {
            record,
            view: 1,
            driver_until,
            slots: BTreeSet::new(),
            leases: BTreeSet::new(),
            groups: BTreeSet::new(),
            past: Past::default(),
            past_groups: Past::default(),
            past_names: Past::default(),
            used: now,
        }
    }

    pub(super) fn phase(&self) -> JobPhase {
        match &self.record.outcome {
            Some(outcome) if self.record.over => outcome.clone(),
            Some(_) => JobPhase::Stopping,
            None if self.record.driver.is_none() => JobPhase::Pending,
            None => JobPhase::Running,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.record.outcome.is_none() && self.record.driver.is_some()
    }
}

/// The place of a job's worker.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) record: SlotRecord,
    /// The assignment that has had the worker first, or has had it no more.
    pub(super) assigned: u64,
    /// The worker is to run. False: it is to end, and has not.
    pub(super) wanted: bool,
    pub(super) phase: WorkerPhase,
    pub(super) ready_since: Option<Duration>,
    pub(super) pid: Option<u32>,
    pub(super) restarts: u32,
    /// Ends in a row, and the rest that follows from them.
    pub(super) failures: u32,
    pub(super) rest_until: Duration,
    pub(super) last: Option<WorkerId>,
}

impl Slot {
    pub(super) fn new(record: SlotRecord) -> Self {
        let last = record.worker;
        Slot {
            record,
            assigned: 1,
            wanted: true,
            phase: WorkerPhase::Starting,
            ready_since: None,
            pid: None,
            restarts: 0,
            failures: 0,
            rest_until: Duration::ZERO,
            last,
        }
    }
}

/// What bundles take where they are written down.
pub(super) fn bytes_of(bundles: &[Resources]) -> usize {
    codec::encode(bundles).map_or(usize::MAX, |bytes| bytes.len())
}

/// A placement group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) record: GroupRecord,
    /// What its bundles take where they are written down.
    bytes: usize,
    /// What of each bundle is free, if it has a place.
    pub(super) rooms: Vec<Option<ShareRoom>>,
}

impl Group {
    pub(super) fn new(record: GroupRecord, rooms: Vec<Option<ShareRoom>>) -> Self {
        Group { bytes: bytes_of(&record.bundles), record, rooms }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A lease.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) record: LeaseRecord,
}

/// A request that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) place: Place,
    pub(super) until: Duration,
}

/// What became of a job's leases that are over.
#[derive(Debug, Default)]
pub(super) struct Past {
    ends: BTreeMap<u64, PastEnd>,
    /// The oldest first.
    order: VecDeque<u64>,
}

/// How a lease, or a request for one, ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum PastEnd {
    Released,
    WaitedInVain,
    /// The process of an isolated lease has, in this way.
    ProcessEnded(String),
}

impl Past {
    pub(super) fn insert(&mut self, number: u64, end: PastEnd) {
        if self.ends.insert(number, end).is_none() {
            self.order.push_back(number);
        }
        if self.order.len() > limits::PAST_LEASES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ends.remove(&oldest);
        }
    }

    pub(super) fn get(&self, number: u64) -> Option<PastEnd> {
        self.ends.get(&number).cloned()
    }
}

/// The lives that are over. The latest of them: one that is forgotten has long ended itself, for nobody has renewed its lease.
#[derive(Debug, Default)]
pub(super) struct Gone {
    by_number: BTreeMap<u64, GoneRecord>,
    uids: BTreeMap<NodeUid, u64>,
}

impl Gone {
    /// Gives the number that is forgotten for it.
    pub(super) fn insert(&mut self, number: u64, record: GoneRecord) -> Option<u64> {
        self.uids.insert(record.uid, number);
        self.by_number.insert(number, record);
        if self.by_number.len() <= limits::GONE_NODES_MAX {
            return None;
        }
        let (oldest, record) = self.by_number.pop_first()?;
        self.uids.remove(&record.uid);
        Some(oldest)
    }

    pub(super) fn get(&self, number: u64) -> Option<&GoneRecord> {
        self.by_number.get(&number)
    }

    pub(super) fn contains(&self, uid: NodeUid) -> bool {
        self.uids.contains_key(&uid)
    }

    /// The latest first.
    pub(super) fn latest(&self) -> impl Iterator<Item = &GoneRecord> {
        self.by_number.values().rev()
    }
}
