//! A head begins where another has ended: from what was written down.

use mobula_core::cluster::{JobKind, LeaseId};
use mobula_core::planted::{self, Bug};

use super::Head;
use super::drivers::DRIVER_LEASE;
use super::isolated::ORDERS_MAX;
use super::state::{Group, Job, Node, Slot};
use crate::records::{
    self, GoneRecord, GroupRecord, JobRecord, Key, LeaseRecord, MetaRecord, NameRecord, NodeRecord, RecordError,
    SlotRecord,
};
use crate::scheduler::ShareRoom;
use crate::{HeadConfig, Moment};

/// The records, told apart.
#[derive(Default)]
struct Read {
    meta: MetaRecord,
    nodes: Vec<NodeRecord>,
    gone: Vec<(u64, GoneRecord)>,
    jobs: Vec<JobRecord>,
    slots: Vec<SlotRecord>,
    groups: Vec<GroupRecord>,
    leases: Vec<LeaseRecord>,
    names: Vec<NameRecord>,
}

impl Head {
    /// A head that goes on with what one before it has written, under a larger `term`. All nodes and drivers have a whole lease to come back:
    /// until then they are as they were, and nothing new is placed on them.
    ///
    /// What was only said and not written is forgotten: who waits asks again, and rests before restarts begin anew.
    ///
    /// # Errors
    /// [`RecordError`] names the record that cannot be read, or does not fit the others. Nothing is written.
    pub fn recover(
        config: HeadConfig,
        term: u64,
        records: impl IntoIterator<Item = (String, Vec<u8>)>,
        moment: Moment,
    ) -> Result<Self, RecordError> {
        let read = read(records)?;
        let mut head = Head::new(config, term);
        head.chance = mobula_core::SplitMix64::new(moment.chance);
        head.meta = read.meta;
        for (number, record) in read.gone {
            head.gone.insert(number, record);
        }
        for record in read.nodes {
            let key = Key::Node(record.uid);
            if head.gone.contains(record.uid) || head.names.insert(record.name.clone(), record.uid).is_some() {
                return Err(RecordError::corrupt(key, "the node is over, or its name belongs to another"));
            }
            // Checked as what comes from a peer: a room is allocated for each GPU.
            record.resources.check().map_err(|error| RecordError::corrupt(key, error))?;
            let mut node = Node::new(record, &config.times, moment.now);
            if planted::is(Bug::NodeForgotten) {
                node.until = moment.now;
            }
            head.nodes.insert(node.record.uid, node);
        }
        for record in read.jobs {
            head.recover_job(record, moment)?;
        }
        for record in read.slots {
            head.recover_slot(record)?;
        }
        for record in read.groups {
            head.recover_group(record)?;
        }
        for record in read.leases {
            head.recover_lease(record)?;
        }
        for record in read.names {
            head.recover_name(record)?;
        }
        let removed: Vec<_> = head.nodes.values().filter(|node| node.record.removed).map(|n| n.record.uid).collect();
        for uid in removed {
            // Its last lease is over when this one would be.
            head.cut_off(uid);
            if let Some(node) = head.nodes.get_mut(&uid) {
                node.lost = true;
            }
        }
        let jobs: Vec<_> = head.jobs.keys().copied().collect();
        for job in jobs {
            head.unsettle_job(job);
            head.finish_job(job, moment);
        }
        head.freed = true;
        head.due = moment.now;
        head.tick(moment);
        Ok(head)
    }

    fn recover_job(&mut self, record: JobRecord, moment: Moment) -> Result<(), RecordError> {
        let id = record.id;
        let corrupt = |reason: &str| Err(RecordError::corrupt(Key::Job(id), reason));
        if id.0 >= self.meta.next_job {
            return corrupt("its number has not been given yet");
        }
        if record.next_order > ORDERS_MAX {
            return corrupt("no job has had so many workers");
        }
        if record.over && record.outcome.is_none() {
            return corrupt("it is over and has no outcome");
        }
        if self.requests.insert((record.submitter.clone(), record.request), id).is_some() {
            return corrupt("another job has the same request");
        }
        let is_on_cluster = matches!(record.kind, JobKind::OnCluster { .. });
        if let Some(node) = record.driver_node.filter(|_| !record.driver_over) {
            let Some(node) = self.nodes.get_mut(&node) else { return corrupt("the node of its driver is not there") };
            node.drivers.insert(id, 1);
        }
        if record.over {
            self.over.push_back(id);
        } else if is_on_cluster && record.driver.is_none() && record.outcome.is_none() {
            self.pending_drivers.insert(id);
        }
        self.jobs.insert(id, Job::new(record, moment.now + self.config.times.lease, moment.now));
        Ok(())
    }

    fn recover_slot(&mut self, record: SlotRecord) -> Result<(), RecordError> {
        let place = record.place();
        let key = Key::Slot(place);
        let (Some(job), Some(node)) = (self.jobs.get_mut(&place.job), self.nodes.get_mut(&place.node)) else {
            return Err(RecordError::corrupt(key, "its job or its node is not there"));
        };
        if job.record.over || record.order >= job.record.next_order {
            return Err(RecordError::corrupt(key, "its job is over, or has not given this order yet"));
        }
        if place.lease.is_some() && record.worker.is_none() {
            return Err(RecordError::corrupt(key, "it is for one process, and has none"));
        }
        job.slots.insert(place);
        node.slots.insert(place);
        if let Some(worker) = record.worker
            && self.workers.insert(worker, place).is_some()
        {
            return Err(RecordError::corrupt(key, "its worker is in another place, too"));
        }
        self.slots.insert(place, Slot::new(record));
        Ok(())
    }

    fn recover_group(&mut self, record: GroupRecord) -> Result<(), RecordError> {
        let id = record.id;
        let corrupt = |reason: &str| Err(RecordError::corrupt(Key::Group(id), reason));
        let Some(job) = self.jobs.get_mut(&id.job).filter(|job| !job.record.over) else {
            return corrupt("its job is not there, or over");
        };
        job.groups.insert(id);
        if record.places.len() != record.bundles.len() {
            return corrupt("it has not one place for each bundle");
        }
        let mut rooms = Vec::new();
        for (at, (bundle, place)) in record.bundles.iter().zip(&record.places).enumerate() {
            let Some(place) = place else {
                rooms.push(None);
                if !record.removed {
                    self.pending_groups.insert(id);
                }
                continue;
            };
            let Some(node) = self.nodes.get_mut(&place.node) else {
                return corrupt("the node of a bundle is not there");
            };
            if !node.room.take_shares(bundle, &place.gpus) {
                return corrupt("its node has not so much");
            }
            node.bundles.insert((id, at as u32));
            rooms.push(Some(ShareRoom::of(bundle, &place.gpus)));
        }
        self.groups.insert(id, Group::new(record, rooms));
        Ok(())
    }

    fn recover_lease(&mut self, record: LeaseRecord) -> Result<(), RecordError> {
        let key = Key::Lease(record.id);
        let LeaseId { job, number } = record.id;
        let job = self.jobs.get(&job).filter(|job| !job.record.over);
        let Some(job) = job else { return Err(RecordError::corrupt(key, "its job is not there, or over")) };
        if number == DRIVER_LEASE && job.record.driver_node != Some(record.node) {
            return Err(RecordError::corrupt(key, "the driver is on another node"));
        }
        if record.isolated && !self.runs(record.worker_place()) {
            return Err(RecordError::corrupt(key, "it has no process"));
        }
        let Some(node) = self.nodes.get_mut(&record.node) else {
            return Err(RecordError::corrupt(key, "its node is not there"));
        };
        let is_taken = match record.bundle {
            None => node.room.take_shares(&record.resources, &record.gpus),
            Some((group, at)) => {
                let room = self.groups.get_mut(&group).and_then(|group| group.rooms.get_mut(at as usize)?.as_mut());
                room.is_some_and(|room| room.take_shares(&record.resources, &record.gpus))
            }
        };
        if !is_taken {
            return Err(RecordError::corrupt(key, "its node or its bundle has not so much"));
        }
        self.hold(record);
        Ok(())
    }

    fn recover_name(&mut self, record: NameRecord) -> Result<(), RecordError> {
        let key = Key::Name(record.keeper, record.number);
        if self.jobs.get(&record.keeper).is_none_or(|job| job.record.over || !job.record.keeper) {
            return Err(RecordError::corrupt(key, "the job that keeps it is not there, or over"));
        }
        if self.detached.contains_key(&record.name) {
            return Err(RecordError::corrupt(key, "another detached actor has the same name"));
        }
        self.enter_name(record);
        Ok(())
    }
}

fn read(records: impl IntoIterator<Item = (String, Vec<u8>)>) -> Result<Read, RecordError> {
    let mut read = Read::default();
    for (text, bytes) in records {
        let wrong = || RecordError::corrupt(&text, "there is no such record, or it says that it is another");
        let known = Key::parse(&text).ok_or_else(wrong)?;
        let names = match known {
            Key::Meta => {
                read.meta = records::decode(&text, &bytes)?;
                known
            }
            Key::Node(_) => {
                let record: NodeRecord = records::decode(&text, &bytes)?;
                let names = Key::Node(record.uid);
                read.nodes.push(record);
                names
            }
            Key::Gone(number) => {
                read.gone.push((number, records::decode(&text, &bytes)?));
                known
            }
            Key::Job(_) => {
                let record: JobRecord = records::decode(&text, &bytes)?;
                let names = Key::Job(record.id);
                read.jobs.push(record);
                names
            }
            Key::Slot(..) => {
                let record: SlotRecord = records::decode(&text, &bytes)?;
                let names = Key::Slot(record.place());
                read.slots.push(record);
                names
            }
            Key::Group(_) => {
                let record: GroupRecord = records::decode(&text, &bytes)?;
                let names = Key::Group(record.id);
                read.groups.push(record);
                names
            }
            Key::Lease(_) => {
                let record: LeaseRecord = records::decode(&text, &bytes)?;
                let names = Key::Lease(record.id);
                read.leases.push(record);
                names
            }
            Key::Name(..) => {
                let record: NameRecord = records::decode(&text, &bytes)?;
                let names = Key::Name(record.keeper, record.number);
                read.names.push(record);
                names
            }
        };
        if names != known {
            return Err(wrong());
        }
    }
    let MetaRecord { next_job, next_gone, next_joined } = read.meta;
    if next_job.max(next_gone).max(next_joined) > u64::MAX / 2 {
        return Err(RecordError::corrupt(Key::Meta, "nothing has been counted so far"));
    }
    // The machine's order, whatever the store's.
    read.nodes.sort_by_key(|node| node.joined);
    read.gone.sort_by_key(|(number, _)| *number);
    read.jobs.sort_by_key(|job| (job.ended, job.id));
    Ok(read)
}
