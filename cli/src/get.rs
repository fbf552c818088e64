//! `mobula get`: whatever a list shows, by the id that it has there.

use mobula_control::{Client, ClusterView, ListActors, ListDetached, ListLeases, View};
use mobula_core::cluster::ActorRow;
use mobula_core::{NodeUid, limits};

use crate::failure::Failure;
use crate::show;

/// One thing, as JSON, since nothing else has room for all that is known.
pub(crate) async fn get(client: &Client, what: &str) -> Result<(), Failure> {
    let view = client.ask(View {}).await?;
    let is_it = |id: &dyn std::fmt::Display| id.to_string() == what;
    if let Some(job) = what.parse().ok().and_then(|id| view.jobs.iter().find(|job| job.id == id)) {
        show::json(job);
    } else if let Some(worker) = view.workers.iter().find(|worker| is_it(&worker.uid)) {
        show::json(worker);
    } else if let Some(node) = node_of(&view, what) {
        view.nodes.iter().filter(|row| row.uid == node).for_each(show::json);
    } else if let Some(group) = view.placement_groups.iter().find(|group| is_it(&group.id)) {
        show::json(group);
    } else if let Some(lease) = client.ask(ListLeases {}).await?.iter().find(|lease| is_it(&lease.id)) {
        show::json(lease);
    } else if let Some(detached) = client.ask(ListDetached {}).await?.iter().find(|row| row.name == what) {
        show::json(detached);
    } else {
        return actor(client, &view, what).await;
    }
    Ok(())
}

/// By its address, or by its name, which actors of several jobs may have.
async fn actor(client: &Client, view: &ClusterView, what: &str) -> Result<(), Failure> {
    let found = client.ask(ListActors { job: None, limit: limits::LISTED_ACTORS_MAX }).await?;
    let is_it = |row: &&ActorRow| row.actor.to_string() == what || row.name.as_deref() == Some(what);
    let actors: Vec<_> = found.actors.iter().filter(is_it).collect();
    if actors.is_empty() {
        let silent = match found.silent.is_empty() {
            true => String::new(),
            false => format!("; no answer from {}: what runs there was not looked at", found.silent.join(", ")),
        };
        return Err(Failure::other(format!(
            "there is no job, worker, placement group, lease, actor or detached actor {what:?}, and no node: there are {}{silent}; \
             `mobula list` shows what `mobula get` takes",
            names(view)
        )));
    }
    actors.into_iter().for_each(show::json);
    Ok(())
}

/// The node with that name, or with that uid; of lives with one name, the one that is not over.
pub(crate) fn node_of(view: &ClusterView, text: &str) -> Option<NodeUid> {
    let named = view.nodes.iter().filter(|node| &*node.name == text || node.uid.to_string() == text);
    named.min_by_key(|node| node.phase == mobula_core::cluster::NodePhase::Down).map(|node| node.uid)
}

/// The names of all nodes.
pub(crate) fn names(view: &ClusterView) -> String {
    let names: Vec<_> = view.nodes.iter().map(|node| node.name.to_string()).collect();
    names.join(", ")
}
