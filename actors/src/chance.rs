//! The randomness of a node: the system's, or a seed's, so that a test can repeat what happened.

use std::io;

use parking_lot::Mutex;

/// Drawn from in the order of the calls.
pub(crate) struct Chance(Mutex<State>);

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): enough for identities and jitter, of no use for secrets.
struct State(u64);

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
        Ok(Chance(Mutex::new(State(seed))))
    }

    /// 64 bits, each as likely 0 as 1.
    pub(crate) fn bits(&self) -> u64 {
        let mut state = self.0.lock();
        state.0 = state.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state.0 ^ (state.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
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
