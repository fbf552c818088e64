//! The side of a stream that answers: what a handler returns, and the sender behind it.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;

use actix::dev::{MessageResponse, OneshotSender};
use actix::{Actor, Context, Message};
use bytes::BytesMut;
use futures::future::{Either, LocalBoxFuture, select};
use futures::{Stream, StreamExt};
use mobula_core::codec::{self, EncodeError};
use mobula_core::planted::{self, Bug};
use mobula_core::{CallError, RequestId};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Channel, Gate, StreamMessage};
use crate::call_context::{Caller, current_call};
use crate::encode_local::Pass;
use crate::inbound::Flow;
use crate::node::Node;
use crate::scope;
use crate::shapes::Concurrent;

/// The answer of a handler that answers with many items.
///
/// They are produced beside the actor, as in [`Concurrent`]: it takes its next message meanwhile. A slow reader holds the
/// producer back once [`STREAM_WINDOW_ITEMS`](mobula_core::limits::STREAM_WINDOW_ITEMS) are under way. The producer is
/// dropped at its next `.await` when its reader has gone, when the deadline has passed, and when the actor's life ends. A
/// panic in it ends the stream with [`CallError::Panicked`], and no life of the actor.
///
/// A message that was sent with `tell` or `ask` has no reader; then nothing is produced.
#[must_use = "a handler returns it"]
pub struct ReplyItems<T>(Produce<T>);

type Produce<T> = Box<dyn FnOnce(ItemSender<T>) -> LocalBoxFuture<'static, ()>>;

impl<T: 'static> ReplyItems<T> {
    /// Answers with the items of `stream`.
    pub fn from_stream(stream: impl Stream<Item = T> + 'static) -> Self {
        ReplyItems::produce(|mut sender| async move {
            let mut stream = pin!(stream);
            while let Some(item) = stream.next().await {
                if sender.send(item).await.is_err() {
                    return;
                }
            }
        })
    }

    /// Answers with what `work` sends. The stream ends with its future.
    pub fn produce<F>(work: impl FnOnce(ItemSender<T>) -> F + 'static) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        ReplyItems(Box::new(|sender| Box::pin(work(sender))))
    }
}

impl<T> std::fmt::Debug for ReplyItems<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReplyItems")
    }
}

impl<A, M> MessageResponse<A, M> for ReplyItems<M::Item>
where
    A: Actor<Context = Context<A>>,
    M: StreamMessage + Message<Result = ()>,
{
    fn handle(self, ctx: &mut Context<A>, answer: Option<OneshotSender<()>>) {
        let Some(answer) = answer else { return };
        let (Some(sender), Some(call)) = (ItemSender::of_this_call(), current_call()) else {
            let _ = answer.send(());
            return;
        };
        let cut_off = sender.cut_off();
        let work = async move {
            let (producer, cancelled) = (pin!((self.0)(sender)), pin!(call.cancelled()));
            if planted::is(Bug::ProducerKept) {
                producer.await;
            } else if let Either::Right(_) = select(producer, cancelled).await {
                // Not to look like the end of the stream, should somebody wait still.
                cut_off(if call.is_late() {
                    CallError::DeadlineExceeded { started: true }
                } else {
                    CallError::Cancelled { started: true }
                });
            }
        };
        MessageResponse::<A, M>::handle(Concurrent::<M>::new(work), ctx, Some(answer));
    }
}

/// Sends the items of one stream.
pub struct ItemSender<T>(Way<T>);

enum Way<T> {
    Near {
        channel: Arc<Channel<T>>,
        pass: Option<(Node, Pass<T>)>,
    },
    Far {
        flow: Arc<Flow>,
        request: RequestId,
        gate: Arc<Gate>,
        encode: fn(&T, &mut BytesMut) -> Result<(), EncodeError>,
    },
    /// An item could not be written, and the stream has ended with that.
    Failed(CallError),
}

impl<T: Send + 'static> ItemSender<T> {
    /// None if the call has no reader for items.
    fn of_this_call() -> Option<Self>
    where
        T: Serialize + DeserializeOwned,
    {
        Some(ItemSender(match scope::call().caller? {
            Caller::Nobody => return None,
            Caller::Near(call) => {
                let node = scope::current_node();
                let pass = node.and_then(|node| Some((node.clone(), node.pass_answer()?)));
                Way::Near { channel: call.items()?.downcast().ok()?, pass }
            }
            Caller::Far(flow, request) => {
                let gate = flow.requests.open_stream(request)?;
                Way::Far { flow, request, gate, encode: codec::encode_into::<T> }
            }
        }))
    }
}

impl<T: Send + 'static> ItemSender<T> {
    /// What ends the stream with an error, whatever becomes of the sender.
    fn cut_off(&self) -> Box<dyn FnOnce(CallError)> {
        match &self.0 {
            Way::Near { channel, .. } => {
                let channel = Arc::clone(channel);
                Box::new(move |error| channel.finish(Err(error), false))
            }
            Way::Far { flow, request, .. } => {
                let (flow, request) = (Arc::clone(flow), *request);
                Box::new(move |error| {
                    flow.link.fail(request, &error);
                    scope::touch(&flow.link);
                })
            }
            Way::Failed(_) => Box::new(drop),
        }
    }
}

impl<T> ItemSender<T> {
    /// Sends one item, when there is room for it. Not cancel-safe: dropped while it waits, the item is lost.
    ///
    /// # Errors
    /// [`CallError::Cancelled`] if the reader has gone; [`CallError::Encode`] if the item cannot be written, with which
    /// the stream then ends.
    pub async fn send(&mut self, item: T) -> Result<(), CallError> {
        let error = match &self.0 {
            Way::Near { channel, pass } => {
                poll_fn(|cx| channel.poll_room(cx)).await?;
                let passed = match pass {
                    Some((node, pass)) => pass(node, item),
                    None => Ok(item),
                };
                match passed {
                    // There was room just now, and nobody else puts anything.
                    Ok(item) => return channel.put(item).map_err(|_| CallError::Cancelled { started: true }),
                    Err(error) => {
                        channel.finish(Err(error.clone()), false);
                        error
                    }
                }
            }
            Way::Far { flow, request, gate, encode } => {
                poll_fn(|cx| gate.poll_pass(cx)).await;
                let sent = flow.link.item(*request, |out| encode(&item, out));
                if let Err(error) = &sent {
                    flow.link.fail(*request, error);
                }
                scope::touch(&flow.link);
                match sent {
                    Ok(()) => return Ok(()),
                    Err(error) => error,
                }
            }
            Way::Failed(error) => return Err(error.clone()),
        };
        self.0 = Way::Failed(error.clone());
        Err(error)
    }
}

impl<T> std::fmt::Debug for ItemSender<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ItemSender")
    }
}
