//! A driver tells the head, when it is asked, which actors its job has.

use std::sync::Arc;

use mobula_actors::{ActorList, TreeActor};
use mobula_control::{ActorQuestion, ActorTable, Client, TellActors, WatchQuestions, follow};
use mobula_core::cluster::{ActorRow, JobId};
use mobula_core::{NodeId, NodeUid, limits};

use crate::cluster::{Cluster, WeakCluster};

/// Answers what is asked about the job's actors, until the driver is over.
pub(crate) async fn tell_actors(client: Arc<Client>, job: JobId, driver: NodeUid, cluster: WeakCluster) {
    // What is known of a question is that it stood in the last list.
    let mut known: Vec<u64> = Vec::new();
    follow(&client, WatchQuestions { job, driver }, |questions| {
        let Some(cluster) = cluster.upgrade() else { return false };
        let Some(questions) = questions else { return true };
        for question in &questions {
            if !known.contains(&question.number) {
                let runtime = cluster.node().control_runtime().clone();
                runtime.spawn(answer(Arc::clone(&client), job, driver, *question, cluster.clone()));
            }
        }
        known = questions.iter().map(|question| question.number).collect();
        true
    })
    .await;
}

async fn answer(client: Arc<Client>, job: JobId, driver: NodeUid, question: ActorQuestion, cluster: Cluster) {
    let limit = question.limit.min(limits::LISTED_ACTORS_MAX);
    let ask = async |id: NodeId| {
        let list = tokio::time::timeout(limits::ACTORS_TOLD_WITHIN / 2, cluster.node().actors_of(&id, limit)).await;
        (id, list.ok().and_then(Result::ok))
    };
    let lists = futures::future::join_all(cluster.processes().into_iter().map(ask)).await;
    let (mut all, mut silent) = (ActorList::default(), Vec::new());
    for (id, list) in lists {
        match list {
            Some(list) => all.add(list, limit),
            None => silent.push(id.name.to_string()),
        }
    }
    drop(cluster);
    let actors = all.actors.into_iter().map(|actor| row(actor, job)).collect();
    let table = ActorTable { actors, left_out: all.left_out, silent };
    if let Err(error) = client.ask(TellActors { job, driver, question: question.number, table }).await {
        tracing::debug!(%job, %error, "the head was not told of the actors");
    }
}

fn row(actor: TreeActor, job: JobId) -> ActorRow {
    let mut row = ActorRow::new(actor.actor, job, actor.actor_type);
    (row.name, row.restarts, row.waiting) = (actor.name, actor.generation, actor.waiting);
    row
}
