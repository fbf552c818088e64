//! Who says nothing new is down within a lease and its margin, whatever copies of what it once said are still on their way.

use std::collections::BTreeMap;

use mobula_core::NodeUid;

use super::{Fact, Oracle};
use crate::head::LEASE_AND_MARGIN;
use crate::params::Time;

/// Nodes that are not down.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    lives: BTreeMap<NodeUid, Silent>,
}

#[derive(Debug)]
struct Silent {
    since: Time,
    /// The head has answered somebody then, and it was down too late already.
    overdue: Option<Time>,
}

/// By clocks that differ by a twentieth at most.
const DOWN_AFTER: Time = LEASE_AND_MARGIN * 21 / 20;

impl Oracle for Silence {
    fn promise(&self) -> &'static str {
        "I12 who says nothing new is down in time"
    }

    fn fact(&mut self, fact: &Fact, now: Time) -> Result<(), String> {
        match fact {
            // Of whom it knows that they are over it does not say so again; the others have to be heard first.
            Fact::HeadBegins { .. } => self.lives.clear(),
            Fact::Down { uid, .. } => drop(self.lives.remove(uid)),
            Fact::Accepted { uid, is_news } => {
                if *is_news {
                    self.lives.insert(*uid, Silent { since: now, overdue: None });
                }
                return self.look(now);
            }
            _ => {}
        }
        Ok(())
    }
}

impl Silence {
    /// The head runs at `now`: what is overdue by then has to be down before it answers again.
    fn look(&mut self, now: Time) -> Result<(), String> {
        for (uid, life) in &mut self.lives {
            match life.overdue {
                Some(before) if before < now => {
                    return Err(format!("{uid} has said nothing new for {} ms", (now - life.since) / 1000));
                }
                None if now > life.since + DOWN_AFTER => life.overdue = Some(now),
                _ => {}
            }
        }
        Ok(())
    }
}
