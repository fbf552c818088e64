//! Timers and reminders: messages that an actor sends to itself later, through its own mailbox.
//!
//! They are rows in a table of the actor, and one sleeper of its cell looks after all of them.
mod table;

use std::collections::HashMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::Context as TaskContext;
use std::time::{Duration, Instant};

use actix::{Actor, Context, Handler, Message};
use mobula_core::{CallError, Deadline, RemoteMessage, codec};
use mobula_transport::now;
use parking_lot::Mutex;
use tokio::time::Sleep;

use crate::acceptance::Acceptance;
use crate::cell::Shared;
use crate::dead_letter::Undelivered;
use crate::envelope::Envelope;
use crate::mailbox::Letter;
use crate::reply::{ReplyTo, Slot};
use crate::scope;
use table::{RowId, Table};

/// An interval is no shorter than this.
const EVERY_MIN: Duration = Duration::from_millis(1);

/// The timers of the actor whose handler runs on this thread; none outside of handlers, or in one of another type.
///
/// ```
/// # use std::time::Duration;
/// # use mobula_actors::{RemoteActor, timers};
/// # use mobula_core::RemoteMessage;
/// # fn in_a_handler<A: RemoteActor + actix::Handler<M>, M: RemoteMessage + actix::Message<Result = <M as RemoteMessage>::Reply>>(tick: M) {
/// if let Some(timers) = timers::<A>() {
///     let timer = timers.send_after(Duration::from_secs(1), tick);
///     timer.cancel();
/// }
/// # }
/// ```
pub fn timers<A: Actor<Context = Context<A>>>() -> Option<Timers<A>> {
    scope::this_shared().map(Timers)
}

/// Sets the timers of one actor.
///
/// What a timer sends goes to the end of the actor's mailbox when its time has come, however full that is, and nobody
/// waits for its answer. Timers end with the life of the actor that set them: also by a restart. Reminders live as long
/// as the actor.
pub struct Timers<A: Actor<Context = Context<A>>>(Arc<Shared<A>>);

impl<A: Actor<Context = Context<A>>> Timers<A> {
    /// Sends `message` to the actor itself, once, after `delay`.
    pub fn send_after<M>(&self, delay: Duration, message: M) -> Timer
    where
        A: Handler<M>,
        M: RemoteMessage + Message<Result = <M as RemoteMessage>::Reply>,
    {
        let mut message = Some(message);
        self.set(delay, None, None, Box::new(move || message.take().map(letter)))
    }

    /// Sends what `message` makes to the actor itself, every so often, for the first time after one interval, at least
    /// 1 ms. A message that is due while the one before still waits in the mailbox is left out: a slow actor is not
    /// buried.
    pub fn send_interval<M>(&self, every: Duration, mut message: impl FnMut() -> M + Send + 'static) -> Timer
    where
        A: Handler<M>,
        M: RemoteMessage + Message<Result = <M as RemoteMessage>::Reply>,
    {
        let every = every.max(EVERY_MIN);
        self.set(every, Some(every), None, Box::new(move || Some(letter(message()))))
    }

    /// Sends `message` to the actor itself after `delay`, and then every so often, if `every` is given. A reminder has a
    /// name, replaces the one that had it before, and survives restarts of the actor.
    ///
    /// # Errors
    /// [`CallError::Encode`] if the message cannot be written down.
    pub fn remind<M>(
        &self,
        name: impl Into<String>,
        delay: Duration,
        every: Option<Duration>,
        message: &M,
    ) -> Result<Timer, CallError>
    where
        A: Handler<M>,
        M: RemoteMessage + Message<Result = <M as RemoteMessage>::Reply>,
    {
        let body =
            codec::encode(message).map_err(|error| CallError::Encode { reason: error.to_string(), reply: false })?;
        let name = name.into();
        self.forget(&name);
        let node = self.0.node.clone();
        let make = move || scope::on_node(Some(&node), || codec::decode::<M>(&body)).ok().map(letter);
        Ok(self.set(delay, every.map(|every| every.max(EVERY_MIN)), Some(name), Box::new(make)))
    }

    /// Ends the reminder with this name; nothing of it is begun from now on. False if there is none.
    pub fn forget(&self, name: &str) -> bool {
        let reminder = self.0.timers.0.lock().used().and_then(|rows| rows.reminders.remove(name));
        reminder.is_some_and(|timer| timer.cancel())
    }

    /// The names of the reminders that will still send something, sorted.
    pub fn reminders(&self) -> Vec<String> {
        let mut rows = self.0.timers.0.lock();
        let names =
            rows.used().into_iter().flat_map(|rows| rows.table.iter()).filter(|(_, row)| !row.timer.is_cancelled());
        let mut names: Vec<String> = names.filter_map(|(_, row)| row.name.clone()).collect();
        drop(rows);
        names.sort_unstable();
        names
    }

    fn set(&self, delay: Duration, every: Option<Duration>, name: Option<String>, make: Make<A>) -> Timer {
        let timer = Timer(Arc::default());
        let Some(at) = now().checked_add(delay) else {
            // It would come after the end of time.
            return timer;
        };
        let home: Weak<dyn Home> = Arc::downgrade(&self.0) as _;
        timer.0.lock().home = Some(home);
        let mut replaced = None;
        let row = Row { timer: timer.clone(), every, name, make };
        let refused = {
            let mut rows = self.0.timers.0.lock();
            match rows.usable() {
                Some(rows) => {
                    if let Some(name) = &row.name {
                        replaced = rows.reminders.insert(name.clone(), timer.clone());
                    }
                    rows.insert(at, row).err()
                }
                None => Some(row),
            }
        };
        if let Some(replaced) = replaced {
            replaced.cancel();
        }
        if let Some(refused) = refused {
            // The actor has ended.
            timer.0.lock().over = true;
            discard(refused);
            return timer;
        }
        // The cell sleeps until the earliest.
        self.0.mailbox.wake();
        timer
    }
}

impl<A: Actor<Context = Context<A>>> std::fmt::Debug for Timers<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Timers of {}", self.0.id)
    }
}

/// A timer that was set. Dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct Timer(Arc<Mutex<TimerState>>);

#[derive(Debug, Default)]
struct TimerState {
    cancelled: bool,
    /// It has sent its last message.
    over: bool,
    /// What it has sent last.
    sent: Option<Arc<dyn Sent>>,
    /// Where its row is, and which it is while it is there.
    home: Option<Weak<dyn Home>>,
    row: Option<RowId>,
}

/// Where the row of a timer is.
trait Home: Send + Sync {
    /// Gives up a row and what it holds, if it is there.
    fn remove(&self, row: RowId);
}

impl<A: Actor<Context = Context<A>>> Home for Shared<A> {
    fn remove(&self, row: RowId) {
        let removed = self.timers.0.lock().used().and_then(|rows| rows.remove(row));
        discard(removed);
    }
}

/// Drops what holds messages: the drop is the user's code, so no lock is held here, and it may panic.
fn discard<T>(held: T) {
    if catch_unwind(AssertUnwindSafe(|| drop(held))).is_err() {
        tracing::error!("the drop of a timer's message panicked");
    }
}

impl Timer {
    /// Ends the timer: nothing that it sent or would send is begun once this returns. False if that changes nothing,
    /// since it had been ended already or had sent its last message, which was begun.
    pub fn cancel(&self) -> bool {
        let mut state = self.0.lock();
        let was_cancelled = std::mem::replace(&mut state.cancelled, true);
        let would_send = !was_cancelled && !state.over;
        let sent = state.sent.take();
        let (home, row) = (state.home.take(), state.row.take());
        drop(state);
        if let Some(row) = row
            && let Some(home) = home.and_then(|home| home.upgrade())
        {
            home.remove(row);
        }
        let waited = sent.is_some_and(|sent| sent.cancel());
        would_send || waited
    }

    fn is_cancelled(&self) -> bool {
        self.0.lock().cancelled
    }

    /// What it sent last is not begun.
    fn is_waiting(&self) -> bool {
        self.0.lock().sent.as_ref().is_some_and(|sent| sent.is_waiting())
    }
}

/// A message of a timer, on its way to its handler.
trait Sent: Send + Sync + std::fmt::Debug {
    /// Its handler has not begun.
    fn is_waiting(&self) -> bool;
    /// It is not to begin. True if it had not.
    fn cancel(&self) -> bool;
}

impl<T: Send> Sent for Waiter<T> {
    fn is_waiting(&self) -> bool {
        self.0.is_waiting()
    }

    fn cancel(&self) -> bool {
        let waited = self.0.is_waiting();
        self.0.cancel();
        waited
    }
}

struct Waiter<T>(Arc<Slot<T>>);

impl<T> std::fmt::Debug for Waiter<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waiter")
    }
}

type Made<A> = (Box<dyn Letter<A>>, Arc<dyn Sent>);

/// Makes the next message; none if there is none.
type Make<A> = Box<dyn FnMut() -> Option<Made<A>> + Send>;

struct Row<A: Actor<Context = Context<A>>> {
    timer: Timer,
    every: Option<Duration>,
    /// Of a reminder.
    name: Option<String>,
    make: Make<A>,
}

/// The timers of an actor, which cost nothing until one is set.
pub(crate) struct TimerRows<A: Actor<Context = Context<A>>>(Mutex<Held<A>>);

enum Held<A: Actor<Context = Context<A>>> {
    Unused,
    Used(Box<Rows<A>>),
    /// The actor has ended.
    Closed,
}

impl<A: Actor<Context = Context<A>>> Held<A> {
    fn used(&mut self) -> Option<&mut Rows<A>> {
        match self {
            Held::Used(rows) => Some(rows),
            Held::Unused | Held::Closed => None,
        }
    }

    /// To put something in. None once the actor has ended.
    fn usable(&mut self) -> Option<&mut Rows<A>> {
        if matches!(self, Held::Unused) {
            *self = Held::Used(Box::default());
        }
        self.used()
    }
}

struct Rows<A: Actor<Context = Context<A>>> {
    table: Table<Row<A>>,
    reminders: HashMap<String, Timer>,
    /// Timers that are over, and whose last message may still wait in the mailbox; reminders with their names.
    over: Vec<(Option<String>, Timer)>,
}

impl<A: Actor<Context = Context<A>>> Rows<A> {
    /// # Errors
    /// The row, if its timer is cancelled.
    fn insert(&mut self, at: Instant, row: Row<A>) -> Result<(), Row<A>> {
        let timer = row.timer.clone();
        // Whoever cancels it from now on finds the row.
        let mut state = timer.0.lock();
        if state.cancelled {
            return Err(row);
        }
        state.row = Some(self.table.insert(at, row));
        Ok(())
    }

    fn remove(&mut self, row: RowId) -> Option<Row<A>> {
        let row = self.table.remove(row)?;
        if let Some(name) = &row.name {
            self.forget(name, &row.timer);
        }
        Some(row)
    }

    /// A timer has sent its last message. It is remembered until that is begun; here are those whose messages were, to
    /// be dropped without locks.
    fn end(&mut self, name: Option<String>, timer: Timer) -> Vec<Timer> {
        self.over.push((name, timer));
        let (over, begun): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.over).into_iter().partition(|(_, timer)| timer.is_waiting());
        self.over = over;
        let forget = |(name, timer): (Option<String>, Timer)| {
            if let Some(name) = name {
                self.forget(&name, &timer);
            }
            timer
        };
        begun.into_iter().map(forget).collect()
    }

    /// The name may be another timer's by now.
    fn forget(&mut self, name: &str, timer: &Timer) {
        if self.reminders.get(name).is_some_and(|named| Arc::ptr_eq(&named.0, &timer.0)) {
            self.reminders.remove(name);
        }
    }
}

impl<A: Actor<Context = Context<A>>> Default for Rows<A> {
    fn default() -> Self {
        Rows { table: Table::default(), reminders: HashMap::new(), over: Vec::new() }
    }
}

impl<A: Actor<Context = Context<A>>> Default for TimerRows<A> {
    fn default() -> Self {
        TimerRows(Mutex::new(Held::Unused))
    }
}

impl<A: Actor<Context = Context<A>>> TimerRows<A> {
    /// A life is over: its timers are, too, and what they sent is not begun in the next. Reminders stay.
    pub(crate) fn end_life(&self) {
        let (rows, over) = {
            let mut held = self.0.lock();
            let Some(held) = held.used() else { return };
            let of_this_life = |(name, _): &(Option<String>, Timer)| name.is_none();
            let (ended, stay): (Vec<_>, Vec<_>) = std::mem::take(&mut held.over).into_iter().partition(of_this_life);
            held.over = stay;
            (held.table.take_all(|row| row.name.is_none()), ended)
        };
        for (_, timer) in over {
            timer.cancel();
        }
        for row in rows {
            row.timer.cancel();
            discard(row);
        }
    }

    /// The cell looks after its actor so often in this life, also while no message comes.
    pub(crate) fn beat(&self, every: Duration) {
        let make = || {
            let waiting = Arc::new(AtomicBool::new(true));
            Some((Box::new(Beat(Arc::clone(&waiting))) as Box<dyn Letter<A>>, Arc::new(waiting) as Arc<dyn Sent>))
        };
        if let Some(at) = now().checked_add(every) {
            let row = Row { timer: Timer(Arc::default()), every: Some(every), name: None, make: Box::new(make) };
            if let Some(rows) = self.0.lock().usable() {
                rows.table.insert(at, row);
            }
        }
    }

    /// The actor has ended.
    pub(crate) fn clear(&self) {
        let Held::Used(mut rows) = std::mem::replace(&mut *self.0.lock(), Held::Closed) else { return };
        rows.table.take_all(|_| true).into_iter().for_each(discard);
        discard(rows);
    }

    fn next_at(&self) -> Option<Instant> {
        self.0.lock().used().and_then(|rows| rows.table.next_at())
    }

    /// Sends what is due at `now`.
    fn fire(&self, shared: &Shared<A>, now: Instant) {
        loop {
            let due = self.0.lock().used().and_then(|rows| rows.table.take_due(now));
            let Some((at, mut row)) = due else { return };
            self.send(shared, &mut row);
            let again = row.every.and_then(|every| table::next_beat(at, every, now));
            let (done, begun) = match (self.0.lock().used(), again) {
                (Some(rows), Some(at)) => {
                    let cancelled = rows.insert(at, row).err();
                    if let Some(Row { name: Some(name), timer, .. }) = &cancelled {
                        rows.forget(name, timer);
                    }
                    (cancelled, Vec::new())
                }
                (Some(rows), None) => {
                    row.timer.0.lock().over = true;
                    let begun = rows.end(row.name.clone(), row.timer.clone());
                    (Some(row), begun)
                }
                (None, _) => (Some(row), Vec::new()),
            };
            discard(done);
            begun.into_iter().for_each(discard);
        }
    }

    fn send(&self, shared: &Shared<A>, row: &mut Row<A>) {
        if row.timer.is_cancelled() || row.timer.is_waiting() {
            return;
        }
        let make = &mut row.make;
        let made = catch_unwind(AssertUnwindSafe(make));
        let Ok(Some((letter, sent))) = made else {
            tracing::error!(actor = %shared.id, "a timer could not make its message, and is over");
            row.every = None;
            return;
        };
        let before = {
            let mut state = row.timer.0.lock();
            if state.cancelled {
                drop(state);
                discard((letter, sent));
                return;
            }
            state.sent.replace(sent)
        };
        discard(before);
        if let Err(refused) = shared.mailbox.put_signal(letter) {
            shared.dismiss(refused.letter, refused.error);
        }
    }
}

fn letter<A, M>(message: M) -> Made<A>
where
    A: Actor<Context = Context<A>> + Handler<M>,
    M: RemoteMessage + Message<Result = <M as RemoteMessage>::Reply>,
{
    // As an ask whose answer nobody looks at: that is how it can be called back.
    let slot = Slot::<M::Reply>::new();
    let letter = Envelope::ask(message, ReplyTo::near(Arc::clone(&slot)), Deadline::NEVER);
    (letter, Arc::new(Waiter(slot)))
}

/// A letter that says nothing: that its turn comes is enough.
struct Beat(Arc<AtomicBool>);

impl<A: Actor<Context = Context<A>>> Letter<A> for Beat {
    fn deliver(self: Box<Self>, _: &mut A, _: &mut Context<A>, _: &Arc<Shared<A>>, _: Instant) {
        self.0.store(false, Ordering::Relaxed);
    }

    fn refuse(self: Box<Self>, _: CallError) -> Option<Undelivered> {
        None
    }

    fn stand_in_line(&mut self) -> Option<Arc<Acceptance>> {
        None
    }
}

impl Sent for Arc<AtomicBool> {
    fn is_waiting(&self) -> bool {
        self.load(Ordering::Relaxed)
    }

    fn cancel(&self) -> bool {
        self.swap(false, Ordering::Relaxed)
    }
}

/// The one sleeper for the timers of an actor.
#[derive(Default)]
pub(crate) struct Alarm(Option<(Instant, Pin<Box<Sleep>>)>);

impl Alarm {
    /// Sends what is due, and wakes the cell for what comes next.
    pub(crate) fn poll<A: Actor<Context = Context<A>>>(&mut self, shared: &Shared<A>, cx: &mut TaskContext<'_>) {
        loop {
            let Some(at) = shared.timers.next_at() else {
                self.0 = None;
                return;
            };
            if self.0.as_ref().is_none_or(|(armed, _)| *armed != at) {
                self.0 = Some((at, Box::pin(tokio::time::sleep_until(at.into()))));
            }
            let Some((_, sleep)) = &mut self.0 else { return };
            if sleep.as_mut().poll(cx).is_pending() {
                return;
            }
            self.0 = None;
            shared.timers.fire(shared, now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Idle;

    impl Actor for Idle {
        type Context = Context<Self>;
    }

    #[test]
    fn a_reminder_that_is_over_is_remembered_until_its_message_is_begun() {
        let mut rows = Rows::<Idle>::default();
        let waiting = Arc::new(AtomicBool::new(true));
        let once = Timer(Arc::default());
        once.0.lock().sent = Some(Arc::new(Arc::clone(&waiting)));
        rows.reminders.insert("once".to_owned(), once.clone());
        rows.end(Some("once".to_owned()), once);
        assert!(rows.reminders.contains_key("once"), "it can still be forgotten in time");
        waiting.store(false, Ordering::Relaxed);
        rows.end(None, Timer(Arc::default()));
        assert!(rows.reminders.is_empty() && rows.over.is_empty());
    }

    #[test]
    fn what_ends_with_its_actor_is_not_begun_again() {
        for used in [false, true] {
            let rows = TimerRows::<Idle>::default();
            if used {
                rows.beat(Duration::from_secs(1));
            }
            assert_eq!(rows.next_at().is_some(), used);
            rows.clear();
            rows.beat(Duration::from_secs(1));
            assert!(rows.next_at().is_none() && rows.0.lock().usable().is_none());
        }
    }
}
