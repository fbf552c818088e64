//! Brings a new actor to life on the arbiter where it will stay.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::actor::{RemoteActor, SpawnOptions};
use crate::cell::{Cell, Shared};
use crate::control::SpawnError;
use crate::keyed::KEYED;
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
    let id = node.next_actor_id();
    let registration = Registration::new(node, id);
    let tenure = match &identity {
        Some(identity) => Some(node.claim(id, identity, A::NAME).await?),
        None => None,
    };
    let snapshots = match options.snapshots {
        Some(policy) => {
            let opened = snapshot::open(node, A::NAME, policy, identity.clone()).await;
            let failed = |error| SpawnError::Snapshot { actor_type: A::NAME.to_owned(), error };
            Some(Arc::new(opened.map_err(failed)?))
        }
        None => None,
    };
    let mut shared = Shared::new(id, node.clone(), &options, identity, tenure);
    shared.snapshots = snapshots;
    let shared = Arc::new(shared);
    registration.enter(Arc::new(Hosted::<A>(Arc::clone(&shared))))?;
    if options.keep_end {
        node.keep_end(shared.id);
    }
    if let Some(peer) = &options.link {
        node.links().link(node, shared.id, peer.clone());
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
    let cell_shared = Arc::clone(&shared);
    let sent = arbiter.spawn_fn(move || {
        let create = Box::new(move || A::make(args.clone()));
        let on_end = Box::new(move |after| {
            drop(load);
            registration.end(after);
            // The thread lives as long as its only actor.
            if let Some(own) = own {
                own.stop();
            }
        });
        actix_rt::spawn(Cell::new(cell_shared, create, options.restart, started, on_end));
    });
    if !sent {
        return Err(SpawnError::NodeEnding);
    }
    told.await.unwrap_or(Err(SpawnError::NodeEnding))?;
    Ok(shared)
}
