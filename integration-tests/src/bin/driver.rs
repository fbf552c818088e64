//! A driver that the tests kill, or let end in one way or another. Its nodes run this very program.
//!
//! The first argument is the scenario, the second the number of nodes. It prints the nodes' pids on one line, once
//! everything is as the scenario says.

use mobula::{Cluster, RemoteActor};
use mobula_integration_tests::actors::{Opener, Panic, Probe, Record, Spin};
use mobula_integration_tests::tasks::square;

#[mobula::main]
async fn main() -> mobula::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let scenario = arguments.next().ok_or("which scenario?")?;
    let nodes = arguments.next().ok_or("how many nodes?")?.parse()?;
    let cluster = Cluster::local(nodes).await?;
    let mut probes = Vec::new();
    for node in cluster.nodes() {
        let probe = cluster.spawn(Probe::spec(0).restarts(100).node_affinity(&node.id)).await?;
        probe.ask(Record(1)).await?;
        probes.push(probe);
    }
    let pids: Vec<u32> = cluster.nodes().iter().map(|node| node.pid).collect();

    match scenario.as_str() {
        "idle" => {
            print(&pids);
            std::future::pending::<()>().await;
        }
        // A handler on each node's only arbiter never comes back.
        "busy" => {
            for (node, probe) in cluster.nodes().iter().zip(&probes) {
                let gate = format!("spin on {}", node.id.name);
                probe.tell(Spin { gate: gate.clone() }).await?;
                cluster.spawn(Opener::spec(gate).own_thread().node_affinity(&node.id)).await?;
            }
            print(&pids);
            std::future::pending::<()>().await;
        }
        "return" => {
            assert_eq!(cluster.submit(square::task(4)).await?, 16);
            print(&pids);
        }
        "shutdown" => {
            cluster.shutdown().await;
            print(&pids);
        }
        "exit" => {
            print(&pids);
            std::process::exit(3);
        }
        "panic" => {
            print(&pids);
            panic!("the driver panics");
        }
        "worker-panic" => {
            for probe in &probes {
                let panicked = probe.ask(Panic("a worker panics".to_owned())).await;
                assert!(matches!(panicked, Err(mobula::CallError::Panicked { .. })), "{panicked:?}");
                // The same process serves the next life.
                probe.ask(Record(2)).await?;
            }
            print(&pids);
        }
        other => return Err(format!("no scenario `{other}`").into()),
    }
    Ok(())
}

fn print(pids: &[u32]) {
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    println!("{}", pids.join(" "));
}
