//! Where the heads of a cluster are, and which of them is asked.

use std::net::SocketAddr;
use std::sync::Arc;

use mobula_core::limits;
use parking_lot::Mutex;
use tokio::sync::watch;

/// The heads of a cluster, one of which leads as far as is known. Clones are the same: what one client learns all know.
#[derive(Clone, Debug)]
pub struct Heads {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    all: Mutex<Vec<SocketAddr>>,
    current: watch::Sender<SocketAddr>,
}

impl Heads {
    /// The head at `first`, and others, [`limits::HEADS_MAX`] at most.
    pub fn new(first: SocketAddr, others: impl IntoIterator<Item = SocketAddr>) -> Self {
        let heads =
            Heads { inner: Arc::new(Inner { all: Mutex::new(vec![first]), current: watch::Sender::new(first) }) };
        heads.learn(others);
        heads
    }

    /// The one to ask.
    pub fn current(&self) -> SocketAddr {
        *self.inner.current.borrow()
    }

    /// All that are known, the one to ask first.
    pub fn all(&self) -> Vec<SocketAddr> {
        let current = self.current();
        let others = self.inner.all.lock().clone().into_iter().filter(|address| *address != current);
        std::iter::once(current).chain(others).collect()
    }

    /// There are these as well. If they become too many, those go first of which was heard the longest ago.
    pub fn learn(&self, heads: impl IntoIterator<Item = SocketAddr>) {
        let heads: Vec<_> = heads.into_iter().take(limits::HEADS_MAX).collect();
        let current = self.current();
        let mut all = self.inner.all.lock();
        for address in &heads {
            if all.contains(address) {
                continue;
            }
            if all.len() >= limits::HEADS_MAX {
                let Some(at) = all.iter().position(|known| *known != current && !heads.contains(known)) else { return };
                all.remove(at);
            }
            all.push(*address);
        }
    }

    /// The one at `address` cannot be asked: the next is, unless somebody has gone on already.
    pub fn failed(&self, address: SocketAddr) {
        self.move_on(address, None);
    }

    /// The one at `address` does not lead, and may know who does.
    pub fn refused(&self, address: SocketAddr, leader: Option<SocketAddr>) {
        self.learn(leader);
        self.move_on(address, leader.filter(|leader| *leader != address));
    }

    fn move_on(&self, from: SocketAddr, to: Option<SocketAddr>) {
        let next = {
            let all = self.inner.all.lock();
            let at = all.iter().position(|address| *address == from).map_or(0, |at| at + 1);
            let next = to.filter(|to| all.contains(to)).or_else(|| all.get(at % all.len()).copied());
            next.unwrap_or(from)
        };
        self.inner.current.send_if_modified(|current| {
            let moves = *current == from && next != from;
            if moves {
                *current = next;
            }
            moves
        });
    }

    /// Resolves when another than `address` is to be asked. Cancel-safe.
    pub(crate) async fn moved_from(&self, address: SocketAddr) {
        let mut current = self.inner.current.subscribe();
        // It is not dropped before this is.
        let _ = current.wait_for(|current| *current != address).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    #[test]
    fn who_fails_is_followed_by_the_next_and_once_by_the_one_that_is_named() {
        let heads = Heads::new(at(1), [at(2), at(3), at(1)]);
        assert_eq!(heads.all(), [at(1), at(2), at(3)]);
        heads.failed(at(1));
        // Another client says the same, later.
        heads.failed(at(1));
        assert_eq!(heads.current(), at(2));
        heads.refused(at(2), Some(at(1)));
        assert_eq!(heads.all(), [at(1), at(2), at(3)]);
        heads.refused(at(1), None);
        heads.failed(at(2));
        heads.failed(at(3));
        assert_eq!(heads.current(), at(1), "round and round");
        heads.refused(at(1), Some(at(9)));
        assert_eq!(heads.current(), at(9), "one that was not known");
        heads.refused(at(9), Some(at(9)));
        assert_ne!(heads.current(), at(9), "who says so of itself does not lead yet");
    }

    #[test]
    fn a_single_head_stays_and_their_number_is_bounded() {
        let heads = Heads::new(at(1), []);
        heads.failed(at(1));
        heads.refused(at(1), None);
        assert_eq!(heads.current(), at(1));
        heads.learn((0..1000).map(at));
        assert_eq!(heads.all().len(), limits::HEADS_MAX);
        // Heads that come back elsewhere, again and again, are found all the same.
        for port in 2000..2100 {
            heads.refused(heads.current(), Some(at(port)));
            assert_eq!(heads.current(), at(port));
        }
        heads.learn([at(3000)]);
        let all = heads.all();
        assert_eq!((all.len(), all[0]), (limits::HEADS_MAX, at(2099)));
        assert!(all.contains(&at(3000)) && !all.contains(&at(1)), "{all:?}");
    }
}
