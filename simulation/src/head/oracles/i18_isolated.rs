//! A node has no more isolated workers than the limit, those that are about to end among them.

use std::collections::BTreeMap;

use mobula_core::{NodeUid, limits};

use super::{Fact, Oracle, Role};
use crate::params::Time;

/// Isolated workers that run, and where.
#[derive(Debug, Default)]
pub(crate) struct Isolated {
    live: BTreeMap<NodeUid, NodeUid>,
}

impl Oracle for Isolated {
    fn promise(&self) -> &'static str {
        "I18 isolated workers are bounded"
    }

    fn fact(&mut self, fact: &Fact, _: Time) -> Result<(), String> {
        match fact {
            Fact::Begins { process, node, role: Role::Isolated(_), .. } => {
                self.live.insert(*process, *node);
                let here = self.live.values().filter(|at| *at == node).count();
                if here > limits::ISOLATED_WORKERS_MAX {
                    return Err(format!("{here} isolated workers run on {node}"));
                }
            }
            Fact::Ends { process, .. } => {
                self.live.remove(process);
            }
            _ => {}
        }
        Ok(())
    }
}
