//! A node is fenced, or taken for dead, only when it and the head could not talk for long; and what the head has taken for dead does nothing more.

use std::collections::{BTreeMap, BTreeSet};

use mobula_core::{NodeUid, limits};

use super::{Fact, Oracle};
use crate::params::Time;

/// Nodes that are down, and what was on them.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    down: BTreeSet<NodeUid>,
    processes: BTreeMap<NodeUid, NodeUid>,
    /// An operator wants it so.
    may_end: BTreeSet<NodeUid>,
}

/// Clocks differ by a twentieth at most.
const LEASE: Time = limits::LEASE.as_micros() as Time * 19 / 20;

impl Oracle for Leases {
    fn promise(&self) -> &'static str {
        "I20 a short pause kills nobody, one past the lease fences"
    }

    fn fact(&mut self, fact: &Fact, _: Time) -> Result<(), String> {
        match fact {
            Fact::NodeMayEnd { uid } => {
                self.may_end.insert(*uid);
                Ok(())
            }
            Fact::Fenced { uid, unanswered } if *unanswered < LEASE && !self.may_end.contains(uid) => {
                Err(format!("{uid} is fenced, and had an answer {} ms ago", unanswered / 1000))
            }
            Fact::Down { uid, silence, undisturbed } => {
                self.down.insert(*uid);
                match undisturbed {
                    Some(since) if *silence && *since < LEASE && !self.may_end.contains(uid) => {
                        Err(format!("{uid} is down, and had an answer {} ms ago", since / 1000))
                    }
                    _ => Ok(()),
                }
            }
            Fact::Begins { process, node, .. } => {
                self.processes.insert(*process, *node);
                Ok(())
            }
            Fact::Acts { process } => match self.processes.get(process) {
                Some(node) if self.down.contains(node) => Err(format!("{process} acts, and its node {node} is down")),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}
