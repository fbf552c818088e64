//! Placement groups: resources set aside together, all or nothing.

use std::collections::BTreeSet;

use mobula_core::cluster::{GroupId, GroupStrategy, Infeasible, NewGroup, PlacementGroupRow, Refused, Resources};
use mobula_core::limits;

use super::Head;
use super::state::{Group, Lease, Node, PastEnd, bytes_of};
use crate::Moment;
use crate::records::{GroupRecord, Key};
use crate::scheduler::{Candidate, Layout, ShareRoom, lay_out};

impl Head {
    /// Sets resources aside, or keeps the wish until there is room: the row says which. Asking again with the same id is asking for the same.
    ///
    /// A bundle whose node is lost is laid out again, where its strategy and the others allow it.
    ///
    /// # Errors
    /// [`Refused::Infeasible`] if a bundle, or all of them together, can never have room on the nodes that there are, unless new ones are waited
    /// for; [`Refused::OtherRequest`], [`Refused::JobEnded`], [`Refused::NoSuchJob`], [`Refused::Full`],
    /// [`Refused::TooLong`], [`Refused::Bad`].
    pub fn create_group(&mut self, new: NewGroup, moment: Moment) -> Result<PlacementGroupRow, Refused> {
        self.tick(moment);
        let id = new.group;
        let job = self.jobs.get(&id.job).ok_or(Refused::NoSuchJob { job: id.job })?;
        if let Some(group) = self.groups.get(&id) {
            let is_same = group.record.bundles == new.bundles && group.record.strategy == new.strategy;
            // None if it was given back.
            return self.group(id).filter(|_| is_same).ok_or(Refused::OtherRequest);
        }
        if job.past_groups.get(id.number).is_some() {
            return Err(Refused::OtherRequest);
        }
        if !job.is_running() {
            return Err(Refused::JobEnded { job: id.job });
        }
        self.check_group(&new)?;
        let places = vec![None; new.bundles.len()];
        let rooms = new.bundles.iter().map(|_| None).collect();
        let record = GroupRecord { id, bundles: new.bundles, strategy: new.strategy, places, removed: false };
        self.groups.insert(id, Group::new(record, rooms));
        if let Some(job) = self.jobs.get_mut(&id.job) {
            job.groups.insert(id);
        }
        self.dirty(Key::Group(id));
        self.changes.view = true;
        self.pending_groups.insert(id);
        self.lay_out_group(id);
        self.wind_up(moment);
        self.group(id).ok_or(Refused::NoSuchGroup { group: id })
    }

    /// Gives back what a group has set aside, with all leases in it. A bundle in which isolated workers run is free when the last of them was reaped.
    ///
    /// # Errors
    /// [`Refused::NoSuchJob`]: then it is gone as well.
    pub fn remove_group(&mut self, id: GroupId, moment: Moment) -> Result<(), Refused> {
        self.tick(moment);
        let job = self.jobs.get_mut(&id.job).ok_or(Refused::NoSuchJob { job: id.job })?;
        job.past_groups.insert(id.number, PastEnd::Released);
        self.drop_group(id);
        self.wind_up(moment);
        Ok(())
    }

    pub(super) fn drop_group(&mut self, id: GroupId) {
        let of_group = self.leases.values().filter(|lease| lease.record.bundle.is_some_and(|(group, _)| group == id));
        let leases: Vec<_> = of_group.map(|lease| lease.record.id).collect();
        for lease in leases {
            if !self.release_isolated(lease) {
                self.end_lease(lease);
            }
        }
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.record.removed = true;
        self.pending_groups.remove(&id);
        self.free_removed(id);
    }

    /// Of a group that was removed every bundle is free in which no lease is left; the group is gone with the last of them.
    pub(super) fn free_removed(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id).filter(|group| group.record.removed) else { return };
        let in_group = |lease: &Lease| lease.record.bundle.filter(|(group, _)| *group == id).map(|(_, at)| at);
        let in_use: BTreeSet<u32> = self.leases.values().filter_map(in_group).collect();
        let GroupRecord { bundles, places, .. } = &mut group.record;
        for (at, ((bundle, place), room)) in (0_u32..).zip(bundles.iter().zip(places).zip(&mut group.rooms)) {
            if !in_use.contains(&at)
                && let Some(place) = place.take()
                && let Some(node) = self.nodes.get_mut(&place.node)
            {
                *room = None;
                node.bundles.remove(&(id, at));
                node.room.put(bundle, &place.gpus);
            }
        }
        if in_use.is_empty() {
            self.groups.remove(&id);
            if let Some(job) = self.jobs.get_mut(&id.job) {
                job.groups.remove(&id);
                job.past_groups.insert(id.number, PastEnd::Released);
            }
        }
        self.dirty(Key::Group(id));
        self.changes.view = true;
        self.freed = true;
    }

    /// The node of a bundle is over.
    pub(super) fn lose_bundle(&mut self, id: GroupId, bundle: u32) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let at = bundle as usize;
        if let (Some(place), Some(room)) = (group.record.places.get_mut(at), group.rooms.get_mut(at)) {
            (*place, *room) = (None, None);
        }
        if !group.record.removed {
            self.pending_groups.insert(id);
        }
        self.dirty(Key::Group(id));
        self.touch_job(id.job);
    }

    /// Finds places for the bundles that have none: for all of them, or for none.
    pub(super) fn lay_out_group(&mut self, id: GroupId) {
        let Some(group) = self.groups.get(&id) else { return };
        let Some(job) = self.jobs.get(&id.job) else { return };
        let takes = |node: &&Node| node.takes_new() && node.starts(&job.record);
        let nodes: Vec<Candidate<'_>> = self.nodes.values().filter(takes).map(Node::candidate).collect();
        let GroupRecord { bundles, strategy, places, .. } = &group.record;
        let Some(found) = lay_out(&nodes, Layout { bundles, strategy: *strategy, places }) else { return };
        for (at, place) in found {
            let Some(group) = self.groups.get_mut(&id) else { return };
            let Some(bundle) = group.record.bundles.get(at) else { continue };
            let Some(node) = self.nodes.get_mut(&place.node) else { continue };
            // The layout was made of this very room.
            if !node.room.take_shares(bundle, &place.gpus) {
                continue;
            }
            node.bundles.insert((id, at as u32));
            if let (Some(to), Some(room)) = (group.record.places.get_mut(at), group.rooms.get_mut(at)) {
                *room = Some(ShareRoom::of(bundle, &place.gpus));
                *to = Some(place);
            }
        }
        let is_ready = self.groups.get(&id).is_some_and(|group| group.record.places.iter().all(Option::is_some));
        if is_ready {
            self.pending_groups.remove(&id);
            // Requests for its bundles may wait.
            self.freed = true;
        }
        self.dirty(Key::Group(id));
        self.touch_job(id.job);
    }

    fn check_group(&self, new: &NewGroup) -> Result<(), Refused> {
        let full = |what: &str, limit: usize| Refused::Full { what: what.to_owned(), limit: limit as u64 };
        if self.groups.len() >= limits::GROUPS_MAX {
            return Err(full("placement groups", limits::GROUPS_MAX));
        }
        if new.bundles.is_empty() || new.bundles.len() > limits::BUNDLES_MAX {
            return Err(full("bundles in a group, and one at least", limits::BUNDLES_MAX));
        }
        new.bundles.iter().try_for_each(Resources::check)?;
        let bytes = bytes_of(&new.bundles);
        if bytes > limits::GROUP_BYTES_MAX {
            let (what, limit) = ("the bundles of a placement group".to_owned(), limits::GROUP_BYTES_MAX as u64);
            return Err(Refused::TooLong { what, bytes: bytes as u64, limit });
        }
        if bytes + self.groups.values().map(Group::bytes).sum::<usize>() > limits::GROUPS_BYTES_MAX {
            return Err(full("bytes of bundles in placement groups", limits::GROUPS_BYTES_MAX));
        }
        if new.for_new_nodes {
            return Ok(());
        }
        // Only what is certain is refused: that there is room for each is no promise that there is room for all.
        let program = self.platform_of(new.group.job);
        if let Some(why) = new.bundles.iter().find_map(|bundle| self.infeasible(bundle, &Default::default(), program)) {
            return Err(Refused::Infeasible(Box::new(why)));
        }
        let mut all = Resources::new();
        new.bundles.iter().for_each(|bundle| all.put(bundle));
        let starts = |node: &Node| program.is_none_or(|program| program.runs_on(&node.record.architecture));
        let nodes = || self.nodes.values().filter(|node| node.has_a_future() && starts(node));
        let impossible = match new.strategy {
            GroupStrategy::StrictPack => !nodes().any(|node| node.record.resources.fits(&all)),
            GroupStrategy::StrictSpread => nodes().count() < new.bundles.len(),
            _ => {
                let mut there = Resources::new();
                nodes().for_each(|node| there.put(&node.record.resources));
                !there.fits(&all)
            }
        };
        if !impossible {
            return Ok(());
        }
        let why = self.infeasible(&all, &Default::default(), program);
        let node_count = self.nodes.len() as u32;
        let best = nodes().map(|node| &node.record.resources).max().cloned().unwrap_or_default();
        let why = why.unwrap_or(Infeasible { asked: all, best, nodes: Vec::new(), node_count });
        Err(Refused::Infeasible(Box::new(why)))
    }
}
