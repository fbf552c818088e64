//! The program with which the tests of the command give actors processes of their own. Its argument is a file: it goes on until that is there.
//!
//! On `node-1` there are an actor like any other, one that is isolated and has a GPU, and one that is isolated and has nothing. It tells in which
//! processes they are, and which GPUs these see; then the end of the one with the GPU, which begins again; and at last where the others are.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use mobula::prelude::*;

#[derive(Clone)]
struct Hermit;

#[mobula::actor]
impl Hermit {
    fn new() -> Self {
        Hermit
    }

    fn place(&self) -> String {
        let devices = std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_else(|_| "what there is".to_owned());
        format!("{} sees [{devices}]", std::process::id())
    }

    /// Another's word, asked from here.
    async fn place_of(&self, other: ActorRef<Hermit>) -> String {
        other.place().await.unwrap_or_else(|error| error.to_string())
    }

    async fn wait(&self) {
        std::future::pending::<()>().await;
    }
}

const PAUSE: Duration = Duration::from_millis(20);

#[mobula::main]
async fn main() -> mobula::Result<ExitCode> {
    let end = std::env::args().nth(1).ok_or("which file?")?;
    let end = Path::new(&end);
    let cluster = Cluster::connect().await?;
    let here = || Hermit::actor().on_node("node-1");
    let shared = cluster.spawn(here()).await?;
    let alone = cluster.spawn(here().isolated()).await?;
    println!("shared in {}", shared.place().await?);
    println!("alone in {}", alone.place().await?);
    let mut others = cluster.nodes().into_iter().map(|node| node.id.name.to_string()).collect::<Vec<_>>();
    others.sort();
    println!("nodes: {}", others.join(" "));
    while !end.exists() {
        let (gpu, monitor) = cluster.spawn_monitor(here().gpus(1).isolated()).await?;
        // From beside it, from another process of one actor, and from here.
        let place = shared.place_of(gpu.clone()).await?;
        assert_eq!([alone.place_of(gpu.clone()).await?, gpu.place().await?], [place.as_str(), &place]);
        // From here on it may be killed.
        println!("gpu in {place}");
        let call = gpu.wait();
        tokio::pin!(monitor, call);
        while !end.exists() {
            if let Ok(told) = tokio::time::timeout(PAUSE, &mut call).await {
                println!("told: {}", told.map_or_else(|error| error.to_string(), |()| "it has answered".to_owned()));
                println!("lost: {:?}", monitor.await.reason);
                break;
            }
        }
    }
    println!("shared in {}", shared.place().await?);
    println!("alone in {}", alone.place().await?);
    cluster.shutdown().await;
    println!("done");
    Ok(ExitCode::SUCCESS)
}
