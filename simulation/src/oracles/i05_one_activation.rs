//! I5: no overlapping activations of a name: the head hands a name on only when its holder has ended, is known to be dead, or
//! has had no lease for the margin; tokens grow; and whoever acts under a name holds a lease, counted from the renewal that was
//! sent, and the newest token that was given.

use std::collections::BTreeMap;

use super::{Oracle, View};
use crate::fact::{Fact, LifeId};

#[derive(Default)]
pub(super) struct OneActivation {
    /// By head and name: the token that was granted last, and to whom.
    granted: BTreeMap<(LifeId, u8), (u64, LifeId, u64)>,
}

impl Oracle for OneActivation {
    fn promise(&self) -> &'static str {
        "I5 no overlapping activations of a name"
    }

    fn fact(&mut self, fact: &Fact, _: &View<'_>) -> Result<(), String> {
        match *fact {
            Fact::NameGranted { head, life, actor, name, fence, overlaps } => {
                if overlaps {
                    return Err(format!(
                        "name {name} is granted to actor {actor} of life {life}, and its holder may act"
                    ));
                }
                let before = self.granted.insert((head, name), (fence, life, actor));
                match before {
                    Some((last, l, a)) if (l, a) == (life, actor) && fence == last => Ok(()),
                    Some((last, ..)) if fence <= last => Err(format!("token {fence} for name {name} after {last}")),
                    _ => Ok(()),
                }
            }
            Fact::NameServed { life, actor, name, leased: false, .. } => {
                Err(format!("actor {actor} of life {life} acts as {name}, and its node's lease is over"))
            }
            Fact::NameServed { head, life, actor, name, fence, .. } => match self.granted.get(&(head, name)) {
                Some((last, ..)) if *last == fence => Ok(()),
                last => {
                    Err(format!("actor {actor} of life {life} acts as {name} with token {fence}; the last is {last:?}"))
                }
            },
            _ => Ok(()),
        }
    }
}
