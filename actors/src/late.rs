//! Large messages from other nodes. They are decoded beside the threads on which actors live and connections are read:
//! nobody waits for that but their own actor, in whose mailbox they have their place meanwhile.

use std::sync::Arc;
use std::time::Instant;

use actix::{Actor, Context, Handler, Message};
use bytes::BytesMut;
use mobula_core::{CallError, Deadline, RemoteMessage, codec};
use parking_lot::Mutex;

use crate::acceptance::Acceptance;
use crate::begin;
use crate::cell::Shared;
use crate::dead_letter::Undelivered;
use crate::envelope::{Envelope, Owed};
use crate::inbound::FlowTicket;
use crate::mailbox::Letter;
use crate::scope;

/// What was decoded, once it is; taken by the delivery.
type Decoded<M> = Arc<Mutex<Option<Result<M, CallError>>>>;

/// A message that may still be bytes.
pub(crate) struct Late<M: RemoteMessage> {
    decoded: Decoded<M>,
    owed: Owed<M::Reply>,
    deadline: Deadline,
    ticket: Option<FlowTicket>,
}

/// Reads a message of another node.
pub(crate) fn decode<M: RemoteMessage>(payload: &[u8]) -> Result<M, CallError> {
    codec::decode(payload).map_err(|error| CallError::Decode { reason: format!("{}: {error}", M::NAME), reply: false })
}

impl<M: RemoteMessage> Late<M> {
    /// Begins to decode `bytes` on a thread where it may take its time.
    pub(crate) fn begin<A>(
        shared: &Arc<Shared<A>>,
        bytes: BytesMut,
        owed: Owed<M::Reply>,
        deadline: Deadline,
        ticket: Option<FlowTicket>,
    ) -> Box<Self>
    where
        A: Actor<Context = Context<A>>,
    {
        let decoded = Decoded::default();
        let mut work = Work { shared: Arc::clone(shared), decoded: Arc::clone(&decoded), result: None };
        begin::where_it_may_block(move || {
            let node = work.shared.node.clone();
            work.result = Some(scope::on_node(Some(&node), || decode(&bytes)));
            // Told before the bytes are freed, which takes a while as well.
            drop(work);
            drop(bytes);
        });
        Box::new(Late { decoded, owed, deadline, ticket })
    }
}

/// Tells the actor that its message is there, also if the runtime ended before the work was begun.
struct Work<A: Actor<Context = Context<A>>, M> {
    shared: Arc<Shared<A>>,
    decoded: Decoded<M>,
    result: Option<Result<M, CallError>>,
}

impl<A: Actor<Context = Context<A>>, M> Drop for Work<A, M> {
    fn drop(&mut self) {
        *self.decoded.lock() = Some(self.result.take().unwrap_or(Err(CallError::Stopped)));
        self.shared.mailbox.wake();
    }
}

impl<A, M> Letter<A> for Late<M>
where
    A: Actor<Context = Context<A>> + Handler<M>,
    M: RemoteMessage + Message<Result = <M as RemoteMessage>::Reply>,
{
    fn is_ready(&self) -> bool {
        self.decoded.lock().is_some()
    }

    fn deliver(self: Box<Self>, actor: &mut A, ctx: &mut Context<A>, shared: &Arc<Shared<A>>, now: Instant) {
        let decoded = self.decoded.lock().take();
        match decoded.unwrap_or(Err(CallError::Stopped)) {
            Ok(message) => {
                let Late { owed, deadline, ticket, .. } = *self;
                Envelope::incoming(message, owed, deadline, ticket).deliver(actor, ctx, shared, now);
            }
            Err(error) => shared.dismiss(self, error),
        }
    }

    fn refuse(self: Box<Self>, error: CallError) -> Option<Undelivered> {
        let Late { owed, ticket, .. } = *self;
        let (reason, _) = owed.refuse(error)?;
        Some(Undelivered::Far { ticket: ticket?, reason })
    }

    fn stand_in_line(&mut self) -> Option<Arc<Acceptance>> {
        self.owed.acceptance()
    }
}
