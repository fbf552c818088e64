//! The name of a detached actor is given to nobody else as long as an actor has it, or a process in which one may live.

use std::collections::{BTreeMap, BTreeSet};

use mobula_core::NodeUid;
use mobula_core::cluster::JobId;

use super::{Fact, Oracle};
use crate::params::Time;

/// A name of a keeper: whose, and the number that it has drawn.
type Number = (JobId, u64);

/// Who has which name.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// As the head has said, and as nobody has given back.
    held: BTreeMap<&'static str, Number>,
    names: BTreeMap<Number, &'static str>,
    let_go: BTreeSet<Number>,
    /// Actors, and in which processes.
    actors: BTreeMap<Number, NodeUid>,
    /// Processes that run, and where.
    processes: BTreeMap<NodeUid, NodeUid>,
    ending: BTreeSet<JobId>,
    down: BTreeSet<NodeUid>,
}

impl Oracle for Names {
    fn promise(&self) -> &'static str {
        "I5 no name is served twice"
    }

    fn fact(&mut self, fact: &Fact, _: Time) -> Result<(), String> {
        match fact {
            Fact::NameAsked { keeper, number, name } => {
                self.names.insert((*keeper, *number), name);
            }
            Fact::NameGiven { keeper, number, name } => return self.given((*keeper, *number), name),
            Fact::ActorBegins { keeper, number, process } => {
                self.actors.insert((*keeper, *number), *process);
            }
            Fact::NameLetGo { keeper, number } => {
                let number = (*keeper, *number);
                self.let_go.insert(number);
                self.actors.remove(&number);
                self.held.retain(|_, holder| *holder != number);
            }
            Fact::Begins { process, node, .. } => {
                self.processes.insert(*process, *node);
            }
            Fact::Ends { process, .. } => {
                self.processes.remove(process);
                self.actors.retain(|_, at| at != process);
            }
            Fact::JobMayEnd { job } => {
                self.ending.insert(*job);
            }
            Fact::Down { uid, .. } => {
                self.down.insert(*uid);
            }
            _ => {}
        }
        Ok(())
    }
}

impl Names {
    fn given(&mut self, number: Number, name: &'static str) -> Result<(), String> {
        let lives = |process: &NodeUid| self.processes.get(process).is_some_and(|node| !self.down.contains(node));
        let is_same = |of: &Number| *of != number && self.names.get(of) == Some(&name);
        if let Some((other, process)) = self.actors.iter().find(|(of, process)| is_same(of) && lives(process)) {
            return Err(format!("{name} is given to {number:?}, and {other:?} serves it in {process}"));
        }
        if self.let_go.contains(&number) {
            // The answer to a copy that was late. What was given back is on its way.
            return Ok(());
        }
        match self.held.insert(name, number) {
            Some(other) if other != number && !self.ending.contains(&other.0) => {
                Err(format!("{name} is given to {number:?}, and {other:?} has not given it back"))
            }
            _ => Ok(()),
        }
    }
}
