//! A chat room is a group: whoever joins hears what is said, on whatever node, and nobody keeps a list.
//!
//! Run:    cargo run --release --bin chat_groups
//! Prints: ada on node-1, ben on node-2, cyd on node-3 joined #tea
//!         ada: "Milk first?" was heard by ada, ben, cyd
//!         ben left
//!         cyd: "Never." was heard by ada, cyd
//!         node-1 was killed, and ada has left with it
use std::time::Duration;

use actix::{Actor, Context, Handler, MessageResult, ResponseFuture};
use anyhow::{Context as _, ensure};
use clap::Parser;
use futures::StreamExt;
use mobula::prelude::*;
use mobula::{Group, GroupEvent, GroupEvents, current_node, this};
use mobula_examples::cli::print_json;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// Somebody in rooms. It speaks for itself, and remembers what it has heard.
struct Member {
    name: String,
    heard: Vec<Line>,
}

impl Actor for Member {
    type Context = Context<Self>;
}

mobula::remote_actor!(
    Member,
    args: String,
    create: |name| Member { name, heard: Vec::new() },
    messages: [Line, Join, Crowd, Say, Leave, Heard]
);

/// What is said in a room. The members of a group take one kind of message: this.
#[derive(Clone, Debug, Deserialize, PartialEq, RemoteMessage, Serialize)]
struct Line {
    by: String,
    text: String,
}

impl Handler<Line> for Member {
    type Result = ();

    fn handle(&mut self, line: Line, _: &mut Context<Self>) {
        self.heard.push(line);
    }
}

/// The room of this name, seen from the node of the actor whose handler runs.
async fn room(name: String) -> Result<Group<Line>, CallError> {
    let node = current_node().ok_or(CallError::Stopped)?;
    node.group(&name).await
}

#[derive(Deserialize, RemoteMessage, Serialize)]
#[rtype(result = "Result<(), CallError>")]
struct Join(String);

impl Handler<Join> for Member {
    type Result = ResponseFuture<Result<(), CallError>>;

    fn handle(&mut self, Join(name): Join, _: &mut Context<Self>) -> Self::Result {
        Box::pin(async move { room(name).await?.join(this::<Member>().ok_or(CallError::Stopped)?).await })
    }
}

#[derive(Deserialize, RemoteMessage, Serialize)]
#[rtype(result = "Result<(), CallError>")]
struct Leave(String);

impl Handler<Leave> for Member {
    type Result = ResponseFuture<Result<(), CallError>>;

    fn handle(&mut self, Leave(name): Leave, _: &mut Context<Self>) -> Self::Result {
        Box::pin(async move { room(name).await?.leave(this::<Member>().ok_or(CallError::Stopped)?).await })
    }
}

/// How many are in the room, as far as the member's node knows: news of a change takes a moment to get round.
#[derive(Deserialize, RemoteMessage, Serialize)]
#[rtype(result = "Result<u64, CallError>")]
struct Crowd(String);

impl Handler<Crowd> for Member {
    type Result = ResponseFuture<Result<u64, CallError>>;

    fn handle(&mut self, Crowd(name): Crowd, _: &mut Context<Self>) -> Self::Result {
        Box::pin(async move { Ok(room(name).await?.members().len() as u64) })
    }
}

/// Answers how many could not be told.
#[derive(Deserialize, RemoteMessage, Serialize)]
#[rtype(result = "Result<u64, CallError>")]
struct Say {
    room: String,
    text: String,
}

impl Handler<Say> for Member {
    type Result = ResponseFuture<Result<u64, CallError>>;

    fn handle(&mut self, say: Say, _: &mut Context<Self>) -> Self::Result {
        let line = Line { by: self.name.clone(), text: say.text };
        Box::pin(async move { Ok(room(say.room).await?.broadcast(line).await.len() as u64) })
    }
}

#[derive(Deserialize, RemoteMessage, Serialize)]
#[rtype(result = "Vec<Line>")]
struct Heard;

impl Handler<Heard> for Member {
    type Result = MessageResult<Heard>;

    fn handle(&mut self, _: Heard, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.heard.clone())
    }
}

/// Three members on three nodes join a room, speak and leave; then a node is killed.
#[derive(Parser)]
#[command(name = "chat_groups", version)]
struct Args {
    /// The room, 1 to 64 bytes.
    #[arg(long, default_value = "tea", value_parser = room_name)]
    room: String,

    /// Print one line of JSON instead of text.
    #[arg(long)]
    json: bool,
}

fn room_name(text: &str) -> Result<String, String> {
    match text.len() {
        1..=64 => Ok(text.to_owned()),
        _ => Err("expected a name of 1 to 64 bytes".to_owned()),
    }
}

/// Something that takes a while on a slow machine is given up after this.
const PATIENCE: Duration = Duration::from_secs(20);

const NAMES: [&str; 3] = ["ada", "ben", "cyd"];

/// Waits until so many are in the room, as far as the driver knows.
async fn is_of(room: &Group<Line>, events: &mut GroupEvents<Line>, size: usize) -> anyhow::Result<()> {
    let changes = async {
        while room.members().len() != size {
            let event = events.next().await;
            ensure!(matches!(event, Some(GroupEvent::Joined(_) | GroupEvent::Left(_))), "the room is gone");
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, changes).await.context("nobody came or went")?
}

/// Says something to so many, and gives the names of those who have heard it.
async fn say(members: &[ActorRef<Member>], by: usize, room: &str, text: &str, crowd: usize) -> anyhow::Result<String> {
    let line = Line { by: NAMES[by].to_owned(), text: text.to_owned() };
    let heard = async {
        while members[by].ask(Crowd(room.to_owned())).flatten().await? != crowd as u64 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let untold = members[by].ask(Say { room: room.to_owned(), text: text.to_owned() }).flatten().await?;
        ensure!(untold == 0, "{untold} could not be told");
        loop {
            let mut names = Vec::new();
            for (name, member) in NAMES.iter().zip(members) {
                if member.ask(Heard).await?.contains(&line) {
                    names.push(*name);
                }
            }
            if names.len() >= crowd {
                return Ok(names.join(", "));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.context("not everybody has heard it")?
}

#[mobula::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let cluster = Cluster::local(3).await?;
    let nodes = cluster.nodes();
    let room = cluster.group::<Line>(&args.room).await?;
    let mut events = room.subscribe();
    let mut members = Vec::new();
    for (name, node) in NAMES.iter().zip(&nodes) {
        let member = cluster.spawn(Member::spec((*name).to_owned()).node_affinity(&node.id)).await?;
        member.ask(Join(args.room.clone())).flatten().await?;
        members.push(member);
    }
    is_of(&room, &mut events, 3).await?;
    let first = say(&members, 0, &args.room, "Milk first?", 3).await?;

    members[1].ask(Leave(args.room.clone())).flatten().await?;
    is_of(&room, &mut events, 2).await?;
    let second = say(&members, 2, &args.room, "Never.", 2).await?;

    let pid = Pid::from_raw(i32::try_from(nodes[0].pid)?).context("a process id")?;
    kill_process(pid, Signal::KILL)?;
    is_of(&room, &mut events, 1).await?;
    cluster.shutdown().await;

    if args.json {
        print_json(&serde_json::json!({ "room": args.room, "first": first, "second": second, "left": 1 }))?;
    } else {
        let joined: Vec<_> =
            NAMES.iter().zip(&nodes).map(|(name, node)| format!("{name} on {}", node.id.name)).collect();
        println!("{} joined #{}", joined.join(", "), args.room);
        println!("ada: \"Milk first?\" was heard by {first}");
        println!("ben left");
        println!("cyd: \"Never.\" was heard by {second}");
        println!("{} was killed, and ada has left with it", nodes[0].id.name);
    }
    Ok(())
}
