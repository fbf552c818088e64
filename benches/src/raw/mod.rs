//! The references: what bare tokio does between two processes of this executable on loopback.
//!
//! Each file holds both ends: `serve`, which runs in the second process, and the client that is timed.
//! Every client runs on a thread of its own with a current-thread runtime, as the peer does.
pub(crate) mod ask;
pub(crate) mod client;
pub(crate) mod echo;
pub(crate) mod frame;
pub(crate) mod pingpong;
pub(crate) mod stream;

use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};
use tokio::net::{TcpListener, TcpStream};

use crate::threads::{on_own_thread, runtime};

/// Set in a second process: which peer it is.
const ROLE_VARIABLE: &str = "MOBULA_BENCH_RAW";

/// What a second process of this executable does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Role {
    /// Exits at once: the cost of a process.
    Bare,
    /// Answers one frame at a time.
    Pingpong,
    /// Answers whatever frames came in one read with one write.
    Echo,
    /// As `Echo`, with MessagePack bodies.
    Ask,
    /// Counts frames and answers only when told to report.
    Stream,
}

const ROLES: [(Role, &str); 5] = [
    (Role::Bare, "bare"),
    (Role::Pingpong, "pingpong"),
    (Role::Echo, "echo"),
    (Role::Ask, "ask"),
    (Role::Stream, "stream"),
];

impl Role {
    /// The role that this process was started for; `None` in the process that measures.
    pub(crate) fn of_this_process() -> Option<Role> {
        let name = env::var(ROLE_VARIABLE).ok()?;
        ROLES.iter().find(|(_, known)| *known == name).map(|(role, _)| *role)
    }

    fn name(self) -> &'static str {
        ROLES.iter().find(|(role, _)| *role == self).map_or("", |(_, name)| name)
    }

    fn command(self) -> Result<Command> {
        let mut command = Command::new(env::current_exe().context("no path to this executable")?);
        command.env(ROLE_VARIABLE, self.name());
        Ok(command)
    }

    /// Plays the role until the process that measures is gone.
    pub(crate) fn serve(self) -> ExitCode {
        if self == Role::Bare {
            return ExitCode::SUCCESS;
        }
        match serve_connections(self) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("raw peer {}: {error}", self.name());
                ExitCode::FAILURE
            }
        }
    }
}

fn serve_connections(role: Role) -> io::Result<()> {
    // The measuring process holds the other end of stdin: when it dies, however, this process goes too.
    thread::spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    runtime()?.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        println!("{}", listener.local_addr()?.port());
        io::stdout().flush()?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let served = match role {
                Role::Bare => Ok(()),
                Role::Pingpong => pingpong::serve(stream).await,
                Role::Echo => echo::serve(stream).await,
                Role::Ask => ask::serve(stream).await,
                Role::Stream => stream::serve(stream).await,
            };
            if let Err(error) = served {
                eprintln!("raw peer {}: {error}", role.name());
            }
        }
    })
}

/// A second process of this executable, killed when dropped.
pub(crate) struct Peer {
    child: Child,
    address: SocketAddr,
}

impl Peer {
    /// Starts a peer and waits until it listens.
    pub(crate) fn start(role: Role) -> Result<Peer> {
        let mut child =
            role.command()?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("raw peer did not start")?;
        let stdout = child.stdout.take().context("raw peer has no stdout")?;
        let mut peer = Peer { child, address: (Ipv4Addr::LOCALHOST, 0).into() };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let port = line.trim().parse().with_context(|| format!("raw peer announced {line:?}, not a port"))?;
        peer.address.set_port(port);
        Ok(peer)
    }

    /// Runs `client` on a thread of its own with a fresh connection to this peer, and waits for its figure.
    pub(crate) async fn measure<T, F>(&self, client: F) -> Result<T>
    where
        T: Send + 'static,
        F: AsyncFnOnce(TcpStream) -> Result<T> + Send + 'static,
    {
        let address = self.address;
        on_own_thread(move || {
            runtime()?.block_on(async {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                client(stream).await
            })
        })
        .await
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts `count` processes that exit at once, and reaps them.
pub(crate) fn spawn_and_reap(count: usize) -> Result<()> {
    let children = (0..count)
        .map(|_| Ok(Role::Bare.command()?.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?))
        .collect::<Result<Vec<Child>>>()?;
    for mut child in children {
        let status = child.wait()?;
        if !status.success() {
            bail!("bare process: {status}");
        }
    }
    Ok(())
}
