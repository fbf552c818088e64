//! Every bound of the wire and of the mailboxes, with its unit, its default and what it costs.

use std::time::Duration;

/// 16 MiB: the largest frame that is sent or accepted; messages may be larger, see [`MESSAGE_BYTES_MAX`]. A connection's read buffer grows with what arrives, up to
/// this. A longer length prefix closes the connection with
/// [`FrameTooLarge`](crate::frame::FrameError::FrameTooLarge), before anything is allocated for it.
pub const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// 64 KiB: what is larger travels in fragments of this size, so that other frames go between them. Costs a copy of
/// each fragment; smaller ones cost more frames, larger ones delay the neighbours.
pub const FRAGMENT_BYTES: usize = 64 * 1024;

/// 1 GiB: the largest message or answer that is sent or accepted, in fragments. Also the bytes of all unfinished ones
/// of one connection and direction together: the receiver keeps what has arrived, and no more is on its way.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// Messages and answers that may be on their way in fragments at the same time, on one connection and in one direction.
/// Further ones wait at the sender; a peer that begins one more loses its connection.
pub const FRAGMENTED_MAX: usize = 16;

/// 4 KiB: what is larger is packed, on connections that were asked to pack and whose peer reads it. Smaller ones would cost more time than they save
/// bytes.
pub const PACK_ABOVE_BYTES: usize = 4 * 1024;

/// 64 KiB: a packed body is unpacked in steps of this size, and each is complete before memory for the next is taken; part of
/// the protocol. LZ4 looks no further back.
pub const PACK_BLOCK_BYTES: usize = 64 * 1024;

/// A packed body stands for at most so many times its bytes; part of the protocol. So a peer that sends a byte never has more than so
/// many held for it. Zeros could be packed tighter, and are not.
pub const PACKED_RATIO_MAX: usize = 16;

/// Message types that one peer may introduce on one connection. Costs about 100 bytes each.
pub const MESSAGE_TYPES_MAX: usize = 65_536;

/// Bytes of a registered name on the wire.
pub const NAME_BYTES_MAX: usize = 512;

/// 64: how deep arrays and maps may nest in a MessagePack body; see [`crate::prescan`].
pub const DEPTH_MAX: usize = 64;

/// 1 MiB: messages from other nodes that are larger are decoded beside the threads on which actors live and connections
/// are read, which costs two changes of thread, some 40 us, and holds nobody up but their own actor.
pub const DECODE_APART_BYTES: usize = 1024 * 1024;

/// Messages that may wait in one actor's mailbox. A further local sender waits, a further `try_tell` is answered
/// [`Full`](crate::CallError::Full).
pub const MAILBOX_MESSAGES: usize = 1024;

/// Messages that one node may have under way to one actor of another node before the actor has begun to handle
/// them. Returned as credit while the mailbox is worked off. Worst-case memory of a stopped actor is this, times
/// the sending nodes, times the message size.
pub const CREDIT_MESSAGES: u32 = 1024;

/// Items that a stream of replies may have under way before its reader has taken any; part of the protocol. A slow
/// reader holds its producer back with so many items in its memory, and no more.
pub const STREAM_WINDOW_ITEMS: u32 = 64;

/// 32 MiB: bytes that may be queued towards one peer. Beyond it, senders wait.
pub const SEND_WINDOW_BYTES: usize = 32 * 1024 * 1024;

/// 8 MiB: bytes that one connection keeps after they were written, until the peer has acknowledged them: so many can be
/// sent again when the connection breaks. Beyond it nothing more is written until an ack comes. What was queued at once
/// is kept together, so this may be passed by one such batch.
pub const RESUME_BYTES_MAX: usize = 8 * 1024 * 1024;

/// 128 KiB: a reader acknowledges what it has received after so many bytes; part of the protocol. An idle connection
/// keeps less than that.
pub const ACK_BYTES: u64 = 128 * 1024;

/// How long the side that accepted a connection waits for its dialer to come back, if it knows no address at which to ask
/// whether the dialer lives. With one, and at the dialer, it is [`DOWN_AFTER`], or as the lease says.
pub const RESUME_WINDOW_BLIND: Duration = Duration::from_secs(3);

/// The first rest between two attempts to restore a connection; it doubles.
pub const RESUME_BACKOFF_MIN: Duration = Duration::from_millis(1);

/// The longest rest between two attempts to restore a connection.
pub const RESUME_BACKOFF_MAX: Duration = Duration::from_millis(100);

/// Messages that may stand in line for a mailbox or a credit without their sender waiting for them. One more is
/// refused with [`Full`](crate::CallError::Full): futures that nobody polls must not eat the memory.
pub const LINE_MESSAGES_MAX: usize = 65_536;

/// Requests of one peer to this node that may be in progress on one connection: to create an actor, above all. One more is
/// refused with [`Overloaded`](crate::CallError::Overloaded). Costs about 1 KiB each, and what the request holds.
pub const CONTROL_REQUESTS_MAX: usize = 65_536;

/// Monitors and other requests to be told of news that one peer may have open on one connection. One more is refused with
/// [`Overloaded`](crate::CallError::Overloaded). Costs about 1 KiB each.
pub const CONTROL_WAITS_MAX: usize = 262_144;

/// Actors created for one peer that are remembered after the answer, since a cancel may be under way. 24 bytes each.
pub const CREATIONS_REMEMBERED: usize = 4096;

/// Who is refused with [`Overloaded`](crate::CallError::Overloaded) is told to wait so long at least.
pub const OVERLOADED_RETRY_AFTER: Duration = Duration::from_millis(100);

/// Handlers of one actor that may wait beside each other, each in a future of its own. While so many do, the actor takes no further
/// message, and its mailbox fills. Costs the future each, and the clone of the actor that it works on.
pub const CONCURRENT_HANDLERS_MAX: u32 = 65_536;

/// Links that one actor may have. One more is refused with [`Overloaded`](crate::CallError::Overloaded). About 100 bytes each, at
/// both ends.
pub const LINKS_MAX: usize = 65_536;

/// Ends of actors that may follow from one another in one exit reason. Of a longer chain the last and the root stay.
pub const CAUSES_MAX: usize = 8;

/// Time that a child has to stop in order, before its supervisor kills it.
pub const CHILD_SHUTDOWN: Duration = Duration::from_secs(5);

/// Time that a killed child has to end. One whose handler blocks its thread does not; then its supervisor gives it up.
pub const KILL_WAIT: Duration = Duration::from_secs(5);

/// A child whose supervisor lives on another node, and of which that node has not shown for so long that it hears and is
/// heard, stops, or goes on by itself. It follows the node's lease: as long as that. Costs a row of 40 bytes a child.
pub const CHILD_LEASE: Duration = LEASE;

/// A supervisor's node names its children on another node at this interval, all of them in one message: about 5 bytes each.
/// A quarter of [`CHILD_LEASE`].
pub const CHILD_KEEP_ALIVE: Duration = Duration::from_secs(2);

/// Supervised actors that one node lists when it is asked for its trees. Costs some 200 bytes each.
pub const TREE_ACTORS_MAX: usize = 10_000;

/// Default deadline of an ask.
pub const ASK_DEADLINE: Duration = Duration::from_secs(30);

/// Messages of one turn of an actor, after which it yields to its neighbours on the arbiter.
pub const TURN_MESSAGES_MAX: u32 = 64;

/// Time of one turn of an actor, after which it yields; checked between messages.
pub const TURN_TIME_MAX: Duration = Duration::from_millis(5);

/// An actor that has been busy with one and the same thing for so long, a turn or a handler that has it to itself, is reported
/// as stuck. Shorter times cost the watchdog more looks: four in each.
pub const STUCK_AFTER: Duration = Duration::from_secs(30);

/// A heartbeat is sent on the control connection at this interval.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(500);

/// A node that has had no answer from the head for so long stops its named actors. A node that is frozen or cut off is
/// found out no sooner; the longer, the later its names are given again.
pub const LEASE: Duration = Duration::from_secs(8);

/// The shortest lease that can be chosen: heartbeats of 6 ms.
pub const LEASE_MIN: Duration = Duration::from_millis(100);

/// The longest lease that can be chosen.
pub const LEASE_MAX: Duration = Duration::from_secs(3600);

/// Names that a cluster holds at the same time, and as many memberships in groups. Costs the head about 300 bytes each, and the name three times.
pub const DIRECTORY_ENTRIES_MAX: usize = 1_048_576;

/// Lives of nodes that the head remembers after their end, so that they are given no new lease. 16 bytes each. An older one
/// has fenced itself off long before.
pub const GONE_NODES_MAX: usize = 65_536;

/// Requests of one member that are kept one by one at the head, since an earlier one has not come: 8 bytes each, and a
/// little. Beyond that the earlier one is given up.
pub const DIRECTORY_GAPS_MAX: usize = 4096;

/// Actors in one group. Whoever follows the group is sent all of them with each change: about 50 bytes each.
pub const GROUP_MEMBERS_MAX: usize = 16_384;

/// A keyed actor to which nothing was sent for so long, and which owes no answer, is stopped until it is called again.
pub const KEYED_IDLE: Duration = Duration::from_secs(300);

/// Messages that may wait for a keyed actor that is being created. One more is refused with
/// [`Full`](crate::CallError::Full).
pub const KEYED_WAITING: usize = 4096;

/// Silence after which a peer is suspected: shown, nothing else.
pub const SUSPECT_AFTER: Duration = Duration::from_secs(3);

/// Silence after which a peer is down, for ever: a lease of 8 s and a margin of 2 s.
pub const DOWN_AFTER: Duration = Duration::from_secs(10);

/// Time a new connection has to prove who it is.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// Connections that may be proving themselves at the same time; one more is closed at once, or has the place of another, see
/// [`HANDSHAKE_PATIENCE`]. Costs 96 bytes and a descriptor each.
pub const HANDSHAKES_MAX: usize = 512;

/// 16 KiB: what is read over TLS from one who has not proven yet who it is. A chain of two certificates and the preface take
/// about 3 KiB. Costs up to 64 KiB of heap for each of [`HANDSHAKES_MAX`].
pub const HANDSHAKE_BYTES_MAX: usize = 16 * 1024;

/// Who is proving itself for so long loses its place to a newcomer where all are taken. Who comes from an address that has fewer
/// places than another waits for nothing.
pub const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(1);

/// Handshakes at the same time over TLS from one address; one more is closed at once. Less than [`HANDSHAKES_MAX`], so that one
/// host cannot keep all others out.
pub const HANDSHAKES_PER_ADDRESS_MAX: usize = 32;

/// 1,000: actors that one answer to `mobula list actors` has. With names and types as long as they may be such an answer is smaller than
/// [`CONTROL_MESSAGE_BYTES_MAX`].
pub const LISTED_ACTORS_MAX: usize = 1000;

/// 2 s: how long the head waits for the drivers that it asks for their actors. Within half of it a driver hears its nodes.
pub const ACTORS_TOLD_WITHIN: Duration = Duration::from_secs(2);

/// 8 KiB: what one who joins may send. A request with its certificate request takes about 700 bytes.
pub const JOIN_REQUEST_BYTES_MAX: usize = 8 * 1024;

/// 1 MiB: a message between a driver, a node or the command line and the head. What the head answers may be larger, up to
/// [`CONTROL_ANSWER_BYTES_MAX`]: it travels in several messages. Memory grows with what has arrived.
pub const CONTROL_MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// 1 MiB less 1 KiB: an answer of the head that is larger travels in parts of this size; part of the protocol. With its head a part is within
/// [`CONTROL_MESSAGE_BYTES_MAX`].
pub const CONTROL_PART_BYTES: usize = CONTROL_MESSAGE_BYTES_MAX - 1024;

/// 256 MiB: the largest answer of the head, and the largest thing that a node tells a worker process; a larger one is refused with
/// `AnswerTooLarge`. A million leases take about 130 MiB, a view of 16,384 nodes with ten workers each about 32 MiB. Costs the head as much
/// memory until the asker has taken it, which has [`CONTROL_DEADLINE`] for each part.
pub const CONTROL_ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

/// 256 KiB: the part of an executable that travels in one message.
pub const EXECUTABLE_PART_BYTES: usize = 256 * 1024;

/// 4 GiB: the largest executable that is taken. Costs as much on the disk of each node that runs it.
pub const EXECUTABLE_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// Connections to one process that may be on their way to it from the port that it shares; one more is closed. A descriptor each.
pub const HANDED_CONNECTIONS_MAX: usize = 128;

/// Time to ask the head something and have its answer, unless the question says otherwise.
pub const CONTROL_DEADLINE: Duration = Duration::from_secs(30);

/// Join tokens that can be valid at the same time. About 100 bytes each in the head's file.
pub const TOKENS_MAX: usize = 1024;

/// Credentials of people that can be valid at the same time. About 100 bytes each in the head's file, which is written anew with each.
pub const CREDENTIALS_MAX: usize = 4096;

/// Nodes that have come back without a token within the life of a certificate, as a head remembers them; one more has to wait, or takes a token. About
/// 55 bytes each in the head's file of members, which is 1 MiB at most.
pub const LINES_MAX: usize = 8192;

/// The longest life of a certificate, and that which it has unless the head is started with a shorter one; it is renewed at two thirds of it.
/// So long the head keeps in mind whom it has cut off.
pub const CERTIFICATE_LIFE: Duration = Duration::from_secs(24 * 3600);

/// The shortest life of a certificate that a head can be started with. Each process of the cluster makes a key and asks the head in two thirds of it.
pub const CERTIFICATE_LIFE_MIN: Duration = Duration::from_secs(10);

/// How far the clock of another host may be behind the head's without its refusing a new certificate.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(5 * 60);

/// 16 MiB: an audit log that has grown to this is put aside, in the place of the one before.
pub const AUDIT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Bytes of a peer's text that reach a log or an error; the rest is cut.
pub const PEER_TEXT_BYTES_MAX: usize = 256;

/// Node processes that one driver starts on its own machine. Costs a process, a thread and three descriptors each.
pub const LOCAL_NODES_MAX: usize = 256;

/// Time a node process has to become ready after its start.
pub const NODE_START_DEADLINE: Duration = Duration::from_secs(10);

/// Tasks that are sent to one task actor ahead of the one it runs, so that it never waits for the next.
pub const TASK_PREFETCH: usize = 1;

/// Messages that may wait in a router for a free member, where work is pulled. One more is answered
/// [`Full`](crate::CallError::Full). Costs the message and about 200 bytes each.
pub const PULL_QUEUE_MESSAGES: usize = 65_536;

/// 64 MiB: the largest state that is saved. A larger one is not, with
/// `SnapshotError::TooLarge`. Costs that much memory for each actor with snapshots, and twice as much while one is taken.
pub const SNAPSHOT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Snapshots of one actor that are kept in a store: the newest, and those before it in case that cannot be read.
pub const SNAPSHOTS_KEPT: usize = 3;

/// Messages that one actor's handlers may have put aside. One more is answered [`Full`](crate::CallError::Full). Costs
/// the message each.
pub const STASH_MESSAGES: usize = 1024;

/// Nodes of a cluster. Costs its head some 2 KiB each, and each of their heartbeats.
pub const NODES_MAX: usize = 16_384;

/// Names of custom resources that one node or one request has.
pub const CUSTOM_RESOURCES_MAX: usize = 64;

/// GPUs of one node. 8 bytes each at the head.
pub const GPUS_MAX: usize = 256;

/// Labels of one node, and values in one request for labels.
pub const LABELS_MAX: usize = 64;

/// Bytes of a label's key or value, and of a resource's name.
pub const LABEL_BYTES_MAX: usize = 256;

/// Jobs that are not over. Costs the head their arguments and about 1 KiB each.
pub const JOBS_MAX: usize = 4096;

/// Jobs that are over and still shown, the latest.
pub const JOBS_KEPT: usize = 1000;

/// 1 MiB: what a job has printed on one node and the head has not taken yet. Beyond, the oldest is given up, with a notice of how many bytes that was; whoever prints
/// never waits. Costs the node as much for each job that prints faster than the head takes it.
pub const OUTPUT_WAITING_BYTES_MAX: usize = 1024 * 1024;

/// 64 MiB: the same of all jobs on a node together. Beyond, the job gives up of which most waits.
pub const OUTPUT_WAITING_BYTES_MAX_TOTAL: usize = 64 * 1024 * 1024;

/// 16 MiB: a file of what a job has printed, on the head's disk. A job has two: one that is full takes the place of the one before.
pub const JOB_LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// 8 GiB: what all jobs have printed, on the head's disk. Beyond, whole jobs are forgotten that are over, those that ended first before the others; then what
/// jobs that run have printed longest ago.
pub const JOB_LOGS_BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;

/// 256 KiB: command, arguments and environment of a job together. A node asks for them when it starts a process of the job.
pub const JOB_TEXT_BYTES_MAX: usize = 256 * 1024;

/// 1 KiB: what the head shows of a job's command, and keeps of how the job has failed; the rest is cut.
pub const JOB_ROW_TEXT_BYTES_MAX: usize = 1024;

/// Heads of a cluster that nodes and drivers remember. Each is a try more when none of them answers.
pub const HEADS_MAX: usize = 16;

/// How often nodes and drivers ask which heads there are. Costs the head a request each.
pub const HEADS_EVERY: Duration = Duration::from_secs(10);

/// Leases on resources in a cluster. Costs the head about 300 bytes each, and as much in its store.
pub const LEASES_MAX: usize = 1_048_576;

/// Requests for resources that wait at the head. Costs about 300 bytes each, and a look whenever something is freed.
pub const PLACES_WAITING_MAX: usize = 65_536;

/// Leases of one job that are over and remembered, so that a late repetition of their request is none. 24 bytes each.
pub const PAST_LEASES_MAX: usize = 4096;

/// How long a new actor waits for a node with room, if nothing else is said. Costs a request at the head that waits.
pub const PLACE_DEADLINE: Duration = Duration::from_secs(30);

/// Detached actors of a cluster. Costs the head about 200 bytes each and their names, and as much in its store.
pub const DETACHED_ACTORS_MAX: usize = 65_536;

/// A job that keeps detached actors ends when it has had none for so long, and nobody has asked for it either. Costs its processes until then.
pub const KEEPER_IDLE: Duration = Duration::from_secs(10);

/// How long a job waits until the one that keeps its detached actors can be called: a program may have to be brought to nodes, and started there.
pub const KEEPER_START_DEADLINE: Duration = Duration::from_secs(30);

/// Placement groups of a cluster.
pub const GROUPS_MAX: usize = 16_384;

/// Bundles of one placement group.
pub const BUNDLES_MAX: usize = 1024;

/// 256 KiB: the bundles of one placement group, as they are written down. A bundle takes about 40 bytes, and the names of its custom resources.
pub const GROUP_BYTES_MAX: usize = 256 * 1024;

/// 64 MiB: the bundles of all placement groups together, as they are written down. A view of the cluster has them all; see
/// [`CONTROL_ANSWER_BYTES_MAX`].
pub const GROUPS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Nodes of which the refusal of a request says why they do not fit.
pub const SHORTFALLS_MAX: usize = 16;

/// Nodes that are down and still shown, the latest.
pub const DOWN_NODES_SHOWN: usize = 64;

/// 1 MiB: the largest record in the head's store. etcd takes 1.5 MiB in one request unless it is told otherwise.
pub const STORE_VALUE_BYTES_MAX: usize = 1024 * 1024;

/// Changes that an embedded store remembers for those who watch it. A slower reader reads all again. Costs the changed records each.
pub const STORE_HISTORY_EVENTS: usize = 16_384;

/// 1 GiB: keys and values that are read at once from a store outside of this process. Costs as much memory while a head begins.
pub const STORE_SNAPSHOT_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// 16 MiB: one message of a store outside of this process. What is larger is asked for in smaller pages.
pub const STORE_MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How long a store outside of this process may take for one answer. Whatever can be asked again is, for [`STORE_READ_WITHIN`] or [`STORE_OUTAGE_MAX`].
pub const STORE_REQUEST_DEADLINE: Duration = Duration::from_secs(2);

/// How long what changes nothing is asked again of a store that does not answer.
pub const STORE_READ_WITHIN: Duration = Duration::from_secs(10);

/// How long a head tries to bring a write to a store that does not answer, before it ends. It answers nobody meanwhile.
pub const STORE_OUTAGE_MAX: Duration = Duration::from_secs(60);

/// How long after the end of a leading head another may lead, if nothing else is said: well below a node's lease, so that nodes outlive the change.
pub const STORE_LEADER_TTL: Duration = Duration::from_secs(3);

/// Time that the worker processes of a node that stops, or has been drained for as long as it was to be, have to answer what they had begun.
pub const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// Worker processes of isolated actors on one node, of all jobs together. Each costs its host a process with its threads, and each other
/// process of its job two connections.
pub const ISOLATED_WORKERS_MAX: usize = 64;

/// The first rest before a worker process that has ended is started again; it doubles.
pub const WORKER_BACKOFF_MIN: Duration = Duration::from_millis(50);

/// The longest rest before a worker process is started again. One that was ready for so long begins anew.
pub const WORKER_BACKOFF_MAX: Duration = Duration::from_secs(10);
