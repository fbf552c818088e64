//! A stop that stands in the mailbox: what came before it is handled, what comes after it is not.

use std::any::Any;
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use actix::{Actor, Context};
use mobula_core::{CallError, Deadline, ExitReason, RemoteMessage, schema_hash};
use serde::{Deserialize, Serialize};

use crate::acceptance::Acceptance;
use crate::actor::{RemoteActor, Route};
use crate::ask::Tell;
use crate::cell::Shared;
use crate::dead_letter::Undelivered;
use crate::far::Far;
use crate::inbound::{FlowTicket, Incoming};
use crate::mailbox::{Letter, Order};

/// Every actor takes it.
#[derive(Debug, Serialize, Deserialize)]
struct StopGracefully;

impl RemoteMessage for StopGracefully {
    const NAME: &'static str = "mobula::StopGracefully";
    const SCHEMA: u64 = schema_hash("1");
    type Reply = ();
}

/// The last letter that is begun.
struct Last {
    /// Returned when its turn comes.
    _ticket: Option<FlowTicket>,
}

impl<A: Actor<Context = Context<A>>> Letter<A> for Last {
    fn deliver(self: Box<Self>, _: &mut A, _: &mut Context<A>, shared: &Arc<Shared<A>>, _: Instant) {
        shared.mailbox.order(Order::Stop(ExitReason::Shutdown));
    }

    fn refuse(self: Box<Self>, _: CallError) -> Option<Undelivered> {
        // The actor has ended: that is all that was asked for.
        None
    }

    fn stand_in_line(&mut self) -> Option<Arc<Acceptance>> {
        None
    }
}

pub(crate) fn near<A: Actor<Context = Context<A>>>(shared: &Arc<Shared<A>>) -> Told {
    // An actor that has ended needs no order.
    let _ = shared.mailbox.put_signal(Box::new(Last { _ticket: None }));
    Told(Tell::accepted())
}

pub(crate) fn far(far: &Far) -> Told {
    Told(far.tell(StopGracefully, Deadline::NEVER))
}

/// The order's acceptance.
pub(crate) struct Told(Tell<StopGracefully>);

impl Future for Told {
    type Output = Result<(), CallError>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), CallError>> {
        std::pin::Pin::new(&mut self.0).poll(cx)
    }
}

/// The key and the route by which the order comes from other nodes.
pub(crate) fn route<A: RemoteActor>() -> (u64, Route) {
    let route = Route::built_in(StopGracefully::NAME, StopGracefully::SCHEMA, dispatch::<A>);
    (StopGracefully::KEY.0, route)
}

fn dispatch<A: RemoteActor>(actor: &dyn Any, incoming: Incoming<'_>) -> Result<(), CallError> {
    if let Some(shared) = actor.downcast_ref::<Arc<Shared<A>>>() {
        let last = Last { _ticket: Some(incoming.ticket) };
        // An actor that has ended needs no order.
        let _ = shared.mailbox.put_signal(Box::new(last));
    }
    Ok(())
}
