//! Tasks: run anywhere, their results come back, and a lost node only costs time.

use std::time::Duration;

use futures::future::{join_all, try_join_all};
use mobula::{CallError, NodeId, TaskError};
use mobula_integration_tests::actors::{Entered, Open};
use mobula_integration_tests::process::{Process, Signal};
use mobula_integration_tests::tasks::{fails, held_process_id, panics, process_id, square};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, eventually, gates, suites, within};

suites! {
    a_submitted_task_gives_its_result on [embedded, processes];
    many_tasks_give_their_results_in_order on [embedded, processes];
    tasks_run_on_all_nodes on [processes];
    a_panic_in_a_task_is_its_result on [embedded, processes];
    a_tasks_own_error_is_its_result on [embedded, processes];
    node_affinity_binds_a_task_to_its_node on [processes];
    the_tasks_of_a_lost_node_run_elsewhere on [processes];
    a_task_without_retries_is_lost_with_its_node on [processes];
    a_task_bound_to_a_lost_node_is_lost on [processes];
    a_result_does_not_wait_for_the_next_task on [processes];
    a_dropped_result_does_not_stop_its_task on [processes];
    shutdown_answers_tasks_that_have_not_ended on [embedded, processes];
}

async fn a_submitted_task_gives_its_result(stage: Stage) {
    let result = within(LONG, "the task", stage.cluster().submit(square::task(12))).await;
    assert_eq!(result, Ok(144));
    // And the plain function is still one.
    assert_eq!(square(12), 144);
}

async fn many_tasks_give_their_results_in_order(stage: Stage) {
    let results = stage.cluster().submit_all((0..500).map(square::task));
    let results = within(LONG, "the tasks", try_join_all(results)).await.expect("all succeed");
    assert_eq!(results, (0..500).map(square).collect::<Vec<_>>());
}

async fn tasks_run_on_all_nodes(stage: Stage) {
    // A task on each node waits at a gate, so no node can take all of them.
    let (gate, keepers) = (gates::fresh_name(), [stage.keeper(0).await, stage.keeper(1).await]);
    let tasks = stage.cluster().submit_all((0..4).map(|_| held_process_id::task(gate.clone())));
    for keeper in &keepers {
        let entered = keeper.ask(Entered { gate: gate.clone(), count: 1 });
        within(LONG, "a task on each node", entered).await.expect("the keeper answers");
    }
    for keeper in keepers {
        keeper.ask(Open { gate: gate.clone() }).await.expect("the keeper answers");
    }
    let pids = within(LONG, "the tasks", try_join_all(tasks)).await.expect("all succeed");
    // The first two held one node each; who takes the last two depends on who is done first.
    assert_eq!(pids.len(), 4);
    let nodes = [stage.pid(0), stage.pid(1)];
    assert!(nodes.iter().all(|node| pids.contains(node)) && pids.iter().all(|pid| nodes.contains(pid)), "{pids:?}");
}

async fn a_panic_in_a_task_is_its_result(stage: Stage) {
    let cluster = stage.cluster();
    for _ in 0..10 {
        let result = within(LONG, "the task", cluster.submit(panics::task("boom".to_owned()))).await;
        let Err(TaskError::Panicked { task, node, text }) = result else { panic!("{result:?}") };
        assert_eq!((task.as_str(), text.as_str()), ("mobula-integration-tests::panics", "boom"));
        assert!([stage.home(0), stage.home(1)].contains(&&node), "{node}");
    }
    assert_eq!(within(LONG, "the next task", cluster.submit(square::task(3))).await, Ok(9));
    assert!(cluster.nodes().iter().all(|node| node.alive));
}

async fn a_tasks_own_error_is_its_result(stage: Stage) {
    let result = within(LONG, "the task", stage.cluster().submit(fails::task("out of ink".to_owned()))).await;
    assert_eq!(result, Ok(Err("out of ink".to_owned())));
}

async fn node_affinity_binds_a_task_to_its_node(stage: Stage) {
    for home in [0, 1] {
        let tasks = (0..10).map(|_| process_id::task().node_affinity(stage.home(home)));
        let pids = within(LONG, "the tasks", try_join_all(stage.cluster().submit_all(tasks))).await;
        assert_eq!(pids, Ok(vec![stage.pid(home); 10]));
    }
}

async fn the_tasks_of_a_lost_node_run_elsewhere(stage: Stage) {
    let (gate, keepers) = (gates::fresh_name(), [stage.keeper(0).await, stage.keeper(1).await]);
    let tasks = stage.cluster().submit_all((0..6).map(|_| held_process_id::task(gate.clone())));
    for keeper in &keepers {
        let entered = keeper.ask(Entered { gate: gate.clone(), count: 1 });
        within(LONG, "a task on each node", entered).await.expect("the keeper answers");
    }
    Process::of(stage.pid(0)).signal(Signal::KILL);
    let [_, keeper] = keepers;
    keeper.ask(Open { gate }).await.expect("the keeper answers");
    let pids = within(LONG, "the tasks", try_join_all(tasks)).await;
    assert_eq!(pids, Ok(vec![stage.pid(1); 6]));
}

/// Submits a task to the first home that waits there at a gate, and then kills its process.
async fn result_of_a_killed_task(stage: &Stage, retries: u32, only: Option<&NodeId>) -> Result<u32, TaskError> {
    let (gate, keeper) = (gates::fresh_name(), stage.keeper(0).await);
    // Of equally idle nodes the first is taken.
    let spec = held_process_id::task(gate.clone()).retries(retries);
    let spec = match only {
        Some(node) => spec.node_affinity(node),
        None => spec,
    };
    let task = stage.cluster().submit(spec);
    within(LONG, "the task", keeper.ask(Entered { gate, count: 1 })).await.expect("the keeper answers");
    Process::of(stage.pid(0)).signal(Signal::KILL);
    within(LONG, "the verdict", task).await
}

async fn a_task_without_retries_is_lost_with_its_node(stage: Stage) {
    let result = result_of_a_killed_task(&stage, 0, None).await;
    let Err(TaskError::Lost { task, attempts: 1, cause }) = &result else { panic!("{result:?}") };
    assert_eq!(task, "mobula-integration-tests::held_process_id");
    assert!(matches!(cause, CallError::Unreachable { node, sent: true, .. } if node == stage.home(0)), "{cause:?}");
    assert_eq!(within(LONG, "the next task", stage.cluster().submit(process_id::task())).await, Ok(stage.pid(1)));
}

async fn a_task_bound_to_a_lost_node_is_lost(stage: Stage) {
    let home = stage.home(0).clone();
    let result = result_of_a_killed_task(&stage, 3, Some(&home)).await;
    assert!(matches!(&result, Err(TaskError::Lost { attempts: 1, .. })), "{result:?}");
    // So is one that is submitted now, and never begins.
    let later = within(LONG, "the verdict", stage.cluster().submit(process_id::task().node_affinity(&home))).await;
    assert!(matches!(&later, Err(TaskError::Lost { attempts: 0, .. })), "{later:?}");
}

/// Less than anything after which a connection is looked at anyway.
const SOON: Duration = Duration::from_secs(3);

async fn a_result_does_not_wait_for_the_next_task(stage: Stage) {
    let keeper = stage.keeper(0).await;
    // Often enough that the two tasks fall into one turn of their actor.
    for _ in 0..50 {
        let gates = [gates::fresh_name(), gates::fresh_name()];
        // The second waits in the task actor's mailbox while the first runs.
        let [first, second] = gates.clone().map(|gate| {
            let task = held_process_id::task(gate).node_affinity(stage.home(0));
            stage.cluster().submit(task)
        });
        let [gate, next] = gates;
        let entered = keeper.ask(Entered { gate: gate.clone(), count: 1 });
        within(LONG, "the first task", entered).await.expect("the keeper answers");
        keeper.ask(Open { gate }).await.expect("the keeper answers");
        assert_eq!(within(SOON, "the first result", first).await, Ok(stage.pid(0)));
        keeper.ask(Open { gate: next }).await.expect("the keeper answers");
        assert_eq!(within(LONG, "the second result", second).await, Ok(stage.pid(0)));
    }
}

async fn a_dropped_result_does_not_stop_its_task(stage: Stage) {
    let (gate, keeper) = (gates::fresh_name(), stage.keeper(0).await);
    drop(stage.cluster().submit(held_process_id::task(gate.clone()).node_affinity(stage.home(0))));
    within(LONG, "the task", keeper.ask(Entered { gate: gate.clone(), count: 1 })).await.expect("the keeper answers");
    keeper.ask(Open { gate }).await.expect("the keeper answers");
    let next = stage.cluster().submit(process_id::task().node_affinity(stage.home(0)));
    assert_eq!(within(LONG, "the next task", next).await, Ok(stage.pid(0)));
}

async fn shutdown_answers_tasks_that_have_not_ended(stage: Stage) {
    let (gate, keeper) = (gates::fresh_name(), stage.keeper(0).await);
    let cluster = stage.cluster();
    let tasks = cluster.submit_all((0..20).map(|_| held_process_id::task(gate.clone())));
    within(LONG, "a task", keeper.ask(Entered { gate: gate.clone(), count: 1 })).await.expect("the keeper answers");
    let nodes: Vec<_> = cluster.nodes().iter().map(|node| Process::of(node.pid)).collect();
    within(LONG, "the shutdown", cluster.shutdown()).await;
    let shut_down = TaskError::ShutDown { task: "mobula-integration-tests::held_process_id".to_owned() };
    for result in within(LONG, "the tasks", join_all(tasks)).await {
        assert_eq!(result, Err(shut_down.clone()));
    }
    // Later ones, too.
    let later = within(LONG, "a later task", cluster.submit(square::task(1))).await;
    assert!(matches!(later, Err(TaskError::ShutDown { .. })), "{later:?}");
    if stage.is_near() {
        gates::open(&gate);
    } else {
        // It waits until they are reaped.
        eventually(LONG, "the nodes' end", async || nodes.iter().all(|node| !node.is_running()).then_some(())).await;
    }
}
