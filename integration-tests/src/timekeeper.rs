//! Actors that send messages to themselves later, and one that puts messages aside.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use mobula::{RemoteMessage, Stashable, Timer, timers, unstash_all};
use serde::{Deserialize, Serialize};

/// Logs what its timers send.
#[derive(Debug, Default)]
pub struct Timekeeper {
    log: Vec<u64>,
    set: Vec<Timer>,
    ready: bool,
}

impl Actor for Timekeeper {
    type Context = Context<Self>;
}

mobula::remote_actor!(
    Timekeeper,
    args: (),
    create: |()| Timekeeper::default(),
    messages: [Note, Later, Every, Remind, Forget, Reminders, CancelAll, Collapse, Load, Notes, Query, BeReady]
);

fn own() -> mobula::Timers<Timekeeper> {
    timers().expect("a handler is running")
}

/// Notes a number.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
pub struct Note(pub u64);

impl Handler<Note> for Timekeeper {
    type Result = u64;

    fn handle(&mut self, Note(number): Note, _: &mut Context<Self>) -> u64 {
        self.log.push(number);
        self.log.len() as u64
    }
}

/// Notes a number after so many milliseconds.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
pub struct Later(pub u64, pub u64);

impl Handler<Later> for Timekeeper {
    type Result = ();

    fn handle(&mut self, Later(ms, number): Later, _: &mut Context<Self>) {
        self.set.push(own().send_after(Duration::from_millis(ms), Note(number)));
    }
}

/// Notes a number every so many milliseconds.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
pub struct Every(pub u64, pub u64);

impl Handler<Every> for Timekeeper {
    type Result = ();

    fn handle(&mut self, Every(ms, number): Every, _: &mut Context<Self>) {
        self.set.push(own().send_interval(Duration::from_millis(ms), move || Note(number)));
    }
}

/// Cancels all timers. Answers how many had something to send.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
pub struct CancelAll;

impl Handler<CancelAll> for Timekeeper {
    type Result = u64;

    fn handle(&mut self, _: CancelAll, _: &mut Context<Self>) -> u64 {
        self.set.drain(..).filter(Timer::cancel).count() as u64
    }
}

/// Reminds it of a number, under a name, after so many milliseconds, and every so many, if not 0.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
pub struct Remind(pub String, pub u64, pub u64, pub u64);

impl Handler<Remind> for Timekeeper {
    type Result = ();

    fn handle(&mut self, Remind(name, after, every, number): Remind, _: &mut Context<Self>) {
        let every = (every > 0).then_some(Duration::from_millis(every));
        own().remind(name, Duration::from_millis(after), every, &Note(number)).expect("it can be encoded");
    }
}

/// Ends a reminder.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "bool")]
pub struct Forget(pub String);

impl Handler<Forget> for Timekeeper {
    type Result = bool;

    fn handle(&mut self, Forget(name): Forget, _: &mut Context<Self>) -> bool {
        own().forget(&name)
    }
}

/// The names of the reminders.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Vec<String>")]
pub struct Reminders;

impl Handler<Reminders> for Timekeeper {
    type Result = Vec<String>;

    fn handle(&mut self, _: Reminders, _: &mut Context<Self>) -> Vec<String> {
        own().reminders()
    }
}

/// What a timer holds whose drop looks at the timers, and then panics.
#[derive(Debug)]
struct Touchy(mobula::Timers<Timekeeper>);

impl Drop for Touchy {
    fn drop(&mut self) {
        self.0.reminders();
        panic!("it was dropped")
    }
}

/// Sets a timer far off that holds something `Touchy`, and one that it cancels. Answers whether what that held is
/// gone.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "bool")]
pub struct Load;

impl Handler<Load> for Timekeeper {
    type Result = bool;

    fn handle(&mut self, _: Load, _: &mut Context<Self>) -> bool {
        let far_off = Duration::from_secs(3600);
        let touchy = Touchy(own());
        own().send_interval(far_off, move || {
            let _ = &touchy;
            Note(0)
        });
        let held = Arc::new(());
        let in_timer = Arc::clone(&held);
        let timer = own().send_interval(far_off, move || {
            let _ = &in_timer;
            Note(0)
        });
        timer.cancel() && Arc::strong_count(&held) == 1
    }
}

/// Panics.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
pub struct Collapse;

impl Handler<Collapse> for Timekeeper {
    type Result = ();

    fn handle(&mut self, _: Collapse, _: &mut Context<Self>) {
        panic!("it was told to")
    }
}

/// What it has noted in this life.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Vec<u64>")]
pub struct Notes;

impl Handler<Notes> for Timekeeper {
    type Result = Vec<u64>;

    fn handle(&mut self, _: Notes, _: &mut Context<Self>) -> Vec<u64> {
        self.log.clone()
    }
}

/// Notes a number, once it is ready; until then the message is put aside.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
pub struct Query(pub u64);

impl Handler<Query> for Timekeeper {
    type Result = Stashable<Query>;

    fn handle(&mut self, query: Query, _: &mut Context<Self>) -> Stashable<Query> {
        if !self.ready {
            return Stashable::Later(query);
        }
        self.log.push(query.0);
        Stashable::Now(query.0)
    }
}

/// Makes it ready. Answers how many messages were put aside.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
pub struct BeReady;

impl Handler<BeReady> for Timekeeper {
    type Result = u64;

    fn handle(&mut self, _: BeReady, _: &mut Context<Self>) -> u64 {
        self.ready = true;
        unstash_all() as u64
    }
}

/// Counts its own ticks, in the macro's way.
#[derive(Debug)]
pub struct Ticker {
    ticks: u64,
}

#[mobula::actor]
impl Ticker {
    /// Has ticked so often.
    pub fn new(ticks: u64) -> Self {
        Ticker { ticks }
    }

    /// Ticks every millisecond from now on.
    pub fn run(&mut self) {
        if let Some(timers) = timers::<Self>() {
            timers.send_interval(Duration::from_millis(1), || TickerTick);
        }
    }

    /// One tick.
    pub fn tick(&mut self) {
        self.ticks += 1;
    }

    /// Ticks so far.
    pub fn ticks(&self) -> u64 {
        self.ticks
    }
}
