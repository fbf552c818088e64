//! The actors of the world: workers, which do what the plan of a call says, and watchers, which hear of ends.

use std::time::Duration;

use actix::{Actor, ActorContext, Context, Handler, MessageResult};
use futures::FutureExt;
use mobula::shapes::{Concurrent, Exclusive};
use mobula::{ActorRef, RemoteMessage, current_node, fence, this};
use mobula_actors::Down;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::children::Living;
use super::streams::Flow;
use super::{calls, state};
use crate::fact::{Fact, HowEnded, LifeId, Op};
use crate::params::{Ending, MS};
use crate::reach::Branch;

/// Does what the plan of a call says, in one of the three shapes.
#[derive(Default)]
pub(super) struct Worker {
    seat: Seat,
    /// Goes with its state, also into a handler that has that to itself.
    _living: Option<Living>,
}

/// For a handler beside others: its life is not the actor's.
impl Clone for Worker {
    fn clone(&self) -> Self {
        Worker { seat: self.seat, _living: None }
    }
}

/// Whose a worker is.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Seat {
    pub(super) life: LifeId,
    /// Which child of its supervisor's, if it has one.
    pub(super) child: Option<u32>,
    /// Under which it acts.
    pub(super) name: Option<u8>,
}

impl Actor for Worker {
    type Context = Context<Self>;
}

mobula::remote_actor!(
    Worker,
    args: Seat,
    create: |seat| {
        let actor = this::<Worker>().map_or(0, |this| this.id().0);
        state::actor_made(seat.life, actor);
        Worker { seat, _living: Living::begin(seat, actor) }
    },
    messages: [Plain, Alone, Beside, Flow]
);

/// What a call carries; the plan has the rest.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Work {
    pub(super) op: Op,
    #[serde(with = "serde_bytes")]
    pub(super) padding: Vec<u8>,
    /// Whom the handler asks in turn, as far as they are known.
    pub(super) nested: Vec<Option<ActorRef<Worker>>>,
}

/// Handled in one go.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Result<Op, Op>")]
pub(super) struct Plain(pub(super) Work);

/// Handled alone.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Result<Op, Op>")]
pub(super) struct Alone(pub(super) Work);

/// Handled beside all others.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Result<Op, Op>")]
pub(super) struct Beside(pub(super) Work);

impl Handler<Plain> for Worker {
    type Result = MessageResult<Plain>;

    fn handle(&mut self, Plain(work): Plain, ctx: &mut Context<Self>) -> Self::Result {
        let job = self.begin(work, true);
        // What a plain handler asks it cannot wait for: it gives up at once.
        drop(job.nested());
        MessageResult(job.end(|| {
            ctx.stop();
            HowEnded::Normal
        }))
    }
}

impl Handler<Alone> for Worker {
    type Result = Exclusive<Self, Alone>;

    fn handle(&mut self, Alone(work): Alone, _: &mut Context<Self>) -> Self::Result {
        let job = self.begin(work, true);
        Exclusive::on_state_of(self, move |worker| async move { (job.run().await, worker) })
    }
}

impl Handler<Beside> for Worker {
    type Result = Concurrent<Beside>;

    fn handle(&mut self, Beside(work): Beside, _: &mut Context<Self>) -> Self::Result {
        let job = self.begin(work, false);
        Concurrent::on_clone_of(self, move |_worker| job.run())
    }
}

impl Worker {
    /// A handler begins. If it is `fatal`, a panic in it ends the actor's life.
    pub(super) fn begin(&self, work: Work, fatal: bool) -> Job {
        Job::begin(self.seat, work, fatal)
    }
}

/// Tells the actor whose handler this is to stop.
pub(super) fn stop_this() -> HowEnded {
    // The order is given by the first poll.
    let _ = this::<Worker>().and_then(|this| this.stop().now_or_never());
    HowEnded::Ordered
}

/// A handler that has begun.
pub(super) struct Job {
    life: LifeId,
    actor: u64,
    work: Work,
    pub(super) plan: std::sync::Arc<crate::params::CallParams>,
    /// A panic in it ends the actor's life.
    fatal: bool,
}

impl Job {
    fn begin(Seat { life, name, .. }: Seat, work: Work, fatal: bool) -> Self {
        let actor = this::<Worker>().map_or(0, |this| this.id().0);
        let op = work.op;
        let plan = state::plan_of(op).unwrap_or_else(|| panic!("#{op} was never issued"));
        if work.padding.len() != calls::padding_bytes(&plan) {
            state::accuse("I16 bytes are what was sent", format!("#{op} arrives with {} bytes", work.padding.len()));
        }
        state::fact(Fact::Arrived { op, life, end: None, deadline: None });
        if let Some(name) = name {
            state::name_serves(life, actor, name, fence().map_or(0, |fence| fence.0));
        }
        let generation = state::generation(life, actor);
        state::fact(Fact::Started { op, life, actor, generation });
        Job { life, actor, work, plan, fatal }
    }

    async fn run(self) -> Result<Op, Op> {
        if self.plan.work > 0 {
            sleep(Duration::from_micros(self.plan.work)).await;
        }
        futures::future::join_all(self.nested()).await;
        if self.plan.ending == Ending::Late
            && let Some(deadline) = self.plan.deadline
        {
            sleep(Duration::from_micros(deadline + 100 * MS)).await;
        }
        self.end(stop_this)
    }

    pub(super) fn op(&self) -> Op {
        self.work.op
    }

    /// Its actor stops, by `stop`.
    pub(super) fn stop(&self, stop: impl FnOnce() -> HowEnded) {
        state::reach(Branch::Stopped);
        state::stops(self.life, self.actor, stop());
    }

    /// Makes the nested calls, all at once.
    fn nested(&self) -> Vec<impl Future<Output = ()> + use<>> {
        let mut made = Vec::new();
        for (plan, reference) in self.plan.nested.iter().zip(&self.work.nested) {
            let Some(target) = reference.clone().and_then(calls::Target::by) else { continue };
            // It is still the same node's handler, also after it has waited.
            let Some(node) = current_node().filter(|node| state::life_of(node.id()) == Some(self.life)) else {
                state::accuse("the node of a handler", format!("#{} does not know its node", self.work.op));
                continue;
            };
            state::reach(Branch::Nested);
            made.push(calls::make(plan, self.life, &node, target, None));
        }
        made
    }

    fn end(&self, stop: impl FnOnce() -> HowEnded) -> Result<Op, Op> {
        let op = self.work.op;
        match self.plan.ending {
            Ending::Panic => {
                if self.fatal {
                    state::actor_fails(self.life, self.actor);
                }
                panic!("{}", state::PLANNED_PANIC);
            }
            Ending::Stop => self.stop(stop),
            _ => {}
        }
        state::fact(Fact::Finished { op });
        if self.plan.ending == Ending::Error { Err(op) } else { Ok(op) }
    }
}

/// Hears of the ends of others.
pub(super) struct Watcher;

impl Actor for Watcher {
    type Context = Context<Self>;
}

mobula::remote_actor!(Watcher, args: (), create: |()| Watcher, messages: [Down]);

impl Handler<Down> for Watcher {
    type Result = ();

    fn handle(&mut self, down: Down, _: &mut Context<Self>) {
        state::monitor_told(down.monitor, calls::news(&down.reason));
    }
}
