//! Leases on resources: given, waited for, and taken back.

use std::time::Duration;

use mobula_core::cluster::{
    GroupId, Infeasible, JobId, LeaseId, Place, PlaceStrategy, Placed, Placing, Platform, Refused, Resources,
    Shortfall, WhyNot,
};
use mobula_core::planted::{self, Bug};
use mobula_core::{NodeUid, limits};

use super::Head;
use super::drivers::DRIVER_LEASE;
use super::state::{Lease, Node, PastEnd, Waiting};
use crate::Moment;
use crate::records::{Key, LeaseRecord};
use crate::scheduler::pick;

/// A bundle of a group.
pub(super) type Bundle = Option<(GroupId, u32)>;

impl Head {
    /// Gives a job resources of a node, or has it wait. Asking again with the same id is how one that waits learns what became of it, and
    /// how one whose answer was lost learns it again.
    ///
    /// # Errors
    /// [`Refused::Infeasible`] if no node can ever give it, unless new ones are waited for; [`Refused::WaitedInVain`] after its time, or
    /// at once without one; [`Refused::Repeated`] for a lease that is over; [`Refused::OtherRequest`],
    /// [`Refused::JobEnded`], [`Refused::NoSuchJob`], [`Refused::NoSuchGroup`], [`Refused::NoSuchBundle`],
    /// [`Refused::BundleTooSmall`], [`Refused::Full`], [`Refused::Bad`]; [`Refused::ProcessEnded`] for an isolated lease whose process has.
    pub fn place(&mut self, place: Place, moment: Moment) -> Result<Placing, Refused> {
        self.tick(moment);
        let id = place.lease;
        let job = self.jobs.get(&id.job).ok_or(Refused::NoSuchJob { job: id.job })?;
        if let Some(lease) = self.leases.get(&id) {
            let record = &lease.record;
            let is_same = record.resources == place.resources && record.isolated == place.isolated;
            return match is_same && id.number != DRIVER_LEASE {
                true if record.released => Err(Refused::Repeated { lease: id }),
                true => Ok(Placing::Placed(self.placed(record))),
                false => Err(Refused::OtherRequest),
            };
        }
        match job.past.get(id.number) {
            Some(PastEnd::ProcessEnded(reason)) => return Err(Refused::ProcessEnded { lease: id, reason }),
            Some(PastEnd::Released) => return Err(Refused::Repeated { lease: id }),
            Some(PastEnd::WaitedInVain) => return Err(Refused::WaitedInVain { lease: id }),
            None => {}
        }
        if !job.is_running() {
            return Err(Refused::JobEnded { job: id.job });
        }
        if self.waiting_by_lease.contains_key(&id) {
            return Ok(Placing::Waiting);
        }
        self.check_place(&place)?;
        if let Some((node, bundle)) = self.find_room(&place)
            && let Some(placed) = self.grant(&place, node, bundle)
        {
            self.wind_up(moment);
            return Ok(Placing::Placed(placed));
        }
        if !place.for_new_nodes
            && let Some(why) = self.infeasible(&place.resources, &place.strategy, self.platform_of(id.job))
        {
            return Err(Refused::Infeasible(Box::new(why)));
        }
        if place.wait.is_zero() {
            return Err(Refused::WaitedInVain { lease: id });
        }
        if self.waiting.len() >= limits::PLACES_WAITING_MAX {
            let limit = limits::PLACES_WAITING_MAX as u64;
            return Err(Refused::Full { what: "requests that wait".to_owned(), limit });
        }
        let until = moment.now.saturating_add(place.wait);
        self.waiting.insert(self.next_waiting, Waiting { place, until });
        self.waiting_by_lease.insert(id, self.next_waiting);
        self.next_waiting += 1;
        self.changes.view = true;
        self.wake_at(until);
        Ok(Placing::Waiting)
    }

    /// Gives a lease back, or stops waiting for it. The number is used up, also if its request is still on its way. What an isolated lease had is free when its
    /// process was reaped.
    ///
    /// # Errors
    /// [`Refused::NoSuchJob`]: then it is over as well.
    pub fn release(&mut self, id: LeaseId, moment: Moment) -> Result<(), Refused> {
        self.tick(moment);
        if id.number == DRIVER_LEASE {
            return Err(Refused::OtherRequest);
        }
        let job = self.jobs.get_mut(&id.job).ok_or(Refused::NoSuchJob { job: id.job })?;
        job.past.insert(id.number, PastEnd::Released);
        self.stop_waiting(id);
        if !self.release_isolated(id) || planted::is(Bug::IsolatedRoomEarly) {
            self.end_lease(id);
        }
        self.wind_up(moment);
        Ok(())
    }

    fn check_place(&self, place: &Place) -> Result<(), Refused> {
        place.resources.check()?;
        if place.lease.number == DRIVER_LEASE {
            return Err(Refused::OtherRequest);
        }
        self.check_isolated(place)?;
        if self.leases.len() >= limits::LEASES_MAX {
            return Err(Refused::Full { what: "leases".to_owned(), limit: limits::LEASES_MAX as u64 });
        }
        match &place.strategy {
            PlaceStrategy::Labels { selector, .. } if selector.len() > limits::LABELS_MAX => {
                let limit = limits::LABELS_MAX as u64;
                Err(Refused::TooLong { what: "a selector of labels".to_owned(), bytes: selector.len() as u64, limit })
            }
            PlaceStrategy::Group { group, bundle } => {
                let known =
                    self.groups.get(group).filter(|known| group.job == place.lease.job && !known.record.removed);
                let bundles = &known.ok_or(Refused::NoSuchGroup { group: *group })?.record.bundles;
                let these = match bundle {
                    None => &bundles[..],
                    Some(at) => bundles
                        .get(*at as usize)
                        .map(std::slice::from_ref)
                        .ok_or(Refused::NoSuchBundle { group: *group, bundles: bundles.len() as u32 })?,
                };
                let can = these.iter().any(|bundle| bundle.fits(&place.resources));
                if can { Ok(()) } else { Err(Refused::BundleTooSmall { group: *group }) }
            }
            _ => Ok(()),
        }
    }

    /// A node that has room now.
    pub(super) fn find_room(&self, place: &Place) -> Option<(NodeUid, Bundle)> {
        let (asked, near) = (&place.resources, place.near);
        let job = &self.jobs.get(&place.lease.job)?.record;
        let takes = |node: &&Node| node.takes_new() && node.starts(job) && Self::takes_process(place, node);
        let open = || self.nodes.values().filter(takes);
        let pick_of = |spread| pick(open().map(Node::candidate), asked, spread, near);
        let node = match &place.strategy {
            PlaceStrategy::Spread => pick_of(true),
            PlaceStrategy::Node { node, soft } => {
                let wished = open().filter(|open| open.record.uid == *node).map(Node::candidate);
                pick(wished, asked, false, near).or_else(|| if *soft { pick_of(false) } else { None })
            }
            PlaceStrategy::Labels { selector, soft } => {
                let wished = open().filter(|open| selector.matches(&open.record.labels)).map(Node::candidate);
                pick(wished, asked, false, near).or_else(|| if *soft { pick_of(false) } else { None })
            }
            PlaceStrategy::Group { group, bundle } => return self.find_bundle(*group, *bundle, place),
            _ => pick_of(false),
        };
        node.map(|node| (node, None))
    }

    fn find_bundle(&self, group: GroupId, bundle: Option<u32>, wanted: &Place) -> Option<(NodeUid, Bundle)> {
        let record = self.groups.get(&group).filter(|group| !group.record.removed)?;
        let bundles = match bundle {
            Some(at) => at..at.saturating_add(1),
            None => 0..record.rooms.len() as u32,
        };
        for at in bundles {
            let Some(Some(room)) = record.rooms.get(at as usize) else { continue };
            let Some(Some(place)) = record.record.places.get(at as usize) else { continue };
            let takes = |node: &Node| !node.lost && !node.record.removed && Self::takes_process(wanted, node);
            if self.nodes.get(&place.node).is_some_and(takes) && room.clone().take(&wanted.resources).is_some() {
                return Some((place.node, Some((group, at))));
            }
        }
        None
    }

    /// Takes the room and writes the lease.
    pub(super) fn grant(&mut self, place: &Place, node: NodeUid, bundle: Bundle) -> Option<Placed> {
        let (id, asked, isolated) = (place.lease, &place.resources, place.isolated);
        let gpus = match bundle {
            None => self.nodes.get_mut(&node)?.room.take(asked)?,
            Some((group, at)) => self.groups.get_mut(&group)?.rooms.get_mut(at as usize)?.as_mut()?.take(asked)?,
        };
        let record = LeaseRecord { id, node, resources: asked.clone(), gpus, bundle, isolated, released: false };
        self.hold(record.clone());
        if !planted::is(Bug::LeaseUnwritten) {
            self.dirty(Key::Lease(id));
        }
        self.changes.view = true;
        match isolated {
            true => self.start_isolated(record.worker_place()),
            false => drop(self.unsettled.insert(record.worker_place())),
        }
        Some(self.placed(&record))
    }

    fn placed(&self, record: &LeaseRecord) -> Placed {
        let worker = record.isolated.then(|| self.slots.get(&record.worker_place())?.record.worker).flatten();
        Placed { lease: record.id, node: record.node, gpus: record.gpus.clone(), worker }
    }

    /// Enters a lease whose room is taken.
    pub(super) fn hold(&mut self, record: LeaseRecord) {
        let id = record.id;
        if let Some(node) = self.nodes.get_mut(&record.node) {
            node.leases.insert(id);
        }
        if let Some(job) = self.jobs.get_mut(&id.job) {
            job.leases.insert(id);
        }
        self.leases.insert(id, Lease { record });
    }

    /// A lease is over, and what it had is free.
    pub(super) fn end_lease(&mut self, id: LeaseId) {
        let Some(Lease { record }) = self.leases.remove(&id) else { return };
        if let Some(node) = self.nodes.get_mut(&record.node) {
            node.leases.remove(&id);
            if record.bundle.is_none() && !(record.isolated && planted::is(Bug::IsolatedRoomLost)) {
                node.room.put(&record.resources, &record.gpus);
            }
        }
        if let Some((group, at)) = record.bundle
            && let Some(group) = self.groups.get_mut(&group)
            && let Some(Some(room)) = group.rooms.get_mut(at as usize)
        {
            room.put(&record.resources, &record.gpus);
        }
        if let Some((group, _)) = record.bundle {
            self.free_removed(group);
        }
        if let Some(job) = self.jobs.get_mut(&id.job) {
            job.leases.remove(&id);
            job.past.insert(id.number, PastEnd::Released);
        }
        self.dirty(Key::Lease(id));
        self.changes.view = true;
        self.freed = true;
        self.unsettled.insert(record.worker_place());
    }

    /// Of a job that is ending, on a node, everything is free whose worker does not run any more.
    pub(super) fn release_where_ended(&mut self, id: JobId, node: NodeUid) {
        let Some(job) = self.jobs.get(&id).filter(|job| job.record.outcome.is_some()) else { return };
        let keeps_driver = job.record.driver_node == Some(node) && !job.record.driver_over;
        let is_here = |lease: &&LeaseId| {
            let place = self.leases.get(lease).map(|lease| lease.record.worker_place());
            place.is_some_and(|place| place.node == node && !self.runs(place))
                && !(keeps_driver && lease.number == DRIVER_LEASE)
        };
        let leases: Vec<LeaseId> = job.leases.iter().filter(is_here).copied().collect();
        leases.into_iter().for_each(|lease| self.end_lease(lease));
    }

    /// Tries what waits: drivers, groups, then requests in the order in which they came. A large one does not hold up the small ones behind it.
    pub(super) fn serve_waiting(&mut self) {
        let drivers: Vec<JobId> = self.pending_drivers.iter().copied().collect();
        drivers.into_iter().for_each(|job| self.start_driver(job));
        let groups: Vec<GroupId> = self.pending_groups.iter().copied().collect();
        groups.into_iter().for_each(|group| self.lay_out_group(group));
        let mut in_vain: Vec<(Place, Option<Platform>)> = Vec::new();
        let waiting: Vec<u64> = self.waiting.keys().copied().collect();
        for at in waiting {
            let Some(Waiting { place, .. }) = self.waiting.get(&at) else { continue };
            let platform = self.platform_of(place.lease.job);
            let is_same = |(other, of): &(Place, Option<Platform>)| {
                let is_place = other.resources == place.resources && other.strategy == place.strategy;
                is_place && other.isolated == place.isolated && of.as_ref() == platform
            };
            if in_vain.iter().any(is_same) {
                continue;
            }
            let place = place.clone();
            if let Some((node, bundle)) = self.find_room(&place)
                && self.grant(&place, node, bundle).is_some()
            {
                self.stop_waiting(place.lease);
                self.changes.decided.insert(place.lease);
            } else {
                let platform = self.platform_of(place.lease.job).cloned();
                in_vain.push((place, platform));
            }
        }
    }

    pub(super) fn stop_waiting(&mut self, id: LeaseId) {
        if let Some(at) = self.waiting_by_lease.remove(&id) {
            self.waiting.remove(&at);
            self.changes.view = true;
        }
    }

    pub(super) fn expire_waiting(&mut self, moment: Moment) {
        let over = self.waiting.values().filter(|waiting| moment.now >= waiting.until);
        let over: Vec<LeaseId> = over.map(|waiting| waiting.place.lease).collect();
        for id in over {
            self.stop_waiting(id);
            if let Some(job) = self.jobs.get_mut(&id.job) {
                job.past.insert(id.number, PastEnd::WaitedInVain);
            }
            self.changes.decided.insert(id);
        }
    }

    pub(super) fn next_of_waiting(&self) -> Option<Duration> {
        self.waiting.values().map(|waiting| waiting.until).min()
    }

    /// What the program of a job was built for, if that is known.
    pub(super) fn platform_of(&self, job: JobId) -> Option<&Platform> {
        self.jobs.get(&job)?.record.platform.as_ref()
    }

    /// Why no node that there is can ever give this to a job with that program; none if one can.
    pub(super) fn infeasible(
        &self,
        asked: &Resources,
        strategy: &PlaceStrategy,
        program: Option<&Platform>,
    ) -> Option<Infeasible> {
        let mut why = Infeasible { asked: asked.clone(), best: Resources::new(), nodes: Vec::new(), node_count: 0 };
        if matches!(strategy, PlaceStrategy::Group { .. }) {
            return None;
        }
        for node in self.nodes.values() {
            let record = &node.record;
            why.node_count += 1;
            let why_not = match strategy {
                _ if !node.has_a_future() => Some(WhyNot::Draining),
                PlaceStrategy::Node { node, soft: false } if *node != record.uid => Some(WhyNot::NotThisNode),
                PlaceStrategy::Labels { selector, soft: false } if !selector.matches(&record.labels) => {
                    Some(WhyNot::Labels)
                }
                _ if program.is_some_and(|program| !program.runs_on(&record.architecture)) => {
                    let node = record.architecture.clone();
                    program.map(|program| WhyNot::Platform { node, program: program.clone() })
                }
                _ if !record.resources.fits(asked) => Some(WhyNot::TooSmall(record.resources.lacking(asked).collect())),
                _ => None,
            };
            let (node, reason) = (record.name.clone(), why_not?);
            best_of(&mut why.best, &record.resources);
            if why.nodes.len() < limits::SHORTFALLS_MAX {
                why.nodes.push(Shortfall { node, why: reason });
            }
        }
        Some(why)
    }
}

/// The larger of each.
fn best_of(best: &mut Resources, more: &Resources) {
    best.cpus = best.cpus.max(more.cpus);
    best.gpus = best.gpus.max(more.gpus);
    best.memory = best.memory.max(more.memory);
    for (name, amount) in &more.custom {
        let there = best.custom.entry(name.clone()).or_default();
        *there = (*there).max(*amount);
    }
}
