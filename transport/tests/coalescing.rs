//! Who writes, and in how many writes (docs/decisions/0002-who-writes.md).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use mobula_core::frame::MessageIndex;
use mobula_core::{ActorId, CallError, Deadline, MessageKey, NodeId, NodeUid, RequestId, codec};
use mobula_transport::{
    Call, Hello, Inbound, Lane, Link, Request, SessionConfig, SessionError, Waiter, Wire, WireWrite, memory, now,
};

/// Counts the writes of a wire.
struct Counted {
    wire: Box<dyn WireWrite>,
    writes: Arc<AtomicUsize>,
}

impl WireWrite for Counted {
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.wire.try_write(bytes)
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.poll_writable(cx)
    }
}

#[derive(Clone)]
struct Nobody;

impl Waiter for Nobody {
    fn answer(self, _: Result<&[u8], CallError>) {}
    fn accepted(self) {}
}

/// Counts requests.
struct Count(Arc<AtomicUsize>);

impl Inbound<Nobody> for Count {
    fn define(&mut self, _: MessageIndex, _: &str, _: u64) {}
    fn request(&mut self, _: &Arc<Link<Nobody>>, _: Request<'_>) -> Result<(), SessionError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    fn cancel(&mut self, _: RequestId) {}
    fn closed(&mut self, _: &Arc<Link<Nobody>>, _: &str) {}
}

fn hello(number: u64) -> Hello {
    let node = NodeId::new(&format!("node-{number}"), NodeUid(number));
    Hello { node, pid: 0, capabilities: Hello::CAPABILITIES, credit_messages: 1024 }
}

fn open(wire: Wire, own: u64, peer: u64, requests: &Arc<AtomicUsize>) -> Arc<Link<Nobody>> {
    let config = SessionConfig::new(Lane::Data);
    let (link, driver) = Link::open(wire, config, &hello(own), hello(peer).node, Count(Arc::clone(requests)));
    tokio::spawn(driver);
    link
}

fn ask(link: &Link<Nobody>) {
    let call = Call {
        target: ActorId(1),
        key: MessageKey::of("test::Ask"),
        name: "test::Ask",
        schema: 1,
        deadline: Deadline::NEVER,
    };
    link.ask(&call, Nobody, |out| codec::encode_into("hi", out)).map_err(|(error, _)| error).expect("the link is open");
}

struct Bench {
    link: Arc<Link<Nobody>>,
    writes: Arc<AtomicUsize>,
    arrived: Arc<AtomicUsize>,
}

impl Bench {
    async fn open() -> Bench {
        let (mut ours, theirs) = memory::pair(1024 * 1024);
        let (writes, arrived) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        ours.write = Box::new(Counted { wire: ours.write, writes: Arc::clone(&writes) });
        let link = open(ours, 1, 2, &Arc::default());
        let peer = open(theirs, 2, 1, &arrived);
        link.opened().await.expect("the peer says hello");
        peer.opened().await.expect("the link says hello");
        Bench { link, writes, arrived }
    }

    async fn all_arrived(&self, count: usize) {
        let all = async {
            while self.arrived.load(Ordering::SeqCst) < count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), all).await.expect("all arrive");
    }
}

#[tokio::test]
async fn asks_made_beside_the_driver_share_one_write() {
    let bench = Bench::open().await;
    let before = bench.writes.load(Ordering::SeqCst);
    (0..200).for_each(|_| ask(&bench.link));
    assert_eq!(bench.writes.load(Ordering::SeqCst), before, "nothing is written before the sender awaits");
    bench.all_arrived(200).await;
    assert_eq!(bench.writes.load(Ordering::SeqCst), before + 1);
}

#[tokio::test]
async fn who_sends_on_without_awaiting_is_written_for_every_8_kib() {
    let bench = Bench::open().await;
    let before = bench.writes.load(Ordering::SeqCst);
    // 33 bytes each.
    (0..1000).for_each(|_| ask(&bench.link));
    assert_eq!(bench.writes.load(Ordering::SeqCst), before + 4, "the peer begins meanwhile");
    bench.all_arrived(1000).await;
    assert_eq!(bench.writes.load(Ordering::SeqCst), before + 5);
}

#[tokio::test]
async fn what_is_held_waits_for_the_kick() {
    let bench = Bench::open().await;
    let before = bench.writes.load(Ordering::SeqCst);
    bench.link.hold();
    (0..200).for_each(|_| ask(&bench.link));
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.writes.load(Ordering::SeqCst), before, "the driver leaves it");
    bench.link.kick();
    bench.all_arrived(200).await;
    assert_eq!(bench.writes.load(Ordering::SeqCst), before + 1);
}

#[tokio::test(flavor = "current_thread")]
async fn a_sender_on_another_thread_writes_at_once_while_the_link_is_quiet() {
    let bench = Bench::open().await;
    let before = bench.writes.load(Ordering::SeqCst);
    // The driver's thread is held here, so whatever is written was written by the sender.
    let sender = {
        let link = Arc::clone(&bench.link);
        std::thread::spawn(move || {
            // Nothing is written meanwhile, so that the link becomes quiet.
            let quiet = now() + Duration::from_millis(1);
            while now() < quiet {
                std::thread::yield_now();
            }
            (0..500).for_each(|_| ask(&link));
        })
    };
    sender.join().expect("it sends");
    assert_eq!(bench.writes.load(Ordering::SeqCst), before + 1, "the first at once, the rest with the driver");
    bench.all_arrived(500).await;
    assert_eq!(bench.writes.load(Ordering::SeqCst), before + 2);
}
