//! Groups: sets of actors, on whatever nodes, that take one message.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::{BoxFuture, join_all};
use futures::stream::{BoxStream, Stream, StreamExt};
use mobula_core::directory::{Found, GroupName};
use mobula_core::{CallError, RemoteMessage};

use crate::directory::GroupView;
use crate::node::Node;
use crate::recipient::Recipient;

/// A set of actors that take an `M`, known by name in the whole cluster. Cheap to clone.
///
/// The head of the cluster keeps who is in the group, and every node that uses it follows the changes: a broadcast asks
/// nobody. A member leaves by its own will, with its end, and with its node; a restart is no end.
pub struct Group<M: RemoteMessage> {
    node: Node,
    view: Arc<GroupView>,
    message: PhantomData<fn(M)>,
}

/// A change of a group.
pub enum GroupEvent<M: RemoteMessage> {
    /// It is a member now.
    Joined(Recipient<M>),
    /// It is a member no more.
    Left(Recipient<M>),
}

impl<M: RemoteMessage> Clone for GroupEvent<M> {
    fn clone(&self) -> Self {
        match self {
            GroupEvent::Joined(member) => GroupEvent::Joined(member.clone()),
            GroupEvent::Left(member) => GroupEvent::Left(member.clone()),
        }
    }
}

impl<M: RemoteMessage> std::fmt::Debug for GroupEvent<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            GroupEvent::Joined(member) => write!(f, "Joined({member:?})"),
            GroupEvent::Left(member) => write!(f, "Left({member:?})"),
        }
    }
}

impl<M: RemoteMessage> PartialEq for GroupEvent<M> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (GroupEvent::Joined(one), GroupEvent::Joined(other)) | (GroupEvent::Left(one), GroupEvent::Left(other)) => {
                one == other
            }
            _ => false,
        }
    }
}

impl<M: RemoteMessage> Eq for GroupEvent<M> {}

impl Node {
    /// The group of this name among those for `M`. A group is there when it has members; groups for different messages
    /// have nothing to do with each other.
    ///
    /// # Errors
    /// [`CallError`] if the head of the cluster cannot be asked.
    pub async fn group<M: RemoteMessage>(&self, name: &str) -> Result<Group<M>, CallError> {
        let name = GroupName { name: name.to_owned(), message: M::NAME.to_owned() };
        Ok(Group { node: self.clone(), view: self.follow(name).await?, message: PhantomData })
    }
}

impl<M: RemoteMessage> Group<M> {
    /// Puts an actor into the group, wherever it lives; it is there once, however often it joins. When this returns,
    /// [`members`](Self::members) on this node has it.
    ///
    /// # Errors
    /// [`CallError`]: the actor has ended, does not take `M` from other nodes, or its node or the head cannot be asked;
    /// [`limits::GROUP_MEMBERS_MAX`](mobula_core::limits::GROUP_MEMBERS_MAX) is reached.
    /// # Cancel safety
    /// Dropping the future leaves open whether it has joined.
    pub async fn join(&self, member: impl Into<Recipient<M>>) -> Result<(), CallError> {
        self.change(member.into(), true).await
    }

    /// Takes an actor out of the group. Who is not in it is no error.
    ///
    /// # Errors
    /// [`CallError`] if the actor's node or the head cannot be asked.
    pub async fn leave(&self, member: impl Into<Recipient<M>>) -> Result<(), CallError> {
        self.change(member.into(), false).await
    }

    async fn change(&self, member: Recipient<M>, join: bool) -> Result<(), CallError> {
        let name = self.view.name.clone();
        let at = self.node.change_group(member.node(), member.id(), name, join).await?;
        self.node.see_change(&self.view, at).await
    }

    /// Who is in the group, as far as this node knows.
    pub fn members(&self) -> Vec<Recipient<M>> {
        self.view.members().into_iter().map(|found| recipient(&self.node, found)).collect()
    }

    /// Tells `message` to all members. All of it has its place when this returns; the future waits until it is in the
    /// mailboxes, or on its way, and gives those who could not be told, with the reason.
    ///
    /// # Cancel safety
    /// Dropping the future takes nothing back.
    pub fn broadcast(&self, message: M) -> BoxFuture<'static, Vec<(Recipient<M>, CallError)>>
    where
        M: Clone,
    {
        let told: Vec<_> = self.members().into_iter().map(|member| (member.tell(message.clone()), member)).collect();
        Box::pin(async move {
            let told =
                told.into_iter().map(|(tell, member)| async move { tell.await.err().map(|error| (member, error)) });
            join_all(told).await.into_iter().flatten().collect()
        })
    }

    /// All changes from now on, beginning with a [`Joined`](GroupEvent::Joined) for each who is a member now: whoever
    /// follows the stream knows the group without a gap. Who joins and leaves between two looks is not told.
    ///
    /// The stream does not end.
    pub fn subscribe(&self) -> GroupEvents<M> {
        let mut changes = self.view.subscribe();
        // The first look is now.
        changes.mark_changed();
        let state = (self.clone(), changes, BTreeSet::new());
        let looks = futures::stream::unfold(state, |(group, mut changes, known): (_, _, BTreeSet<Found>)| async move {
            changes.changed().await.ok()?;
            let now: BTreeSet<Found> = group.view.members().into_iter().collect();
            let left = known.difference(&now).cloned().map(|found| GroupEvent::Left(recipient(&group.node, found)));
            let joined = now.difference(&known).cloned().map(|found| GroupEvent::Joined(recipient(&group.node, found)));
            let events: Vec<GroupEvent<M>> = left.chain(joined).collect();
            Some((futures::stream::iter(events), (group, changes, now)))
        });
        GroupEvents(looks.flatten().boxed())
    }
}

fn recipient<M: RemoteMessage>(node: &Node, found: Found) -> Recipient<M> {
    Recipient::at(found.node, found.actor, Some(node.clone()))
}

impl<M: RemoteMessage> Clone for Group<M> {
    fn clone(&self) -> Self {
        Group { node: self.node.clone(), view: Arc::clone(&self.view), message: PhantomData }
    }
}

impl<M: RemoteMessage> std::fmt::Debug for Group<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Group({} for {})", self.view.name.name, M::NAME)
    }
}

/// The changes of a [`Group`], see [`Group::subscribe`].
/// # Cancel safety
/// Dropping it ends the subscription.
pub struct GroupEvents<M: RemoteMessage>(BoxStream<'static, GroupEvent<M>>);

impl<M: RemoteMessage> Stream for GroupEvents<M> {
    type Item = GroupEvent<M>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl<M: RemoteMessage> std::fmt::Debug for GroupEvents<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GroupEvents({})", M::NAME)
    }
}
