//! Requests from another node: finds the actor and the route, keeps the credit, answers what cannot be delivered.

use std::sync::Arc;

use mobula_core::frame::MessageIndex;
use mobula_core::{ActorId, CallError, Deadline, IdMap, MessageKey, RemoteMessage, RequestId};
use mobula_transport::{Hello, Inbound, Lane, Payload, ReceiveCredit, Request, SessionError};

use crate::actor::Dispatch;
use crate::control::{self, Control};
use crate::dead_letter::DeadLetter;
use crate::node::{AnyActor, Node, NodeLink};
use crate::reply::Pending;
use crate::requests::Requests;
use crate::scope;
use crate::serving::Serving;

/// A message on its way into a mailbox.
pub(crate) struct Incoming<'a> {
    pub(crate) payload: Payload<'a>,
    pub(crate) request: Option<RequestId>,
    /// It wants no answer, only to be in the mailbox.
    pub(crate) post: bool,
    pub(crate) deadline: Deadline,
    pub(crate) flow: &'a Arc<Flow>,
    pub(crate) ticket: FlowTicket,
}

/// What one node sends to one actor here.
pub(crate) struct Flow {
    pub(crate) link: Arc<NodeLink>,
    pub(crate) requests: Arc<Requests>,
    target: ActorId,
    credit: ReceiveCredit,
}

/// One message of a flow. Until the actor has begun it, it holds its credit; dropping it returns that.
pub(crate) struct FlowTicket {
    flow: Arc<Flow>,
    message: MessageIndex,
    holds_credit: bool,
}

impl FlowTicket {
    /// The actor has begun the message: its credit goes back.
    pub(crate) fn begun(mut self) -> Self {
        self.return_credit();
        self
    }

    /// Of which flow the message is.
    pub(crate) fn flow(&self) -> &Arc<Flow> {
        &self.flow
    }

    pub(crate) fn return_credit(&mut self) {
        if std::mem::take(&mut self.holds_credit)
            && let Some(count) = self.flow.credit.on_taken()
        {
            self.flow.link.grant(self.flow.target, count);
            scope::touch(&self.flow.link);
        }
    }

    /// Hands the message, a tell, back to the node that it came from.
    pub(crate) fn undelivered(&self, reason: &CallError) {
        self.flow.link.undelivered(self.flow.target, self.message, reason);
        scope::touch(&self.flow.link);
    }
}

impl Drop for FlowTicket {
    fn drop(&mut self) {
        self.return_credit();
    }
}

/// The receiving end of one connection.
pub(crate) struct NodeInbound {
    node: Node,
    lane: Lane,
    types: Vec<MessageType>,
    targets: IdMap<u64, Target>,
    sweep_at: usize,
    requests: Arc<Requests>,
    /// Requests to the node itself.
    serving: Arc<Serving>,
}

struct MessageType {
    key: MessageKey,
    name: String,
    schema: u64,
}

struct Target {
    actor: Arc<dyn AnyActor>,
    flow: Arc<Flow>,
    /// By message index; filled on first use.
    routes: Vec<Option<Dispatch>>,
}

impl NodeInbound {
    pub(crate) fn new(node: Node, lane: Lane) -> Self {
        let serving = Serving::new(node.control_requests_max());
        let requests = Arc::default();
        node.conversations().enter(&requests);
        NodeInbound { node, lane, types: Vec::new(), targets: IdMap::default(), sweep_at: 64, requests, serving }
    }

    /// Forgets actors that have ended, now and then.
    fn sweep(&mut self, link: &Arc<NodeLink>) {
        self.targets.retain(|_, target| {
            let over = target.actor.is_over();
            if over && let Some(owed) = target.flow.credit.settle() {
                link.grant(target.flow.target, owed);
            }
            !over
        });
        self.sweep_at = (2 * self.targets.len()).max(64);
    }

    /// Whether a request to the node itself is of the type that this build knows.
    fn is_control(&self, request: &Request<'_>) -> Result<Result<(), CallError>, SessionError> {
        let Some(message) = self.types.get(request.message.0 as usize) else {
            return Err(SessionError::UndefinedMessage { index: request.message.0 });
        };
        let (name, theirs) = (message.name.clone(), message.schema);
        Ok(match message.key == Control::KEY {
            true if theirs == Control::SCHEMA => Ok(()),
            true => Err(CallError::SchemaMismatch { name, ours: Control::SCHEMA, theirs }),
            false => Err(CallError::UnknownMessage { message: name, actor_type: "mobula::Node".to_owned() }),
        })
    }

    /// Makes the row of a target that is not known yet.
    fn find(&mut self, link: &Arc<NodeLink>, id: ActorId) -> Result<(), CallError> {
        let Some(actor) = self.node.actor(id) else {
            link.grant(id, 1);
            return Err(CallError::NoSuchActor { actor: id });
        };
        if self.targets.len() >= self.sweep_at {
            self.sweep(link);
        }
        let flow = Arc::new(Flow {
            link: Arc::clone(link),
            requests: Arc::clone(&self.requests),
            target: id,
            credit: ReceiveCredit::new(self.node.hello().credit_messages),
        });
        self.node.conversations().enter_flow(&flow);
        self.targets.insert(id.0, Target { actor, flow, routes: Vec::new() });
        Ok(())
    }

    fn deliver(&mut self, link: &Arc<NodeLink>, request: Request<'_>) -> Result<Result<(), CallError>, SessionError> {
        let id = request.target;
        let target = match self.targets.get_mut(&id.0) {
            Some(target) => target,
            None => {
                if let Err(error) = self.find(link, id) {
                    return Ok(Err(error));
                }
                let Some(found) = self.targets.get_mut(&id.0) else {
                    return Ok(Err(CallError::NoSuchActor { actor: id }));
                };
                found
            }
        };
        target.flow.credit.on_message()?;
        let ticket = FlowTicket { flow: Arc::clone(&target.flow), message: request.message, holds_credit: true };
        let index = request.message.0 as usize;
        let Some(message) = self.types.get(index) else {
            return Err(SessionError::UndefinedMessage { index: request.message.0 });
        };
        if target.routes.len() <= index {
            target.routes.resize(index + 1, None);
        }
        let dispatch = match target.routes[index] {
            Some(dispatch) => dispatch,
            None => match target.actor.routes().find(message.key, &message.name, message.schema) {
                Ok(dispatch) => *target.routes[index].insert(dispatch),
                Err(error) => return Ok(Err(error)),
            },
        };
        let incoming = Incoming {
            payload: request.payload,
            request: request.request,
            post: request.post,
            deadline: request.deadline,
            flow: &target.flow,
            ticket,
        };
        let Some(id) = request.request.filter(|_| !request.post) else {
            return Ok(dispatch(target.actor.as_any(), incoming));
        };
        if !self.requests.begin(id) {
            return Err(SessionError::RequestTwice { request: id.0 });
        }
        let dispatched = dispatch(target.actor.as_any(), incoming);
        if dispatched.is_err() {
            self.requests.end(id);
        }
        Ok(dispatched)
    }
}

impl Inbound<Pending> for NodeInbound {
    fn opened(&mut self, link: &Arc<NodeLink>, hello: &Hello) {
        self.node.peer_found(self.lane, &hello.node, link);
    }

    fn define(&mut self, _: MessageIndex, name: &str, schema: u64) {
        self.types.push(MessageType { key: MessageKey::of(name), name: name.to_owned(), schema });
    }

    fn request(&mut self, link: &Arc<NodeLink>, request: Request<'_>) -> Result<(), SessionError> {
        if request.target == ActorId::NODE {
            let Some(id) = request.request else {
                if self.is_control(&request)?.is_ok() {
                    control::hear(&self.node, link, &request);
                }
                return Ok(());
            };
            if let Err(error) = self.is_control(&request)? {
                link.fail(id, &error);
                link.kick();
                return Ok(());
            }
            return control::serve(&self.node, link, &self.serving, &request);
        }
        let Request { request: wanted, target, message, .. } = request;
        if let Err(error) = self.deliver(link, request)? {
            match wanted {
                Some(id) => {
                    link.fail(id, &error);
                    link.kick();
                }
                None => {
                    self.node.count_dead_letter(target, &error);
                    link.undelivered(target, message, &error);
                    link.kick();
                }
            }
        }
        Ok(())
    }

    fn cancel(&mut self, request: RequestId) {
        self.requests.cancel(request);
        if let Some(unknown) = self.serving.cancel(request) {
            control::discard(&self.node, unknown);
        }
    }

    fn more(&mut self, _: &Arc<NodeLink>, request: RequestId, count: u32) -> Result<(), SessionError> {
        Ok(self.requests.more(request, count)?)
    }

    fn undelivered(&mut self, link: &Arc<NodeLink>, actor: ActorId, message: &'static str, reason: CallError) {
        // On a link that was accepted, the peer's name is the one of its hello.
        let node = self.node.peer_of(link);
        self.node.dead_letter_elsewhere(DeadLetter { node, actor, message, reason, body: None });
    }

    fn closed(&mut self, link: &Arc<NodeLink>, reason: &str) {
        self.targets.clear();
        self.requests.close();
        self.serving.close();
        self.node.link_ended(self.lane, link, reason);
    }
}
