//! What reaches no handler: told to whoever waits, counted where nobody does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mobula::{ActorId, CallError, DeadLetter, NodeId, Outcome, RemoteActor, RemoteMessage, Router};
use mobula_integration_tests::actors::{Hold, Log, Probe, Record};
use mobula_integration_tests::stage::{run_plain, start_node};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, eventually, gates, suites, within};
use mobula_transport::{Lane, memory};
use parking_lot::Mutex;

suites! {
    tells_that_reach_no_handler_are_counted on [embedded, processes, memory];
    the_sender_hears_of_its_dead_letters on [embedded, processes, memory];
    an_error_that_nobody_looks_at_makes_a_dead_letter on [embedded, processes, memory];
    what_is_refused_in_line_and_never_read_comes_back on [embedded, processes, memory];
    a_tell_that_a_router_has_nobody_for_comes_back on [embedded, processes, memory];
    what_a_pulling_router_took_and_could_not_hand_out_comes_back on [embedded, processes, memory];
    a_hook_may_panic_and_send on [embedded, processes, memory];
    a_near_tell_in_line_honours_its_deadline on [embedded];
    a_near_ask_that_was_not_begun_says_so on [embedded];
    a_handler_that_is_cut_off_by_a_stop_is_cancelled on [embedded, processes, memory];
}

/// The dead letters of the first home, once there are so many.
async fn counted(stage: &Stage, at_least: u64) -> u64 {
    let count = async || {
        let report = stage.caller().report_of(stage.home(0)).await.expect("the node answers");
        (report.dead_letters >= at_least).then_some(report.dead_letters)
    };
    eventually(LONG, "the dead letters", count).await
}

/// A deadline that passes in the mailbox, and not on the way there, also on a machine that is busy: what expires before it is sent is nobody's dead letter.
const IN_THE_MAILBOX: Duration = Duration::from_millis(250);

async fn tells_that_reach_no_handler_are_counted(stage: Stage) {
    let probe = stage.probe(0).await;
    let held = stage.hold(&probe).await;
    let hasty = probe.with_deadline(IN_THE_MAILBOX);
    for number in 0..3 {
        within(LONG, "room", hasty.tell(Record(number))).await.expect("there is room");
    }
    let expired = within(LONG, "the deadline", hasty.ask(Record(9))).await;
    assert!(expired.is_err());
    held.release().await;
    assert_eq!(counted(&stage, 3).await, 3, "tells that expired");

    let held = stage.hold(&probe).await;
    for number in 0..4 {
        within(LONG, "room", probe.tell(Record(number))).await.expect("there is room");
    }
    // Answered from the mailbox, unlike the tells before it.
    let queued = probe.ask(Record(9));
    probe.stop().await.expect("the order arrives");
    assert_eq!(within(LONG, "queued mail", queued).await, Err(CallError::Stopped));
    drop(held);
    assert_eq!(counted(&stage, 7).await, 7, "tells that were queued at the stop");
}

/// What the caller's hook has heard.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<DeadLetter>>>);

impl Heard {
    fn by(stage: &Stage) -> Self {
        let heard = Heard::default();
        let hook = heard.clone();
        stage.caller().on_dead_letter(move |letter| hook.0.lock().push(letter));
        heard
    }

    /// The next `count`, in their order.
    async fn next(&self, count: usize) -> Vec<DeadLetter> {
        let all = async || (self.0.lock().len() >= count).then_some(());
        eventually(LONG, "the dead letters", all).await;
        std::mem::take(&mut *self.0.lock())
    }
}

async fn the_sender_hears_of_its_dead_letters(stage: Stage) {
    let heard = Heard::by(&stage);
    let probe = stage.probe(0).await;
    let held = stage.hold(&probe).await;
    let hasty = probe.with_deadline(IN_THE_MAILBOX);
    within(LONG, "room", hasty.tell(Record(1))).await.expect("there is room");
    let expired = within(LONG, "the deadline", hasty.ask(Record(9))).await;
    assert!(expired.is_err(), "an ask is answered, and no dead letter");
    held.release().await;

    let held = stage.hold(&probe).await;
    for number in 2..=3 {
        within(LONG, "room", probe.tell(Record(number))).await.expect("there is room");
    }
    let queued = probe.ask(Record(9));
    probe.stop().await.expect("the order arrives");
    assert_eq!(within(LONG, "queued mail", queued).await, Err(CallError::Stopped));
    drop(held);

    let letters = heard.next(3).await;
    let reasons: Vec<_> = letters.iter().map(|letter| letter.reason.clone()).collect();
    assert_eq!(reasons, [CallError::DeadlineExceeded { started: false }, CallError::Stopped, CallError::Stopped]);
    for (letter, number) in letters.into_iter().zip(1..) {
        assert_eq!((&letter.node, letter.actor, letter.message), (probe.node(), probe.id(), Record::NAME));
        // Near, the message itself comes back.
        let body = letter.body.map(|body| body.downcast::<Record>().expect("it is what was sent").0);
        assert_eq!(body, stage.is_near().then_some(number));
    }
}

#[test]
fn a_dead_letter_names_its_node_on_an_accepted_link() {
    run_plain(async {
        let (accepts, dials) = (start_node("accepts"), start_node("dials"));
        for lane in [Lane::Control, Lane::Data] {
            let (ours, theirs) = memory::pair(256 * 1024);
            // Before its hello, all that is known of who has dialled is the life that it has proven.
            let unnamed = NodeId::new("peer", dials.id().uid);
            let accepted = accepts.attach(lane, unnamed, || Ok(ours));
            let dialled = dials.attach(lane, accepts.id().clone(), || Ok(theirs));
            within(LONG, "both hellos", futures::future::try_join(accepted, dialled)).await.expect("both say hello");
        }
        let heard = Heard::default();
        let hook = heard.clone();
        accepts.on_dead_letter(move |letter| hook.0.lock().push(letter));
        let gone = within(LONG, "the spawn", accepts.spawn_on(dials.id(), Probe::spec(0))).await.expect("it starts");
        gone.stop().await.expect("the order arrives");
        within(LONG, "its end", gone.monitor()).await;
        drop(gone.tell(Record(1)));
        assert_eq!(heard.next(1).await[0].node, *dials.id());
    });
}

async fn an_error_that_nobody_looks_at_makes_a_dead_letter(stage: Stage) {
    let probe = stage.probe(0).await;
    probe.stop().await.expect("the order arrives");
    within(LONG, "its end", probe.monitor()).await;
    let heard = Heard::by(&stage);
    drop(probe.tell(Record(1)));
    let letters = heard.next(1).await;
    assert!(matches!(letters[0].reason, CallError::Stopped | CallError::NoSuchActor { .. }), "{letters:?}");
    assert_eq!((letters.len(), letters[0].actor), (1, probe.id()));
    // Whoever looks at the error has heard of it.
    let acked = within(LONG, "an answer", probe.tell_acked(Record(2))).await;
    assert!(acked.is_err(), "{acked:?}");
    drop(probe.tell(Record(3)));
    assert_eq!(heard.next(1).await.len(), 1);
}

async fn what_is_refused_in_line_and_never_read_comes_back(stage: Stage) {
    let heard = Heard::by(&stage);
    let probe = stage.spawn(0, Probe::spec(0).mailbox(1)).await;
    let held = stage.hold(&probe).await;
    within(LONG, "room", probe.tell_acked(Record(1))).await.expect("there is room");
    let (read, unread) = (probe.tell_acked(Record(2)), probe.tell_acked(Record(3)));
    let queued = probe.ask(Record(9));
    probe.stop().await.expect("the order arrives");
    assert_eq!(within(LONG, "queued mail", queued).await, Err(CallError::Stopped));
    assert_eq!(within(LONG, "the refusal", read).await, Err(CallError::Stopped));
    assert_eq!(heard.next(1).await.len(), 1, "the one that was accepted, and not yet those in line");
    drop(unread);
    let letters = heard.next(1).await;
    let bodies: Vec<_> = letters.into_iter().map(|letter| letter.body).collect();
    let [body] = <[_; 1]>::try_from(bodies).expect("who has read its error has heard of it");
    assert_eq!(body.map(|body| body.downcast::<Record>().expect("what was sent").0), stage.is_near().then_some(3));
    drop(held);
}

async fn a_tell_that_a_router_has_nobody_for_comes_back(stage: Stage) {
    let heard = Heard::by(&stage);
    let probe = stage.probe(0).await;
    for router in [Router::round_robin([probe.clone()]), Router::work_pulling([probe.clone()])] {
        assert!(router.remove(&probe));
        assert_eq!(within(LONG, "an answer", router.tell(Record(1))).await, Err(CallError::Stopped));
        drop(router.tell(Record(2)));
        let letter = heard.next(1).await.remove(0);
        assert_eq!(
            (&letter.node, letter.actor, letter.reason),
            (stage.caller().id(), ActorId::NODE, CallError::Stopped)
        );
        assert_eq!(letter.body.expect("it never left").downcast::<Record>().expect("what was sent").0, 2);
    }
}

async fn what_a_pulling_router_took_and_could_not_hand_out_comes_back(stage: Stage) {
    let heard = Heard::by(&stage);
    let probe = stage.probe(0).await;
    let held = stage.hold(&probe).await;
    let router = Router::work_pulling([probe.clone()]);
    for number in 1..=3 {
        within(LONG, "the router", router.tell(Record(number))).await.expect("it has room");
    }
    let late = router.with_deadline(Duration::from_millis(1));
    within(LONG, "the router", late.tell(Record(4))).await.expect("it has room");
    probe.stop().await.expect("the order arrives");
    drop(held);
    let mut numbers = Vec::new();
    while numbers.len() < 4 {
        for letter in heard.next(1).await {
            assert!(letter.reason.outcome().is_retry_safe(), "{}", letter.reason);
            numbers.push(letter.body.expect("it is at hand").downcast::<Record>().expect("what was sent").0);
        }
    }
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3, 4]);
}

async fn a_hook_may_panic_and_send(stage: Stage) {
    let (probe, other) = (stage.probe(0).await, stage.probe(0).await);
    probe.stop().await.expect("the order arrives");
    within(LONG, "its end", probe.monitor()).await;
    let times = Arc::new(AtomicU32::new(0));
    let (ended, living, counted) = (probe.clone(), other.clone(), Arc::clone(&times));
    stage.caller().on_dead_letter(move |_| {
        // In vain; were it told of this one, it would never end.
        drop(ended.try_tell(Record(8)));
        drop(living.tell(Record(7)));
        counted.fetch_add(1, Ordering::Relaxed);
        panic!("a hook that panics");
    });
    drop(probe.tell(Record(1)));
    let sent = async || other.ask(Log).await.expect("it answers").contains(&7).then_some(());
    eventually(LONG, "what the hook sends", sent).await;
    drop(probe.tell(Record(2)));
    eventually(LONG, "the hook", async || (times.load(Ordering::Relaxed) >= 2).then_some(())).await;
}

async fn a_near_tell_in_line_honours_its_deadline(stage: Stage) {
    let heard = Heard::by(&stage);
    let probe = stage.spawn(0, Probe::spec(0).mailbox(1)).await;
    let held = stage.hold(&probe).await;
    within(LONG, "room", probe.tell(Record(1))).await.expect("there is room");
    let in_line = probe.with_deadline(Duration::from_millis(20)).tell(Record(2));
    let late = within(LONG, "the deadline", in_line).await;
    assert_eq!(late, Err(CallError::DeadlineExceeded { started: false }));
    held.release().await;
    assert_eq!(within(LONG, "the log", probe.ask(Log)).await, Ok(vec![0, 1]));
    assert!(heard.0.lock().is_empty(), "its sender has heard of it already");
}

async fn a_near_ask_that_was_not_begun_says_so(stage: Stage) {
    let probe = stage.probe(0).await;
    let held = stage.hold(&probe).await;
    let queued = within(LONG, "the deadline", probe.with_deadline(Duration::from_millis(20)).ask(Record(1))).await;
    assert_eq!(queued, Err(CallError::DeadlineExceeded { started: false }));
    held.release().await;
    let gate = gates::fresh_name();
    let running = within(LONG, "the deadline", probe.with_deadline(Duration::from_millis(20)).ask(Hold { gate })).await;
    assert_eq!(running, Err(CallError::DeadlineExceeded { started: true }));
}

async fn a_handler_that_is_cut_off_by_a_stop_is_cancelled(stage: Stage) {
    let probe = stage.probe(0).await;
    let held = stage.hold(&probe).await;
    probe.stop().await.expect("the order arrives");
    let cut_off = within(LONG, "the held handler", held.holding).await.expect_err("it has no answer to give");
    assert_eq!(cut_off, CallError::Cancelled { started: true });
    assert_eq!(cut_off.outcome(), Outcome::Unknown);
}
