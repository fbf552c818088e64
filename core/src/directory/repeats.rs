//! Tells a request from its repetition.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::planted::{self, Bug};

/// The numbers of the requests that have come from one member. They come nearly in order, so this stays small.
///
/// A number that never comes, since its request was not sent, leaves a gap. When too many have come beyond it, the gap is
/// closed: what is so late counts as a repetition.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Repeats {
    /// All below this have come.
    below: u64,
    /// And these beyond it.
    beyond: BTreeSet<u64>,
}

impl Repeats {
    /// True if `number` has not come before.
    pub(super) fn is_new(&mut self, number: u64) -> bool {
        if number < self.below || !self.beyond.insert(number) {
            return planted::is(Bug::RepeatDone);
        }
        if self.beyond.len() > limits::DIRECTORY_GAPS_MAX
            && let Some(first) = self.beyond.first()
        {
            self.below = *first;
        }
        while self.beyond.remove(&self.below) {
            self.below = self.below.saturating_add(1);
        }
        true
    }

    /// Numbers that are kept one by one.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.beyond.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_new_once_and_little_is_kept() {
        let mut repeats = Repeats::default();
        let numbers = [0, 2, 1, 1, 0, 3, 7, 7, 6, 5, 4, 2];
        let news: Vec<bool> = numbers.iter().map(|number| repeats.is_new(*number)).collect();
        let t = true;
        let f = false;
        assert_eq!(news, [t, t, t, f, f, t, t, f, t, t, t, f]);
        assert_eq!((repeats.below, repeats.kept()), (8, 0));
    }

    #[test]
    fn a_gap_that_is_never_filled_is_closed() {
        let mut repeats = Repeats::default();
        // Neither 0 nor 5 ever comes in time.
        for number in (1..10_000).filter(|number| *number != 5) {
            assert!(repeats.is_new(number), "{number}");
            assert!(!repeats.is_new(number), "{number}");
            assert!(repeats.kept() <= limits::DIRECTORY_GAPS_MAX, "{number}");
        }
        assert!(!repeats.is_new(0) && !repeats.is_new(5));
        // Whoever skips to the end of all numbers gains nothing.
        assert!(repeats.is_new(u64::MAX));
        assert!(repeats.is_new(10_000));
    }
}
