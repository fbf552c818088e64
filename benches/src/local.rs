//! Asks within one process, one at a time, beside `Addr::send` to the same actor in the same placement.
use std::thread;
use std::time::Duration;

use actix::{Actor, Addr, Handler, ResponseFuture, System};
use anyhow::{Result, anyhow, bail, ensure};
use mobula::{ActorRef, Cluster, RemoteActor, RemoteMessage};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::Plan;
use crate::counter::{Add, Counter, WhichThread, this_thread};
use crate::drive::{self, Span};
use crate::measure::{Line, Series};
use crate::threads::{on_own_thread, runtime};

/// Askers spawned in the hope that one lands on the counter's arbiter.
const ASKERS_MAX: usize = 64;

/// Actor and asking task on one arbiter: no thread is woken.
pub(crate) async fn same_arbiter(plan: Plan) -> Result<Vec<Line>> {
    let cluster = Cluster::connect().await?;
    let counter = cluster.spawn(Counter::spec(0)).await?;
    let asker = asker_beside(&cluster, &counter).await?.with_deadline(Duration::MAX);
    let bare = BareCounter::start().await?;
    let (mut ours, mut raw) = (Series::default(), Series::default());
    for _ in 0..plan.rounds {
        let Span { warm, run } = plan.span;
        let rate = asker.ask(AskOneByOne { counter: counter.clone(), warm, run }).await?;
        ours.push(rate.map_err(|error| anyhow!(error))?);
        raw.push(bare.rate_on_its_arbiter(plan.span).await?);
    }
    cluster.shutdown().await;
    let reference = "Addr::send on the actor's arbiter";
    Ok(vec![Line { name: "local-ask", unit: "asks/s", reference, ours, raw }])
}

/// The asking task on another thread: each ask wakes the actor's thread, each reply the caller's.
pub(crate) async fn across(plan: Plan) -> Result<Vec<Line>> {
    let cluster = Cluster::connect().await?;
    let counter = cluster.spawn(Counter::spec(0)).await?;
    ensure!(counter.is_local(), "the counter did not land in this process");
    let bare = BareCounter::start().await?;
    let (mut ours, mut raw) = (Series::default(), Series::default());
    for _ in 0..plan.rounds {
        let span = plan.span;
        let actor = counter.clone();
        ours.push(
            on_own_thread(move || {
                runtime()?.block_on(drive::one_by_one(span, async || actor.ask(Add { by: 1 }).await))
            })
            .await?,
        );
        let addr = bare.addr.clone();
        raw.push(
            on_own_thread(move || {
                runtime()?.block_on(drive::one_by_one(span, async || addr.send(Add { by: 1 }).await))
            })
            .await?,
        );
    }
    cluster.shutdown().await;
    let reference = "Addr::send from another thread";
    Ok(vec![Line { name: "local-ask-across", unit: "asks/s", reference, ours, raw }])
}

/// Asks the counter on behalf of the measure, from the arbiter that it happens to live on.
struct Asker;

impl Actor for Asker {
    type Context = actix::Context<Self>;
}

/// Asks `counter` for a span of time and answers the asks per second.
#[derive(Deserialize, RemoteMessage, Serialize)]
#[rtype(result = "Result<f64, String>")]
struct AskOneByOne {
    counter: ActorRef<Counter>,
    warm: Duration,
    run: Duration,
}

impl Handler<AskOneByOne> for Asker {
    type Result = ResponseFuture<Result<f64, String>>;

    fn handle(&mut self, message: AskOneByOne, _: &mut Self::Context) -> Self::Result {
        Box::pin(async move {
            let AskOneByOne { counter, warm, run } = message;
            drive::one_by_one(Span { warm, run }, async || counter.ask(Add { by: 1 }).await)
                .await
                .map_err(|error| error.to_string())
        })
    }
}

impl Handler<WhichThread> for Asker {
    type Result = String;

    fn handle(&mut self, _: WhichThread, _: &mut Self::Context) -> String {
        this_thread()
    }
}

mobula::remote_actor!(Asker, args: (), create: |()| Asker, messages: [AskOneByOne, WhichThread]);

/// Placement is the cluster's business, so askers are spawned until one shares the counter's thread.
async fn asker_beside(cluster: &Cluster, counter: &ActorRef<Counter>) -> Result<ActorRef<Asker>> {
    let wanted = counter.ask(WhichThread).await?;
    for _ in 0..ASKERS_MAX {
        let asker = cluster.spawn(Asker::spec(())).await?;
        if asker.ask(WhichThread).await? == wanted {
            return Ok(asker);
        }
    }
    bail!("none of {ASKERS_MAX} askers landed on the counter's arbiter")
}

/// The counter as an actix actor and nothing else, on the arbiter of a system of its own.
struct BareCounter {
    system: System,
    addr: Addr<Counter>,
}

impl BareCounter {
    async fn start() -> Result<BareCounter> {
        let (started, parts) = oneshot::channel();
        thread::spawn(move || {
            let runner = System::new();
            runner.block_on(async {
                let _ = started.send((System::current(), Counter::new(0).start()));
            });
            runner.run()
        });
        let (system, addr) = parts.await?;
        Ok(BareCounter { system, addr })
    }

    async fn rate_on_its_arbiter(&self, span: Span) -> Result<f64> {
        let (done, rate) = oneshot::channel();
        let addr = self.addr.clone();
        self.system.arbiter().spawn_fn(move || {
            actix::spawn(async move {
                let _ = done.send(drive::one_by_one(span, async || addr.send(Add { by: 1 }).await).await);
            });
        });
        rate.await?
    }
}

impl Drop for BareCounter {
    fn drop(&mut self) {
        self.system.stop();
    }
}
