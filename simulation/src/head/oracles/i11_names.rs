//! What a head has said about detached actors stays so for the next one: names, the jobs that keep them, and who may call them.

use std::collections::{BTreeMap, BTreeSet};

use mobula_core::cluster::JobId;

use super::super::fact::Kept;
use super::{Fact, Oracle};
use crate::params::Time;

/// What keepers and clients were told.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Those that keepers want, or have, and that are not known to be free again.
    wanted: BTreeMap<(JobId, u64), &'static str>,
    given: BTreeMap<(JobId, u64), &'static str>,
    let_go: BTreeSet<(JobId, u64)>,
    guests: BTreeSet<(JobId, JobId)>,
    ending: BTreeSet<JobId>,
}

impl Oracle for Names {
    fn promise(&self) -> &'static str {
        "I11 acknowledged names survive"
    }

    fn fact(&mut self, fact: &Fact, _: Time) -> Result<(), String> {
        match fact {
            Fact::NameAsked { keeper, number, name } => {
                self.wanted.insert((*keeper, *number), name);
            }
            Fact::NameGiven { keeper, number, name } => {
                let number = (*keeper, *number);
                if !self.ending.contains(keeper) && !self.let_go.contains(&number) {
                    self.given.insert(number, name);
                }
            }
            Fact::NameLetGo { keeper, number } => {
                self.let_go.insert((*keeper, *number));
                self.given.remove(&(*keeper, *number));
            }
            Fact::NameReturned { keeper, number } => {
                self.wanted.remove(&(*keeper, *number));
            }
            Fact::KeeperGiven { by, keeper } if by != keeper && !self.ending.contains(keeper) => {
                self.guests.insert((*by, *keeper));
            }
            Fact::JobMayEnd { job } | Fact::JobHasEnded { job } => {
                self.ending.insert(*job);
                self.given.retain(|(keeper, _), _| keeper != job);
                self.guests.retain(|(by, keeper)| by != job && keeper != job);
            }
            Fact::HeadBegins { kept, .. } => {
                if let Some((_, keeper)) = self.guests.iter().find(|(_, keeper)| !kept.keepers.contains_key(keeper)) {
                    return Err(format!("{keeper}, which keeps actors, is forgotten"));
                }
                return self.compare(kept);
            }
            Fact::Rest { kept, .. } => return self.compare(kept),
            _ => {}
        }
        Ok(())
    }
}

impl Names {
    fn compare(&self, kept: &Kept) -> Result<(), String> {
        for ((keeper, number), name) in &self.given {
            let holder = kept.names.get(*name);
            if holder != Some(keeper) {
                return Err(format!("{name}, number {number} of {keeper}, is forgotten: {holder:?} has it"));
            }
        }
        let wanted = |name: &str, keeper: JobId| self.wanted.iter().any(|((of, _), its)| *of == keeper && *its == name);
        if let Some((name, keeper)) = kept.names.iter().find(|(name, keeper)| !wanted(name, **keeper)) {
            return Err(format!("{name} of {keeper} is held after it was given back"));
        }
        match self.guests.iter().find(|guest| !kept.guests.contains(guest)) {
            Some((by, keeper)) => Err(format!("{by} may not call {keeper} any more")),
            None => Ok(()),
        }
    }
}
