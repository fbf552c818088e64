//! Connections between nodes that live are cut, by resets and by ends, at random bytes: nobody notices.

use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use mobula::{ActorRef, CallError, ExitReason, Node, RemoteActor};
use mobula_cluster::private::{Addresses, connect, open_door};
use mobula_integration_tests::actors::{Log, Probe, Record};
use mobula_integration_tests::mortals::{AllHeard, EndNow, Guard, Heard, How, Mortal, Sentry};
use mobula_integration_tests::proxy::Proxy;
use mobula_integration_tests::stage::{run_plain, start_node};
use mobula_integration_tests::streamer::{CountTo, Streamer};
use mobula_integration_tests::tally::{Account, Accounted, Count, Tally};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{eventually, within};
use mobula_transport::preface::Secret;
use mobula_transport::tcp;

/// Two nodes; the first has dialled the second through a proxy.
struct Pair {
    one: Node,
    other: Node,
    proxy: Proxy,
}

impl Pair {
    async fn connect(seed: u64) -> Pair {
        let secret = Secret::from_bytes([7; 32]);
        let (one, other) = (start_node("one"), start_node("other"));
        let addresses = Addresses::default();
        let mut doors = Vec::new();
        for node in [&one, &other] {
            let listener = tcp::listen(([127, 0, 0, 1], 0).into()).expect("a free port");
            doors.push(listener.local_addr().expect("it is bound"));
            open_door(node, listener, secret.clone(), addresses.clone());
        }
        addresses.learn(one.id().uid, doors[0]);
        let proxy = Proxy::start(doors[1], seed);
        connect(&one, other.id(), proxy.address, &secret).await.expect("the nodes connect");
        Pair { one, other, proxy }
    }

    async fn spawn<A: RemoteActor>(&self, args: A::Args) -> ActorRef<A> {
        within(LONG, "an actor", self.one.spawn_on(self.other.id(), A::spec(args))).await.expect("spawned")
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.one.shut_down("over");
        self.other.shut_down("over");
    }
}

/// What the sentry has heard, once it has heard of so many ends.
async fn heard(sentry: &ActorRef<Sentry>, downs: usize) -> Vec<Heard> {
    eventually(LONG, "the news", async || {
        let heard = sentry.ask(AllHeard).await.expect("it answers");
        let ends = heard.iter().filter(|heard| matches!(heard, Heard::Down(_))).count();
        (ends >= downs).then_some(heard)
    })
    .await
}

#[test]
fn asks_tells_streams_and_monitors_outlive_their_connections() {
    run_plain(async {
        let pair = Pair::connect(7).await;
        let probe = pair.spawn::<Probe>(0).await;
        let streamer = pair.spawn::<Streamer>(()).await;
        let mortal = pair.spawn::<Mortal>(()).await;
        let sentry = within(LONG, "an actor", pair.one.spawn(Sentry::spec(()))).await.expect("spawned");
        let monitored = probe.monitor();
        within(LONG, "the monitor", sentry.ask(Guard(mortal.clone()))).await.expect("it answers");

        pair.proxy.cut_after(4_000, Duration::ZERO);
        pair.proxy.cut();
        let mut items = streamer.ask_stream(CountTo(5_000));
        for round in 0..40_u64 {
            let asked: Vec<_> = (0..50).map(|n| probe.ask(Record(round * 100 + n))).collect();
            for n in 50..100 {
                within(LONG, "room", probe.tell(Record(round * 100 + n))).await.expect("the node lives");
            }
            for (n, answer) in within(LONG, "the answers", join_all(asked)).await.into_iter().enumerate() {
                assert_eq!(answer, Ok(round * 100 + n as u64 + 2));
            }
            for n in 1..=100 {
                let item = within(LONG, "an item", items.next()).await;
                assert_eq!(item, Some(Ok(round * 100 + n)));
            }
            within(LONG, "a report", pair.one.report_of(pair.other.id())).await.expect("control works, too");
        }
        // The log does not fit into what a connection carries before it is cut.
        pair.proxy.cut_after(100_000, Duration::ZERO);
        let log = within(LONG, "the log", probe.ask(Log)).await.expect("it answers");
        assert!(log.into_iter().skip(1).eq(0..4_000), "each once, and in order");

        // What was told before an end comes before its news.
        pair.proxy.cut_after(2_000, Duration::ZERO);
        pair.proxy.cut();
        let order = EndNow { how: How::Stop, to: Some(sentry.clone().into()), count: 500 };
        within(LONG, "the order", mortal.ask(order)).await.expect("it answers");
        let heard = heard(&sentry, 1).await;
        assert_eq!(heard[..500], (0..500).map(Heard::Number).collect::<Vec<_>>());
        assert!(matches!(&heard[500..], [Heard::Down(down)] if down.reason == ExitReason::Normal), "{heard:?}");
        within(LONG, "an order", probe.stop()).await.expect("the node lives");
        assert_eq!(within(LONG, "the news", monitored).await.reason, ExitReason::Shutdown);
        println!("{} cuts", pair.proxy.cuts());
        assert!(pair.proxy.cuts() > 50, "{}", pair.proxy.cuts());
    });
}

#[test]
fn a_node_that_cannot_be_reached_for_a_while_is_not_lost() {
    run_plain(async {
        let pair = Pair::connect(8).await;
        let probe = pair.spawn::<Probe>(0).await;
        for round in 0..3 {
            pair.proxy.hold(true);
            pair.proxy.cut();
            let asked = probe.ask(Record(1));
            let cuts = pair.proxy.cuts();
            eventually(LONG, "the cut", async || (pair.proxy.cuts() >= cuts.min(2 * round + 2)).then_some(())).await;
            pair.proxy.hold(false);
            assert_eq!(within(LONG, "the answer", asked).await, Ok(round + 2));
        }
    });
}

#[test]
fn a_node_that_has_given_the_other_up_quarantines_it() {
    run_plain(async {
        let pair = Pair::connect(9).await;
        let probe = pair.spawn::<Probe>(0).await;
        let monitor = probe.monitor();
        within(LONG, "the probe", probe.ask(Record(1))).await.expect("it answers");
        pair.proxy.hold(true);
        let pending = probe.ask(Record(2));
        // Its goodbye does not get through.
        pair.other.peer_lost(pair.one.id(), "the test says so");
        pair.proxy.cut();
        pair.proxy.hold(false);
        let failed = within(LONG, "the ask", pending).await.expect_err("the session is gone");
        assert!(
            matches!(&failed, CallError::Quarantined { node, sent: true, .. } if node == pair.other.id()),
            "{failed}"
        );
        assert!(failed.to_string().contains("the test says so"), "{failed}");
        let down = within(LONG, "the news", monitor).await;
        assert!(matches!(&down.reason, ExitReason::Quarantined { .. }), "{down:?}");
        let later = within(LONG, "a later ask", probe.ask(Record(3))).await.expect_err("for ever");
        assert!(matches!(&later, CallError::Quarantined { sent: false, .. }), "{later}");
        let other_way = pair.other.reference_to(&probe);
        assert!(pair.other.data_link(pair.one.id()).is_none() && other_way.id() == probe.id());
        // Neither lets the other in again.
        let secret = Secret::from_bytes([7; 32]);
        let again = within(LONG, "a refusal", connect(&pair.one, pair.other.id(), pair.proxy.address, &secret)).await;
        assert!(again.is_err() || pair.one.data_link(pair.other.id()).is_none());
    });
}

/// How many messages the long run sends; `MOBULA_STRESS_MESSAGES` says otherwise.
const STRESS_MESSAGES: u64 = 300_000;

/// Tells, every hundredth an ask, over connections that are cut within 2 MB and then for up to 2 s. To be run by hand:
/// `MOBULA_STRESS_MESSAGES=10000000 cargo test --release -p mobula-integration-tests --test nodes -- --ignored --nocapture a_long_run`
#[test]
#[ignore = "takes minutes"]
fn a_long_run_over_cut_connections_loses_doubles_and_reorders_nothing() {
    let count = std::env::var("MOBULA_STRESS_MESSAGES").ok().and_then(|count| count.parse().ok());
    let count: u64 = count.unwrap_or(STRESS_MESSAGES);
    actix::System::new().block_on(async move {
        let pair = Pair::connect(10).await;
        let tally = pair.spawn::<Tally>(()).await;
        pair.proxy.cut_after(2_000_000, Duration::from_secs(2));
        pair.proxy.cut();
        let begun = mobula_transport::now();
        let mut asked = Vec::new();
        for number in 0..count {
            if number % 100 == 99 {
                asked.push((number, tally.ask(Count(number))));
            } else {
                within(Duration::from_secs(30), "room", tally.tell(Count(number))).await.expect("the node lives");
            }
            if asked.len() == 100 {
                for (number, answer) in asked.drain(..) {
                    assert_eq!(answer.await, Ok(number));
                }
            }
        }
        for (number, answer) in asked {
            assert_eq!(answer.await, Ok(number));
        }
        let account = tally.ask(Accounted).await.expect("it answers");
        let took = mobula_transport::now().saturating_duration_since(begun);
        println!("{count} messages, {} cuts, {:.1} s: {account:?}", pair.proxy.cuts(), took.as_secs_f64());
        assert_eq!(account, Account { came: count, lost: 0, doubled_or_late: 0, next: count });
    });
}
