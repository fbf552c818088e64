//! Answers of many items: the handler's side in [`items`], the reader's in [`reply_stream`], the decisions in the transport's `ItemWindow`.

mod channel;
mod gate;
mod items;
mod reply_stream;

pub(crate) use channel::Channel;
pub(crate) use gate::Gate;
pub use items::{ItemSender, ReplyItems};
pub use reply_stream::ReplyStream;

use mobula_core::RemoteMessage;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A message that is answered with many items, one after the other: sent with
/// [`ask_stream`](crate::ActorRef::ask_stream), handled by a handler that returns [`ReplyItems`]. In `#[mobula::actor]` it is
/// made from a method that returns `ReplyItems<T>`.
///
/// ```ignore
/// #[derive(Serialize, Deserialize, RemoteMessage)]
/// struct CountTo(u64);
///
/// impl StreamMessage for CountTo {
///     type Item = u64;
/// }
///
/// impl Handler<CountTo> for Counter {
///     type Result = ReplyItems<u64>;
///
///     fn handle(&mut self, CountTo(end): CountTo, _: &mut Context<Self>) -> ReplyItems<u64> {
///         ReplyItems::from_stream(futures::stream::iter(1..=end))
///     }
/// }
/// ```
///
/// Items that can fail one by one are `Result`s.
pub trait StreamMessage: RemoteMessage<Reply = ()> {
    /// One of the many answers. Two nodes that differ in it find out when an item cannot be decoded.
    type Item: Serialize + DeserializeOwned + Send + 'static;
}
