//! The head at work: asks its decisions one after the other, writes down what they want before anybody hears of it, and wakes those who wait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mobula_control::Refusal;
use mobula_core::NodeUid;
use mobula_core::cluster::{JobId, LeaseId, Refused, Revision, UnixTime};
use mobula_head::store::{MetadataStore, Transaction, take_over};
use mobula_head::{Effect, Head, HeadConfig, Moment, Write};
use tokio::sync::{Mutex, Notify, watch};

use crate::bells::Bells;
use crate::error::DaemonError;

/// What decisions take from the world beside the time that has passed.
#[derive(Clone, Copy, Debug)]
pub struct Outside {
    /// 64 random bits, which must not come again.
    pub chance: fn() -> u64,
    /// The date.
    pub date: fn() -> UnixTime,
}

impl Outside {
    /// The system's.
    pub(crate) const SYSTEM: Self = Outside { chance: system_chance, date: UnixTime::now };
}

/// Keeps the head's decisions and its records together.
pub struct Keeper {
    /// Of this head.
    pub(crate) term: u64,
    state: Mutex<State>,
    begun: Instant,
    outside: Outside,
    /// Something may be due earlier than was thought.
    due: Notify,
    /// Rings when what lists show has changed.
    pub views: watch::Sender<Revision>,
    pub(crate) jobs: Bells<JobId>,
    pub(crate) nodes: Bells<NodeUid>,
    pub(crate) leases: Bells<LeaseId>,
    /// Lives that are to be cut off.
    cut: tokio::sync::mpsc::UnboundedSender<NodeUid>,
    /// Why the head cannot go on.
    broken: watch::Sender<Option<String>>,
}

struct State {
    head: Head,
    store: Arc<dyn MetadataStore>,
}

impl Keeper {
    /// Becomes the head whose records are in `store`.
    ///
    /// # Errors
    /// [`DaemonError`] if they cannot be read or written.
    pub async fn open(
        config: HeadConfig,
        store: Arc<dyn MetadataStore>,
        cut: tokio::sync::mpsc::UnboundedSender<NodeUid>,
        outside: Outside,
    ) -> Result<Arc<Self>, DaemonError> {
        let begun = mobula_transport::now();
        let head = take_over(&*store, config, || outside.moment(begun)).await?;
        let (term, views) = (head.term(), watch::Sender::new(head.revision()));
        let (jobs, nodes, leases) = (Bells::default(), Bells::default(), Bells::default());
        let state = Mutex::new(State { head, store });
        let (due, broken) = (Notify::new(), watch::Sender::new(None));
        Ok(Arc::new(Keeper { term, state, begun, outside, due, views, jobs, nodes, leases, cut, broken }))
    }

    /// Asks the head for a decision. What comes back is on disk.
    ///
    /// # Errors
    /// What the head refuses, or that it cannot write.
    pub async fn decide<T>(&self, decide: impl FnOnce(&mut Head, Moment) -> Result<T, Refused>) -> Result<T, Refusal> {
        let mut state = self.state.lock().await;
        if let Some(reason) = &*self.broken.borrow() {
            return Err(Refusal::NotNow(format!("the head ends: {reason}")));
        }
        let decided = decide(&mut state.head, self.outside.moment(self.begun));
        self.carry_out(&mut state).await?;
        drop(state);
        self.due.notify_one();
        decided.map_err(Refusal::Head)
    }

    /// Cuts a life off that is no node's.
    pub(crate) fn cut_off(&self, life: NodeUid) {
        // Nobody listens any more when the head ends.
        let _ = self.cut.send(life);
    }

    /// A node goes, and nothing runs on it.
    pub(crate) async fn leave(&self, node: NodeUid) -> Result<(), Refusal> {
        let leave = |head: &mut Head, moment| {
            head.leave(node, moment);
            Ok(())
        };
        self.decide(leave).await
    }

    /// A worker was reaped.
    pub(crate) async fn worker_ended(&self, worker: NodeUid, reason: &str) -> Result<(), Refusal> {
        let note = |head: &mut Head, moment| {
            head.worker_ended(worker, reason, true, moment);
            Ok(())
        };
        self.decide(note).await
    }

    /// Looks, and changes nothing.
    pub async fn look<T>(&self, look: impl FnOnce(&Head, Duration) -> T) -> T {
        let state = self.state.lock().await;
        look(&state.head, since(self.begun))
    }

    /// 64 random bits.
    pub(crate) fn chance(&self) -> u64 {
        (self.outside.chance)()
    }

    /// Does what is due, for ever.
    pub async fn tick(self: Arc<Self>) {
        loop {
            let next = self.look(|head, now| head.next_wakeup().map(|at| at.saturating_sub(now))).await;
            tokio::select! {
                biased;
                () = tokio::time::sleep(next.unwrap_or(Duration::from_secs(3600))) => {
                    // It cannot be refused: if this fails the head is broken, which is said elsewhere, and whatever is due stays so.
                    if self.decide(|head, moment| { head.tick(moment); Ok(()) }).await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
                () = self.due.notified() => {}
            }
        }
    }

    async fn carry_out(&self, state: &mut State) -> Result<(), Refusal> {
        let effects = match state.head.take_effects() {
            Ok(effects) => effects,
            Err(error) => return Err(self.give_up(&error.to_string())),
        };
        for effect in effects {
            match effect {
                Effect::Persist(writes) => self.persist(state, writes).await?,
                Effect::CutOff(uid) => drop(self.cut.send(uid)),
                Effect::NodeDown { uid, proof } => {
                    tracing::warn!(node = %uid, ?proof, "a node is down");
                    self.nodes.ring(&uid);
                }
                Effect::NodeChanged(uid) => self.nodes.ring(&uid),
                Effect::JobChanged(job) => self.jobs.ring(&job),
                Effect::Decided(lease) => self.leases.ring(&lease),
                Effect::ViewChanged(revision) => drop(self.views.send_replace(revision)),
                other => tracing::error!(?other, "an effect that nobody carries out"),
            }
        }
        Ok(())
    }

    async fn persist(&self, state: &mut State, writes: Vec<Write>) -> Result<(), Refusal> {
        let transaction = Transaction::of_head(state.head.term(), writes);
        state.store.commit(transaction).await.map(drop).map_err(|error| self.give_up(&error.to_string()))
    }

    /// True once the head cannot write: what is seen of it then may be nobody's.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.borrow().is_some()
    }

    /// Resolves when the head cannot write any more, with the reason. Cancel-safe.
    pub async fn breaks(&self) -> String {
        let mut broken = self.broken.subscribe();
        // It is not dropped before this is.
        let reason = broken.wait_for(Option::is_some).await;
        reason.ok().and_then(|reason| reason.clone()).unwrap_or_default()
    }

    /// What the head knows is not what the disk knows: it may answer nobody any more. What was to be written may be there all the same.
    fn give_up(&self, reason: &str) -> Refusal {
        tracing::error!(reason, "the head cannot write down what it decides");
        self.broken.send_replace(Some(reason.to_owned()));
        Refusal::InDoubt(format!("the head ends: {reason}"))
    }
}

impl Outside {
    fn moment(&self, begun: Instant) -> Moment {
        Moment { now: since(begun), unix: (self.date)(), chance: (self.chance)() }
    }
}

/// By the clock of the runtime, which may be a virtual one.
fn since(begun: Instant) -> Duration {
    mobula_transport::now().saturating_duration_since(begun)
}

fn system_chance() -> u64 {
    let mut chance = [0; 8];
    // A host whose random source fails has worse to fear than a head that ends.
    getrandom::fill(&mut chance).expect("the system's random source works");
    u64::from_be_bytes(chance)
}
