//! Names in the directory of node 0, which is the head: workers that claim them, calls by name, and what is known of both
//! when the world rests.

use std::sync::Arc;
use std::time::Duration;

use mobula::{Node, NodeId, RemoteActor, SpawnError};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::calls::{self, Target};
use super::worker::{Seat, Worker};
use super::{links, state};
use crate::fact::LifeId;
use crate::params::{CallParams, Kind};
use crate::reach::Branch;

/// Names are numbers here.
pub(super) const NAMES: u8 = 3;
/// As the deadline of any ask.
const FOUND_WITHIN: Duration = Duration::from_secs(5);

fn name_of(name: u8) -> String {
    format!("n{name}")
}

/// The head that a new life of a node is to have; waits until there is one. The head has none.
pub(super) async fn head_for(number: u8) -> Option<NodeId> {
    if !state::params().services || number == 0 {
        return None;
    }
    loop {
        if let Some(head) = state::head() {
            return Some(head);
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Says when the node's lease is over, which is the end of this life.
pub(super) fn look_after(node: &Node, life: LifeId) {
    let fenced = node.fenced();
    spawn_local(async move {
        fenced.await;
        state::fenced(life);
    });
}

/// A claim, or a call by name.
pub(super) async fn call(plan: Arc<CallParams>, life: LifeId, node: Node) {
    match plan.kind {
        Kind::Claim => claim(&plan, life, &node).await,
        _ => named(&plan, life, &node).await,
    }
}

async fn claim(plan: &CallParams, life: LifeId, node: &Node) {
    let name = plan.message % NAMES;
    let seat = Seat { life, child: None, name: Some(name) };
    let spec = Worker::spec(seat).restarts(state::params().restarts_max).name(name_of(name));
    match node.spawn(spec).await {
        Ok(worker) => {
            let (end, actor) = (worker.monitor(), worker.id().0);
            links::ended(life, actor, &end.await.reason);
        }
        Err(SpawnError::NameTaken { .. }) => state::reach(Branch::NameTaken),
        Err(_) => {}
    }
}

async fn named(plan: &CallParams, life: LifeId, node: &Node) {
    let found = timeout(FOUND_WITHIN, node.find::<Worker>(&name_of(plan.message % NAMES))).await;
    let Ok(Ok(Some(worker))) = found else { return };
    state::reach(Branch::FoundByName);
    let Some(target) = Target::by(worker) else { return };
    let plan = Arc::new(CallParams { kind: Kind::Ask, ..plan.clone() });
    calls::make(&plan, life, node, target, None).await;
}

/// On the head: looks at all names when those that nobody holds any more have to be free.
pub(super) fn look_at_last(node: &Node) {
    let node = node.clone();
    spawn_local(async move {
        while let Some(left) = state::names_free_in() {
            sleep(Duration::from_micros(left)).await;
        }
        let mut known = Vec::new();
        for name in 0..NAMES {
            let found = node.find::<Worker>(&name_of(name)).await.ok().flatten();
            let at = found.and_then(|found| Some((state::life_of(found.node())?, found.id().0)));
            known.extend(at.map(|at| (name, at)));
        }
        state::names_known(&known);
    });
}
