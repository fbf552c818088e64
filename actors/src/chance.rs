//! The randomness of a node: the system's, or a seed's, so that a test can repeat what happened.

use std::io;

use mobula_core::SplitMix64;
use parking_lot::Mutex;

/// Drawn from in the order of the calls.
pub(crate) struct Chance(Mutex<SplitMix64>);

impl Chance {
    /// # Errors
    /// If there is no seed, and the system has no randomness.
    pub(crate) fn new(seed: Option<u64>) -> io::Result<Self> {
        let seed = match seed {
            Some(seed) => seed,
            None => {
                let mut bytes = [0; 8];
                getrandom::fill(&mut bytes)?;
                u64::from_ne_bytes(bytes)
            }
        };
        Ok(Chance(Mutex::new(SplitMix64::new(seed))))
    }

    /// 64 bits, each as likely 0 as 1.
    pub(crate) fn bits(&self) -> u64 {
        self.0.lock().bits()
    }

    /// A number from 0 to 1: where in its bounds something falls.
    pub(crate) fn fraction(&self) -> f64 {
        f64::from((self.bits() >> 32) as u32) / f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_the_system_does_not() {
        let draw = |seed| {
            let chance = Chance::new(seed).expect("randomness");
            [chance.bits(), chance.bits()]
        };
        assert_eq!(draw(Some(7)), draw(Some(7)));
        assert_ne!(draw(Some(7)), draw(Some(8)));
        assert_ne!(draw(None), draw(None));
        // The generator's published first value for the seed 0.
        assert_eq!(draw(Some(0))[0], 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn fractions_fill_their_range() {
        let chance = Chance::new(Some(1)).expect("a seed");
        let drawn: Vec<_> = (0..1000).map(|_| chance.fraction()).collect();
        assert!(drawn.iter().all(|fraction| (0.0..=1.0).contains(fraction)));
        let below = drawn.iter().filter(|fraction| **fraction < 0.5).count();
        assert!((400..600).contains(&below), "{below}");
    }
}
