//! I23: a panic kills one life of one actor. Its neighbours do not notice, and its queued mail waits for the next life.

use std::collections::BTreeMap;

use super::{Oracle, View};
use crate::fact::{Fact, LifeId};

#[derive(Default)]
pub(super) struct OnePanic {
    failures: BTreeMap<(LifeId, u64), u32>,
    mail: BTreeMap<(LifeId, u64), u32>,
}

impl Oracle for OnePanic {
    fn promise(&self) -> &'static str {
        "I23 a panic kills one actor"
    }

    fn fact(&mut self, fact: &Fact, _: &View<'_>) -> Result<(), String> {
        match *fact {
            Fact::ActorFailed { life, actor, mail } => {
                *self.failures.entry((life, actor)).or_default() += 1;
                self.mail.insert((life, actor), mail);
            }
            Fact::ActorBack { life, actor, mail } => {
                let before = self.mail.get(&(life, actor)).copied().unwrap_or(0);
                if mail < before {
                    return Err(format!("actor {actor} of life {life} had {before} messages queued, now {mail}"));
                }
            }
            Fact::Started { life, actor, generation, .. } => {
                let failures = self.failures.get(&(life, actor)).copied().unwrap_or(0);
                if failures != generation {
                    return Err(format!("actor {actor} of life {life} failed {failures} times and is {generation}"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
