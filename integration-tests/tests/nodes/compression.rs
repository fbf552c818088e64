//! Nodes that compress what they say to each other, and those among them that do not.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use mobula::{Cluster, Node, RemoteActor, limits};
use mobula_actors::NodeConfig;
use mobula_integration_tests::actors::{Bytes, Fill, Log, Probe, Record};
use mobula_integration_tests::stage::run_plain;
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::within;
use mobula_transport::{Lane, Wire, WireWrite, memory};

const MIB: usize = 1024 * 1024;

fn node(name: &str, compress_above_bytes: Option<usize>) -> Node {
    let config = NodeConfig { name: name.to_owned(), compress_above_bytes, ..NodeConfig::default() };
    Node::start(config).expect("a node")
}

/// Counts what is written to a wire.
struct Counted {
    inner: Box<dyn WireWrite>,
    bytes: Arc<AtomicUsize>,
}

impl WireWrite for Counted {
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.try_write(bytes);
        self.bytes.fetch_add(*written.as_ref().unwrap_or(&0), Ordering::Relaxed);
        written
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_writable(cx)
    }
}

/// Connects two nodes. Bytes from the one to the other over the data connection, and back.
async fn connect(one: &Node, other: &Node) -> [Arc<AtomicUsize>; 2] {
    let counts: [Arc<AtomicUsize>; 2] = Default::default();
    for lane in [Lane::Control, Lane::Data] {
        let (ours, theirs) = memory::pair(256 * 1024);
        let counted = |wire: Wire, at: usize| match lane {
            Lane::Control => wire,
            Lane::Data => {
                Wire { write: Box::new(Counted { inner: wire.write, bytes: Arc::clone(&counts[at]) }), ..wire }
            }
        };
        let (ours, theirs) = (counted(ours, 0), counted(theirs, 1));
        let attached = futures::future::try_join(
            one.attach(lane, other.id().clone(), || Ok(ours)),
            other.attach(lane, one.id().clone(), || Ok(theirs)),
        );
        within(LONG, "the hellos", attached).await.expect("both sides say hello");
    }
    counts
}

/// A mebibyte goes there, and another comes back. What each took on the wire.
async fn a_mebibyte_each_way(here: Option<usize>, there: Option<usize>) -> [usize; 2] {
    let (one, other) = (node("one", here), node("other", there));
    let counts = connect(&one, &other).await;
    let probe = within(LONG, "a spawn", one.spawn_on(other.id(), Probe::spec(0))).await.expect("it starts");
    let before = [0, 1].map(|at| counts[at].load(Ordering::Relaxed));
    // Behind each other, large and small, as without compression.
    drop(probe.tell(Record(1)));
    let filled = probe.ask(Fill(vec![7; MIB]));
    drop(probe.tell(Record(2)));
    within(LONG, "the large message", filled).await.expect("it is handled");
    let bytes = within(LONG, "the large answer", probe.ask(Bytes(MIB as u64))).await.expect("it is answered");
    assert!(bytes.len() == MIB && bytes.iter().enumerate().all(|(at, byte)| *byte == at as u8), "other bytes");
    let log = within(LONG, "the log", probe.ask(Log)).await.expect("it is answered");
    assert_eq!(log, [0, 1, MIB as u64, 2]);
    let took = [0, 1].map(|at| counts[at].load(Ordering::Relaxed) - before[at]);
    one.shut_down("over");
    other.shut_down("over");
    took
}

#[test]
fn nodes_that_compress_send_fewer_bytes_and_the_same_messages() {
    run_plain(async {
        for took in a_mebibyte_each_way(Some(limits::PACK_ABOVE_BYTES), Some(1000)).await {
            assert!((MIB / limits::PACKED_RATIO_MAX..MIB / 8).contains(&took), "{took} bytes");
        }
    });
}

#[test]
fn a_node_that_does_not_compress_is_sent_everything_as_it_is() {
    run_plain(async {
        for (here, there) in [(Some(1000), None), (None, Some(1000)), (None, None)] {
            for took in a_mebibyte_each_way(here, there).await {
                assert!(took > MIB, "{took} bytes of {here:?} and {there:?}");
            }
        }
    });
}

#[test]
fn what_is_not_above_the_threshold_goes_as_it_is() {
    run_plain(async {
        for took in a_mebibyte_each_way(Some(2 * MIB), Some(2 * MIB)).await {
            assert!(took > MIB, "{took} bytes");
        }
    });
}

#[test]
fn a_cluster_of_processes_compresses_if_it_is_asked_to() {
    run_plain(async {
        let builder = Cluster::builder().nodes(2).cpus_per_node(1).compress_above_bytes(1000);
        let cluster = builder.executable(env!("CARGO_BIN_EXE_node_host")).connect();
        let cluster = within(LONG, "the cluster", cluster).await.expect("a cluster of two processes");
        for home in cluster.nodes() {
            let probe = cluster.node().spawn_on(&home.id, Probe::spec(0));
            let probe = within(LONG, "a spawn", probe).await.expect("it starts");
            within(LONG, "the large message", probe.ask(Fill(vec![7; 20 * MIB]))).await.expect("it is handled");
            let bytes = within(LONG, "the answer", probe.ask(Bytes(MIB as u64))).await.expect("it is answered");
            assert!(bytes.len() == MIB && bytes.iter().enumerate().all(|(at, byte)| *byte == at as u8), "other bytes");
        }
        within(LONG, "the end", cluster.shutdown()).await;
    });
}
