//! A life that is over is not accepted again, and no two things have the same uid.

use std::collections::BTreeSet;

use mobula_core::NodeUid;

use super::{Fact, Oracle};
use crate::params::Time;

/// Lives that were.
#[derive(Debug, Default)]
pub(crate) struct Uids {
    over: BTreeSet<NodeUid>,
    processes: BTreeSet<NodeUid>,
}

impl Oracle for Uids {
    fn promise(&self) -> &'static str {
        "I10 node uids never come back"
    }

    fn fact(&mut self, fact: &Fact, _: Time) -> Result<(), String> {
        match fact {
            Fact::Accepted { uid, .. } if self.over.contains(uid) => Err(format!("{uid} is accepted after its end")),
            Fact::Down { uid, .. } => {
                self.over.insert(*uid);
                Ok(())
            }
            Fact::Begins { process, .. } if !self.processes.insert(*process) => {
                Err(format!("a second process has the uid {process}"))
            }
            _ => Ok(()),
        }
    }
}
