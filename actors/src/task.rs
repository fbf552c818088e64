//! Tasks: plain functions that run on task actors, one thread each.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use actix::{Actor, Context, Handler, Message, MessageResult};
use mobula_core::{CallError, NodeId, RemoteMessage, panic_text, schema_hash};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::actor::{MessageTable, RemoteActor};
use crate::registry::{ActorEntry, TaskEntry};

/// A function with its arguments, which can be run on any node. Written by `#[mobula::task]`.
pub trait RemoteTask: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// The name on the wire: `<package>::<function>` by default.
    const NAME: &'static str;
    /// A hash of the signature. Nodes that differ refuse to run the task for each other.
    const SCHEMA: u64;
    /// What the function returns.
    type Output: Serialize + DeserializeOwned + Send + 'static;

    /// Runs the function.
    fn run(self) -> Self::Output;
}

/// A description of a task that has not been submitted yet.
#[derive(Clone, Debug)]
pub struct TaskSpec<T: RemoteTask> {
    task: T,
    retries: u32,
    node: Option<NodeId>,
}

impl<T: RemoteTask> TaskSpec<T> {
    /// Describes a run of `task`, with 3 retries, anywhere.
    pub fn new(task: T) -> Self {
        TaskSpec { task, retries: 3, node: None }
    }

    /// How often the task runs again if the node that ran it is lost. Default 3. A panic or an error of the function
    /// itself is not retried.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Runs the task on this life of `node` only.
    #[must_use]
    pub fn node_affinity(mut self, node: &NodeId) -> Self {
        self.node = Some(node.clone());
        self
    }

    /// The task, its retries, and the node it is bound to.
    pub fn into_parts(self) -> (T, u32, Option<NodeId>) {
        (self.task, self.retries, self.node)
    }
}

/// Why a task has no result.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// The function panicked. Not retried: it would most likely do so again.
    #[error("task `{task}` panicked on {node}: {text}")]
    Panicked {
        /// The registered name.
        task: String,
        /// Where it ran.
        node: NodeId,
        /// The panic's text.
        text: String,
    },
    /// The node cannot run it; no other would do better.
    #[error("task `{task}` cannot run on {node}: {cause}")]
    Refused {
        /// The registered name.
        task: String,
        /// Where.
        node: NodeId,
        /// What is wrong.
        cause: CallError,
    },
    /// Its node was lost, and its retries are used up; or no node is left.
    #[error("task `{task}` was lost after {attempts} attempts: {cause}")]
    Lost {
        /// The registered name.
        task: String,
        /// How often it was begun.
        attempts: u32,
        /// The last failure.
        cause: CallError,
    },
    /// The cluster was shut down before the task came to its end.
    #[error("the cluster was shut down before task `{task}` had ended")]
    ShutDown {
        /// The registered name.
        task: String,
    },
}

/// A task actor: a stateless actor on a thread of its own, with the mailbox, cell and supervision of all others.
#[derive(Debug, Default)]
pub struct TaskRunner;

impl Actor for TaskRunner {
    type Context = Context<Self>;
}

/// A task as a message to a task actor, so that names, schemas, credit and errors are those of every message.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound = "T: RemoteTask")]
pub struct Run<T: RemoteTask>(pub T);

/// The function panicked. That is the task's result, not the runner's end: a runner has no state that could break.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct TaskPanicked {
    /// The panic's text.
    pub text: String,
}

impl<T: RemoteTask> Message for Run<T> {
    type Result = Result<T::Output, TaskPanicked>;
}

impl<T: RemoteTask> RemoteMessage for Run<T> {
    const NAME: &'static str = T::NAME;
    const SCHEMA: u64 = T::SCHEMA;
    type Reply = Result<T::Output, TaskPanicked>;
}

impl<T: RemoteTask> Handler<Run<T>> for TaskRunner {
    type Result = MessageResult<Run<T>>;

    fn handle(&mut self, Run(task): Run<T>, _: &mut Context<Self>) -> Self::Result {
        let output = catch_unwind(AssertUnwindSafe(|| task.run()));
        MessageResult(output.map_err(|panic: Box<dyn Any + Send>| TaskPanicked { text: panic_text(&*panic) }))
    }
}

impl RemoteActor for TaskRunner {
    const NAME: &'static str = "mobula::TaskRunner";
    const SCHEMA: u64 = schema_hash("1");
    type Args = ();

    fn make((): ()) -> Self {
        TaskRunner
    }

    fn messages(table: &mut MessageTable<Self>) {
        for task in inventory::iter::<TaskEntry> {
            (task.accept)(table);
        }
    }
}

inventory::submit! { ActorEntry::of::<TaskRunner>() }

/// Registers a type whose [`RemoteTask`] was written by hand, so that nodes running this executable can run it.
#[macro_export]
macro_rules! register_task {
    ($task:ty) => {
        $crate::private::inventory::submit! { $crate::TaskEntry::of::<$task>() }
    };
}
