//! Wakes those who wait for news of one thing.

use std::collections::HashMap;
use std::hash::Hash;

use parking_lot::Mutex;
use tokio::sync::watch;

/// A bell for each thing that somebody listens to.
pub(crate) struct Bells<K>(Mutex<HashMap<K, watch::Sender<()>>>);

impl<K> Default for Bells<K> {
    fn default() -> Self {
        Bells(Mutex::default())
    }
}

impl<K: Eq + Hash> Bells<K> {
    /// Hears of every ring from now on.
    pub(crate) fn listen(&self, key: K) -> watch::Receiver<()> {
        let mut bells = self.0.lock();
        // Some things are over, and nobody rings for them any more.
        bells.retain(|_, bell| bell.receiver_count() > 0);
        bells.entry(key).or_default().subscribe()
    }

    /// There is news.
    pub(crate) fn ring(&self, key: &K) {
        let mut bells = self.0.lock();
        let is_heard = bells.get(key).map(|bell| {
            bell.send_replace(());
            bell.receiver_count() > 0
        });
        if is_heard == Some(false) {
            bells.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bell_that_nobody_hears_is_forgotten() {
        let bells = Bells::default();
        let (mut one, mut two) = (bells.listen(1), bells.listen(2));
        one.mark_unchanged();
        two.mark_unchanged();
        bells.ring(&1);
        assert!(one.has_changed().expect("it is there") && !two.has_changed().expect("it is there"));
        drop(one);
        bells.ring(&1);
        bells.ring(&3);
        assert_eq!(bells.0.lock().len(), 1);
    }
}
