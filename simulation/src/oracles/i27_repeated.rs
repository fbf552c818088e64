//! I27: a repeated control request has one effect: a claim or a join that comes again after its actor's end brings nothing back,
//! and a name that is granted twice to the same actor is granted under one token.

use std::collections::{BTreeMap, BTreeSet};

use super::{Oracle, View};
use crate::fact::{Fact, LifeId};

#[derive(Default)]
pub(super) struct Repeated {
    ended: BTreeSet<(LifeId, LifeId, u64)>,
    granted: BTreeMap<(LifeId, LifeId, u64), u64>,
}

impl Oracle for Repeated {
    fn promise(&self) -> &'static str {
        "I27 a repeated control request has one effect"
    }

    fn fact(&mut self, fact: &Fact, _: &View<'_>) -> Result<(), String> {
        match *fact {
            Fact::NameEnded { head, life, actor } => {
                self.ended.insert((head, life, actor));
            }
            Fact::NameGranted { head, life, actor, name, fence, .. } => {
                if self.ended.contains(&(head, life, actor)) {
                    return Err(format!("actor {actor} of life {life} has ended, and is granted name {name}"));
                }
                if self.granted.insert((head, life, actor), fence).is_some_and(|before| before != fence) {
                    return Err(format!("actor {actor} of life {life} is granted name {name} under two tokens"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
