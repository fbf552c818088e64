//! What this executable can create and run, by name. Filled at link time; checked when a node starts.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use futures::future::BoxFuture;
use mobula_core::{ActorId, codec};

use crate::actor::{MessageTable, RemoteActor, Routes, SpawnOptions};
use crate::control::SpawnError;
use crate::keyed::KeyedActor;
use crate::node::{AnyActor, Node};
use crate::task::{RemoteTask, Run, TaskRunner};

/// A registered actor type.
pub struct ActorEntry {
    pub(crate) name: &'static str,
    pub(crate) schema: u64,
    routes: fn() -> &'static Routes,
    pub(crate) spawn: SpawnEncoded,
}

/// Creates an actor on a node from encoded arguments.
type SpawnEncoded = fn(Node, Vec<u8>, SpawnOptions) -> BoxFuture<'static, Result<ActorId, SpawnError>>;

impl ActorEntry {
    /// The entry of `A`, for [`register_actor!`](crate::register_actor).
    pub const fn of<A: RemoteActor>() -> Self {
        ActorEntry { name: A::NAME, schema: A::SCHEMA, routes: Routes::of::<A>, spawn: spawn_encoded::<A> }
    }
}

fn spawn_encoded<A: RemoteActor>(
    node: Node,
    args: Vec<u8>,
    options: SpawnOptions,
) -> BoxFuture<'static, Result<ActorId, SpawnError>> {
    Box::pin(async move {
        let args = codec::decode::<A::Args>(&args)
            .map_err(|error| SpawnError::BadArguments { actor_type: A::NAME.to_owned(), reason: error.to_string() })?;
        let shared = crate::spawn::spawn::<A>(&node, args, options).await?;
        Ok(shared.id)
    })
}

/// A registered type of keyed actors.
pub struct KeyedEntry {
    name: &'static str,
    pub(crate) gate: fn(&Node) -> Arc<dyn AnyActor>,
}

impl KeyedEntry {
    /// The entry of `A`, for [`keyed_actor!`](crate::keyed_actor).
    pub const fn of<A: KeyedActor>() -> Self {
        KeyedEntry { name: A::NAME, gate: crate::keyed::gate::<A> }
    }
}

/// A registered task.
pub struct TaskEntry {
    pub(crate) name: &'static str,
    pub(crate) accept: fn(&mut MessageTable<TaskRunner>),
}

impl TaskEntry {
    /// The entry of `T`, for [`register_task!`](crate::register_task).
    pub const fn of<T: RemoteTask>() -> Self {
        TaskEntry { name: T::NAME, accept: MessageTable::accept::<Run<T>> }
    }
}

inventory::collect!(ActorEntry);
inventory::collect!(KeyedEntry);
inventory::collect!(TaskEntry);

/// Two registrations contradict each other; no node starts.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("two {what} are registered as `{name}`: give one of them another name")]
pub struct RegistryError {
    /// Actor types, tasks or messages.
    pub what: &'static str,
    /// The name that both bear.
    pub name: String,
}

/// All registrations of this executable.
pub struct Registry {
    actors: HashMap<&'static str, &'static ActorEntry>,
    keyed: HashMap<u64, &'static KeyedEntry>,
}

impl Registry {
    /// The registrations of this executable, collected and checked once.
    ///
    /// # Errors
    /// [`RegistryError`] if two registrations bear one name.
    pub fn get() -> Result<&'static Registry, RegistryError> {
        static REGISTRY: OnceLock<Result<Registry, RegistryError>> = OnceLock::new();
        REGISTRY.get_or_init(Self::collect).as_ref().map_err(Clone::clone)
    }

    fn collect() -> Result<Registry, RegistryError> {
        let twice = |what, name: &str| RegistryError { what, name: name.to_owned() };
        let mut registry = Registry { actors: HashMap::new(), keyed: HashMap::new() };
        let mut messages = HashMap::new();
        let mut tasks = HashSet::new();
        for entry in inventory::iter::<TaskEntry> {
            if !tasks.insert(entry.name) {
                return Err(twice("tasks", entry.name));
            }
        }
        for entry in inventory::iter::<KeyedEntry> {
            if registry.keyed.insert(crate::keyed::gate_id(entry.name).0, entry).is_some() {
                return Err(twice("types of keyed actors", entry.name));
            }
        }
        for entry in inventory::iter::<ActorEntry> {
            if registry.actors.insert(entry.name, entry).is_some() {
                return Err(twice("actor types", entry.name));
            }
            for route in (entry.routes)().all() {
                // Several actor types may take one message; two messages may not share a name.
                if *messages.entry(route.name).or_insert(route.schema) != route.schema {
                    return Err(twice("messages", route.name));
                }
            }
        }
        Ok(registry)
    }

    /// The type of keyed actors with this gate.
    pub(crate) fn keyed(&self, gate: ActorId) -> Option<&'static KeyedEntry> {
        self.keyed.get(&gate.0).copied()
    }

    pub(crate) fn actor(&self, name: &str) -> Option<&'static ActorEntry> {
        self.actors.get(name).copied()
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("actors", &self.actors.keys()).finish()
    }
}
