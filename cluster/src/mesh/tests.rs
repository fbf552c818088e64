//! Who may come in: processes of two jobs of one cluster, over TLS, all in this process.

use std::net::Ipv4Addr;
use std::pin::pin;

use futures::FutureExt;
use mobula_actors::NodeConfig;
use mobula_core::CallError;
use mobula_core::cluster::UnixTime;
use mobula_identity::{Head, KeyRequest};
use mobula_transport::tls::{Knock, knock};
use mobula_transport::unix::Directory;
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::*;
use crate::keepers::make_known;
use crate::meeting::met;

/// A bound that only something broken reaches.
const LONG: Duration = Duration::from_secs(60);

struct Authority {
    head: Head,
    _state: TempDir,
}

impl Authority {
    fn new() -> Self {
        let state = tempfile::tempdir().expect("a directory");
        let directory = Directory::create(state.path().join("head")).expect("a directory of our own");
        Authority { head: Head::open(&directory, UnixTime::now()).expect("a head"), _state: state }
    }

    /// A process of that job with that life.
    fn process(&self, job: &str, uid: u64, keeper: bool) -> Process {
        let uid = NodeUid(uid);
        let node = Node::start(NodeConfig { uid: Some(uid), ..NodeConfig::default() }).expect("a node");
        let key = KeyRequest::new().expect("a key");
        let certified = self.head.certify(key.csr(), uid, job, UnixTime::now()).expect("it may have one");
        let cluster = Cluster::of_node(node, Vec::new());
        let mesh = Mesh::new(&cluster, &key.complete(certified), job.to_owned(), Some(0), keeper);
        Process { mesh: mesh.expect("good credentials"), cluster }
    }
}

struct Process {
    mesh: Arc<Mesh>,
    cluster: Cluster,
}

impl Process {
    /// Takes connections as the daemon of its node would hand them over.
    async fn listen(&self) -> PeerWorker {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let (id, address) = (self.cluster.node().id().clone(), listener.local_addr().expect("bound"));
        let (mesh, uid) = (Arc::clone(&self.mesh), id.uid);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                assert!(matches!(knock(&mut stream).await, Ok(Knock::For(target)) if target == uid));
                mesh.accept(stream.into_std().expect("it is there"));
            }
        });
        let (resources, labels) = Default::default();
        PeerWorker {
            id,
            number: 0,
            pid: 0,
            cpus: 1,
            address,
            host: uid,
            resources,
            labels,
            ready: true,
            isolated: false,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_process_of_another_job_comes_in_where_detached_actors_are_kept_and_nowhere_else() {
    let authority = Authority::new();
    let guest = authority.process("job-1", 1, false);
    let ordinary = authority.process("job-2", 2, false);
    let host = authority.process("job-3", 3, true);
    let (at_ordinary, at_host) = (ordinary.listen().await, host.listen().await);

    let refused = tokio::time::timeout(LONG, guest.mesh.dial(&at_ordinary, Lane::Control, "job-2")).await;
    let refused = refused.expect("in time").expect_err("another job");
    assert!(matches!(refused, Unwelcome::Link(_)), "{refused}");
    // Nor does it talk to one of another job than it wants.
    let other = tokio::time::timeout(LONG, guest.mesh.dial(&at_host, Lane::Control, "job-2")).await;
    assert!(matches!(other, Ok(Err(Unwelcome::OtherJob { .. }))));

    let keeper = JobId(3);
    guest.mesh.update_keepers(vec![Keeper { job: keeper, workers: vec![at_host.clone()] }]);
    let connected = tokio::time::timeout(LONG, guest.cluster.node().connected(&at_host.id)).await;
    assert!(connected.expect("in time"));
    let found = tokio::time::timeout(LONG, guest.cluster.keepers().host(keeper)).await;
    assert_eq!(found.expect("in time"), Some(at_host.id.clone()));
    let report = guest.cluster.node().report_of(&at_host.id).await;
    assert!(matches!(report, Err(CallError::Unauthorized { .. })), "a guest is no member: {report:?}");
    assert!(guest.cluster.nodes().is_empty() && host.cluster.nodes().is_empty());

    // It has ended, as far as the head knows.
    guest.mesh.update_keepers(Vec::new());
    let report = guest.cluster.node().report_of(&at_host.id).await;
    assert!(matches!(report, Err(CallError::Unreachable { .. })), "{report:?}");
    for process in [&guest, &ordinary, &host] {
        process.cluster.node().shut_down("the test is over");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn two_processes_that_come_together_are_used_when_they_have_met() {
    let authority = Authority::new();
    let [driver, first, second] = [1, 2, 3].map(|uid| authority.process("job-1", uid, false));
    let (at_first, at_second) = (first.listen().await, second.listen().await);
    for peer in [&at_first, &at_second] {
        driver.mesh.connect(peer, "job-1").await;
    }
    let pairs = [(at_first.id.clone(), at_second.id.clone()), (at_second.id.clone(), at_first.id.clone())];
    let mut meeting = pin!(met(driver.cluster.node(), pairs.clone()));
    assert_eq!(futures::poll!(&mut meeting), std::task::Poll::Pending);
    second.mesh.connect(&at_first, "job-1").await;
    assert_eq!(tokio::time::timeout(LONG, meeting).await.expect("in time"), pairs);
    for (process, peer) in [(&first, &at_second), (&second, &at_first)] {
        assert_eq!(process.cluster.node().connected(&peer.id).now_or_never(), Some(true));
    }
    for process in [&driver, &first, &second] {
        process.cluster.node().shut_down("the test is over");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_process_that_comes_later_is_waited_for_as_those_before_it() {
    let authority = Authority::new();
    let [guest, late] = [1, 2].map(|uid| authority.process("job-1", uid, false));
    let host = authority.process("job-3", 3, true);
    let (at_late, at_host) = (PeerWorker { isolated: true, ..late.listen().await }, host.listen().await);
    let keepers = || vec![Keeper { job: JobId(3), workers: vec![at_host.clone()] }];
    guest.mesh.update_keepers(keepers());
    make_known(&guest.cluster, &at_host.id).await;
    assert_eq!(guest.cluster.node().connected(&at_host.id).now_or_never(), Some(true));

    guest.mesh.connect(&at_late, "job-1").await;
    guest.cluster.add_member(info(&at_late));
    let mut known = pin!(make_known(&guest.cluster, &at_host.id));
    assert!(futures::poll!(&mut known).is_pending(), "one for one actor is one of the job");
    late.mesh.update_keepers(keepers());
    known.await;
    assert_eq!(late.cluster.node().connected(&at_host.id).now_or_never(), Some(true));
    // Each is waited for once.
    assert!(make_known(&guest.cluster, &at_host.id).now_or_never().is_some());
    for process in [&guest, &late, &host] {
        process.cluster.node().shut_down("the test is over");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_keepers_process_for_one_actor_is_called_and_not_asked() {
    let authority = Authority::new();
    let guest = authority.process("job-1", 1, false);
    let [alone, shared] = [2, 3].map(|uid| authority.process("job-3", uid, true));
    let at_alone = PeerWorker { isolated: true, ..alone.listen().await };
    let at_shared = PeerWorker { number: 1, ..shared.listen().await };
    let keeper = JobId(3);
    for workers in [vec![at_alone.clone()], vec![at_alone.clone(), at_shared.clone()]] {
        let last = workers.last().expect("one").id.clone();
        guest.mesh.update_keepers(vec![Keeper { job: keeper, workers }]);
        let connected = tokio::time::timeout(LONG, guest.cluster.node().connected(&last)).await;
        assert!(connected.expect("in time"));
    }
    let found = tokio::time::timeout(LONG, guest.cluster.keepers().host(keeper)).await;
    assert_eq!(found.expect("in time"), Some(at_shared.id));
    for process in [&guest, &alone, &shared] {
        process.cluster.node().shut_down("the test is over");
    }
}
