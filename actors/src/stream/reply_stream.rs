//! The side of a stream that asked.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::Stream;
use futures::stream::FusedStream;
use mobula_core::CallError;
use serde::de::DeserializeOwned;

use super::Channel;
use super::channel::Next;
use crate::reply::StreamReader;
use crate::way::Way;

/// The answers to a message sent with [`ask_stream`](crate::ActorRef::ask_stream): a stream of items in the order in which
/// they were sent.
///
/// The message was sent when this was made, even if it is never polled. At its end comes nothing more, or one last error:
/// the producer panicked, its node was lost, the deadline passed, an item could not be decoded. Items that came before
/// are there before it.
/// # Cancel safety
/// Dropping it cancels the producer; what was not read is lost. Dropping the future of one item loses nothing.
#[must_use = "the message is sent, but dropping the stream cancels its producer"]
pub struct ReplyStream<T: Send + 'static> {
    channel: Arc<Channel<T>>,
    way: Way,
    over: bool,
}

impl<T: Send + 'static> ReplyStream<T> {
    /// Of the message that `send` sends, to be answered to the reader.
    pub(crate) fn open(send: impl FnOnce(Arc<dyn StreamReader>) -> Result<Way, CallError>) -> Self
    where
        T: DeserializeOwned,
    {
        let channel = Channel::new();
        let way = send(Arc::clone(&channel) as _).unwrap_or_else(|error| {
            channel.finish(Err(error), false);
            Way::Failed
        });
        ReplyStream { channel, way, over: false }
    }
}

impl<T: Send + 'static> Stream for ReplyStream<T> {
    type Item = Result<T, CallError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.over {
            return Poll::Ready(None);
        }
        this.way.arm(&this.channel);
        let item = match ready!(this.channel.poll_next(cx)) {
            Next::Item { item, more } => {
                if let (Some(count), Way::Far { link, request }) = (more, &this.way) {
                    link.more(*request, count);
                    link.kick();
                }
                return Poll::Ready(Some(Ok(item)));
            }
            Next::Error(error) => Some(Err(error)),
            Next::End => None,
        };
        this.over = true;
        this.way.forget_deadline();
        Poll::Ready(item)
    }
}

impl<T: Send + 'static> FusedStream for ReplyStream<T> {
    fn is_terminated(&self) -> bool {
        self.over
    }
}

impl<T: Send + 'static> Drop for ReplyStream<T> {
    fn drop(&mut self) {
        self.way.forget_deadline();
        self.channel.abandon();
        self.way.cancel();
    }
}

impl<T: Send + 'static> std::fmt::Debug for ReplyStream<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReplyStream")
    }
}
