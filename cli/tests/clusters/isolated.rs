//! Actors with a process of their own on a cluster of two nodes: what ends such a process ends nobody else, and it goes with its actor and with its job.

use serde_json::Value;

use crate::common::{Cluster, Process, Program, Signal, example, outside_with, until};

/// A head and a node with a GPU: who wants it waits until the process that had it is gone.
fn with_gpu() -> Cluster {
    let mut cluster = Cluster::head_with(&["--num-cpus", "2"]);
    cluster.join("node-1", &["--num-cpus", "2", "--num-gpus", "1"]);
    cluster.wait_for_nodes(2);
    cluster
}

fn begin(cluster: &Cluster) -> (Program, std::path::PathBuf) {
    let over = cluster.path("over");
    (Program::start(outside_with(&cluster.head.home, &example("isolated_program")).arg(&over)), over)
}

/// The last word about `whom`: the process, and the GPUs that it sees.
fn place(program: &Program, whom: &str) -> Option<(u32, String)> {
    // What its workers print has their names before it.
    let errors = program.stderr();
    assert!(errors.lines().all(|line| line.starts_with('(')), "{errors}\n{}", program.stdout());
    let text = program.stdout();
    let last = text.lines().filter_map(|line| line.strip_prefix(whom)?.strip_prefix(" in ")).next_back()?;
    let (pid, devices) = last.split_once(" sees ")?;
    Some((pid.parse().ok()?, devices.to_owned()))
}

fn isolated_workers(view: &Value) -> Vec<Value> {
    let workers = view["workers"].as_array().expect("a list");
    workers.iter().filter(|worker| worker["lease"].is_object()).cloned().collect()
}

#[test]
fn a_killed_isolated_worker_ends_its_actor_alone() {
    let cluster = with_gpu();
    let (mut program, over) = begin(&cluster);
    let first = until("an actor with a GPU", || place(&program, "gpu"));
    let (shared, alone) = (place(&program, "shared").expect("told"), place(&program, "alone").expect("told"));
    assert!(first.0 != shared.0 && first.0 != alone.0 && shared.0 != alone.0, "{}", program.stdout());
    assert_eq!((first.1.as_str(), alone.1.as_str(), shared.1.as_str()), ("[0]", "[]", "[what there is]"));
    assert!(program.stdout().lines().any(|line| line == "nodes: head node-1"), "{}", program.stdout());
    let listed = cluster.run(&["list", "workers"]);
    let of_actors = listed.ok().lines().filter(|line| line.contains("the actor of job-1/lease-")).count();
    let of_job = listed.stdout.lines().filter(|line| line.ends_with("the job")).count();
    assert_eq!((of_actors, of_job), (2, 2), "{listed:?}");
    assert_eq!(isolated_workers(&cluster.view()).len(), 2);
    let actors = cluster.run(&["list", "actors", "--json"]).json();
    let hermits =
        actors["actors"].as_array().expect("a list").iter().filter(|actor| actor.to_string().contains("Hermit"));
    assert_eq!(hermits.count(), 3, "{actors}");

    let mut last = first.0;
    for _ in 0..3 {
        Process::of(last).signal(Signal::KILL);
        let next = until("its next actor", || place(&program, "gpu").filter(|(pid, _)| *pid != last));
        assert_eq!(next.1, "[0]", "what it had is free");
        last = next.0;
        // Those that have ended are not started again.
        cluster.wait_for("two of them", |view| isolated_workers(view).len() == 2);
    }
    let text = program.stdout();
    assert_eq!(text.lines().filter(|line| line.starts_with("told: ")).count(), 3, "{text}");
    let (worker, other) = (Process::of(last), Process::of(alone.0));
    std::fs::write(&over, "").expect("room");
    assert!(program.end().ok().contains("done"));
    assert_eq!((place(&program, "shared"), place(&program, "alone")), (Some(shared), Some(alone)), "untouched");
    until("its processes have ended", || (!worker.is_running() && !other.is_running()).then_some(()));
    cluster.wait_for("nothing is left", |view| view["workers"].as_array().is_some_and(Vec::is_empty));
    assert!(cluster.run(&["list", "leases", "--json"]).json().as_array().is_some_and(Vec::is_empty));
}

#[test]
fn isolated_workers_outlive_the_head() {
    let mut cluster = with_gpu();
    let (mut program, over) = begin(&cluster);
    let before = until("an actor with a GPU", || place(&program, "gpu"));
    let alone = place(&program, "alone").expect("told");
    cluster.head.kill();
    cluster.head.start_again(None);
    cluster.wait_for_nodes(2);
    let view = cluster.wait_for("both of them", |view| {
        let workers = isolated_workers(view);
        workers.len() == 2 && workers.iter().all(|worker| worker["phase"] == "ready")
    });
    let pids: Vec<_> = isolated_workers(&view).iter().map(|worker| worker["pid"].as_u64()).collect();
    assert!(pids.contains(&Some(u64::from(before.0))) && pids.contains(&Some(u64::from(alone.0))), "{view}");
    assert!(!program.stdout().contains("lost"), "{}", program.stdout());
    // The head that has come back gives the GPU again when the process is gone.
    Process::of(before.0).signal(Signal::KILL);
    let next = until("its next actor", || place(&program, "gpu").filter(|(pid, _)| *pid != before.0));
    assert_eq!(next.1, "[0]");
    std::fs::write(&over, "").expect("room");
    assert!(program.end().ok().contains("done"));
}

#[test]
fn isolated_workers_end_with_a_driver_that_is_killed() {
    let cluster = with_gpu();
    let (mut program, _) = begin(&cluster);
    let gpu = until("an actor with a GPU", || place(&program, "gpu"));
    let worker = Process::of(gpu.0);
    let job = cluster.view()["jobs"][0]["id"].as_str().expect("one").to_owned();
    program.kill();
    cluster.run(&["job", "stop", &job]).ok();
    until("its process has ended", || (!worker.is_running()).then_some(()));
    cluster.wait_for("nothing is left", |view| view["workers"].as_array().is_some_and(Vec::is_empty));
    cluster.wait_for("the GPU is free", |view| view["summary"]["available"]["gpus"] == 1);
}
