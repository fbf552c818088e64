//! Detached actors, which belong to another job than their callers: how a process of one job has the other create and find them.
//!
//! The other job is their keeper. Any of its workers is asked, as a guest asks: it has its own job do what it wants, under the rules of that job, and
//! is a member of nothing there.

use std::time::Duration;

use mobula_core::directory::{Answer as DirectoryAnswer, Found, Request as DirectoryRequest};
use mobula_core::{ActorAddress, CallError, Deadline, NodeId, codec, limits};
use mobula_transport::now;
use serde::{Deserialize, Serialize};

use crate::actor::{ActorSpec, Placement, RemoteActor, SpawnOptions};
use crate::actor_ref::ActorRef;
use crate::ask;
use crate::control::{self, Control, ControlReply, SpawnError};
use crate::node::{Node, unexpected};
use crate::placing::Demand;
use crate::scope;

/// What a guest asks for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum GuestRequest {
    /// A detached actor is to be created.
    Create {
        actor_type: String,
        schema: u64,
        #[serde(with = "serde_bytes")]
        args: Vec<u8>,
        options: Box<SpawnOptions>,
        demand: Box<Demand>,
    },
    /// Who bears a name.
    Find { name: String, actor_type: String },
}

/// What it is answered.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum GuestAnswer {
    Created(Result<ActorAddress, SpawnError>),
    Found(Result<Option<ActorAddress>, CallError>),
}

/// What an answer may take longer than the actor may wait for its place.
const CREATION: Duration = limits::ASK_DEADLINE;

impl<A: RemoteActor> ActorSpec<A> {
    /// A [detached](Self::detached) actor, as its [keeper](Node::create_detached) is told of it.
    ///
    /// # Errors
    /// [`SpawnError::CannotDetach`] if it has no name, or is to be in a placement group.
    pub fn for_keeper(mut self) -> Result<Self, SpawnError> {
        let cannot = |reason: &str| Err(SpawnError::CannotDetach { reason: reason.to_owned() });
        let Some(name) = self.options.name.clone() else {
            return cannot("others find it by its name: give it one, with .name(..)");
        };
        self.demand.placement = match self.demand.placement {
            Placement::Group { .. } => return cannot("a placement group ends with its job: place it outside of one"),
            // The process there is one of this job; the other job has its own on the same host, with the same name.
            Placement::Node(node) => Placement::Named { name: node.name.to_string(), soft: false },
            placement => placement,
        };
        self.demand.detached = Some(name);
        self.options.detached = false;
        Ok(self)
    }
}

impl Node {
    /// Has the keeper of detached actors create one, described [for it](ActorSpec::for_keeper): `host` is any of its workers.
    ///
    /// # Errors
    /// [`SpawnError`]; [`SpawnError::NameHeld`] if another has the name.
    /// # Cancel safety
    /// Dropping the future takes an actor back that is not there yet; one that has just come to be is found by its name.
    pub async fn create_detached<A: RemoteActor>(
        &self,
        host: &NodeId,
        spec: ActorSpec<A>,
    ) -> Result<ActorRef<A>, SpawnError> {
        let args = codec::encode(&spec.args)
            .map_err(|error| SpawnError::Call(CallError::Encode { reason: error.to_string(), reply: false }))?;
        let within = spec.demand.within.unwrap_or(limits::PLACE_DEADLINE).saturating_add(CREATION);
        let (options, demand) = (Box::new(spec.options), Box::new(spec.demand));
        let create = GuestRequest::Create { actor_type: A::NAME.to_owned(), schema: A::SCHEMA, args, options, demand };
        match self.ask_keeper(host, create, Deadline::after(now(), within)).await? {
            GuestAnswer::Created(created) => created.map(|actor| self.reference(&actor.node, actor.actor)),
            GuestAnswer::Found(_) => Err(unexpected().into()),
        }
    }

    /// Asks the keeper of detached actors for the one of that name, if it is an `A`: `host` is any of its workers.
    ///
    /// # Errors
    /// [`CallError`] if it cannot be asked. Cancel-safe.
    pub async fn find_detached<A: RemoteActor>(
        &self,
        host: &NodeId,
        name: &str,
    ) -> Result<Option<ActorRef<A>>, CallError> {
        let find = GuestRequest::Find { name: name.to_owned(), actor_type: A::NAME.to_owned() };
        match self.ask_keeper(host, find, ask::default_deadline()).await? {
            GuestAnswer::Found(found) => Ok(found?.map(|actor| self.reference(&actor.node, actor.actor))),
            GuestAnswer::Created(_) => Err(unexpected()),
        }
    }

    async fn ask_keeper(&self, host: &NodeId, ask: GuestRequest, until: Deadline) -> Result<GuestAnswer, CallError> {
        if host == self.id() {
            return Ok(serve(self, ask).await);
        }
        let link = self.control_link_to(host)?;
        let control = Control::Guest(Box::new(ask));
        match control::request_until(&link, &control, until.min(scope::deadline())).await? {
            ControlReply::Guest(answer) => Ok(*answer),
            _ => Err(unexpected()),
        }
    }

    /// Waits until `node`, one of this job, is connected to `peer`, or for so long. True if it is.
    ///
    /// # Errors
    /// [`CallError`] if it cannot be asked. Cancel-safe.
    pub async fn await_peer(&self, node: &NodeId, peer: &NodeId, within: Duration) -> Result<bool, CallError> {
        match self.request(node, Control::AwaitPeer { peer: peer.clone(), within }).await? {
            ControlReply::PeerThere(there) => Ok(there),
            _ => Err(unexpected()),
        }
    }
}

/// Does, as a worker of the keeper, what one of its guests asks for.
pub(crate) async fn serve(node: &Node, request: GuestRequest) -> GuestAnswer {
    // A keeper may have just begun: guests may be here before its driver is.
    let _ = tokio::time::timeout(limits::NODE_START_DEADLINE, node.connected(&node.head())).await;
    match request {
        GuestRequest::Create { actor_type, schema, args, options, demand } => {
            GuestAnswer::Created(create(node, actor_type, schema, args, *options, &demand).await)
        }
        GuestRequest::Find { name, actor_type } => {
            let found = node.ask_directory(DirectoryRequest::Find { name, actor_type }).await;
            GuestAnswer::Found(match found {
                Ok(DirectoryAnswer::Found(found)) => {
                    Ok(found.map(|Found { node, actor }| ActorAddress { node, actor }))
                }
                Ok(DirectoryAnswer::Refused(refusal)) => Err(node.refused(&refusal)),
                Ok(_) => Err(unexpected()),
                Err(error) => Err(error),
            })
        }
    }
}

async fn create(
    node: &Node,
    actor_type: String,
    schema: u64,
    args: Vec<u8>,
    mut options: SpawnOptions,
    demand: &Demand,
) -> Result<ActorAddress, SpawnError> {
    if demand.detached.is_none() || demand.detached != options.name {
        return Err(SpawnError::CannotDetach { reason: "it has not the name that it is to be found by".to_owned() });
    }
    let seat = node.seat(demand).await?;
    options.granted = seat.granted();
    let actor = node.spawn_encoded(seat.node(), actor_type, schema, args, options).await?;
    let address = ActorAddress { node: seat.node().clone(), actor };
    seat.hold(actor);
    Ok(address)
}
