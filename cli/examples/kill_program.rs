//! Kills each worker of its job once, by an actor in it, and prints after how many microseconds the caller of another actor there was told.
use std::time::Instant;

use mobula::prelude::*;

#[derive(Clone)]
struct Guest;

#[mobula::actor]
impl Guest {
    fn new() -> Self {
        Guest
    }

    async fn wait(&self) {
        std::future::pending::<()>().await;
    }

    fn ready(&self) -> u32 {
        std::process::id()
    }

    fn die(&self) {
        let own = rustix::process::getpid();
        let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
    }
}

#[mobula::main]
#[expect(clippy::disallowed_methods, reason = "a measure reads the clock")]
async fn main() -> mobula::Result<()> {
    let cluster = Cluster::connect().await?;
    for node in cluster.nodes() {
        let killer = cluster.spawn(Guest::actor().node_affinity(&node.id)).await?;
        let waiting = cluster.spawn(Guest::actor().node_affinity(&node.id)).await?;
        killer.ready().await?;
        let call = waiting.wait();
        waiting.ready().await?;
        let begun = Instant::now();
        // Dropped, it would not be begun.
        let _killing = killer.die();
        match call.await {
            Err(error) => println!("told after {} us: {error}", begun.elapsed().as_micros()),
            Ok(()) => return Err("a killed worker has answered".into()),
        }
    }
    cluster.shutdown().await;
    Ok(())
}
