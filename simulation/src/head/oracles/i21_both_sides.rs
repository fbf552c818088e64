//! A cut that lasts is a death for both sides, also if it was in one direction only.

use super::{Fact, Oracle};
use crate::params::{SECOND, Time};

/// Compares when a cut is over.
#[derive(Debug)]
pub(crate) struct BothSides;

/// Silence in one direction is noticed after a lease; what was granted until then lasts a lease and a margin longer.
const ENOUGH: Time = 19 * SECOND + SECOND / 2;

impl Oracle for BothSides {
    fn promise(&self) -> &'static str {
        "I21 a one-way cut is a partition for both sides"
    }

    fn fact(&mut self, fact: &Fact, _: Time) -> Result<(), String> {
        match fact {
            Fact::Heals { node, lasted, lives_on, believed, head_was_there } if *lasted >= ENOUGH => {
                if *lives_on {
                    return Err(format!("{node} lives on after {} ms", lasted / 1000));
                }
                if *believed && *head_was_there {
                    return Err(format!("the head still believes in {node} after {} ms", lasted / 1000));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
