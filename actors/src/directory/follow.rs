//! Following a group: this node's copy of who is in it, kept up by asking the head what is new.

use std::sync::Arc;

use mobula_core::directory::{Answer, Found, GroupName, Members, Refusal, Request};
use mobula_core::{ActorId, CallError, NodeId};
use tokio::sync::{oneshot, watch};

use crate::control::{self, Control, ControlReply};
use crate::node::{Node, WeakNode, unexpected};

/// What this node knows of one group, shared by all who use the group here.
#[derive(Debug)]
pub(crate) struct GroupView {
    pub(crate) name: GroupName,
    members: watch::Sender<Members>,
    /// Nobody follows the group any more when this is dropped.
    _followed: oneshot::Sender<()>,
}

impl GroupView {
    /// The members, as they are known now.
    pub(crate) fn members(&self) -> Vec<Found> {
        self.members.borrow().members.clone()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Members> {
        self.members.subscribe()
    }

    /// Takes in what the head has said, unless something newer is known. Only other members are news.
    fn learn(&self, heard: Members) {
        self.members.send_if_modified(|known| {
            if heard.at < known.at {
                return false;
            }
            let is_news = heard.members != known.members;
            *known = heard;
            is_news
        });
    }
}

impl Node {
    /// This node's copy of a group; waits for the head's first answer.
    pub(crate) async fn follow(&self, name: GroupName) -> Result<Arc<GroupView>, CallError> {
        let known = self.directory_end().views.lock().get(&name).and_then(std::sync::Weak::upgrade);
        if let Some(view) = known {
            return Ok(view);
        }
        let first = self.members_of(&name).await?;
        let version = first.version;
        let (followed, end) = oneshot::channel();
        let view = Arc::new(GroupView { name: name.clone(), members: watch::Sender::new(first), _followed: followed });
        {
            let mut views = self.directory_end().views.lock();
            views.retain(|_, view| view.strong_count() > 0);
            if let Some(other) = views.get(&name).and_then(std::sync::Weak::upgrade) {
                return Ok(other);
            }
            views.insert(name.clone(), Arc::downgrade(&view));
        }
        let followed = follow(self.downgrade(), Arc::downgrade(&view), name, version);
        self.control_runtime().spawn(async move {
            tokio::select! { () = followed => {}, _ = end => {} }
        });
        Ok(view)
    }

    /// Makes sure that what is known of a group contains the change with this number. It may be a change of another
    /// group, and a member that has joined may have left again, so nobody need have news: the head is asked.
    pub(crate) async fn see_change(&self, view: &GroupView, at: u64) -> Result<(), CallError> {
        if view.members.borrow().at >= at {
            return Ok(());
        }
        let heard = self.members_of(&view.name).await.map_err(|error| CallError::Unreachable {
            node: self.head(),
            // Not the question is meant, but the change, which is made.
            sent: true,
            reason: format!("it has not said who is in the group now: {error}"),
        })?;
        view.learn(heard);
        Ok(())
    }

    async fn members_of(&self, group: &GroupName) -> Result<Members, CallError> {
        match self.ask_directory(Request::Members { group: group.clone() }).await? {
            Answer::Members(members) => Ok(members),
            Answer::Refused(refusal) => Err(self.refused(&refusal)),
            _ => Err(unexpected()),
        }
    }

    /// Puts an actor into a group, or takes it out: on the actor's node, which tells the head when the actor ends.
    /// Answers the number of the change.
    pub(crate) async fn change_group(
        &self,
        node: &NodeId,
        actor: ActorId,
        group: GroupName,
        join: bool,
    ) -> Result<u64, CallError> {
        match self.request(node, Control::ChangeGroup { actor, group, join }).await? {
            ControlReply::GroupChanged(changed) => changed,
            _ => Err(unexpected()),
        }
    }

    /// As [`change_group`](Self::change_group), for an actor of this node.
    pub(crate) async fn change_own_group(
        &self,
        actor: ActorId,
        group: GroupName,
        join: bool,
    ) -> Result<u64, CallError> {
        let gone = CallError::NoSuchActor { actor };
        if let Some(hosted) = self.actor(actor).filter(|_| join)
            && !hosted.routes().takes(&group.message)
        {
            let actor_type = hosted.routes().actor_type.to_owned();
            return Err(CallError::UnknownMessage { message: group.message, actor_type });
        }
        self.ensure_lease().await.map_err(|refusal| self.refused(&refusal))?;
        let directory = self.directory_end();
        {
            // Under the lock that its end takes, too: so the end either sees the entry or is seen here.
            let mut listed = directory.listed.lock();
            if self.actor(actor).is_none_or(|actor| actor.is_over()) {
                return if join { Err(gone) } else { Ok(0) };
            }
            listed.insert(actor);
        }
        let change = move |number| match join {
            true => Request::Join { number, group, actor },
            false => Request::Leave { number, group, actor },
        };
        let answer = self.change_directory(change).await?;
        if join && !directory.listed.lock().contains(&actor) {
            // It has ended meanwhile, and its end may have overtaken this.
            self.change_directory(|number| Request::End { number, actor }).await?;
            return Err(gone);
        }
        match answer {
            Answer::Changed { at } => Ok(at),
            Answer::Refused(refusal @ (Refusal::Full { .. } | Refusal::BadName { .. })) => Err(self.refused(&refusal)),
            Answer::Refused(refusal) => Err(self.refused(&refusal)),
            _ => Err(unexpected()),
        }
    }
}

/// Asks again and again what is new, each time with what is known.
async fn follow(node: WeakNode, view: std::sync::Weak<GroupView>, group: GroupName, first: u64) {
    let mut known = first;
    loop {
        let Some(here) = node.upgrade().filter(|node| !node.is_closed()) else { return };
        let (head, pause) = (here.head(), here.directory_end().times().heartbeat);
        let control = Control::FollowGroup { group: group.clone(), known: Some(known) };
        let answer = if head == *here.id() {
            let served = control::perform(&here, &head, control);
            drop(here);
            Ok(served.await)
        } else if let Some(link) = here.control_link(&head) {
            let asked = control::request_for_ever(&link, &control);
            drop((here, link));
            asked.await
        } else {
            Err(here.refused(&Refusal::LeaseOver))
        };
        match answer {
            Ok(ControlReply::Directory(Answer::Members(members))) => {
                known = members.version;
                let Some(view) = view.upgrade() else { return };
                view.learn(members);
            }
            // The head is gone or says no: what is known stays, and a new one may be told.
            _ => tokio::time::sleep(pause).await,
        }
    }
}
