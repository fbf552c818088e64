//! The gate to the keyed actors of one type on one node: creates them when they are called, and stops the idle.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Handler, Message};
use futures::FutureExt;
use mobula_core::{CallError, RemoteMessage, codec, limits};
use mobula_transport::now;
use parking_lot::Mutex;

use super::{KEYED, KeyedActor, gate_id};
use crate::acceptance::Acceptance;
use crate::actor::{RemoteActor, Routes, SpawnOptions};
use crate::cell::Shared;
use crate::control::SpawnError;
use crate::envelope::{Envelope, Owed};
use crate::inbound::Incoming;
use crate::link::Exit;
use crate::mailbox::{Letter, Order, Placed, Refused};
use crate::monitor::{End, Watch};
use crate::node::{AnyActor, Hosted, Load, Node, WeakNode};
use crate::reply::ReplyTo;
use crate::snapshot::{SaveSnapshot, SnapshotPolicy};
use crate::spawn::spawn_as;
use crate::stuck::StuckPolicy;
use crate::supervised::Supervised;
use crate::tree::TreeActor;
use crate::vitals::Vitals;

/// The keyed actors of one type on one node.
pub(crate) struct Gate<A: RemoteActor> {
    node: WeakNode,
    args_for: fn(&str) -> A::Args,
    idle: Duration,
    snapshots: Option<SnapshotPolicy>,
    slots: Mutex<HashMap<String, Slot<A>>>,
    /// Never told: a gate has no end.
    end: End,
}

struct Slot<A: RemoteActor> {
    /// Held by each answer that is owed.
    owes: Arc<()>,
    used: Instant,
    state: State<A>,
}

enum State<A: RemoteActor> {
    Active(Arc<Shared<A>>),
    /// It is created as soon as there is mail for it, after the one before has ended; its mail waits.
    Coming {
        waiting: VecDeque<Box<dyn Letter<A>>>,
        before: Option<Arc<Shared<A>>>,
        begun: bool,
    },
}

impl<A: RemoteActor> Slot<A> {
    fn new(owes: Arc<()>) -> Self {
        let state = State::Coming { waiting: VecDeque::new(), before: None, begun: false };
        Slot { owes, used: now(), state }
    }

    fn active(&self) -> Option<Arc<Shared<A>>> {
        match &self.state {
            State::Active(shared) => Some(Arc::clone(shared)),
            State::Coming { .. } => None,
        }
    }

    fn is(&self, shared: &Arc<Shared<A>>) -> bool {
        matches!(&self.state, State::Active(active) if Arc::ptr_eq(active, shared))
    }
}

/// What is to be done about an actor.
enum Look {
    Again(Instant),
    /// It is idle, and some of its state is not saved.
    Save(SaveSnapshot),
}

/// A gate as it is found by its id.
struct Hosting<A: RemoteActor> {
    gate: Arc<Gate<A>>,
    vitals: Vitals,
}

pub(crate) fn gate<A: KeyedActor>(node: &Node) -> Arc<dyn AnyActor> {
    let gate = Gate::<A> {
        node: node.downgrade(),
        args_for: A::args_for,
        idle: A::IDLE,
        snapshots: A::snapshots(),
        slots: Mutex::default(),
        end: End::default(),
    };
    Arc::new(Hosting { gate: Arc::new(gate), vitals: Vitals::default() })
}

impl<A: RemoteActor> AnyActor for Hosting<A> {
    fn routes(&self) -> &'static Routes {
        Routes::of_keyed::<A>()
    }

    // What has no end takes no orders.
    fn order(&self, _: Order) {}

    fn is_over(&self) -> bool {
        false
    }

    fn waiting(&self) -> usize {
        let waiting = |slot: &Slot<A>| match &slot.state {
            State::Coming { waiting, .. } => waiting.len(),
            _ => 0,
        };
        self.gate.slots.lock().values().map(waiting).sum()
    }

    fn end(&self) -> &End {
        &self.gate.end
    }

    fn vitals(&self) -> &Vitals {
        &self.vitals
    }

    fn in_tree(&self) -> Option<TreeActor> {
        None
    }

    fn supervised(&self) -> Option<&Supervised> {
        None
    }

    fn stuck_policy(&self) -> StuckPolicy {
        StuckPolicy::default()
    }

    fn abandon(&self, _: &mut dyn FnMut(Load)) -> bool {
        false
    }

    fn exit(&self, _: Exit) {}

    fn as_any(&self) -> &dyn Any {
        &self.gate
    }
}

/// A message from another node, with the key of its actor.
pub(crate) fn dispatch<A, M>(gate: &dyn Any, incoming: Incoming<'_>) -> Result<(), CallError>
where
    A: RemoteActor + Handler<M>,
    M: RemoteMessage + Message<Result = <M as RemoteMessage>::Reply>,
{
    let Some(gate) = gate.downcast_ref::<Arc<Gate<A>>>() else {
        // Routes are looked up by the gate they belong to.
        return Err(CallError::UnknownMessage { message: M::NAME.to_owned(), actor_type: A::NAME.to_owned() });
    };
    let (key, message): (String, M) = codec::decode(&incoming.payload)
        .map_err(|error| CallError::Decode { reason: format!("{}: {error}", M::NAME), reply: false })?;
    let Incoming { request, post, deadline, flow, ticket, .. } = incoming;
    let acceptance = request.filter(|_| post).map(|request| Acceptance::far(Arc::clone(flow), request));
    let accepted = acceptance.clone();
    let put = gate.put(&key, |owes| {
        let (owed, ticket) = match (acceptance, request) {
            (Some(acceptance), _) => (Owed::Acceptance(acceptance), Some(ticket)),
            (None, Some(request)) => (Owed::Answer(ReplyTo::far(ticket, request).owing(owes)), None),
            (None, None) => (Owed::Nothing, Some(ticket)),
        };
        Envelope::incoming(message, owed, deadline, ticket)
    });
    match (put, accepted) {
        (Ok(Placed::Inside), Some(acceptance)) => acceptance.accept(),
        (Ok(_), _) => {}
        (Err(Refused { letter, error, .. }), _) => gate.dismiss(letter, error),
    }
    Ok(())
}

impl<A: RemoteActor> Gate<A> {
    pub(crate) fn of(node: &Node) -> Result<Arc<Self>, CallError> {
        let gate = node.gate(gate_id(A::NAME));
        let gate = gate.and_then(|gate| gate.as_any().downcast_ref::<Arc<Self>>().cloned());
        gate.ok_or_else(|| CallError::UnknownMessage { message: "any".to_owned(), actor_type: A::NAME.to_owned() })
    }

    /// Puts the letter that `make` writes into the mailbox of the key's actor, or where its mail waits while the actor is
    /// created.
    pub(crate) fn put<L: Letter<A> + 'static>(
        self: &Arc<Self>,
        key: &str,
        make: impl FnOnce(Arc<()>) -> Box<L>,
    ) -> Result<Placed, Refused<A>> {
        let (found, owes) = {
            let mut slots = self.slots.lock();
            let slot = slots.entry(key.to_owned()).or_insert_with(|| Slot::new(Arc::default()));
            (slot.active(), Arc::clone(&slot.owes))
        };
        let mut letter: Box<dyn Letter<A>> = make(Arc::clone(&owes));
        let mut active = found;
        loop {
            if let Some(shared) = active.take() {
                match shared.put(letter) {
                    Err(refused) if shared.mailbox.is_closed() => letter = refused.letter,
                    put => return put,
                }
                self.is_over(key, &shared);
            }
            let mut slots = self.slots.lock();
            let slot = slots.entry(key.to_owned()).or_insert_with(|| Slot::new(Arc::clone(&owes)));
            slot.used = now();
            match &mut slot.state {
                State::Active(shared) => active = Some(Arc::clone(shared)),
                State::Coming { waiting, .. } if waiting.len() >= limits::KEYED_WAITING => {
                    let error = CallError::Full { limit: limits::KEYED_WAITING as u64 };
                    return Err(Refused { letter, error, dropped: false });
                }
                State::Coming { waiting, before, begun } => {
                    waiting.push_back(letter);
                    let (is_new, before) = (!std::mem::replace(begun, true), before.take());
                    drop(slots);
                    if is_new {
                        self.create(key.to_owned(), before);
                    }
                    return Ok(Placed::Inside);
                }
            }
        }
    }

    /// The actor has ended, or is about to: the next one takes its mail.
    fn is_over(&self, key: &str, shared: &Arc<Shared<A>>) {
        if let Some(slot) = self.slots.lock().get_mut(key)
            && slot.is(shared)
        {
            slot.state = State::Coming { waiting: VecDeque::new(), before: Some(Arc::clone(shared)), begun: false };
        }
    }

    /// Creates the key's actor on the control runtime, once `before` has ended, gives it its mail, and stops it when it is
    /// idle.
    fn create(self: &Arc<Self>, key: String, before: Option<Arc<Shared<A>>>) {
        let Some(node) = self.node.upgrade() else { return };
        let gate = Arc::clone(self);
        let creating = async move {
            let mut before = before;
            loop {
                if let Some(before) = before.take() {
                    // Its name is free when its end is told.
                    ended(&before).await;
                }
                match gate.spawn(&key).await {
                    Err(error) => return gate.give_up(&key, &error),
                    Ok(shared) if gate.hand_over(&key, &shared) => return gate.keep(&key, shared).await,
                    Ok(shared) => before = Some(shared),
                }
            }
        };
        node.control_runtime().spawn(creating.boxed());
    }

    /// Stops the actor when it is idle; forgets it when it has ended and nobody has called it since.
    async fn keep(&self, key: &str, shared: Arc<Shared<A>>) {
        let end = ended(&shared);
        tokio::pin!(end);
        let mut look = now() + self.idle;
        loop {
            tokio::select! {
                () = &mut end => break,
                () = tokio::time::sleep_until(look.into()) => {}
            }
            match self.look(key, &shared) {
                Look::Again(at) => look = at,
                // Whoever comes next begins with it. One that cannot be saved stays.
                Look::Save(save) => {
                    shared.mailbox.wake();
                    let saved = tokio::time::timeout(limits::ASK_DEADLINE, save);
                    look = tokio::select! {
                        () = &mut end => break,
                        saved = saved => if matches!(saved, Ok(Ok(()))) { now() } else { now() + self.idle },
                    };
                }
            }
        }
        let mut slots = self.slots.lock();
        if slots.get(key).is_some_and(|slot| slot.is(&shared)) {
            slots.remove(key);
        }
    }

    /// Stops the actor if it is idle and saved. Says what to do next.
    fn look(&self, key: &str, shared: &Arc<Shared<A>>) -> Look {
        let now = now();
        let idle_at = {
            let slots = self.slots.lock();
            // Whoever puts its mail now has the slot's lock before us, or after.
            match slots.get(key).filter(|slot| slot.is(shared)) {
                Some(slot) if Arc::strong_count(&slot.owes) > 1 => now + self.idle,
                Some(slot) => slot.used + self.idle,
                None => return Look::Again(now + self.idle),
            }
        };
        if idle_at > now {
            return Look::Again(idle_at);
        }
        if let Some(save) = shared.snapshots().and_then(|snapshots| snapshots.save_rest()) {
            return Look::Save(save);
        }
        // What comes after this finds the mailbox closed, and waits for the next one.
        shared.mailbox.close_if_empty();
        Look::Again(now + self.idle)
    }

    async fn spawn(&self, key: &str) -> Result<Arc<Shared<A>>, SpawnError> {
        let identity = format!("{KEYED}{}/{key}", A::NAME);
        let begun = now();
        loop {
            let node = self.node.upgrade().ok_or(SpawnError::NodeEnding)?;
            let times = node.lease_times();
            let args = (self.args_for)(key);
            let options = SpawnOptions { snapshots: self.snapshots, ..SpawnOptions::default() };
            match spawn_as::<A>(&node, args, options, Some(identity.clone())).await {
                // Held by a node that is down, as far as the senders know: until its lease and the margin are over.
                Err(SpawnError::NameTaken { .. }) if now().duration_since(begun) < 2 * times.down_after() => {
                    drop(node);
                    tokio::time::sleep(times.heartbeat).await;
                }
                spawned => return spawned,
            }
        }
    }

    /// Gives the new actor what has waited for it, in order. False if it ended meanwhile.
    fn hand_over(&self, key: &str, shared: &Arc<Shared<A>>) -> bool {
        loop {
            let mut letters = {
                let mut slots = self.slots.lock();
                let Some(slot) = slots.get_mut(key) else { return true };
                let State::Coming { waiting, .. } = &mut slot.state else { return true };
                if waiting.is_empty() {
                    slot.used = now();
                    slot.state = State::Active(Arc::clone(shared));
                    return true;
                }
                std::mem::take(waiting)
            };
            while let Some(letter) = letters.pop_front() {
                match shared.put(letter) {
                    Err(refused) if shared.mailbox.is_closed() => {
                        letters.push_front(refused.letter);
                        if let Some(Slot { state: State::Coming { waiting, .. }, .. }) = self.slots.lock().get_mut(key)
                        {
                            letters.append(waiting);
                            *waiting = letters;
                        }
                        return false;
                    }
                    Err(refused) => shared.dismiss(refused.letter, refused.error),
                    Ok(_) => {}
                }
            }
        }
    }

    /// The actor cannot be created: its mail comes back.
    fn give_up(&self, key: &str, error: &SpawnError) {
        let slot = self.slots.lock().remove(key);
        let Some(Slot { state: State::Coming { waiting, .. }, .. }) = slot else { return };
        let reason = format!("`{}` with the key `{key}` cannot be created: {error}", A::NAME);
        tracing::warn!(%reason);
        for letter in waiting {
            let Some(node) = self.node.upgrade() else { return };
            let error = CallError::Unreachable { node: node.id().clone(), sent: false, reason: reason.clone() };
            self.dismiss(letter, error);
        }
    }

    pub(crate) fn dismiss(&self, letter: Box<dyn Letter<A>>, error: CallError) {
        if let Some(undelivered) = letter.refuse(error)
            && let Some(node) = self.node.upgrade()
        {
            node.undelivered(gate_id(A::NAME), undelivered);
        }
    }
}

async fn ended<A: RemoteActor>(shared: &Arc<Shared<A>>) {
    let hosted: Arc<dyn AnyActor> = Arc::new(Hosted(Arc::clone(shared)));
    Watch::of(Some(&hosted)).await;
}
