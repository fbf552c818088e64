//! The snapshots of one identity in a store: claims it for a new holder, finds the newest that can be read, and writes
//! what follows. A holder that is not the latest any more writes nothing.

use std::sync::Arc;

use mobula_core::limits;

use super::SnapshotError;
use super::format::{self, Body, Place};
use super::store::SnapshotStore;

/// How often the claim of an identity is tried again when another node was faster.
const CLAIMS_MAX: usize = 16;

/// The snapshots of one holder of an identity.
pub(crate) struct History {
    store: Arc<dyn SnapshotStore>,
    folder: String,
    actor_type: String,
    identity: String,
    epoch: u64,
    next: u64,
    /// Never deleted: somebody may want to look at them.
    unreadable: Vec<Place>,
}

/// What a new holder finds.
pub(crate) struct Claimed {
    pub(crate) history: History,
    /// The newest state that could be read.
    pub(crate) state: Option<Vec<u8>>,
    /// Snapshots that could not, newest first; they are left as they are.
    pub(crate) unreadable: Vec<(String, SnapshotError)>,
}

impl History {
    /// Becomes the latest holder. From here on no earlier one changes what a later one will find: the state that was
    /// found is the first snapshot of this holder.
    pub(crate) async fn claim(
        store: Arc<dyn SnapshotStore>,
        actor_type: &str,
        identity: &str,
    ) -> Result<Claimed, SnapshotError> {
        let folder = format::folder(actor_type, identity);
        for _ in 0..CLAIMS_MAX {
            let mut places = places(&*store, &folder).await?;
            places.sort_unstable_by(|a, b| b.cmp(a));
            let mut history = History {
                store: Arc::clone(&store),
                folder: folder.clone(),
                actor_type: actor_type.to_owned(),
                identity: identity.to_owned(),
                epoch: places.first().map_or(1, |newest| newest.epoch.saturating_add(1)),
                next: 0,
                unreadable: Vec::new(),
            };
            let (mut state, mut found, mut unreadable) = (None, None, Vec::new());
            for place in &places {
                match history.read(*place).await {
                    Ok(body) => {
                        (state, found) = (body.state, Some(*place));
                        break;
                    }
                    // It may come back: to go on from an older state would be to forget it.
                    Err(error @ SnapshotError::Store { .. }) => return Err(error),
                    Err(error) => {
                        unreadable.push((format!("{folder}/{}", place.name()), error));
                        history.unreadable.push(*place);
                    }
                }
            }
            if history.create(state.clone()).await? {
                if let Some(found) = found {
                    history.prune(&places, found).await;
                }
                return Ok(Claimed { history, state, unreadable });
            }
        }
        Err(SnapshotError::Store { reason: format!("`{identity}` was claimed by others {CLAIMS_MAX} times in a row") })
    }

    /// Writes the next snapshot.
    pub(crate) async fn save(&mut self, state: Vec<u8>) -> Result<(), SnapshotError> {
        let before = places(&*self.store, &self.folder).await?;
        let later = before.iter().map(|place| place.epoch).max().unwrap_or(0);
        if later > self.epoch {
            return Err(SnapshotError::Fenced { own: self.epoch, later });
        }
        let written = Place { epoch: self.epoch, number: self.next };
        if !self.create(Some(state)).await? {
            let reason = format!("there is a {}/{} already", self.folder, written.name());
            return Err(SnapshotError::Store { reason });
        }
        let all: Vec<Place> = before.into_iter().chain([written]).collect();
        self.prune(&all, written).await;
        Ok(())
    }

    async fn read(&self, place: Place) -> Result<Body, SnapshotError> {
        let bytes = self.store.read(&self.folder, &place.name()).await?;
        let body = Body::decode(&bytes)?;
        if body.actor_type != self.actor_type || body.identity != self.identity {
            let reason = format!("it is one of `{}` named `{}`", body.actor_type, body.identity);
            return Err(SnapshotError::Corrupt { reason });
        }
        Ok(body)
    }

    async fn create(&mut self, state: Option<Vec<u8>>) -> Result<bool, SnapshotError> {
        let place = Place { epoch: self.epoch, number: self.next };
        let body = Body { actor_type: self.actor_type.clone(), identity: self.identity.clone(), state };
        let created = self.store.create(&self.folder, &place.name(), body.encode()?).await?;
        // Also where it failed half-way: a number is used once.
        self.next += 1;
        Ok(created)
    }

    async fn prune(&self, places: &[Place], newest: Place) {
        let readable: Vec<Place> = places.iter().copied().filter(|place| !self.unreadable.contains(place)).collect();
        for place in format::superseded(&readable, newest, limits::SNAPSHOTS_KEPT) {
            if let Err(error) = self.store.delete(&self.folder, &place.name()).await {
                tracing::debug!(identity = self.identity, %error, "an old snapshot stays");
            }
        }
    }
}

async fn places(store: &dyn SnapshotStore, folder: &str) -> Result<Vec<Place>, SnapshotError> {
    let names = store.list(folder).await?;
    Ok(names.iter().filter_map(|name| Place::of(name)).collect())
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::super::store::MemorySnapshots;
    use super::*;

    /// The store in memory is never pending.
    fn now<T>(future: impl Future<Output = T>) -> T {
        future.now_or_never().expect("nothing waits")
    }

    fn claim(store: &Arc<MemorySnapshots>) -> Claimed {
        now(History::claim(Arc::clone(store) as _, "a::B", "till")).expect("the store works")
    }

    fn names(store: &MemorySnapshots) -> Vec<String> {
        let mut names = now(store.list(&format::folder("a::B", "till"))).expect("the store works");
        names.sort_unstable();
        names
    }

    #[test]
    fn the_next_holder_finds_the_newest_and_old_ones_are_deleted() {
        let store = Arc::<MemorySnapshots>::default();
        let mut first = claim(&store);
        assert_eq!(first.state, None);
        for number in 0..10 {
            now(first.history.save(vec![number])).expect("it holds the identity");
            assert!(names(&store).len() <= limits::SNAPSHOTS_KEPT + 1);
        }
        for _ in 0..5 {
            assert_eq!(claim(&store).state, Some(vec![9]));
        }
        assert!(names(&store).len() <= limits::SNAPSHOTS_KEPT + 1, "{:?}", names(&store));
    }

    #[test]
    fn an_earlier_holder_saves_nothing_any_more() {
        let store = Arc::<MemorySnapshots>::default();
        let mut first = claim(&store);
        now(first.history.save(vec![1])).expect("it holds the identity");
        let mut second = claim(&store);
        assert_eq!(now(first.history.save(vec![2])), Err(SnapshotError::Fenced { own: 1, later: 2 }));
        // One that had looked before the claim and writes after it changes nothing either.
        assert!(now(first.history.create(Some(vec![3]))).expect("the store works"));
        assert_eq!(claim(&store).state, Some(vec![1]));
        assert!(now(second.history.save(vec![4])).is_err(), "there is a third");
    }

    #[test]
    fn what_cannot_be_read_is_passed_over_and_left_as_it_is() {
        let store = Arc::<MemorySnapshots>::default();
        let mut first = claim(&store);
        now(first.history.save(vec![1])).expect("it holds the identity");
        let folder = format::folder("a::B", "till");
        let broken =
            [(Place { epoch: 1, number: 7 }, b"mobulasn".to_vec()), (Place { epoch: 1, number: 8 }, Vec::new())];
        for (place, bytes) in &broken {
            assert!(now(store.create(&folder, &place.name(), bytes.clone())).expect("the store works"));
        }
        let second = claim(&store);
        assert_eq!(second.state, Some(vec![1]));
        assert_eq!(second.unreadable.len(), 2);
        assert!(second.unreadable.iter().all(|(_, error)| matches!(error, SnapshotError::Corrupt { .. })));
        for (place, bytes) in broken {
            assert_eq!(now(store.read(&folder, &place.name())), Ok(bytes));
        }
    }
}
