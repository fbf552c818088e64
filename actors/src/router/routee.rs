//! What a router can send to: references to actors, and recipients of one message.

use std::time::Duration;

use actix::{Actor, Context, Handler, Message};
use mobula_core::{ActorId, CallError, NodeId, RemoteMessage};

use crate::actor_ref::ActorRef;
use crate::ask::{Ask, Tell};
use crate::node::Node;
use crate::recipient::Recipient;

/// A member of a [`Router`](crate::Router): an [`ActorRef`] or a [`Recipient`].
pub trait Routee: sealed::Sealed + Clone + Send + Sync + 'static {
    /// The node where the actor lives.
    fn node(&self) -> &NodeId;
    /// The actor, within that life of its node.
    fn id(&self) -> ActorId;
    /// The same member, whose calls end after `wait`; none: not at all.
    #[must_use]
    fn waiting(&self, wait: Option<Duration>) -> Self;
    /// Why a call would not leave this node, as far as is known here.
    #[doc(hidden)]
    fn known_end(&self) -> Option<CallError>;
    /// The node of this process through which calls go.
    #[doc(hidden)]
    fn through(&self) -> Option<Node>;
}

/// A member that takes `M`.
pub trait Takes<M: RemoteMessage>: Routee {
    /// As [`ActorRef::ask`].
    fn ask(&self, message: M) -> Ask<M>;
    /// As [`ActorRef::tell`].
    fn tell(&self, message: M) -> Tell<M>;
    /// As [`ActorRef::try_tell`].
    ///
    /// # Errors
    /// [`CallError::Full`] if there is no room for it at once.
    fn try_tell(&self, message: M) -> Result<(), CallError>;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! routee {
    ([$($parameters:tt)*] $reference:ty) => {
        impl<$($parameters)*> sealed::Sealed for $reference {}

        impl<$($parameters)*> Routee for $reference {
            fn node(&self) -> &NodeId {
                <$reference>::node(self)
            }

            fn id(&self) -> ActorId {
                <$reference>::id(self)
            }

            fn waiting(&self, wait: Option<Duration>) -> Self {
                wait.map_or_else(|| self.without_deadline(), |wait| self.with_deadline(wait))
            }

            fn known_end(&self) -> Option<CallError> {
                <$reference>::known_end(self)
            }

            fn through(&self) -> Option<Node> {
                <$reference>::through(self)
            }
        }
    };
    (takes $message:ident, [$($parameters:tt)*] $reference:ty, $($bound:tt)*) => {
        impl<$($parameters)*> Takes<$message> for $reference
        where
            $($bound)*
        {
            fn ask(&self, message: $message) -> Ask<$message> {
                <$reference>::ask(self, message)
            }

            fn tell(&self, message: $message) -> Tell<$message> {
                <$reference>::tell(self, message)
            }

            fn try_tell(&self, message: $message) -> Result<(), CallError> {
                <$reference>::try_tell(self, message)
            }
        }
    };
}

routee!([A: Actor<Context = Context<A>>] ActorRef<A>);
routee!([M: RemoteMessage] Recipient<M>);
routee!(
    takes M, [A: Actor<Context = Context<A>>, M: RemoteMessage] ActorRef<A>,
    A: Handler<M>, M: Message<Result = <M as RemoteMessage>::Reply>
);
routee!(takes M, [M: RemoteMessage] Recipient<M>, M: RemoteMessage);
