//! I31: no input of a peer panics (a panic anywhere fails the seed). And nodes that keep the rules never accuse each
//! other: where nothing was forged, no connection ends by a broken rule.

use super::{Oracle, View};
use crate::fact::{Closure, Fact};

pub(super) struct Rules;

impl Oracle for Rules {
    fn promise(&self) -> &'static str {
        "I31 no peer input panics; who keeps the rules is not accused"
    }

    fn fact(&mut self, fact: &Fact, view: &View<'_>) -> Result<(), String> {
        match *fact {
            Fact::LinkDown { end, why: Closure::Rule(rule) } if !view.ledger.tainted.contains(&end) => {
                Err(format!("end {end} accuses its peer, which sent nothing but the session's own bytes: {rule:?}"))
            }
            _ => Ok(()),
        }
    }
}
