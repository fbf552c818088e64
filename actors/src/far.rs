//! An actor of another node, and how messages get there.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use mobula_core::codec::{self, EncodeError};
use mobula_core::{ActorId, CallError, Deadline, NodeId, RemoteMessage, limits};
use mobula_transport::{Accepted, Call, now};

use crate::acceptance::Acceptance;
use crate::ask::{Ask, Tell};
use crate::dead_letter::{DeadLetter, Unheard, sending_node};
use crate::node::{Node, NodeLink};
use crate::reply::{Answer, Pending, Slot, StreamReader};
use crate::scope;
use crate::way::Way;

pub(crate) struct Far {
    pub(crate) node: NodeId,
    pub(crate) actor: ActorId,
    /// The node of this process through which the call goes.
    via: Option<Node>,
    link: OnceLock<Arc<NodeLink>>,
}

impl Far {
    pub(crate) fn new(node: NodeId, actor: ActorId, via: Option<Node>) -> Self {
        Far { node, actor, via, link: OnceLock::new() }
    }

    /// Sends an ask at `now`.
    pub(crate) fn ask<M: RemoteMessage>(&self, message: M, now: Instant, deadline: Deadline) -> Ask<M> {
        self.ask_with(now, deadline, |out| codec::encode_into(&message, out))
    }

    /// As [`ask`](Self::ask), the message as `body` writes it.
    pub(crate) fn ask_with<M: RemoteMessage>(
        &self,
        now: Instant,
        deadline: Deadline,
        body: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
    ) -> Ask<M> {
        let link = match self.link() {
            Ok(link) => link,
            Err(error) => return Ask::failed(error),
        };
        let slot = Slot::new();
        let waiter = Pending(Arc::clone(&slot) as _);
        let sent = link.ask_at(now, &self.call::<M>(deadline), waiter, body);
        Ask::far(slot, link, sent)
    }

    /// As [`ask`](Self::ask), with many answers, which `reader` takes.
    pub(crate) fn open_stream<M: RemoteMessage>(
        &self,
        message: M,
        deadline: Deadline,
        reader: Arc<dyn StreamReader>,
    ) -> Result<Way, CallError> {
        let link = self.link()?;
        let sent = link.ask(&self.call::<M>(deadline), Pending(reader), |out| codec::encode_into(&message, out));
        sent.map(|request| Way::far(link, request)).map_err(|(error, _)| error)
    }

    pub(crate) fn tell<M: RemoteMessage>(&self, message: M, deadline: Deadline) -> Tell<M> {
        self.tell_with(deadline, |out| codec::encode_into(&message, out))
    }

    /// As [`tell`](Self::tell), the message as `body` writes it.
    pub(crate) fn tell_with<M: RemoteMessage>(
        &self,
        deadline: Deadline,
        body: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
    ) -> Tell<M> {
        let link = match self.link() {
            Ok(link) => link,
            Err(error) => return self.refused(error),
        };
        let mut acceptance = None;
        let told =
            link.tell(&self.call::<M>(deadline), || self.waiter::<M>(acceptance.insert(Acceptance::near())), body);
        match (told, acceptance) {
            (Err(error), _) => self.refused(error),
            (Ok(Accepted::InLine), Some(acceptance)) => Tell::far(acceptance),
            (Ok(_), _) => Tell::accepted(),
        }
    }

    pub(crate) fn tell_acked<M: RemoteMessage>(&self, message: M, deadline: Deadline) -> Tell<M> {
        let link = match self.link() {
            Ok(link) => link,
            Err(error) => return self.refused(error),
        };
        let acceptance = Acceptance::near();
        let waiter = self.waiter::<M>(&acceptance);
        match link.post(&self.call::<M>(deadline), waiter, |out| codec::encode_into(&message, out)) {
            Ok(_) => Tell::far(acceptance),
            Err((error, _)) => self.refused(error),
        }
    }

    fn refused<M: RemoteMessage>(&self, reason: CallError) -> Tell<M> {
        Tell::refused(Unheard::new(sending_node(self.via.as_ref()), self.dead_letter::<M>(reason)))
    }

    fn dead_letter<M: RemoteMessage>(&self, reason: CallError) -> DeadLetter {
        DeadLetter { node: self.node.clone(), actor: self.actor, message: M::NAME, reason, body: None }
    }

    fn waiter<M: RemoteMessage>(&self, acceptance: &Arc<Acceptance>) -> Pending {
        let via = sending_node(self.via.as_ref());
        let (target, actor) = (self.node.clone(), self.actor);
        Pending(Arc::new(Told { acceptance: Arc::clone(acceptance), via, target, actor, message: M::NAME }))
    }

    pub(crate) fn try_tell<M: RemoteMessage>(&self, message: M, deadline: Deadline) -> Result<(), CallError> {
        let link = self.link()?;
        if !link.has_credit(self.actor) {
            return Err(CallError::Full { limit: limits::CREDIT_MESSAGES.into() });
        }
        let waiter = || {
            let acceptance = Acceptance::near();
            acceptance.abandon();
            self.waiter::<M>(&acceptance)
        };
        link.tell(&self.call::<M>(deadline), waiter, |out| codec::encode_into(&message, out)).map(|_| ())
    }

    pub(crate) fn via(&self) -> Option<Node> {
        self.via.clone().or_else(scope::current_node)
    }

    pub(crate) fn link(&self) -> Result<&Arc<NodeLink>, CallError> {
        if let Some(link) = self.link.get() {
            return Ok(link);
        }
        let Some(via) = self.via() else {
            let reason = "this process runs no node".to_owned();
            return Err(CallError::Unreachable { node: self.node.clone(), sent: false, reason });
        };
        let link = via.link(&self.node, self.actor)?;
        Ok(self.link.get_or_init(|| link))
    }

    /// Why nothing can be sent to it, as far as this node knows.
    pub(crate) fn known_end(&self) -> Option<CallError> {
        self.through()?.link(&self.node, self.actor).err()
    }

    /// The node of this process through which calls go.
    pub(crate) fn through(&self) -> Option<Node> {
        self.via.clone().or_else(scope::current_node)
    }

    fn call<M: RemoteMessage>(&self, deadline: Deadline) -> Call {
        Call { target: self.actor, key: M::KEY, name: M::NAME, schema: M::SCHEMA, deadline }
    }
}

/// A tell that waits for its place, as the connection sees it.
struct Told {
    acceptance: Arc<Acceptance>,
    via: Option<Node>,
    target: NodeId,
    actor: ActorId,
    message: &'static str,
}

impl Answer for Told {
    fn answer(&self, answer: Result<&[u8], CallError>) {
        match answer {
            Ok(_) => self.acceptance.accept(),
            Err(reason) => {
                let (node, actor, message) = (self.target.clone(), self.actor, self.message);
                let letter = DeadLetter { node, actor, message, reason, body: None };
                self.acceptance.refuse(Unheard::new(self.via.clone(), letter));
            }
        }
    }

    fn accepted(&self) {
        self.acceptance.accept();
    }
}

/// How long the calls through a reference wait.
#[derive(Clone, Copy)]
pub(crate) enum Wait {
    /// 30 s for an ask.
    Default,
    For(Duration),
    ForEver,
}

impl Wait {
    /// No later than the call that is being handled.
    pub(crate) fn of_ask(self) -> Deadline {
        self.of_ask_at(now())
    }

    pub(crate) fn of_ask_at(self, now: Instant) -> Deadline {
        let own = match self {
            Wait::Default => Deadline::after(now, limits::ASK_DEADLINE),
            Wait::For(wait) => Deadline::after(now, wait),
            Wait::ForEver => Deadline::NEVER,
        };
        own.min(scope::deadline())
    }

    /// A tell has no deadline unless it was given one: what it starts may well outlive the call that tells it.
    pub(crate) fn of_tell(self) -> Deadline {
        match self {
            Wait::For(wait) => Deadline::after(now(), wait),
            Wait::Default | Wait::ForEver => Deadline::NEVER,
        }
    }
}
