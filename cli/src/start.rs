//! `mobula start` and `mobula stop`.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use mobula_control::{Client, ControlError, Home, StopNode, resolve};
use mobula_core::cluster::{Amount, Resources};
use mobula_core::{LeaseTimes, limits};
use mobula_daemon::{DaemonError, HEAD_PORT, NODE_PORT, NodeOptions, NodePart, kept_membership, run};
use serde::{Deserialize, Serialize};

use crate::args::Start;
use crate::failure::Failure;
use crate::node_log::{LOG, NodeLog};
use crate::token_input;

/// What a node in the background tells the command that has started it.
#[derive(Serialize, Deserialize)]
enum Told {
    Ready { address: SocketAddr, cluster: String, name: String, uid: String, pid: u32 },
    Failed { code: u8, text: String },
}

/// Starts a node: here, or in the background.
pub(crate) fn start(args: Start, home: PathBuf, json: bool) -> Result<(), Failure> {
    let options = options(&args, home.clone())?;
    if args.block || args.detached {
        return serve(options, args.detached, json);
    }
    in_background(&options, &home, json)
}

fn options(args: &Start, home: PathBuf) -> Result<NodeOptions, Failure> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get) as u64;
    let mut resources = Resources::cpus(args.num_cpus.unwrap_or(Amount::units(cores)))
        .with_gpus(args.num_gpus.unwrap_or(Amount::ZERO))
        .with_memory(args.memory.unwrap_or_else(|| Amount::units(mobula_daemon::memory_bytes())));
    if let Some(text) = &args.resources {
        resources.custom = Resources::parse_custom("--resources", text).map_err(Failure::usage)?;
    }
    resources.check().map_err(Failure::usage)?;
    let (part, port) = match args.head {
        false => (member(args, &home)?, NODE_PORT),
        true => {
            if token_input::is_given(&args.token) {
                return Err(Failure::usage("--head takes no token: it makes them, see `mobula token create`"));
            }
            let lease = within("--lease", args.lease, limits::LEASE_MIN, limits::LEASE_MAX)?;
            let (shortest, longest) = (limits::CERTIFICATE_LIFE_MIN, limits::CERTIFICATE_LIFE);
            let life = within("--certificate-life", args.certificate_life, shortest, longest)?;
            let times = lease.map_or_else(LeaseTimes::default, LeaseTimes::of);
            let (certificate_life, store) = (life.unwrap_or(longest), args.store.clone());
            (NodePart::Head { times, certificate_life, store }, HEAD_PORT)
        }
    };
    Ok(NodeOptions {
        home,
        name: args.name.clone(),
        listen: args.listen,
        port: args.port.unwrap_or(port),
        advertise: args.advertise,
        resources,
        labels: args.labels.clone().unwrap_or_default(),
        part,
    })
}

/// A node that joins with a token, or comes back without one.
fn member(args: &Start, home: &Path) -> Result<NodePart, Failure> {
    let given = args.address.as_ref().map(|text| text.split(',').map(resolve).collect::<Result<Vec<_>, _>>());
    let given = given.transpose().map_err(|error| Failure::usage(format!("--address {error}")))?;
    let kept = match token_input::is_given(&args.token) {
        true => None,
        false => kept_membership(home)?,
    };
    match (given, kept) {
        // Where heads were when it was last seen may help as well.
        (given, Some(kept)) => {
            let known = kept.heads.iter().filter_map(|head| resolve(head).ok());
            let mut heads: Vec<_> = given.unwrap_or_default();
            known.for_each(|head| {
                if !heads.contains(&head) {
                    heads.push(head)
                }
            });
            Ok(NodePart::Member { heads, token: None })
        }
        (Some(heads), None) => Ok(NodePart::Member { heads, token: Some(token_input::read(&args.token)?) }),
        (None, None) => Err(Failure::usage(format!(
            "say --head to found a cluster or to go on as its head, or --address HOST:PORT and a token to join one; {} has kept no membership to come \
             back with",
            home.display()
        ))),
    }
}

/// A time that was given, if it may be.
fn within(flag: &str, given: Option<Duration>, min: Duration, max: Duration) -> Result<Option<Duration>, Failure> {
    if let Some(given) = given.filter(|given| !(min..=max).contains(given)) {
        let time = humantime::format_duration;
        let text = format!("{flag} {}: valid are times from {} to {}", time(given), time(min), time(max));
        return Err(Failure::usage(text));
    }
    Ok(given)
}

/// Is the node.
fn serve(options: NodeOptions, detached: bool, json: bool) -> Result<(), Failure> {
    if detached {
        // The terminal's hang-up is not the node's.
        let _ = rustix::process::setsid();
    }
    let filter = tracing_subscriber::EnvFilter::try_from_env("MOBULA_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let _ =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).try_init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build()?;
    if detached {
        let home = Home::open(&options.home).map_err(|error| Failure::from(DaemonError::from(error)))?;
        runtime.spawn(NodeLog::of(&home).keep_small());
    }
    let ended = runtime.block_on(run(options, |ready| {
        let told = Told::Ready {
            address: ready.address,
            cluster: ready.cluster.clone(),
            name: ready.name.clone(),
            uid: ready.uid.to_string(),
            pid: std::process::id(),
        };
        if detached {
            tell(&told);
        } else {
            show(&told, json);
        }
    }));
    runtime.shutdown_timeout(Duration::from_secs(1));
    match ended {
        Err(error) if detached => {
            let failure = Failure::from(error);
            tell(&Told::Failed { code: failure.code, text: failure.text.clone() });
            Err(failure)
        }
        ended => Ok(ended?),
    }
}

/// Says it to the command that waits, which may have gone.
fn tell(told: &Told) {
    if let Ok(text) = serde_json::to_string(told) {
        let _ = writeln!(std::io::stdout(), "{text}");
    }
}

fn show(told: &Told, json: bool) {
    match told {
        told if json => println!("{}", serde_json::to_string(told).unwrap_or_default()),
        Told::Ready { address, cluster, name, .. } => {
            println!("node {name} of cluster {cluster} is ready at {address}");
        }
        Told::Failed { text, .. } => eprintln!("error: {text}"),
    }
}

/// Starts this very command again, in the background, and waits until the node is ready.
fn in_background(options: &NodeOptions, home: &Path, json: bool) -> Result<(), Failure> {
    let log = open_log(home)?;
    let begins_at = log.metadata()?.len();
    let mut command = Command::new(std::env::current_exe()?);
    command.args(without_token(std::env::args_os().skip(1)));
    command.arg("--detached").env("MOBULA_HOME", home).stderr(log.try_clone()?).stdout(Stdio::piped());
    if let NodePart::Member { token: Some(token), .. } = &options.part {
        let mut child = command.args(["--token-file", "-"]).stdin(Stdio::piped()).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // If it does not read it, it says why.
            let _ = stdin.write_all(token.expose().as_bytes());
        }
        return wait_until_ready(child, log, begins_at, json);
    }
    wait_until_ready(command.stdin(Stdio::null()).spawn()?, log, begins_at, json)
}

/// The same arguments, but for where the token was read: it has been read.
fn without_token(args: impl Iterator<Item = std::ffi::OsString>) -> Vec<std::ffi::OsString> {
    let mut kept = Vec::new();
    let mut skip = false;
    for arg in args {
        if std::mem::take(&mut skip) {
            continue;
        }
        let text = arg.to_string_lossy().into_owned();
        match text.split_once('=').map_or(text.as_str(), |(name, _)| name) {
            "--token-file" | "--token-fd" => skip = !text.contains('='),
            _ => kept.push(arg),
        }
    }
    kept
}

fn open_log(home: &Path) -> Result<File, Failure> {
    let home = Home::create(home).map_err(|error| Failure::from(DaemonError::from(error)))?;
    Ok(NodeLog::of(&home).open()?)
}

fn wait_until_ready(mut child: std::process::Child, mut log: File, begins_at: u64, json: bool) -> Result<(), Failure> {
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    match serde_json::from_str(&line) {
        Ok(told @ Told::Ready { .. }) => {
            show(&told, json);
            Ok(())
        }
        Ok(Told::Failed { code, text }) => {
            let _ = child.wait();
            Err(Failure { code, text })
        }
        Err(_) => {
            let status = child.wait()?;
            let mut said = String::new();
            log.seek(SeekFrom::Start(begins_at))?;
            log.take(16 * 1024).read_to_string(&mut said)?;
            let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1).max(1);
            Err(Failure { code, text: format!("the node has ended before it was ready ({status}): {}", said.trim()) })
        }
    }
}

/// Ends the node whose home it is, and waits for its end.
pub(crate) async fn stop(home: PathBuf, within: Duration, json: bool) -> Result<(), Failure> {
    let client = Client::local(&home);
    match client.ask(StopNode {}).await {
        Ok(()) => {}
        Err(ControlError::NoneHere { .. }) => {
            show_stopped(json, false);
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    }
    // The lock is free when the process is no more.
    let waited = tokio::time::timeout(within, async {
        while Home::is_running(&home) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    match waited.await {
        Ok(()) => {
            show_stopped(json, true);
            Ok(())
        }
        Err(_) => {
            Err(Failure::other(format!("the node still runs after {within:?}: see {}", home.join(LOG).display())))
        }
    }
}

fn show_stopped(json: bool, ran: bool) {
    match (json, ran) {
        (true, _) => println!("{}", serde_json::json!({ "stopped": ran })),
        (false, true) => println!("the node has ended"),
        (false, false) => println!("no node of yours runs on this host"),
    }
}
