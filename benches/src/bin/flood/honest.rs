//! Those who belong to the cluster: newcomers that join, connect and say hello, and a session that goes on meanwhile.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use actix::{Actor, Context, Handler};
use mobula::{ActorRef, RemoteActor, RemoteMessage};
use mobula_actors::{Node, NodeConfig};
use mobula_core::frame::MessageIndex;
use mobula_core::{CallError, NodeId, RequestId, limits};
use mobula_identity::{Joined, Role, join};
use mobula_transport::tls::{self, Endpoint};
use mobula_transport::{Hello, Inbound, Lane, Link, Request, SessionConfig, SessionError, Waiter};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::port::{AtDoor, UID};

/// Between the beginnings of two newcomers' visits.
const NEWCOMER_EVERY: Duration = Duration::from_millis(200);
/// A newcomer that has not come in after this never will.
const GIVES_UP_AFTER: Duration = Duration::from_secs(20);

type Failed = Box<dyn std::error::Error>;

/// Takes a certificate, connects with it, and hears the node's hello.
pub(crate) async fn come_in(door: &AtDoor) -> Result<(), Failed> {
    let joined = join(door.address, &door.token, Role::Worker).await?;
    let endpoint = Endpoint::new(joined.uid, &joined.credentials, false)?;
    let wire = tls::wire(endpoint.dial(door.address, UID, Lane::Data).await?)?;
    let hello = Hello {
        node: NodeId::new("newcomer", joined.uid),
        pid: std::process::id(),
        capabilities: Hello::CAPABILITIES,
        credit_messages: limits::CREDIT_MESSAGES,
    };
    let (link, driver) =
        Link::<Nobody>::open(wire, SessionConfig::new(Lane::Data), &hello, NodeId::new("head", UID), Nobody);
    let driving = tokio::spawn(driver);
    link.opened().await?;
    link.goodbye("seen");
    driving.await?;
    Ok(())
}

#[derive(Clone)]
struct Nobody;

impl Waiter for Nobody {
    fn answer(self, _: Result<&[u8], CallError>) {}

    fn accepted(self) {}
}

impl Inbound<Nobody> for Nobody {
    fn define(&mut self, _: MessageIndex, _: &str, _: u64) {}

    fn request(&mut self, _: &Arc<Link<Nobody>>, _: Request<'_>) -> Result<(), SessionError> {
        Ok(())
    }

    fn cancel(&mut self, _: RequestId) {}

    fn closed(&mut self, _: &Arc<Link<Nobody>>, _: &str) {}
}

/// Times of what went well, and how often it did not.
#[derive(Default)]
pub(crate) struct Times {
    times: Vec<Duration>,
    pub(crate) failed: usize,
}

impl Times {
    fn note(&mut self, begun: Instant, result: Result<(), Failed>, what: &str) {
        match result {
            Ok(()) => self.times.push(begun.elapsed()),
            Err(error) => {
                eprintln!("{what} failed after {:?}: {error}", begun.elapsed());
                self.failed += 1;
            }
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.times.len()
    }

    pub(crate) fn percentile(&self, percent: f64) -> Duration {
        let mut times = self.times.clone();
        times.sort_unstable();
        let at = (times.len() as f64 * percent / 100.0).ceil() as usize;
        times.get(at.saturating_sub(1)).copied().unwrap_or(Duration::MAX)
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |percent| self.percentile(percent).as_secs_f64() * 1e3;
        let (count, failed) = (self.count(), self.failed);
        write!(
            f,
            "{count} well, {failed} failed; ms: p50 {:.1}, p99 {:.1}, most {:.1}",
            millis(50.0),
            millis(99.0),
            millis(100.0)
        )
    }
}

/// Something that goes on until it is stopped, on a thread of its own.
pub(crate) struct GoingOn {
    over: Arc<AtomicBool>,
    times: oneshot::Receiver<Times>,
}

impl GoingOn {
    pub(crate) async fn stop(self) -> Times {
        self.over.store(true, Ordering::Relaxed);
        self.times.await.expect("its thread counts to the end")
    }
}

/// Newcomers, one after the other.
pub(crate) struct Newcomers;

impl Newcomers {
    pub(crate) fn keep_coming(door: AtDoor) -> GoingOn {
        let over = Arc::new(AtomicBool::new(false));
        let (told, times) = oneshot::channel();
        let until = Arc::clone(&over);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let all = runtime.block_on(async move {
                let mut all = Times::default();
                let mut next = tokio::time::interval(NEWCOMER_EVERY);
                next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                while !until.load(Ordering::Relaxed) {
                    next.tick().await;
                    let begun = Instant::now();
                    let came = tokio::time::timeout(GIVES_UP_AFTER, come_in(&door)).await;
                    all.note(begun, came.unwrap_or_else(|late| Err(late.into())), "a newcomer");
                }
                all
            });
            let _ = told.send(all);
        });
        GoingOn { over, times }
    }
}

/// What the session asks.
struct Echo;

impl Actor for Echo {
    type Context = Context<Self>;
}

mobula::remote_actor!(Echo, args: (), create: |()| Echo, messages: [Number]);

#[derive(Deserialize, RemoteMessage, Serialize)]
#[rtype(result = "u64")]
struct Number(u64);

impl Handler<Number> for Echo {
    type Result = u64;

    fn handle(&mut self, Number(number): Number, _: &mut Context<Self>) -> u64 {
        number
    }
}

/// A node with both lanes to the flooded one, and an actor there. Its connections have no way back: to break one is to end it.
pub(crate) struct Session {
    node: Node,
    echo: ActorRef<Echo>,
}

impl Session {
    pub(crate) async fn open(door: &AtDoor) -> Self {
        let Joined { uid, credentials, .. } =
            join(door.address, &door.token, Role::Worker).await.expect("nobody else is there");
        let config = NodeConfig { name: "session".to_owned(), uid: Some(uid), ..NodeConfig::default() };
        let node = Node::start(config).expect("a node");
        let head = NodeId::new("head", UID);
        let endpoint = Endpoint::new(uid, &credentials, false).expect("good credentials");
        for lane in [Lane::Control, Lane::Data] {
            let secured = endpoint.dial(door.address, UID, lane).await.expect("nobody else is there");
            node.attach(lane, head.clone(), move || tls::wire(secured)).await.expect("it says hello");
        }
        let echo = node.spawn_on(&head, Echo::spec(())).await.expect("an actor");
        Session { node, echo }
    }

    /// Asks, a hundred times a second.
    pub(crate) fn ask_all_the_time(self) -> GoingOn {
        let over = Arc::new(AtomicBool::new(false));
        let (told, times) = oneshot::channel();
        let until = Arc::clone(&over);
        actix::spawn(async move {
            let mut all = Times::default();
            let mut next = tokio::time::interval(Duration::from_millis(10));
            for number in 0.. {
                if until.load(Ordering::Relaxed) {
                    break;
                }
                next.tick().await;
                let begun = Instant::now();
                let answer = self.echo.ask(Number(number)).await;
                let right = answer.map_err(Into::into).and_then(|answer| match answer == number {
                    true => Ok(()),
                    false => Err(format!("{answer} instead of {number}").into()),
                });
                all.note(begun, right, "an ask");
            }
            self.node.shut_down("over");
            let _ = told.send(all);
        });
        GoingOn { over, times }
    }
}
