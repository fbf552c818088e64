//! The `mobula` command.
mod args;
mod config;
mod doctor;
mod failure;
mod get;
mod job;
mod login;
mod man;
mod node_log;
mod show;
mod start;
mod status;
mod token_input;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use mobula_control::{
    ADDRESS_VARIABLE, Address, Client, ClusterView, CreateToken, DrainNode, Home, ListActors, ListCredentials,
    ListDetached, ListLeases, ListTokens, RemoveNode, RevokeCredential, RevokeToken, View, Whom, whom,
};
use mobula_core::NodeUid;
use mobula_identity::hide_from_dumps;

use crate::args::{Cli, Command, Credential, List, Node, Token};
use crate::failure::Failure;

fn main() -> ExitCode {
    let done = config::with_file(std::env::args_os().collect()).and_then(|arguments| {
        let cli = Cli::parse_from(arguments);
        let home = cli.home.unwrap_or_else(Home::default_path);
        done(cli.command, cli.address, home, cli.json)
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {}", failure.text);
            ExitCode::from(failure.code)
        }
    }
}

fn done(command: Command, address: Option<String>, home: PathBuf, json: bool) -> Result<(), Failure> {
    match command {
        Command::Start(start) if start.head && start.address.is_some() => {
            return Err(Failure::usage(
                "--head founds a cluster or goes on with its own; --address is for those who join another",
            ));
        }
        Command::Stop { .. } | Command::Doctor(_) | Command::Logout { .. } | Command::Cluster(_)
            if address.is_some() =>
        {
            return Err(Failure::usage("--address is for what is asked of a cluster: this command is about this host"));
        }
        Command::Start(start) => return start::start(*start, home, json),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "mobula", &mut std::io::stdout());
            return Ok(());
        }
        Command::Man { command, into } => return man::man(&command, into.as_deref(), json),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        match command {
            Command::Stop { timeout } => start::stop(home, timeout, json).await,
            Command::Doctor(options) => doctor::doctor(&home, &options, json).await,
            Command::Login(login) => login::login(login, said(address)?, &home, json).await,
            Command::Logout { name } => login::logout(&home, name.as_deref(), json),
            Command::Cluster(cluster) => login::cluster(&home, cluster, json),
            command => ask(command, client(said(address)?, &home).await?, json).await,
        }
    });
    // A name that is looked up keeps nobody waiting.
    runtime.shutdown_background();
    done
}

/// What the flag or the environment says of where the cluster is, and which of them does.
fn said(flag: Option<String>) -> Result<Option<(&'static str, Address)>, Failure> {
    let variable = || {
        let value = std::env::var_os(ADDRESS_VARIABLE).filter(|value| !value.is_empty())?;
        Some((ADDRESS_VARIABLE, value.to_string_lossy().into_owned()))
    };
    let said = flag.map(|text| ("--address", text)).or_else(variable);
    let Some((place, text)) = said else { return Ok(None) };
    match text.parse() {
        Ok(address) => Ok(Some((place, address))),
        Err(error) => {
            Err(Failure::usage(format!("{place} {error}, the name of a login, auto, or the path of a node's home")))
        }
    }
}

/// Who answers: the node of this user on this host, or the heads of a cluster that this user has logged in to.
async fn client(said: Option<(&'static str, Address)>, home: &Path) -> Result<Client, Failure> {
    let place = said.as_ref().map_or("", |(place, _)| place);
    match whom(said.as_ref().map(|(_, address)| address), home).await? {
        Whom::Here(home) => Ok(Client::local(&home)),
        Whom::There(login) => {
            // The key is in this process. Without that the command works as well.
            let _ = hide_from_dumps();
            let (target, renewal) = login.target().await?;
            // What is followed may take longer than the certificate is good for.
            tokio::spawn(renewal.keep());
            Ok(Client::new(target))
        }
        _ => Err(Failure::usage(format!("{place} local: there is no cluster to ask"))),
    }
}

async fn ask(command: Command, client: Client, json: bool) -> Result<(), Failure> {
    match command {
        Command::Status { follow } => status::status(&client, follow, json).await,
        Command::Summary => {
            let view = client.ask(View {}).await?;
            if json {
                show::json(&view.summary)
            } else {
                show::summary(&view)
            }
            Ok(())
        }
        Command::Token(token) => self::token(&client, token, json).await,
        Command::Credential(credential) => self::credential(&client, credential, json).await,
        Command::Node(node) => self::node(&client, node, json).await,
        Command::Job(job) => job::job(&client, job, json).await,
        Command::Logs(logs) => job::logs(&client, logs, json).await,
        Command::List(List::Leases) => {
            let leases = client.ask(ListLeases {}).await?;
            show::one(json, &leases, |leases| show::leases(leases));
            Ok(())
        }
        Command::List(List::Actors { job, limit }) => {
            let actors = client.ask(ListActors { job, limit: limit as usize }).await?;
            show::one(json, &actors, show::actors);
            Ok(())
        }
        Command::List(List::Detached) => {
            let detached = client.ask(ListDetached {}).await?;
            show::one(json, &detached, |detached| show::detached(detached));
            Ok(())
        }
        Command::List(list) => {
            let view = client.ask(View {}).await?;
            match (json, list) {
                (false, list) => show::list(&view, list),
                (true, List::Nodes) => show::json(&view.nodes),
                (true, List::Workers) => show::json(&view.workers),
                (true, List::Jobs) => show::json(&view.jobs),
                (true, _) => show::json(&view.placement_groups),
            }
            Ok(())
        }
        Command::Get { what } => get::get(&client, &what).await,
        // Those that ask nobody are done.
        _ => Ok(()),
    }
}

async fn token(client: &Client, token: Token, json: bool) -> Result<(), Failure> {
    match token {
        Token::Create { role, uses, ttl } => {
            let text = zeroize::Zeroizing::new(client.ask(CreateToken { role, uses, ttl }).await?);
            if json { show::json(&serde_json::json!({ "token": *text })) } else { println!("{}", *text) }
        }
        Token::List => {
            let tokens = client.ask(ListTokens {}).await?;
            show::one(json, &tokens, |tokens| show::tokens(tokens));
        }
        Token::Revoke { token } => {
            let id = token
                .parse()
                .map_err(|_| Failure::usage(format!("{token:?} is no token id; `mobula token list` shows them")))?;
            if !client.ask(RevokeToken { token: id }).await? {
                return Err(Failure::other(format!("there is no token {token}")));
            }
            if json {
                show::json(&serde_json::json!({ "revoked": token }))
            } else {
                println!("token {token} is revoked")
            }
        }
    }
    Ok(())
}

async fn credential(client: &Client, credential: Credential, json: bool) -> Result<(), Failure> {
    match credential {
        Credential::List => {
            let credentials = client.ask(ListCredentials {}).await?;
            show::one(json, &credentials, |credentials| show::credentials(credentials));
        }
        Credential::Revoke { uid } => {
            let bad = || Failure::usage(format!("{uid:?} is no uid; `mobula credential list` shows them"));
            let life = u64::from_str_radix(&uid, 16).ok().filter(|_| uid.len() == 16).map(NodeUid).ok_or_else(bad)?;
            if !client.ask(RevokeCredential { uid: life }).await? {
                return Err(Failure::other(format!(
                    "there is no credential {uid}; `mobula credential list` shows them"
                )));
            }
            if json {
                show::json(&serde_json::json!({ "revoked": uid }))
            } else {
                println!("credential {uid} is revoked")
            }
        }
    }
    Ok(())
}

async fn node(client: &Client, node: Node, json: bool) -> Result<(), Failure> {
    let view = client.ask(View {}).await?;
    match node {
        Node::List => {
            if json {
                show::json(&view.nodes)
            } else {
                show::list(&view, List::Nodes)
            }
        }
        Node::Drain { node, timeout } => {
            let uid = node_of(&view, &node)?;
            client.ask(DrainNode { node: uid, within: timeout }).await?;
            if json { show::json(&serde_json::json!({ "draining": uid })) } else { println!("{node} is draining") }
        }
        Node::Remove { node } => {
            let uid = node_of(&view, &node)?;
            client.ask(RemoveNode { node: uid }).await?;
            if json { show::json(&serde_json::json!({ "removed": uid })) } else { println!("{node} is cut off") }
        }
    }
    Ok(())
}

/// The node of which `text` is the name or the uid.
fn node_of(view: &ClusterView, text: &str) -> Result<NodeUid, Failure> {
    let none = || Failure::other(format!("there is no node {text:?}; there are {}", get::names(view)));
    get::node_of(view, text).ok_or_else(none)
}
