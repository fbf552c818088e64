//! When nothing goes wrong any more, what nobody holds is free again, and a job that keeps no actors has ended.

use super::{Fact, Oracle};
use crate::params::Time;

/// Compares at rest.
#[derive(Debug)]
pub(crate) struct GivenBack;

impl Oracle for GivenBack {
    fn promise(&self) -> &'static str {
        "I14 what is over gives back what it had"
    }

    fn fact(&mut self, fact: &Fact, _: Time) -> Result<(), String> {
        let Fact::Rest { given, kept, .. } = fact else { return Ok(()) };
        if let Some((node, (taken, held))) = given.iter().find(|(_, (taken, held))| taken != held) {
            return Err(format!("{taken} ten-thousandths of cores are taken on {node}, and {held} are held"));
        }
        let keeps = |keeper| kept.names.values().any(|holder| holder == keeper);
        match kept.keepers.keys().find(|keeper| !keeps(*keeper)) {
            Some(keeper) => Err(format!("{keeper} goes on, and keeps nothing")),
            None => Ok(()),
        }
    }
}
