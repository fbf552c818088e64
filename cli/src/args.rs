//! What can be typed.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use mobula_core::cluster::{Amount, JobId, Labels};
use mobula_core::limits;
use mobula_identity::Role;

/// Runs and asks a Mobula cluster.
#[derive(Parser)]
#[command(name = "mobula", version, about, disable_help_subcommand = true, max_term_width = 110)]
pub(crate) struct Cli {
    /// Where the files of this user's node are [default: mobula in XDG_STATE_HOME, or ~/.local/state/mobula]
    #[arg(long, global = true, env = "MOBULA_HOME", value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
    /// Ask this cluster: HOST:PORT of its head, several with commas; the name of a login; auto: that of this host; or the path of a node's home
    /// [default: MOBULA_ADDRESS, else the node of this user on this host, else the current login]
    #[arg(long, global = true, value_name = "WHERE")]
    pub(crate) address: Option<String>,
    /// Print JSON, for programs
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Makes this host a node: with --head of a new cluster, with --address of one that runs, with neither of the one that it was in last
    Start(Box<Start>),
    /// Ends the node of this user on this host, and all that runs on it
    Stop {
        /// Wait so long for its end
        #[arg(long, default_value = "10s", value_parser = humantime::parse_duration, value_name = "TIME")]
        timeout: Duration,
    },
    /// Lets this user ask a cluster from this host, with a token for a client, an operator or an observer
    Login(Login),
    /// Forgets a cluster to which this user has logged in
    Logout {
        /// Its name, or the cluster's id [default: the current one]
        name: Option<String>,
    },
    /// Lists the clusters to which this user has logged in, and says which is current
    #[command(subcommand)]
    Cluster(Cluster),
    /// Lists and revokes the credentials of those who have logged in
    #[command(subcommand)]
    Credential(Credential),
    /// Shows the cluster: nodes, resources, jobs
    Status {
        /// Show it again whenever something has changed; with --json a line each time
        #[arg(long, short)]
        follow: bool,
    },
    /// Shows the cluster in a few numbers
    Summary,
    /// Makes, lists and revokes what lets others join
    #[command(subcommand)]
    Token(Token),
    /// Lists, drains and removes nodes
    #[command(subcommand)]
    Node(Node),
    /// Submits jobs and asks about them
    #[command(subcommand)]
    Job(Job),
    /// Lists what the cluster has
    #[command(subcommand)]
    List(List),
    /// Shows one thing with all that is known of it
    Get {
        /// As `list` shows it: a node's name or uid, a job, a worker's uid, an actor, a placement group, a lease, or the name of a detached actor
        what: String,
    },
    /// Prints what the processes of a job have printed
    Logs(Logs),
    /// Checks this host: permissions, descriptors, port and who reaches it, the node, certificates, logins, clock, versions
    Doctor(Doctor),
    /// Prints completions for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Prints a manual page
    Man {
        /// The command whose page it is, as `start` or `job submit` [default: mobula itself]
        command: Vec<String>,
        /// Write the pages of all commands into this directory, as files
        #[arg(long, value_name = "DIR", conflicts_with = "command")]
        into: Option<PathBuf>,
    },
}

#[derive(Args)]
pub(crate) struct Start {
    /// Take flags from this file as well, in TOML: `port = 6379`, `labels = { zone = "a" }`; what is typed counts
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Be the head of a cluster, which is founded if this home has none
    #[arg(long, conflicts_with = "address")]
    pub(crate) head: bool,
    /// Join the cluster whose head is there, or one of its heads; takes a token the first time
    #[arg(long, value_name = "HOST:PORT,..")]
    pub(crate) address: Option<String>,
    /// Where the records of the head lie, as etcd://HOST:PORT,../PREFIX for several heads [default: a file in its home]
    #[arg(long, value_name = "URL", requires = "head")]
    pub(crate) store: Option<String>,
    #[command(flatten)]
    pub(crate) token: TokenInput,
    /// The one port of this node [default: 6379 for a head, else 6380; 0: any that is free]
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// The address to listen on
    #[arg(long, default_value = "0.0.0.0", value_name = "IP")]
    pub(crate) listen: IpAddr,
    /// The address by which others reach this host [default: that of its way to the network]
    #[arg(long, value_name = "IP")]
    pub(crate) advertise: Option<IpAddr>,
    /// The name of this node [default: the host's]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Cores that it gives [default: those of the host]
    #[arg(long, value_parser = |text: &str| Amount::parse("--num-cpus", text), value_name = "N")]
    pub(crate) num_cpus: Option<Amount>,
    /// GPUs that it gives
    #[arg(long, value_parser = |text: &str| Amount::parse("--num-gpus", text), value_name = "N")]
    pub(crate) num_gpus: Option<Amount>,
    /// Memory that it gives, as 4GiB [default: that of the host]
    #[arg(long, value_parser = |text: &str| Amount::parse_bytes("--memory", text), value_name = "BYTES")]
    pub(crate) memory: Option<Amount>,
    /// Other things that it gives, as disk=1,license=2
    #[arg(long, value_name = "NAME=N,..")]
    pub(crate) resources: Option<String>,
    /// What it is, as zone=a,disk=ssd
    #[arg(long, value_parser = |text: &str| Labels::parse("--labels", text), value_name = "KEY=VALUE,..")]
    pub(crate) labels: Option<Labels>,
    /// A node's lease: silent so long, it ends what runs on it [default: 8s]
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME", requires = "head")]
    pub(crate) lease: Option<Duration>,
    /// The life of certificates; each is renewed at two thirds of it [default: 24h]
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME", requires = "head")]
    pub(crate) certificate_life: Option<Duration>,
    /// Stay in the foreground
    #[arg(long)]
    pub(crate) block: bool,
    /// Was started by this command itself.
    #[arg(long, hide = true)]
    pub(crate) detached: bool,
}

#[derive(Args)]
pub(crate) struct TokenInput {
    /// Read the token from this file, of mode 0600; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "token_fd")]
    pub(crate) token_file: Option<PathBuf>,
    /// Read the token from this descriptor
    #[arg(long, value_name = "N")]
    pub(crate) token_fd: Option<i32>,
    /// Refused: what is typed here can be seen by others.
    #[arg(long, hide = true)]
    pub(crate) token: Option<String>,
}

#[derive(Args)]
pub(crate) struct Login {
    /// What to call the cluster here [default: its id]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The role of the token: client, operator or observer
    #[arg(long, default_value = "client")]
    pub(crate) role: Role,
    #[command(flatten)]
    pub(crate) token: TokenInput,
}

#[derive(Subcommand)]
pub(crate) enum Cluster {
    /// Lists them
    List,
    /// Makes one the current one, which commands and programs ask where nothing else is said
    Use {
        /// Its name, or the cluster's id
        name: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum Credential {
    /// Lists the clients, operators and observers that have logged in and may still ask
    List,
    /// Cuts one off, at once and for ever, with the drivers that it has begun
    Revoke {
        /// Its uid, as `credential list` shows it
        uid: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum Token {
    /// Makes a token and prints it, this once
    Create {
        /// What its bearer becomes: worker, client, operator or observer
        #[arg(long, default_value = "worker")]
        role: Role,
        /// How often it serves
        #[arg(long, default_value_t = 1)]
        uses: u32,
        /// How long it serves
        #[arg(long, default_value = "1h", value_parser = humantime::parse_duration, value_name = "TIME")]
        ttl: Duration,
    },
    /// Lists the tokens that are accepted
    List,
    /// Takes a token back
    Revoke {
        /// Its id, as `token list` shows it
        token: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum Node {
    /// Lists nodes
    List,
    /// Lets a node finish what it has, and leave
    Drain {
        /// Its name or uid
        node: String,
        /// How long it may take
        #[arg(long, default_value = "5m", value_parser = humantime::parse_duration, value_name = "TIME")]
        timeout: Duration,
    },
    /// Cuts a node off, at once and for ever
    Remove {
        /// Its name or uid
        node: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum Job {
    /// Runs a program on the cluster, with a worker of it on each node
    Submit(Submit),
    /// Lists jobs
    List,
    /// Shows a job
    Status {
        /// As in job-7
        job: JobId,
    },
    /// Prints what its processes have printed
    Logs(Logs),
    /// Ends a job
    Stop {
        /// As in job-7
        job: JobId,
    },
}

#[derive(Args)]
pub(crate) struct Doctor {
    /// The port on which a node is to be started here [default: that of the node that runs, else 6379, or 6380 where a node has joined]
    #[arg(long)]
    pub(crate) port: Option<u16>,
}

#[derive(Args)]
pub(crate) struct Submit {
    /// The program, whose main begins with `#[mobula::main]`
    pub(crate) program: PathBuf,
    /// Its arguments
    #[arg(last = true)]
    pub(crate) arguments: Vec<String>,
    /// Do not wait for its end
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Add this to the environment of its processes
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Cores for the driver
    #[arg(long, default_value = "0", value_parser = |text: &str| Amount::parse("--num-cpus", text), value_name = "N")]
    pub(crate) num_cpus: Amount,
}

#[derive(Args)]
pub(crate) struct Logs {
    /// As in job-7
    pub(crate) job: JobId,
    /// Go on until the job is over
    #[arg(long, short)]
    pub(crate) follow: bool,
}

#[derive(Clone, Copy, Subcommand)]
pub(crate) enum List {
    /// Actors that live, of all jobs that run
    Actors {
        /// Of this job alone, as in job-7
        #[arg(long)]
        job: Option<JobId>,
        /// So many at most
        #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=limits::LISTED_ACTORS_MAX as u64))]
        limit: u64,
    },
    /// Hosts, and what they give
    Nodes,
    /// Processes of jobs
    Workers,
    /// Jobs
    Jobs,
    /// Resources that are set aside
    PlacementGroups,
    /// Resources that are in use
    Leases,
    /// Names of detached actors, which outlive the jobs that have created them
    Detached,
}
