//! I12: views converge within 5 s after the network has healed: every node with a lease knows the members of the groups that
//! it follows, the head knows the names of all that live and of nobody else, and no group has a member that has ended.

use super::{Oracle, Rest, View};

pub(super) struct Views;

impl Oracle for Views {
    fn promise(&self) -> &'static str {
        "I12 views converge 5 s after heal"
    }

    fn rest(&mut self, rest: &Rest, _: &View<'_>) -> Result<(), String> {
        let services = &rest.services;
        if let Some((life, group)) = services.stale_views.first() {
            return Err(format!("life {life} has not seen the members of group {group}"));
        }
        if let Some((life, actor)) = services.dead_members.first() {
            return Err(format!("actor {actor} of life {life} has ended, and is in a group"));
        }
        if let Some((life, actor, name)) = services.lost_names.first() {
            return Err(format!("actor {actor} of life {life} lives as name {name}, and the head does not know it"));
        }
        if let Some((life, actor, name)) = services.dead_names.first() {
            return Err(format!("the head keeps name {name} for actor {actor} of life {life}, which has ended"));
        }
        Ok(())
    }
}
