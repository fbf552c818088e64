//! I10: the uid of a node's life never comes back.

use super::{Oracle, View};
use crate::fact::Fact;

pub(super) struct Uids;

impl Oracle for Uids {
    fn promise(&self) -> &'static str {
        "I10 node uids never come back"
    }

    fn fact(&mut self, fact: &Fact, view: &View<'_>) -> Result<(), String> {
        match *fact {
            Fact::NodeUp { uid, .. } if view.ledger.life_of(uid).is_some() => Err(format!("{uid:016x} comes back")),
            _ => Ok(()),
        }
    }
}
