//! Answers as large as a cluster may be.

use std::io;
use std::time::Duration;

use mobula_control::{
    Client, ClusterView, ControlError, Home, ListHeads, ListLeases, Peer, Refusal, Reply, Request, SOCKET, Service,
    View, WatchView, serve_local,
};
use mobula_core::cluster::{
    Amount, Executable, ExecutableHash, GpuShare, GroupId, JobId, JobPhase, JobRow, LeaseId, LeaseRow, NodePhase,
    NodeRow, Resources, Revision, UnixTime, WorkerPhase, WorkerRow,
};
use mobula_core::{NodeUid, limits};
use mobula_transport::unix::Listener;

const LEASES: u64 = 100_000;
const WORKERS_EACH: u64 = 10;

/// A head of a cluster as large as it may be, which shows it once more than may be shown when it is asked for leases again.
#[derive(Default)]
struct Large;

impl Service for Large {
    async fn serve(&self, _peer: &Peer, request: Request, mut reply: Reply<'_>) -> io::Result<()> {
        match request {
            Request::View(_) => reply.answer::<View>(Ok(view())).await,
            Request::WatchView(_) => {
                for _ in 0..2 {
                    reply.item(&view()).await?;
                }
                reply.item(&too_much()).await
            }
            Request::ListLeases(_) => reply.answer::<ListLeases>(Ok(leases())).await,
            Request::ListHeads(_) => reply.answer::<ListHeads>(Ok(Vec::new())).await,
            Request::ListDetached(_) => {
                // In the place of names that would be too many.
                let row = |name: String| mobula_core::cluster::DetachedRow::new(name, JobId(1), None);
                let rows = too_much().into_iter().map(row).collect();
                reply.answer::<mobula_control::ListDetached>(Ok(rows)).await
            }
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

fn too_much() -> Vec<String> {
    vec!["x".repeat(limits::CONTROL_ANSWER_BYTES_MAX / 4); 4]
}

fn uid(number: u64) -> NodeUid {
    NodeUid(u64::MAX - number)
}

fn view() -> ClusterView {
    let revision = Revision { term: 9, number: u64::MAX };
    let mut view = ClusterView::new(revision, "0123456789abcdef".to_owned(), uid(0), UnixTime(1_800_000_000));
    let all = Resources::cpus(Amount::units(128)).with_gpus(Amount::units(8)).with_memory(Amount::units(1 << 40));
    for node in 0..limits::NODES_MAX as u64 {
        let mut row = NodeRow::new(uid(node), format!("a-node-of-the-cluster-{node}").into(), NodePhase::Up);
        row.address = "192.168.123.123:65535".to_owned();
        (row.total, row.available) = (all.clone(), all.clone());
        view.nodes.push(row);
        for order in 0..WORKERS_EACH {
            let mut row = WorkerRow::new(uid(node * WORKERS_EACH + order), JobId(order), uid(node), node as u32);
            row.pid = Some(4_000_000);
            if node == 0 {
                row.phase = WorkerPhase::Ended { reason: "x".repeat(limits::PEER_TEXT_BYTES_MAX) };
            }
            view.workers.push(row);
        }
    }
    let program = Executable { hash: ExecutableHash([7; 32]), bytes: u64::MAX };
    for job in 0..(limits::JOBS_MAX + limits::JOBS_KEPT) as u64 {
        let reason = "x".repeat(limits::JOB_ROW_TEXT_BYTES_MAX);
        let mut row = JobRow::new(JobId(job), JobPhase::Failed { reason }, program);
        row.entrypoint = "x".repeat(limits::JOB_ROW_TEXT_BYTES_MAX);
        row.submitter = "x".repeat(limits::NAME_BYTES_MAX);
        view.jobs.push(row);
    }
    view
}

fn leases() -> Vec<LeaseRow> {
    let row = |number: u64| {
        let id = LeaseId { job: JobId(1), number };
        let resources = Resources::cpus(Amount::ONE).with_gpus(Amount::ONE);
        let gpus = vec![GpuShare { index: 7, amount: Amount::ONE }];
        let group = GroupId { job: JobId(1), number: u64::MAX };
        LeaseRow::new(id, uid(number), resources, gpus, Some((group, 7)))
    };
    (0..LEASES).map(row).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_as_large_as_it_may_be_can_be_looked_at() {
    let place = tempfile::tempdir().expect("a directory");
    let home = Home::create(&place.path().join("home")).expect("made");
    let listener = Listener::bind(home.directory(), SOCKET).expect("a socket");
    let door = tokio::spawn(async move {
        loop {
            let stream = listener.accept_next().await;
            tokio::spawn(async move { serve_local(&Large, stream).await });
        }
    });
    let within = Duration::from_secs(120);
    let client = Client::local(home.directory().path());

    let seen = client.ask_within(View {}, within).await.expect("it is told");
    let wanted = view();
    assert!(
        seen.nodes == wanted.nodes && seen.workers == wanted.workers && seen.jobs == wanted.jobs,
        "another cluster"
    );
    assert!(client.ask_within(ListLeases {}, within).await.expect("they are told") == leases(), "other leases");

    // What cannot be told is refused by name, and the connection goes on.
    let refused = client.ask_within(mobula_control::ListDetached {}, within).await.expect_err("too much");
    let limit = limits::CONTROL_ANSWER_BYTES_MAX as u64;
    assert!(matches!(refused, ControlError::Refused(Refusal::AnswerTooLarge { limit: told }) if told == limit));
    assert!(refused.is_final());
    assert_eq!(client.ask_within(ListHeads {}, within).await.expect("a small one"), []);

    // Whoever watches hears the same, and why it ends.
    let mut items = client.subscribe(WatchView {}).await.expect("it is reached");
    for _ in 0..2 {
        let seen = items.next().await.expect("it is told").expect("an item");
        assert_eq!((seen.nodes.len(), seen.workers.len()), (wanted.nodes.len(), wanted.workers.len()));
    }
    let refused = items.next().await.expect_err("too much");
    assert!(matches!(refused, ControlError::Refused(Refusal::AnswerTooLarge { .. })), "{refused}");
    door.abort();
}
