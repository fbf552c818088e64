//! The shortest remote actor, in the plain actix way: an actor, a message, a handler, and one line that opens it to
//! other nodes.
//!
//! Run:    cargo run --release --bin hello_actor
//! Prints: Hello, Mobula! (said by process 4242 on node-1; this is process 4240)
use actix::{Actor, Context, Handler};
use clap::Parser;
use mobula::prelude::*;
use mobula_examples::cli::print_json;
use serde::{Deserialize, Serialize};

struct Greeter {
    greeting: String,
}

impl Actor for Greeter {
    type Context = Context<Self>;
}

#[derive(Deserialize, RemoteMessage, Serialize)]
#[rtype(result = "Greeting")]
struct Greet {
    name: String,
}

#[derive(actix::MessageResponse, Deserialize, Serialize)]
struct Greeting {
    text: String,
    pid: u32,
}

impl Handler<Greet> for Greeter {
    type Result = Greeting;

    fn handle(&mut self, greet: Greet, _: &mut Context<Self>) -> Greeting {
        Greeting { text: format!("{}, {}!", self.greeting, greet.name), pid: std::process::id() }
    }
}

mobula::remote_actor!(Greeter, args: String, create: |greeting| Greeter { greeting }, messages: [Greet]);

/// Starts two node processes, spawns an actor on one of them and asks it for a greeting.
#[derive(Parser)]
#[command(name = "hello_actor", version)]
struct Args {
    /// Whom to greet.
    #[arg(long, default_value = "Mobula")]
    name: String,

    /// Print one line of JSON instead of text.
    #[arg(long)]
    json: bool,
}

#[mobula::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let cluster = Cluster::local(2).await?;
    let greeter = cluster.spawn(Greeter::spec("Hello".to_owned())).await?;
    let Greeting { text, pid } = greeter.ask(Greet { name: args.name }).await?;
    let node = greeter.node().name.to_string();
    if args.json {
        print_json(&serde_json::json!({ "greeting": text, "node": node, "pid": pid }))?;
    } else {
        println!("{text} (said by process {pid} on {node}; this is process {})", std::process::id());
    }
    cluster.shutdown().await;
    Ok(())
}
