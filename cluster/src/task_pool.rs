//! Submitted tasks on their way to task actors and back.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use mobula_actors::{ActorRef, Node, RemoteTask, Run, SpawnError, TaskError, TaskRunner, TaskSpec};
use mobula_core::{CallError, NodeId};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::members::Members;
use crate::task_queue::{SlotId, TaskQueue};

/// The result of a task that may still be running: a future.
///
/// # Cancel safety
/// Dropping it does not stop the task; its result is dropped.
#[must_use = "dropping the reference drops the task's result"]
#[derive(Debug)]
pub struct ObjectRef<T> {
    result: oneshot::Receiver<Result<T, TaskError>>,
    task: &'static str,
}

impl<T> Future for ObjectRef<T> {
    type Output = Result<T, TaskError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let task = self.task;
        Pin::new(&mut self.result)
            .poll(cx)
            .map(|result| result.unwrap_or_else(|_| Err(TaskError::ShutDown { task: task.to_owned() })))
    }
}

/// The tasks of one driver.
pub(crate) struct TaskPool {
    shared: Arc<Shared>,
    node: Node,
    members: Arc<Mutex<Members>>,
}

struct Shared {
    queue: Mutex<TaskQueue<Box<dyn Job>>>,
    more: Notify,
    started: AtomicBool,
    over: AtomicBool,
}

/// How a run ended; a job whose node was lost comes back with the cause.
type RunEnd = Result<(), (Box<dyn Job>, CallError)>;

/// A submitted task, its type forgotten.
trait Job: Send {
    /// Sends the task to `runner` now; the future waits for its end.
    fn run(self: Box<Self>, runner: &ActorRef<TaskRunner>) -> BoxFuture<'static, RunEnd>;
    /// Gives the task up.
    fn lose(self: Box<Self>, cause: &CallError);
    /// True if it may run once more.
    fn may_run_again(&self) -> bool;
    /// The node it is bound to.
    fn only(&self) -> Option<NodeId>;
}

struct TypedJob<T: RemoteTask> {
    task: T,
    only: Option<NodeId>,
    attempts: u32,
    retries: u32,
    result: oneshot::Sender<Result<T::Output, TaskError>>,
}

impl<T: RemoteTask> Job for TypedJob<T> {
    fn run(mut self: Box<Self>, runner: &ActorRef<TaskRunner>) -> BoxFuture<'static, RunEnd> {
        self.attempts += 1;
        let node = runner.node().clone();
        // A task takes as long as it takes.
        let asked = runner.without_deadline().ask(Run(self.task.clone()));
        Box::pin(async move {
            let task = T::NAME.to_owned();
            let result = match asked.await {
                Ok(Ok(output)) => Ok(output),
                Ok(Err(panicked)) => Err(TaskError::Panicked { task, node, text: panicked.text }),
                Err(
                    cause @ (CallError::Unreachable { .. }
                    | CallError::Quarantined { .. }
                    | CallError::Stopped
                    | CallError::NoSuchActor { .. }),
                ) => {
                    return Err((self as Box<dyn Job>, cause));
                }
                Err(cause) => Err(TaskError::Refused { task, node, cause }),
            };
            // Whoever wanted the result may be gone.
            let _ = self.result.send(result);
            Ok(())
        })
    }

    fn lose(self: Box<Self>, cause: &CallError) {
        let lost = TaskError::Lost { task: T::NAME.to_owned(), attempts: self.attempts, cause: cause.clone() };
        let _ = self.result.send(Err(lost));
    }

    fn may_run_again(&self) -> bool {
        self.attempts <= self.retries
    }

    fn only(&self) -> Option<NodeId> {
        self.only.clone()
    }
}

impl TaskPool {
    pub(crate) fn new(node: Node, members: Arc<Mutex<Members>>) -> Self {
        let shared = Shared {
            queue: Mutex::new(TaskQueue::new()),
            more: Notify::new(),
            started: AtomicBool::new(false),
            over: AtomicBool::new(false),
        };
        TaskPool { shared: Arc::new(shared), node, members }
    }

    pub(crate) fn submit<T: RemoteTask>(&self, spec: TaskSpec<T>) -> ObjectRef<T::Output> {
        let (task, retries, only) = spec.into_parts();
        let (sender, result) = oneshot::channel();
        let object = ObjectRef { result, task: T::NAME };
        let job = TypedJob { task, only: only.clone(), attempts: 0, retries, result: sender };
        {
            let mut queue = self.shared.queue.lock();
            // Under the lock, so that nothing is put into a queue that has been emptied for good.
            if self.shared.over.load(Ordering::Acquire) {
                return object;
            }
            queue.submit(Box::new(job), only);
        }
        self.shared.more.notify_one();
        // Programs without tasks pay for no task actors.
        if !self.shared.started.swap(true, Ordering::AcqRel) {
            let (shared, node, members) = (Arc::clone(&self.shared), self.node.clone(), Arc::clone(&self.members));
            self.node.spawn_at_home(async move { serve(&shared, &node, &members).await });
        }
        object
    }

    pub(crate) fn shut_down(&self) {
        let jobs = {
            let mut queue = self.shared.queue.lock();
            self.shared.over.store(true, Ordering::Release);
            queue.take_all()
        };
        // Dropped jobs answer `ShutDown`.
        drop(jobs);
        self.shared.more.notify_one();
    }
}

type Ended = (SlotId, NodeId, RunEnd);
type Joining = (NodeId, Result<Vec<ActorRef<TaskRunner>>, SpawnError>);

async fn serve(shared: &Shared, node: &Node, members: &Mutex<Members>) {
    let mut runners: Vec<ActorRef<TaskRunner>> = Vec::new();
    let mut cause = CallError::Unreachable {
        node: node.id().clone(),
        sent: false,
        reason: "the cluster has no node for it".to_owned(),
    };
    let mut changes = members.lock().subscribe();
    let nodes = members.lock().nodes();
    let mut known: Vec<NodeId> = nodes.into_iter().filter(|member| member.alive).map(|member| member.id).collect();
    // Those that are there at the start are asked in their order, before the first task: of equally idle ones the first is taken.
    for id in &known {
        let found = node.task_runners_of(id).await;
        add_slots(shared, &mut runners, &mut cause, id, found);
    }
    let mut joining: FuturesUnordered<BoxFuture<'_, Joining>> = FuturesUnordered::new();
    let mut running: FuturesUnordered<BoxFuture<'static, Ended>> = FuturesUnordered::new();
    while !shared.over.load(Ordering::Acquire) {
        loop {
            let assigned = shared.queue.lock().assign();
            let Some((slot, job)) = assigned else { break };
            let runner = &runners[slot.index()];
            let (on, ended) = (runner.node().clone(), job.run(runner));
            running.push(Box::pin(async move { (slot, on, ended.await) }));
        }
        // While somebody may still come, there is hope.
        if joining.is_empty() && !changes.has_changed().unwrap_or(false) {
            let hopeless = shared.queue.lock().take_hopeless();
            hopeless.into_iter().for_each(|job| job.lose(&cause));
        }
        tokio::select! {
            biased;
            Ok(()) = changes.changed() => {
                let nodes = members.lock().nodes();
                for member in nodes.into_iter().filter(|member| member.alive) {
                    if !known.contains(&member.id) {
                        known.push(member.id.clone());
                        joining.push(Box::pin(async move {
                            let found = node.task_runners_of(&member.id).await;
                            (member.id, found)
                        }));
                    }
                }
            }
            Some((id, found)) = joining.next(), if !joining.is_empty() => {
                add_slots(shared, &mut runners, &mut cause, &id, found);
            }
            Some((slot, on, ended)) = running.next(), if !running.is_empty() => {
                let mut queue = shared.queue.lock();
                queue.ended(slot);
                // After the end of the cluster a job that comes back is dropped, and so answers `ShutDown`.
                if let Err((job, why)) = ended && !shared.over.load(Ordering::Acquire) {
                    queue.node_down(&on);
                    cause = why;
                    if job.may_run_again() {
                        let only = job.only();
                        queue.submit_again(job, only);
                    } else {
                        job.lose(&cause);
                    }
                }
            }
            () = shared.more.notified() => {}
        }
    }
}

/// The task actors of a node take part from now on.
fn add_slots(
    shared: &Shared,
    runners: &mut Vec<ActorRef<TaskRunner>>,
    cause: &mut CallError,
    id: &NodeId,
    found: Result<Vec<ActorRef<TaskRunner>>, SpawnError>,
) {
    match found {
        Ok(found) => {
            let mut queue = shared.queue.lock();
            for runner in found {
                queue.add_slot(id.clone());
                runners.push(runner);
            }
        }
        Err(error) => {
            tracing::warn!(node = %id, %error, "no task actors there");
            *cause = CallError::Unreachable { node: id.clone(), sent: false, reason: error.to_string() };
        }
    }
}
