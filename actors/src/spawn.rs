//! Brings a new actor to life on the arbiter where it will stay.

use std::sync::Arc;

use mobula_core::ExitReason;
use tokio::sync::oneshot;

use crate::actor::{RemoteActor, SpawnOptions};
use crate::begin;
use crate::cell::{Cell, Shared};
use crate::control::SpawnError;
use crate::directory::Afterwards;
use crate::keyed::KEYED;
use crate::mailbox::Order;
use crate::node::{Hosted, Node, Registration};
use crate::snapshot;

/// Creates an actor on `node` and waits until its `started` has run. The actor itself never crosses threads: its
/// arguments do.
pub(crate) async fn spawn<A: RemoteActor>(
    node: &Node,
    args: A::Args,
    options: SpawnOptions,
) -> Result<Arc<Shared<A>>, SpawnError> {
    let identity = options.name.clone();
    if let Some(name) = identity.as_ref().filter(|name| name.starts_with(KEYED)) {
        return Err(SpawnError::ReservedName { name: name.clone() });
    }
    spawn_as(node, args, options, identity).await
}

/// As [`spawn`], known in the cluster by `identity`, whatever its options say.
pub(crate) async fn spawn_as<A: RemoteActor>(
    node: &Node,
    args: A::Args,
    options: SpawnOptions,
    identity: Option<String>,
) -> Result<Arc<Shared<A>>, SpawnError> {
    if options.detached {
        let reason = "it can only be created by Cluster::spawn, by itself: monitor or link it then".to_owned();
        return Err(SpawnError::CannotDetach { reason });
    }
    let id = node.next_actor_id();
    let registration = Registration::new(node, id);
    let shared = Arc::new(Shared::new(id, node.clone(), &options, identity.clone()));
    // Whoever finds its name finds the actor, and its mail waits until it begins.
    registration.enter(Arc::new(Hosted::<A>(Arc::clone(&shared))))?;
    let unborn = Unborn { shared: Arc::clone(&shared), registration: Some(registration) };
    let tenure = match &identity {
        Some(identity) => Some(node.claim(id, identity, A::NAME).await?),
        None => None,
    };
    let snapshots = match options.snapshots {
        Some(policy) => {
            let opened = snapshot::open(node, A::NAME, policy, identity).await;
            let failed = |error| SpawnError::Snapshot { actor_type: A::NAME.to_owned(), error };
            Some(Arc::new(opened.map_err(failed)?))
        }
        None => None,
    };
    shared.stand(tenure, snapshots);
    if options.keep_end {
        node.keep_end(shared.id);
    }
    if let Some(peer) = &options.link {
        node.links().link(node, shared.id, peer.clone())?;
    }
    let own = if options.own_thread { Some(node.own_thread().await?) } else { None };
    let (arbiter, load) = match &own {
        Some(own) => (own.clone(), None),
        None => {
            let (arbiter, load) = node.least_loaded_arbiter();
            (arbiter, Some(load))
        }
    };
    let (started, told) = oneshot::channel();
    let mut asked_for = AskedFor(Some(Arc::clone(&shared)));
    node.watchdog().expect(options.stuck);
    let sent = arbiter.spawn_fn(move || {
        let (cell_shared, registration) = unborn.into_born();
        let create = Box::new(move || A::make(args.clone()));
        cell_shared.on_end(Box::new(move |after| {
            if let Some(registration) = registration {
                registration.end(after);
            }
            // The thread lives as long as its only actor.
            if let Some(own) = own {
                own.stop();
            }
            load
        }));
        begin::on_this_thread(Cell::new(cell_shared, create, options.restart, started));
    });
    if !sent {
        return Err(SpawnError::NodeEnding);
    }
    told.await.unwrap_or(Err(SpawnError::NodeEnding))?;
    asked_for.0 = None;
    Ok(shared)
}

/// An actor that can be found already and has no cell yet. Dropped like that, it will never live, and that is told.
struct Unborn<A: RemoteActor> {
    shared: Arc<Shared<A>>,
    registration: Option<Registration>,
}

impl<A: RemoteActor> Unborn<A> {
    /// From here on its cell looks after its end.
    fn into_born(mut self) -> (Arc<Shared<A>>, Option<Registration>) {
        (Arc::clone(&self.shared), self.registration.take())
    }
}

impl<A: RemoteActor> Drop for Unborn<A> {
    fn drop(&mut self) {
        let Some(registration) = self.registration.take() else { return };
        self.shared.shut();
        let shared = Arc::clone(&self.shared);
        registration.end(Afterwards::new(move || shared.tell_end(false, &ExitReason::Killed)));
    }
}

/// An actor that somebody waits for. Dropped like that, nobody will know it, and it ends.
struct AskedFor<A: RemoteActor>(Option<Arc<Shared<A>>>);

impl<A: RemoteActor> Drop for AskedFor<A> {
    fn drop(&mut self) {
        if let Some(shared) = self.0.take() {
            shared.mailbox.order(Order::Discard);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;
    use mobula_core::{ActorAddress, ActorId, CallError};

    use super::*;
    use crate::NodeConfig;
    use crate::monitor::Watch;
    use crate::task::TaskRunner;

    #[test]
    fn an_actor_that_never_lives_is_told_to_all_who_know_it() {
        let node = Node::start(NodeConfig::default()).expect("a node");
        let (id, other) = (node.next_actor_id(), node.next_actor_id());
        let registration = Registration::new(&node, id);
        let shared = Arc::new(Shared::<TaskRunner>::new(id, node.clone(), &SpawnOptions::default(), None));
        registration.enter(Arc::new(Hosted(Arc::clone(&shared)))).expect("the node runs");
        let unborn = Unborn { shared: Arc::clone(&shared), registration: Some(registration) };
        let watch = Watch::of(node.actor(id).as_ref());
        let at = |actor: ActorId| ActorAddress { node: node.id().clone(), actor };
        node.links().set_for_test(&at(other), &at(id));
        let graceful = crate::ActorRef::near(Arc::clone(&shared)).stop_gracefully();
        assert_eq!(graceful.now_or_never(), Some(Ok(())), "its mail waits");
        drop(unborn);
        assert_eq!(watch.now_or_never(), Some(ExitReason::Killed));
        assert!(node.actor(id).is_none() && node.links().len() == 0);
        assert!(shared.mailbox.is_closed());
        let asked = crate::ActorRef::near(shared).with_deadline(Duration::from_secs(1)).known_end();
        assert_eq!(asked, Some(CallError::Stopped));
        node.shut_down("the test is over");
    }
}
