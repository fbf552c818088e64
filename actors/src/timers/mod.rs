//! Timers and reminders: messages that an actor sends to itself later, through its own mailbox.
//!
//! They are rows in a table of the actor, and one sleeper of its cell looks after all of them.
mod table;

use std::collections::HashMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
use table::Table;

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
        let reminder = self.0.timers.0.lock().as_ref().and_then(|rows| rows.reminders.get(name).cloned());
        reminder.is_some_and(|timer| timer.cancel())
    }

    /// The names of the reminders that will still send something, sorted.
    pub fn reminders(&self) -> Vec<String> {
        let rows = self.0.timers.0.lock();
        let names = rows.iter().flat_map(|rows| rows.table.iter()).filter(|(_, row)| !row.timer.is_cancelled());
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
        let mut rows = self.0.timers.0.lock();
        let rows_now = rows.get_or_insert_default();
        if let Some(name) = &name {
            rows_now.reminders.insert(name.clone(), timer.clone());
        }
        rows_now.table.insert(at, Row { timer: timer.clone(), every, name, make });
        drop(rows);
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
}

impl Timer {
    /// Ends the timer: nothing that it sent or would send is begun once this returns. False if that changes nothing,
    /// since it had been ended already or had sent its last message, which was begun.
    pub fn cancel(&self) -> bool {
        let mut state = self.0.lock();
        let was_cancelled = std::mem::replace(&mut state.cancelled, true);
        let would_send = !was_cancelled && !state.over;
        let sent = state.sent.take();
        drop(state);
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
pub(crate) struct TimerRows<A: Actor<Context = Context<A>>>(Mutex<Option<Box<Rows<A>>>>);

struct Rows<A: Actor<Context = Context<A>>> {
    table: Table<Row<A>>,
    reminders: HashMap<String, Timer>,
    /// Timers of this life that are over, and whose last message may still wait in the mailbox.
    over: Vec<Timer>,
}

impl<A: Actor<Context = Context<A>>> Default for Rows<A> {
    fn default() -> Self {
        Rows { table: Table::default(), reminders: HashMap::new(), over: Vec::new() }
    }
}

impl<A: Actor<Context = Context<A>>> Default for TimerRows<A> {
    fn default() -> Self {
        TimerRows(Mutex::new(None))
    }
}

impl<A: Actor<Context = Context<A>>> TimerRows<A> {
    /// A life is over: its timers are, too, and what they sent is not begun in the next. Reminders stay.
    pub(crate) fn end_life(&self) {
        let mut ended = Vec::new();
        if let Some(rows) = self.0.lock().as_mut() {
            rows.table.retain(|row| {
                if row.name.is_none() {
                    ended.push(row.timer.clone());
                }
                row.name.is_some()
            });
            ended.append(&mut rows.over);
        }
        for timer in ended {
            timer.cancel();
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
            self.0.lock().get_or_insert_default().table.insert(at, row);
        }
    }

    /// The actor has ended.
    pub(crate) fn clear(&self) {
        // Messages are the user's to drop, without our lock.
        let rows = self.0.lock().take();
        drop(rows);
    }

    fn next_at(&self) -> Option<Instant> {
        self.0.lock().as_ref().and_then(|rows| rows.table.next_at())
    }

    /// Sends what is due at `now`.
    fn fire(&self, shared: &Shared<A>, now: Instant) {
        loop {
            let due = self.0.lock().as_mut().and_then(|rows| rows.table.take_due(now));
            let Some((at, mut row)) = due else { return };
            self.send(shared, &mut row);
            let again = row.every.and_then(|every| table::next_beat(at, every, now));
            let mut rows = self.0.lock();
            let Some(rows_now) = rows.as_mut() else { return };
            match again {
                Some(at) if !row.timer.is_cancelled() => {
                    rows_now.table.insert(at, row);
                }
                _ => {
                    row.timer.0.lock().over = true;
                    match &row.name {
                        Some(name) => {
                            let is_it = |timer: &Timer| Arc::ptr_eq(&timer.0, &row.timer.0);
                            if rows_now.reminders.get(name).is_some_and(is_it) && !row.timer.is_waiting() {
                                rows_now.reminders.remove(name);
                            }
                        }
                        None => {
                            rows_now.over.retain(Timer::is_waiting);
                            rows_now.over.push(row.timer.clone());
                        }
                    }
                    drop(rows);
                    drop(row);
                }
            }
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
        {
            let mut state = row.timer.0.lock();
            if state.cancelled {
                return;
            }
            state.sent = Some(sent);
        }
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
