//! The head's end: members with their leases, names with their holders.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::gone::Gone;
use super::groups::Groups;
use super::repeats::Repeats;
use super::{Answer, Fence, Found, GroupName, LeaseTimes, Refusal, Request};
use crate::planted::{self, Bug};
use crate::{ActorId, NodeId, NodeUid, limits};

/// What the head knows. `now` is the time since the head's start; it never runs backwards.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Directory {
    head: NodeId,
    times: LeaseTimes,
    last_fence: u64,
    members: BTreeMap<NodeUid, Member>,
    names: BTreeMap<String, Holder>,
    groups: Groups,
    /// What each actor holds; the other direction of `names` and `groups`.
    holdings: BTreeMap<(NodeUid, ActorId), Holding>,
    /// Members that are no more. Their uids never come back.
    gone: Gone,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Member {
    id: NodeId,
    /// It may believe in its lease up to here. None for the head itself, which needs none.
    until: Option<Duration>,
    /// The newest of the head's answers that is known to have arrived, or the beginning.
    heard: Duration,
    /// Its lease is not renewed any more.
    lost: bool,
    repeats: Repeats,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Holder {
    found: Found,
    actor_type: String,
    fence: Fence,
}

/// What one actor holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Holding {
    names: BTreeSet<String>,
    groups: BTreeSet<GroupName>,
}

impl Directory {
    /// The directory of a cluster whose head is `head`.
    pub fn new(head: NodeId, times: LeaseTimes) -> Self {
        let own =
            Member { id: head.clone(), until: None, heard: Duration::ZERO, lost: false, repeats: Repeats::default() };
        Directory {
            members: BTreeMap::from([(head.uid, own)]),
            head,
            times,
            last_fence: 0,
            names: BTreeMap::new(),
            groups: Groups::default(),
            holdings: BTreeMap::new(),
            gone: Gone::default(),
        }
    }

    /// Whose it is.
    pub fn head(&self) -> &NodeId {
        &self.head
    }

    /// Does what `from`, the proven sender, asks for.
    pub fn request(&mut self, from: &NodeId, request: Request, now: Duration) -> Answer {
        self.tick(now);
        match request {
            Request::Renew { heard } => self.renew(from, heard, now),
            Request::Claim { number, name, actor, actor_type } => match self.admit(from, number, now) {
                Ok(is_new) => self.claim(is_new, name, Found { node: from.clone(), actor }, actor_type),
                Err(refusal) => Answer::Refused(refusal),
            },
            Request::End { number, actor } => {
                // Of use at any time: also a member whose lease is over can free what it held.
                if let Some(member) = self.members.get_mut(&from.uid) {
                    member.repeats.is_new(number);
                    self.release(from.uid, actor);
                }
                Answer::Done
            }
            Request::Join { number, group, actor } => match self.admit(from, number, now) {
                Ok(is_new) => self.join(is_new, group, Found { node: from.clone(), actor }),
                Err(refusal) => Answer::Refused(refusal),
            },
            Request::Leave { number, group, actor } => {
                if let Some(member) = self.members.get_mut(&from.uid) {
                    member.repeats.is_new(number);
                    self.leave(&group, Found { node: from.clone(), actor });
                }
                Answer::Changed { at: self.groups.changes() }
            }
            Request::Members { group } => Answer::Members(self.groups.members(&group)),
            Request::Find { name, actor_type } => Answer::Found(self.find(&name, &actor_type).cloned()),
        }
    }

    /// Who holds `name`, if it is an `actor_type`.
    pub fn find(&self, name: &str, actor_type: &str) -> Option<&Found> {
        self.names.get(name).filter(|holder| holder.actor_type == actor_type).map(|holder| &holder.found)
    }

    /// Who holds `name`, whatever it is.
    pub fn holder(&self, name: &str) -> Option<&Found> {
        self.names.get(name).map(|holder| &holder.found)
    }

    /// The connection to a member is gone, or it is silent. It may still be alive: what it holds stays held until its
    /// lease and the margin are over, and its lease is not renewed any more.
    pub fn lost(&mut self, member: NodeUid) {
        if planted::is(Bug::NameFreedEarly) {
            return self.dead(member);
        }
        match self.members.get_mut(&member) {
            // The head does not lose itself.
            Some(member) => member.lost = member.until.is_some(),
            None => self.gone.insert(member),
        }
    }

    /// A member is known to be dead: what it held is free now.
    pub fn dead(&mut self, member: NodeUid) {
        if member == self.head.uid {
            return;
        }
        self.gone.insert(member);
        let all = (member, ActorId(0))..=(member, ActorId(u64::MAX));
        let actors: Vec<ActorId> = self.holdings.range(all).map(|((_, actor), _)| *actor).collect();
        for actor in actors {
            self.release(member, actor);
        }
        self.members.remove(&member);
    }

    /// Frees what members held whose lease and margin are over at `now`.
    pub fn tick(&mut self, now: Duration) {
        let margin = if planted::is(Bug::MarginForgotten) { Duration::ZERO } else { self.times.margin };
        let over = |member: &Member| member.until.is_some_and(|until| now >= until + margin);
        let over: Vec<NodeUid> = self.members.iter().filter(|(_, member)| over(member)).map(|(uid, _)| *uid).collect();
        for uid in over {
            self.dead(uid);
        }
    }

    /// When [`tick`](Self::tick) will have something to do, unless a lease is renewed.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.members.values().filter_map(|member| member.until).min().map(|until| until + self.times.margin)
    }

    /// Groups whose members have changed since this was last asked.
    pub fn take_changed_groups(&mut self) -> BTreeSet<GroupName> {
        self.groups.take_changed()
    }

    /// Groups that have members.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Names that are held.
    pub fn names(&self) -> usize {
        self.names.len()
    }

    /// Members that hold a lease, or held one that is not over for everybody yet; the head is not counted.
    pub fn members(&self) -> usize {
        self.members.len() - 1
    }

    /// Actors that hold anything.
    pub fn holdings(&self) -> usize {
        self.holdings.len()
    }

    fn renew(&mut self, from: &NodeId, heard: Option<Duration>, now: Duration) -> Answer {
        if self.gone.contains(from.uid) {
            return Answer::Refused(Refusal::LeaseOver);
        }
        let lease = self.times.lease;
        let member = self.members.entry(from.uid).or_insert_with(|| Member {
            id: from.clone(),
            until: Some(now + lease),
            heard: now,
            lost: false,
            repeats: Repeats::default(),
        });
        let Some(until) = &mut member.until else { return Answer::Renewed { at: now } };
        member.heard = member.heard.max(heard.unwrap_or_default().min(now));
        // Whoever hears no answer has no lease: a connection that works in one direction only is none.
        member.lost |= now >= *until || now.saturating_sub(member.heard) > lease;
        if member.lost {
            return Answer::Refused(Refusal::LeaseOver);
        }
        *until = now + lease;
        Answer::Renewed { at: now }
    }

    /// Whether `from` may be given anything now. True if the request is not a repetition.
    fn admit(&mut self, from: &NodeId, number: u64, now: Duration) -> Result<bool, Refusal> {
        let member = self.members.get_mut(&from.uid).ok_or(Refusal::LeaseOver)?;
        if member.lost || member.until.is_some_and(|until| now >= until) {
            return Err(Refusal::LeaseOver);
        }
        Ok(member.repeats.is_new(number))
    }

    fn claim(&mut self, is_new: bool, name: String, found: Found, actor_type: String) -> Answer {
        if let Some(holder) = self.names.get(&name) {
            return if holder.found == found {
                Answer::Granted(holder.fence)
            } else {
                Answer::Taken(holder.found.clone())
            };
        }
        if !is_new {
            return Answer::Refused(Refusal::Repeated);
        }
        if let Err(refusal) = check_name(&name, &actor_type) {
            return Answer::Refused(refusal);
        }
        if self.names.len() >= limits::DIRECTORY_ENTRIES_MAX {
            return Answer::Refused(Refusal::Full { limit: limits::DIRECTORY_ENTRIES_MAX as u64 });
        }
        self.last_fence += u64::from(!planted::is(Bug::FenceRepeated));
        let fence = Fence(self.last_fence);
        self.holdings.entry((found.node.uid, found.actor)).or_default().names.insert(name.clone());
        self.names.insert(name, Holder { found, actor_type, fence });
        Answer::Granted(fence)
    }

    fn join(&mut self, is_new: bool, group: GroupName, member: Found) -> Answer {
        let key = (member.node.uid, member.actor);
        let is_in = self.holdings.get(&key).is_some_and(|holding| holding.groups.contains(&group));
        if !is_new && !is_in {
            return Answer::Refused(Refusal::Repeated);
        }
        if let Err(refusal) = check_name(&group.name, &group.message) {
            return Answer::Refused(refusal);
        }
        match self.groups.join(&group, member) {
            Ok(joined) => {
                if joined {
                    self.holdings.entry(key).or_default().groups.insert(group);
                }
                Answer::Changed { at: self.groups.changes() }
            }
            Err(refusal) => Answer::Refused(refusal),
        }
    }

    fn leave(&mut self, group: &GroupName, member: Found) {
        let key = (member.node.uid, member.actor);
        if let Some(holding) = self.holdings.get_mut(&key)
            && holding.groups.remove(group)
        {
            if holding.groups.is_empty() && holding.names.is_empty() {
                self.holdings.remove(&key);
            }
            self.groups.leave(group, &member);
        }
    }

    fn release(&mut self, node: NodeUid, actor: ActorId) {
        let Some(holding) = self.holdings.remove(&(node, actor)) else { return };
        for name in holding.names {
            self.names.remove(&name);
        }
        if let Some(node) = self.members.get(&node).map(|member| member.id.clone()) {
            let member = Found { node, actor };
            for group in holding.groups.into_iter().filter(|_| !planted::is(Bug::EndedStaysMember)) {
                self.groups.leave(&group, &member);
            }
        }
    }
}

/// A name, and the registered name that goes with it.
fn check_name(name: &str, registered: &str) -> Result<(), Refusal> {
    let limit = limits::NAME_BYTES_MAX;
    if (1..=limit).contains(&name.len()) && registered.len() <= limit {
        return Ok(());
    }
    let bytes = if name.is_empty() { 0 } else { name.len().max(registered.len()) };
    Err(Refusal::BadName { bytes: bytes as u64, limit: limit as u64 })
}
