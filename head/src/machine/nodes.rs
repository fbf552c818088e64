//! Nodes come, live, and go for ever.

use std::time::Duration;

use mobula_core::cluster::{
    Assignment, BadFlag, Beat, BeatAnswer, DeathProof, HeadTime, JobId, JobPhase, Launch, NodePhase, Refused,
    Registered, Registration, Revision,
};
use mobula_core::planted::{self, Bug};
use mobula_core::{NodeUid, limits};

use super::Head;
use super::state::Node;
use crate::Moment;
use crate::records::{GoneRecord, Key, NodeRecord};

impl Head {
    /// A node enters the cluster, or comes back to a head that was away: the same uid is the same life, and keeps what it had. A registration
    /// that comes late or again, after something newer, is answered and has no effect, as a heartbeat.
    ///
    /// # Errors
    /// [`Refused::Gone`] and [`Refused::LeaseOver`]: this life is over. [`Refused::NameInUse`], [`Refused::UidInUse`],
    /// [`Refused::Full`], [`Refused::TooLong`], [`Refused::Bad`].
    pub fn register_node(&mut self, registration: Registration, moment: Moment) -> Result<Registered, Refused> {
        self.tick(moment);
        let uid = registration.uid;
        self.check_life(uid)?;
        let is_news = match self.nodes.get_mut(&uid) {
            Some(node) => node.hears(registration.number),
            None => true,
        };
        if is_news {
            if self.nodes.contains_key(&uid) {
                self.come_back(&registration, moment)?;
            } else {
                self.enter(&registration, moment)?;
            }
            self.node_says(uid, &registration.running, moment);
            self.freed = true;
        }
        self.wind_up(moment);
        let assignment = self.assignment(uid).ok_or(Refused::NotRegistered { uid })?;
        Ok(Registered { assignment, times: self.config.times, at: self.head_time(moment) })
    }

    /// A node lives. Prolongs its lease. A heartbeat that comes late or again, after a newer one, is answered and has no effect: what it says was
    /// true once, and nobody knows when.
    ///
    /// # Errors
    /// [`Refused::Gone`] and [`Refused::LeaseOver`]: this life is over. [`Refused::NotRegistered`]: the node registers again.
    pub fn beat(&mut self, uid: NodeUid, beat: &Beat, moment: Moment) -> Result<BeatAnswer, Refused> {
        self.tick(moment);
        self.check_life(uid)?;
        let (term, times) = (self.term, self.config.times);
        let Some(node) = self.nodes.get_mut(&uid) else { return Err(Refused::NotRegistered { uid }) };
        if !node.hears(beat.number) {
            self.wind_up(moment);
            return Ok(BeatAnswer { at: self.head_time(moment), assignment: self.assignment_revision(uid) });
        }
        node.has_heard(beat.heard, term, moment.now);
        // Whoever hears no answer has no lease: a connection that works in one direction only is none.
        if moment.now.saturating_sub(node.heard) > times.lease {
            self.lose(uid);
            return Err(Refused::LeaseOver { uid });
        }
        node.until = moment.now + times.lease;
        node.last = moment.now;
        node.used = beat.used;
        if !node.announced || node.suspect {
            node.announced = true;
            node.suspect = false;
            self.changes.view = true;
            self.freed = true;
            self.unsettle_node(uid);
        }
        self.node_says(uid, &beat.running, moment);
        self.wind_up(moment);
        Ok(BeatAnswer { at: self.head_time(moment), assignment: self.assignment_revision(uid) })
    }

    /// A node says that nothing runs on it any more, and goes. What it had is free at once; this life is over. One that is not known has
    /// nothing to leave.
    pub fn leave(&mut self, uid: NodeUid, moment: Moment) {
        self.tick(moment);
        self.node_down(uid, DeathProof::Reaped, moment);
        self.wind_up(moment);
    }

    /// A node is to take nothing new and to leave after `deadline`: until then its workers go on, then they end, and jobs whose
    /// drivers run on it fail. Asking again can only bring the deadline nearer. A head that comes back while a node drains gives it the whole time again.
    ///
    /// # Errors
    /// [`Refused::NoSuchNode`].
    pub fn drain(&mut self, uid: NodeUid, deadline: Duration, moment: Moment) -> Result<(), Refused> {
        self.tick(moment);
        let node = self.nodes.get_mut(&uid).ok_or(Refused::NoSuchNode { uid })?;
        let until = moment.now.saturating_add(deadline);
        let until = node.drain_until.map_or(until, |before| before.min(until));
        node.drain_until = Some(until);
        if node.record.drain.is_none_or(|before| deadline < before) {
            node.record.drain = Some(deadline);
            self.dirty(Key::Node(uid));
            self.touch_node(uid);
        }
        self.unsettle_node(uid);
        self.wake_at(until);
        self.wind_up(moment);
        Ok(())
    }

    /// A node is to go at once: it is cut off with all that runs on it, its lease is not renewed, and what it had is free when that is over.
    /// Nobody comes back under this uid.
    ///
    /// # Errors
    /// [`Refused::NoSuchNode`], also for one that is down.
    pub fn remove(&mut self, uid: NodeUid, moment: Moment) -> Result<(), Refused> {
        self.tick(moment);
        let node = self.nodes.get_mut(&uid).ok_or(Refused::NoSuchNode { uid })?;
        if !node.record.removed {
            node.record.removed = true;
            self.dirty(Key::Node(uid));
        }
        self.cut_off(uid);
        self.lose(uid);
        self.wind_up(moment);
        Ok(())
    }

    /// Nobody is to talk to a node any more, nor to the processes of jobs on it.
    pub(super) fn cut_off(&mut self, uid: NodeUid) {
        let Some(node) = self.nodes.get(&uid) else { return };
        let workers = node.slots.iter().filter_map(|place| self.slots.get(place)?.record.worker);
        let drivers = node.drivers.keys().filter_map(|job| self.jobs.get(job)?.record.driver);
        self.changes.cut.extend(workers.chain(drivers).chain([uid]));
    }

    /// What is to run on a node; none if it is not known or is over.
    pub fn assignment(&self, uid: NodeUid) -> Option<Assignment> {
        let node = self.nodes.get(&uid)?;
        let mut assignment = Assignment {
            revision: Revision { term: self.term, number: node.assignment },
            workers: Vec::new(),
            drivers: Vec::new(),
            fenced: node.lost,
            draining: node.record.drain.is_some(),
        };
        if !node.lost {
            assignment.workers = node.slots.iter().filter_map(|place| self.worker_spec(*place)).collect();
            assignment.drivers = node.drivers.keys().filter_map(|job| self.driver_spec(*job)).collect();
        }
        Some(assignment)
    }

    /// What the processes of a job are started with, for a node on which one is to run; none for any other.
    pub fn launch(&self, uid: NodeUid, job: JobId) -> Option<Launch> {
        let node = self.nodes.get(&uid).filter(|node| !node.lost)?;
        let works = || node.slots.iter().any(|place| place.job == job && self.worker_spec(*place).is_some());
        let drives = || node.drivers.contains_key(&job) && self.driver_spec(job).is_some();
        if !works() && !drives() {
            return None;
        }
        let record = &self.jobs.get(&job)?.record;
        Some(Launch { arguments: record.arguments.clone(), environment: record.environment.clone() })
    }

    fn assignment_revision(&self, uid: NodeUid) -> Revision {
        Revision { term: self.term, number: self.nodes.get(&uid).map_or(0, |node| node.assignment) }
    }

    fn head_time(&self, moment: Moment) -> HeadTime {
        HeadTime { term: self.term, at: moment.now }
    }

    fn check_life(&self, uid: NodeUid) -> Result<(), Refused> {
        if self.gone.contains(uid) && !planted::is(Bug::GoneForgotten) {
            return Err(Refused::Gone { uid });
        }
        match self.nodes.get(&uid) {
            Some(node) if node.record.removed => Err(Refused::Gone { uid }),
            Some(node) if node.lost => Err(Refused::LeaseOver { uid }),
            _ => Ok(()),
        }
    }

    fn enter(&mut self, new: &Registration, moment: Moment) -> Result<(), Refused> {
        check(new)?;
        if self.uid_is_known(new.uid) && !planted::is(Bug::GoneForgotten) {
            return Err(Refused::UidInUse { uid: new.uid });
        }
        let holder = self.names.get(&new.name).copied();
        if holder.is_none() && self.nodes.len() >= limits::NODES_MAX {
            return Err(Refused::Full { what: "nodes".to_owned(), limit: limits::NODES_MAX as u64 });
        }
        if let Some(holder) = holder {
            if new.replaces != Some(holder) {
                let node = self.nodes.get(&holder);
                let until = node.map_or(Duration::ZERO, |node| node.until + self.config.times.margin);
                let retry_after = until.saturating_sub(moment.now);
                let address = node.map(|node| node.record.address.clone()).unwrap_or_default();
                return Err(Refused::NameInUse { name: new.name.clone(), holder, retry_after, address });
            }
            self.node_down(holder, DeathProof::Reaped, moment);
        }
        let record = NodeRecord {
            uid: new.uid,
            name: new.name.clone(),
            address: new.address.clone(),
            resources: new.resources.clone(),
            labels: new.labels.clone(),
            cores: new.cores,
            version: new.version.clone(),
            architecture: new.architecture.clone(),
            joined: self.meta.next_joined,
            since: moment.unix,
            drain: None,
            removed: false,
        };
        self.meta.next_joined += 1;
        self.dirty(Key::Meta);
        self.dirty(Key::Node(new.uid));
        self.names.insert(new.name.clone(), new.uid);
        let mut node = Node::new(record, &self.config.times, moment.now);
        node.hears(new.number);
        self.nodes.insert(new.uid, node);
        self.touch_node(new.uid);
        self.unsettle_node(new.uid);
        self.wake_at(moment.now + self.config.times.suspect_after);
        Ok(())
    }

    fn come_back(&mut self, again: &Registration, moment: Moment) -> Result<(), Refused> {
        let Some(node) = self.nodes.get_mut(&again.uid) else { return Ok(()) };
        if again.address.len() > limits::NAME_BYTES_MAX {
            return Err(too_long("the address", again.address.len(), limits::NAME_BYTES_MAX));
        }
        if node.record.name != again.name || node.record.resources != again.resources {
            return Err(Refused::UidInUse { uid: again.uid });
        }
        (node.last, node.heard, node.until) = (moment.now, moment.now, moment.now + self.config.times.lease);
        node.suspect = false;
        node.announced = true;
        if node.record.address != again.address {
            node.record.address.clone_from(&again.address);
            self.dirty(Key::Node(again.uid));
            let slots = self.nodes.get(&again.uid).map(|node| node.slots.clone()).unwrap_or_default();
            slots.into_iter().for_each(|place| self.touch_job(place.job));
        }
        self.changes.view = true;
        self.unsettle_node(again.uid);
        Ok(())
    }

    /// Its lease is not renewed any more. What it has stays taken until it is known to be over.
    fn lose(&mut self, uid: NodeUid) {
        let Some(node) = self.nodes.get_mut(&uid) else { return };
        if !std::mem::replace(&mut node.lost, true) {
            let until = node.until + self.config.times.margin;
            self.touch_node(uid);
            self.unsettle_node(uid);
            self.wake_at(until);
        }
    }

    pub(super) fn expire_nodes(&mut self, moment: Moment) {
        let times = self.config.times;
        let margin = if planted::is(Bug::NodeDownEarly) { Duration::ZERO } else { times.margin };
        let (mut over, mut lost, mut drained) = (Vec::new(), Vec::new(), Vec::new());
        for (uid, node) in &mut self.nodes {
            let early = planted::is(Bug::NodeDownEarly) && moment.now >= node.last + times.suspect_after;
            if moment.now >= node.until + margin || early {
                over.push(*uid);
            } else if moment.now >= node.until && !node.lost {
                lost.push(*uid);
            } else if moment.now >= node.last + times.suspect_after && !node.suspect {
                node.suspect = true;
                self.changes.view = true;
            }
            if !node.drain_over && node.drain_until.is_some_and(|until| moment.now >= until) {
                node.drain_over = true;
                drained.push(*uid);
            }
        }
        over.into_iter().for_each(|uid| self.node_down(uid, DeathProof::Silence, moment));
        lost.into_iter().for_each(|uid| self.lose(uid));
        for uid in drained {
            self.unsettle_node(uid);
            let drivers = self.nodes.get(&uid).map(|node| node.drivers.keys().copied().collect::<Vec<_>>());
            for job in drivers.unwrap_or_default() {
                let reason = "the node of its driver was drained".to_owned();
                self.end_job(job, JobPhase::Failed { reason }, moment);
            }
        }
    }

    pub(super) fn next_of_nodes(&self) -> Option<Duration> {
        let times = self.config.times;
        let next = |node: &Node| {
            let suspect = (!node.suspect).then_some(node.last + times.suspect_after);
            let end = if node.lost { node.until + times.margin } else { node.until };
            let next = suspect.map_or(end, |suspect| suspect.min(end));
            match node.drain_until {
                Some(drain) if !node.drain_over => next.min(drain),
                _ => next,
            }
        };
        self.nodes.values().map(next).min()
    }

    /// A node is over: nobody answers for what it had.
    pub(super) fn node_down(&mut self, uid: NodeUid, proof: DeathProof, moment: Moment) {
        let Some(node) = self.nodes.get(&uid) else {
            // One that says so before it has registered.
            return;
        };
        let leases: Vec<_> = node.leases.iter().copied().collect();
        let bundles: Vec<_> = node.bundles.iter().copied().collect();
        let drivers: Vec<_> = node.drivers.keys().copied().collect();
        let slots: Vec<_> = node.slots.iter().copied().collect();
        for lease in leases {
            self.end_lease(lease);
        }
        bundles.into_iter().for_each(|(group, bundle)| self.lose_bundle(group, bundle));
        let Some(node) = self.nodes.remove(&uid) else { return };
        slots.iter().for_each(|place| self.drop_slot(*place));
        if self.names.get(&node.record.name) == Some(&uid) {
            self.names.remove(&node.record.name);
        }
        let record = GoneRecord { uid, name: node.record.name.clone(), at: moment.unix, proof };
        let number = self.meta.next_gone;
        self.meta.next_gone += 1;
        if let Some(forgotten) = self.gone.insert(number, record) {
            self.dirty(Key::Gone(forgotten));
        }
        self.dirty(Key::Meta);
        self.dirty(Key::Gone(number));
        self.dirty(Key::Node(uid));
        self.changes.down.push((uid, proof));
        self.changes.nodes.insert(uid);
        for job in drivers {
            let reason = format!("the node {} of its driver is lost", node.record.name);
            self.driver_is_over(job, Some(reason), moment);
        }
        for place in slots {
            self.finish_job(place.job, moment);
        }
        self.freed = true;
    }

    /// How a node is doing; none if it is not known.
    pub fn phase_of(&self, uid: NodeUid) -> Option<NodePhase> {
        match self.nodes.get(&uid) {
            Some(node) => Some(node.phase()),
            None => self.gone.contains(uid).then_some(NodePhase::Down),
        }
    }
}

fn too_long(what: &str, bytes: usize, limit: usize) -> Refused {
    Refused::TooLong { what: what.to_owned(), bytes: bytes as u64, limit: limit as u64 }
}

fn check(new: &Registration) -> Result<(), Refused> {
    let limit = limits::NAME_BYTES_MAX;
    let texts = [
        ("the name", new.name.len()),
        ("the address", new.address.len()),
        ("the version", new.version.len()),
        ("the architecture", new.architecture.len()),
    ];
    if let Some((what, bytes)) = texts.into_iter().find(|(_, bytes)| *bytes > limit) {
        return Err(too_long(what, bytes, limit));
    }
    if new.name.is_empty() {
        return Err(BadFlag::new("--name", "", "it is empty", "names such as node-1").into());
    }
    new.resources.check()?;
    if !new.resources.gpus.is_whole() {
        let valid = "a whole number of GPUs";
        return Err(BadFlag::new("--num-gpus", &new.resources.gpus.to_string(), "a node has whole GPUs", valid).into());
    }
    new.labels.check("--labels")?;
    Ok(())
}
