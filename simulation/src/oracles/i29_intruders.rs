//! I29, I30: who cannot prove the secret, repeats a handshake or speaks under another's name gets no link.

use super::{Oracle, View};
use crate::fact::Fact;
use crate::params::Intruder;

pub(super) struct Intruders;

impl Oracle for Intruders {
    fn promise(&self) -> &'static str {
        "I29 an unauthenticated peer leaves nothing, I30 a frame's source is who it was proven to be"
    }

    fn fact(&mut self, fact: &Fact, _: &View<'_>) -> Result<(), String> {
        match *fact {
            Fact::Admitted { life, intruder: Some(intruder), .. }
                if !matches!(intruder, Intruder::Spoofer | Intruder::Mute) =>
            {
                Err(format!("life {life} admits an intruder: {intruder:?}"))
            }
            Fact::LinkUp { end, peer, proven, .. } if peer != proven => {
                Err(format!("end {end}: {proven:016x} was proven, and says that it is {peer:016x}"))
            }
            _ => Ok(()),
        }
    }
}
