//! Jobs on a cluster of four nodes, as a user of the command sees them.
mod common;

use common::Cluster;

/// The sum of the squares of 1 to 100.
const SUM_OF_100: &str = "sum: 338350";

#[test]
fn a_job_runs_on_all_nodes_and_prints_what_its_processes_print() {
    let cluster = Cluster::of(3);
    let ended = cluster.submit(&["sum", "100"]);
    let lines: Vec<&str> = ended.ok().lines().collect();
    assert!(lines.contains(&"nodes: head node-1 node-2 node-3"), "{ended:?}");
    assert!(lines.contains(&SUM_OF_100), "{ended:?}");
}
