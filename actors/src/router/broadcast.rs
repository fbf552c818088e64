//! One message to all members of a router.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use mobula_core::{CallError, RemoteMessage, codec};

use super::routee::Takes;
use crate::ask::{Ask, Tell};
use crate::dead_letter::{DeadLetter, Unheard, sending_node};
use crate::node::Node;
use crate::scope;

/// The answers of all members, each with its member: a future that is ready when the last has answered or failed.
///
/// # Cancel safety
/// Dropping it gives up the asks that are not answered.
#[must_use = "the messages are sent, but dropping the future gives the asks up"]
pub struct AskAll<R, M: RemoteMessage> {
    asks: Vec<(R, Waiting<M>)>,
}

enum Waiting<M: RemoteMessage> {
    For(Ask<M>),
    Known(Option<Result<M::Reply, CallError>>),
}

// Nothing in it is pinned: an `Ask` may be moved between polls.
impl<R, M: RemoteMessage> Unpin for AskAll<R, M> {}

impl<R, M: RemoteMessage> Future for AskAll<R, M> {
    type Output = Vec<(R, Result<M::Reply, CallError>)>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut ready = true;
        for (_, waiting) in &mut self.asks {
            let Waiting::For(ask) = waiting else { continue };
            match Pin::new(ask).poll(cx) {
                Poll::Ready(answer) => *waiting = Waiting::Known(Some(answer)),
                Poll::Pending => ready = false,
            }
        }
        if !ready {
            return Poll::Pending;
        }
        let answers = std::mem::take(&mut self.asks).into_iter().filter_map(|(member, waiting)| match waiting {
            Waiting::Known(answer) => answer.map(|answer| (member, answer)),
            Waiting::For(_) => None,
        });
        Poll::Ready(answers.collect())
    }
}

impl<R, M: RemoteMessage> std::fmt::Debug for AskAll<R, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AskAll({}, {} members)", M::NAME, self.asks.len())
    }
}

pub(super) fn ask_all<R: Takes<M>, M: RemoteMessage>(members: &[R], node: Option<&Node>, message: M) -> AskAll<R, M> {
    let copies = copies(message, members.len(), node);
    let asks = members.iter().zip(copies).map(|(member, copy)| {
        let waiting = match copy {
            Ok(message) => Waiting::For(member.ask(message)),
            Err(error) => Waiting::Known(Some(Err(error))),
        };
        (member.clone(), waiting)
    });
    AskAll { asks: asks.collect() }
}

pub(super) fn tell_all<R: Takes<M>, M: RemoteMessage>(
    members: &[R],
    node: Option<&Node>,
    message: M,
) -> Vec<(R, Tell<M>)> {
    let copies = copies(message, members.len(), node);
    let tells = members.iter().zip(copies).map(|(member, copy)| {
        let tell = match copy {
            Ok(message) => member.tell(message),
            Err(reason) => {
                let (at, actor) = (member.node().clone(), member.id());
                let letter = DeadLetter { node: at, actor, message: M::NAME, reason, body: None };
                Tell::refused(Unheard::new(sending_node(node), letter))
            }
        };
        (member.clone(), tell)
    });
    tells.collect()
}

/// The message, `count` times: all but the last by way of its encoding. References in them belong to `node`.
fn copies<M: RemoteMessage>(message: M, count: usize, node: Option<&Node>) -> Vec<Result<M, CallError>> {
    let mut copies = Vec::with_capacity(count);
    if count > 1 {
        let encoded = codec::encode(&message);
        for _ in 1..count {
            copies.push(match &encoded {
                Ok(bytes) => scope::on_node(node, || codec::decode(bytes))
                    .map_err(|error| CallError::Encode { reason: error.to_string(), reply: false }),
                Err(error) => Err(CallError::Encode { reason: error.to_string(), reply: false }),
            });
        }
        if let Some(Err(error)) = copies.first() {
            // All or none.
            let error = error.clone();
            copies.push(Err(error));
            return copies;
        }
    }
    if count > 0 {
        copies.push(Ok(message));
    }
    copies
}
