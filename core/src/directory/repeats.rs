//! Tells a request from its repetition.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// The numbers of the requests that have come from one member. They come nearly in order, so this stays small.
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
            return false;
        }
        while self.beyond.remove(&self.below) {
            self.below += 1;
        }
        true
    }

    /// Numbers that are kept one by one.
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
}
