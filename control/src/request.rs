//! All that can be asked, what each takes, and who may.
//!
//! A kind of request is a type of its own; its [`Question`] says what it answers with, and [`Request::needs`] which capability it takes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use mobula_core::cluster::{
    ActorRow, Assignment, Beat, BeatAnswer, DetachedRow, DriverStatus, Executable, JobId, JobRow, JobView, Launch,
    LeaseId, LeaseRow, NewGroup, NodeRow, Place, Placed, PlacementGroupRow, Registered, Registration, Resources,
    Revision, Summary, UnixTime, WorkerId, WorkerRow,
};
use mobula_core::{LeaseTimes, NodeUid};
use mobula_identity::{Capability, Certified, CredentialInfo, Revocations, Role, TokenId, TokenInfo};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A request with one answer.
pub trait Question: Serialize + DeserializeOwned + Send + 'static {
    /// What comes back.
    type Answer: Serialize + DeserializeOwned + Send + 'static;
    /// The request as it travels.
    fn request(self) -> Request;
}

/// A request that is answered item by item, until one side ends it.
pub trait Subscribe: Serialize + DeserializeOwned + Send + 'static {
    /// What comes, any number of times.
    type Item: Serialize + DeserializeOwned + Send + 'static;
    /// The request as it travels.
    fn request(self) -> Request;
}

macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident needs $needs:ident to $what:literal, $kind:ident $answer:ty;)*) => {
        /// A request, as it travels.
        #[derive(Debug, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum Request { $($(#[$doc])* $name($name),)* }

        impl Request {
            /// What the asker's role has to be capable of. There is no request without.
            pub fn needs(&self) -> Capability {
                match self { $(Request::$name(_) => Capability::$needs,)* }
            }

            /// What it does, to be read after "may not".
            pub fn what(&self) -> &'static str {
                match self { $(Request::$name(_) => $what,)* }
            }
        }

        $(requests!(@$kind $name, $answer);)*
    };
    (@answers $name:ident, $answer:ty) => {
        impl Question for $name {
            type Answer = $answer;
            fn request(self) -> Request { Request::$name(self) }
        }
    };
    (@streams $name:ident, $answer:ty) => {
        impl Subscribe for $name {
            type Item = $answer;
            fn request(self) -> Request { Request::$name(self) }
        }
    };
}

requests! {
    /// See [`View`].
    View needs Observe to "look at the cluster", answers ClusterView;
    /// See [`WatchView`].
    WatchView needs Observe to "look at the cluster", streams ClusterView;
    /// See [`ListLeases`].
    ListLeases needs Observe to "look at the cluster", answers Vec<LeaseRow>;
    /// See [`ListActors`].
    ListActors needs Observe to "look at the cluster", answers ActorTable;
    /// See [`ReadLogs`].
    ReadLogs needs Observe to "read logs", streams LogPart;
    /// See [`CreateToken`].
    CreateToken needs ManageTokens to "create tokens", answers String;
    /// See [`ListTokens`].
    ListTokens needs ManageTokens to "list tokens", answers Vec<TokenInfo>;
    /// See [`RevokeToken`].
    RevokeToken needs ManageTokens to "revoke tokens", answers bool;
    /// See [`DrainNode`].
    DrainNode needs ManageNodes to "drain nodes", answers ();
    /// See [`RemoveNode`].
    RemoveNode needs ManageNodes to "remove nodes", answers ();
    /// See [`StopNode`].
    StopNode needs ManageNodes to "stop this node", answers ();
    /// See [`HasExecutable`].
    HasExecutable needs SubmitJobs to "hand in executables", answers bool;
    /// See [`PutExecutable`].
    PutExecutable needs SubmitJobs to "hand in executables", answers ();
    /// See [`SubmitJob`].
    SubmitJob needs SubmitJobs to "submit jobs", answers JobId;
    /// See [`StopJob`].
    StopJob needs SubmitJobs to "stop jobs", answers ();
    /// See [`BeginDriver`].
    BeginDriver needs SubmitJobs to "drive a job", answers DriverBegun;
    /// See [`BeatDriver`].
    BeatDriver needs Call to "drive a job", answers ();
    /// See [`RenewDriver`].
    RenewDriver needs Call to "drive a job", answers Certified;
    /// See [`EndDriver`].
    EndDriver needs Call to "drive a job", answers ();
    /// See [`WatchJob`].
    WatchJob needs Call to "watch a job", streams JobView;
    /// See [`WatchRevocations`].
    WatchRevocations needs Call to "hear who was cut off", streams Revocations;
    /// See [`WatchQuestions`].
    WatchQuestions needs Call to "tell of the actors of a job", streams Vec<ActorQuestion>;
    /// See [`TellActors`].
    TellActors needs Call to "tell of the actors of a job", answers ();
    /// See [`ListNodes`].
    ListNodes needs Call to "look at the nodes of a job", answers Vec<NodeRow>;
    /// See [`ListHeads`].
    ListHeads needs Call to "look for the heads", answers Vec<SocketAddr>;
    /// See [`PlaceLease`].
    PlaceLease needs Call to "take resources", answers Placed;
    /// See [`ReleaseLease`].
    ReleaseLease needs Call to "give resources back", answers ();
    /// See [`CreateGroup`].
    CreateGroup needs Call to "set resources aside", answers PlacementGroupRow;
    /// See [`RemoveGroup`].
    RemoveGroup needs Call to "set resources aside", answers ();
    /// See [`Register`].
    Register needs BeANode to "be a node", answers Registered;
    /// See [`BeatNode`].
    BeatNode needs BeANode to "be a node", answers BeatAnswer;
    /// See [`LeaveNode`].
    LeaveNode needs BeANode to "be a node", answers ();
    /// See [`WatchAssignment`].
    WatchAssignment needs BeANode to "be a node", streams Assignment;
    /// See [`WorkerEnded`].
    WorkerEnded needs BeANode to "be a node", answers ();
    /// See [`Certify`].
    Certify needs BeANode to "be a node", answers Certified;
    /// See [`GetExecutable`].
    GetExecutable needs BeANode to "be a node", answers Part;
    /// See [`AppendLog`].
    AppendLog needs BeANode to "be a node", answers ();
    /// See [`ListCredentials`].
    ListCredentials needs ManageTokens to "list credentials", answers Vec<CredentialInfo>;
    /// See [`RevokeCredential`].
    RevokeCredential needs ManageTokens to "revoke credentials", answers bool;
    /// See [`ListDetached`].
    ListDetached needs Observe to "look at the cluster", answers Vec<DetachedRow>;
    /// See [`OpenKeeper`].
    OpenKeeper needs Call to "have detached actors", answers JobId;
    /// See [`FindDetached`].
    FindDetached needs Call to "find detached actors", answers Option<JobId>;
    /// See [`HoldName`].
    HoldName needs Call to "keep detached actors", answers ();
    /// See [`ReleaseName`].
    ReleaseName needs Call to "keep detached actors", answers ();
    /// See [`CloseKeeper`].
    CloseKeeper needs Call to "keep detached actors", answers bool;
    /// See [`GetLaunch`].
    GetLaunch needs BeANode to "be a node", answers Launch;
    /// See [`HeadNow`].
    HeadNow needs BeANode to "be a node", answers HeadFacts;
}

/// The cluster as it is now.
#[derive(Debug, Serialize, Deserialize)]
pub struct View {}

/// The cluster as it is now, and again whenever it has changed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WatchView {}

/// What the head says of the cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ClusterView {
    /// Of this state.
    pub revision: Revision,
    /// The cluster's id, its first 16 digits.
    pub cluster: String,
    /// The life of the head's node.
    pub head: NodeUid,
    /// The version of the head.
    pub version: String,
    /// When the head began.
    pub started: UnixTime,
    /// In numbers.
    pub summary: Summary,
    /// All nodes, those that are down included for a while.
    pub nodes: Vec<NodeRow>,
    /// Workers that are to run.
    pub workers: Vec<WorkerRow>,
    /// Jobs, those that are over included for a while.
    pub jobs: Vec<JobRow>,
    /// Placement groups.
    pub placement_groups: Vec<PlacementGroupRow>,
    /// The time at the head when it said this; 1970 from a head of an earlier version, which does not say.
    #[serde(default)]
    pub now: UnixTime,
}

impl ClusterView {
    /// A view of nothing, to be filled.
    pub fn new(revision: Revision, cluster: String, head: NodeUid, started: UnixTime) -> Self {
        ClusterView {
            revision,
            cluster,
            head,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started,
            summary: Summary::new(),
            nodes: Vec::new(),
            workers: Vec::new(),
            jobs: Vec::new(),
            placement_groups: Vec::new(),
            now: UnixTime::default(),
        }
    }
}

/// What a node may know of its head, to compare it with itself.
#[derive(Debug, Serialize, Deserialize)]
pub struct HeadNow {}

/// The head, as it says.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct HeadFacts {
    /// The time there.
    pub now: UnixTime,
    /// The version of its program.
    pub version: String,
}

/// Where the heads of the cluster are, that lead or may.
#[derive(Debug, Serialize, Deserialize)]
pub struct ListHeads {}

/// The leases of all jobs.
#[derive(Debug, Serialize, Deserialize)]
pub struct ListLeases {}

/// The actors of a job, or of all: the head asks the drivers, and waits [`ACTORS_TOLD_WITHIN`](mobula_core::limits::ACTORS_TOLD_WITHIN) for them.
#[derive(Debug, Serialize, Deserialize)]
pub struct ListActors {
    /// Of this job alone.
    pub job: Option<JobId>,
    /// So many at most, and never more than [`LISTED_ACTORS_MAX`](mobula_core::limits::LISTED_ACTORS_MAX).
    pub limit: usize,
}

/// Actors, those of one job together, and of each of its processes the oldest first.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct ActorTable {
    /// They.
    pub actors: Vec<ActorRow>,
    /// Actors that there are and that are not listed.
    pub left_out: u64,
    /// Who has not answered in time: `job-3`, or `node-2 of job-3`. What runs there is not counted.
    pub silent: Vec<String>,
}

/// The questions to a driver about the actors of its job: those that wait now, and again whenever that has changed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WatchQuestions {
    /// Which job.
    pub job: JobId,
    /// The life of its driver.
    pub driver: NodeUid,
}

/// Somebody wants to know the actors of a job.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct ActorQuestion {
    /// Of this question.
    pub number: u64,
    /// So many at most.
    pub limit: usize,
}

/// A driver answers a question. Nothing comes of an answer that is late.
#[derive(Debug, Serialize, Deserialize)]
pub struct TellActors {
    /// Which job.
    pub job: JobId,
    /// The life of its driver.
    pub driver: NodeUid,
    /// Which question.
    pub question: u64,
    /// The answer.
    pub table: ActorTable,
}

/// What the processes of a job have printed, from the start; with `follow` on and on, until the job is over.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReadLogs {
    /// Which job.
    pub job: JobId,
    /// Go on with what is printed from now on.
    pub follow: bool,
    /// Only what has a larger number; 0: all that there is.
    #[serde(default)]
    pub after: u64,
}

/// Lines that a process has printed.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct LogPart {
    /// Which process: `driver`, or `worker-3 on node-2`.
    pub source: String,
    /// Whole lines, as they were printed.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
    /// Given by the head that keeps it: the parts of a job have numbers that grow, also from head to head, whose term they begin with. On its way there: which one it is of all
    /// that its node has sent, so that a head takes none twice.
    #[serde(default)]
    pub number: u64,
}

/// A new token; it is shown this once.
#[derive(Debug, Serialize, Deserialize)]
pub struct CreateToken {
    /// What its bearer becomes.
    pub role: Role,
    /// How often it serves.
    pub uses: u32,
    /// How long.
    pub ttl: Duration,
}

/// The tokens that are accepted.
#[derive(Debug, Serialize, Deserialize)]
pub struct ListTokens {}

/// Takes a token back; true if there was one.
#[derive(Debug, Serialize, Deserialize)]
pub struct RevokeToken {
    /// Which.
    pub token: TokenId,
}

/// The credentials of people: clients, operators and observers.
#[derive(Debug, Serialize, Deserialize)]
pub struct ListCredentials {}

/// Cuts a person off, with the drivers that it has begun; true if there was one.
#[derive(Debug, Serialize, Deserialize)]
pub struct RevokeCredential {
    /// Whose.
    pub uid: NodeUid,
}

/// A node is to take nothing new, and to leave when what runs has ended, or at the deadline.
#[derive(Debug, Serialize, Deserialize)]
pub struct DrainNode {
    /// Which.
    pub node: NodeUid,
    /// How long it may take.
    pub within: Duration,
}

/// A node is cut off at once and for ever; what runs on it is lost.
#[derive(Debug, Serialize, Deserialize)]
pub struct RemoveNode {
    /// Which.
    pub node: NodeUid,
}

/// The node that is asked, on this host, ends.
#[derive(Debug, Serialize, Deserialize)]
pub struct StopNode {}

/// Whether the head has an executable.
#[derive(Debug, Serialize, Deserialize)]
pub struct HasExecutable {
    /// Which.
    pub executable: Executable,
}

/// A part of an executable; parts come in order. With the last one its hash is checked.
#[derive(Debug, Serialize, Deserialize)]
pub struct PutExecutable {
    /// Which.
    pub executable: Executable,
    /// The part.
    pub part: Part,
}

/// A part of a file, compressed with zstd.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Part {
    /// Where in the file it begins.
    pub offset: u64,
    /// [`EXECUTABLE_PART_BYTES`](mobula_core::limits::EXECUTABLE_PART_BYTES) of the file, or its rest, compressed.
    #[serde(with = "serde_bytes")]
    pub compressed: Vec<u8>,
}

/// A job whose driver runs on the cluster.
#[derive(Debug, Serialize, Deserialize)]
pub struct SubmitJob {
    /// Drawn by the asker: the same again is the same job.
    pub request: u64,
    /// The command, for people.
    pub entrypoint: String,
    /// The program of driver and workers, which the head has.
    pub executable: Executable,
    /// For the driver.
    pub arguments: Vec<String>,
    /// Added to the environment.
    pub environment: BTreeMap<String, String>,
    /// What the driver needs.
    pub resources: Resources,
}

/// A job's driver and workers are to end.
#[derive(Debug, Serialize, Deserialize)]
pub struct StopJob {
    /// Which.
    pub job: JobId,
}

/// The asker drives a job.
#[derive(Debug, Serialize, Deserialize)]
pub struct BeginDriver {
    /// Drawn by the asker: the same again is the same job.
    pub request: u64,
    /// The job, and the life that the head has given to its driver, if a node has started it; else a new job begins.
    pub submitted: Option<(JobId, NodeUid)>,
    /// The command, for people.
    pub entrypoint: String,
    /// Its own program, which the workers run; the head has it.
    pub executable: Executable,
    /// PKCS#10, for a key of its own.
    #[serde(with = "serde_bytes")]
    pub csr: Vec<u8>,
}

/// What a driver is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DriverBegun {
    /// Its job.
    pub job: JobId,
    /// Its life.
    pub uid: NodeUid,
    /// For its key.
    pub certified: Certified,
    /// Its lease: it is to be heard of in each.
    pub times: LeaseTimes,
    /// Where the heads are, if not where it was asked: there they are asked from now on, with the certificate.
    pub heads: Vec<SocketAddr>,
}

/// A driver lives.
#[derive(Debug, Serialize, Deserialize)]
pub struct BeatDriver {
    /// Its job.
    pub job: JobId,
    /// Its life.
    pub driver: NodeUid,
}

/// A new certificate for the driver of a job, for a new key. The old one stays good until its end.
#[derive(Debug, Serialize, Deserialize)]
pub struct RenewDriver {
    /// Its job.
    pub job: JobId,
    /// Its life.
    pub driver: NodeUid,
    /// PKCS#10, for a key of its own.
    #[serde(with = "serde_bytes")]
    pub csr: Vec<u8>,
}

/// A driver is at its end.
#[derive(Debug, Serialize, Deserialize)]
pub struct EndDriver {
    /// Its job.
    pub job: JobId,
    /// Its life.
    pub driver: NodeUid,
    /// How it has ended.
    pub status: DriverStatus,
}

/// A job as it is now, and again whenever it has changed, until it is over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WatchJob {
    /// Which.
    pub job: JobId,
}

/// Who is cut off, now and whenever somebody is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WatchRevocations {}

/// The nodes on which a job may have something, for its processes.
#[derive(Debug, Serialize, Deserialize)]
pub struct ListNodes {
    /// Which job.
    pub job: JobId,
}

/// Resources for something of a job.
#[derive(Debug, Serialize, Deserialize)]
pub struct PlaceLease {
    /// What and where.
    pub place: Place,
}

/// A lease is not needed any more.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReleaseLease {
    /// Which.
    pub lease: LeaseId,
}

/// Resources are to be set aside.
#[derive(Debug, Serialize, Deserialize)]
pub struct CreateGroup {
    /// What and how.
    pub group: NewGroup,
}

/// A placement group is not needed any more.
#[derive(Debug, Serialize, Deserialize)]
pub struct RemoveGroup {
    /// Which.
    pub group: mobula_core::cluster::GroupId,
}

/// A node enters the cluster, or comes back to a head that was away.
#[derive(Debug, Serialize, Deserialize)]
pub struct Register {
    /// All about it.
    pub registration: Registration,
}

/// A node lives.
#[derive(Debug, Serialize, Deserialize)]
pub struct BeatNode {
    /// Which.
    pub node: NodeUid,
    /// What it says.
    pub beat: Beat,
}

/// A node goes, and nothing runs on it any more.
#[derive(Debug, Serialize, Deserialize)]
pub struct LeaveNode {
    /// Which.
    pub node: NodeUid,
}

/// What is to run on a node, now and whenever it has changed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WatchAssignment {
    /// Which.
    pub node: NodeUid,
}

/// A process of a job was reaped, or could not be started.
#[derive(Debug, Serialize, Deserialize)]
pub struct WorkerEnded {
    /// Where.
    pub node: NodeUid,
    /// Which: a worker's life or a driver's.
    pub process: WorkerId,
    /// How it ended; success matters for a driver alone.
    pub status: DriverStatus,
}

/// A certificate for a process that the head wants on this node.
#[derive(Debug, Serialize, Deserialize)]
pub struct Certify {
    /// The node that asks.
    pub node: NodeUid,
    /// The process.
    pub process: WorkerId,
    /// PKCS#10.
    #[serde(with = "serde_bytes")]
    pub csr: Vec<u8>,
}

/// A part of an executable that the head has.
#[derive(Debug, Serialize, Deserialize)]
pub struct GetExecutable {
    /// Which.
    pub executable: Executable,
    /// Where the part begins.
    pub offset: u64,
}

/// A process of a job has printed something.
#[derive(Debug, Serialize, Deserialize)]
pub struct AppendLog {
    /// The node that says so.
    pub node: NodeUid,
    /// Which job.
    pub job: JobId,
    /// What.
    pub part: LogPart,
}

/// The detached actors of the cluster, by name.
#[derive(Debug, Serialize, Deserialize)]
pub struct ListDetached {}

/// The job that keeps the detached actors of a job's program, begun if there is none. From then on the job's [view](WatchJob) names it, and
/// processes of the job may call its actors.
#[derive(Debug, Serialize, Deserialize)]
pub struct OpenKeeper {
    /// The asker's job.
    pub job: JobId,
}

/// The job that keeps the detached actor of a name, if there is one; otherwise as [`OpenKeeper`].
#[derive(Debug, Serialize, Deserialize)]
pub struct FindDetached {
    /// The asker's job.
    pub job: JobId,
    /// The actor's name.
    pub name: String,
}

/// A detached actor is about to be created, and has this name in the whole cluster.
#[derive(Debug, Serialize, Deserialize)]
pub struct HoldName {
    /// The asker's job, which keeps the actor.
    pub job: JobId,
    /// Drawn by the asker: the same again is the same actor.
    pub number: u64,
    /// The name.
    pub name: String,
}

/// A detached actor has ended, or was not created.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReleaseName {
    /// The asker's job.
    pub job: JobId,
    /// Which actor, as it was asked for.
    pub number: u64,
}

/// May the driver of a job that keeps detached actors end? If so, the job is about to end, and keeps none any more.
#[derive(Debug, Serialize, Deserialize)]
pub struct CloseKeeper {
    /// Its job.
    pub job: JobId,
    /// Its life.
    pub driver: NodeUid,
}

/// What the processes of a job are started with, for a node on which one is to run. The same for all of them, as long as the job lives.
#[derive(Debug, Serialize, Deserialize)]
pub struct GetLaunch {
    /// The node that asks.
    pub node: NodeUid,
    /// Which job.
    pub job: JobId,
}
