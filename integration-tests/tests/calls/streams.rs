//! Answers of many items.

use std::time::Duration;

use futures::StreamExt;
use mobula::{ActorRef, CallError, Recipient, RemoteActor, ReplyStream};
use mobula_core::limits;
use mobula_integration_tests::actors::{Entered, GateKeeper};
use mobula_integration_tests::process::{Process, Signal};
use mobula_integration_tests::streamer::{
    CountForEver, CountTo, Dispenser, DispenserRef, PanicAfter, Produced, Streamer, Unreadable,
};
use mobula_integration_tests::switchboard::{ReadAll, Switchboard};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, eventually, gates, suites, within};

suites! {
    items_come_all_and_in_order on [embedded, processes, memory];
    a_slow_reader_holds_the_producer_back on [embedded, processes, memory];
    a_dropped_stream_ends_its_producer on [embedded, processes, memory];
    a_stream_ends_at_its_deadline on [embedded, processes, memory];
    a_panic_ends_the_stream_once_and_no_life on [embedded, processes, memory];
    an_item_that_cannot_be_written_ends_the_stream on [processes, memory];
    a_stream_ends_with_its_actor on [embedded, processes, memory];
    a_stream_ends_with_its_node on [processes];
    without_a_reader_nothing_is_produced on [embedded, processes, memory];
    streams_do_not_hold_each_other_up on [embedded, processes, memory];
    a_method_that_returns_items_gives_a_stream on [embedded, processes, memory];
    a_recipient_opens_streams on [embedded, processes, memory];
    a_recipient_that_travelled_opens_streams on [embedded, processes, memory];
    a_stream_of_a_recipient_ends_as_any_does on [embedded, processes, memory];
}

async fn next(stream: &mut ReplyStream<u64>) -> Option<Result<u64, CallError>> {
    within(LONG, "the next item", stream.next()).await
}

async fn streamer(stage: &Stage) -> ActorRef<Streamer> {
    stage.spawn(0, Streamer::spec(())).await
}

async fn items_come_all_and_in_order(stage: Stage) {
    let streamer = streamer(&stage).await;
    // Many windows full, one that is not, and none.
    for count in [10_000, 5, 0] {
        let items: Vec<_> = within(LONG, "the items", streamer.ask_stream(CountTo(count)).collect::<Vec<_>>()).await;
        assert_eq!(items, (1..=count).map(Ok).collect::<Vec<_>>());
    }
    let mut stream = streamer.ask_stream(CountTo(1));
    assert_eq!((next(&mut stream).await, next(&mut stream).await), (Some(Ok(1)), None));
    assert_eq!(next(&mut stream).await, None, "the end stays the end");
}

/// The numbers produced in the streamer's process, once they have stopped growing for some answers.
async fn produced(streamer: &ActorRef<Streamer>) -> u64 {
    let mut last = 0;
    let mut same = 0;
    eventually(LONG, "a standstill", async || {
        let now = streamer.ask(Produced).await.expect("it answers");
        same = if now == last && now > 0 { same + 1 } else { 0 };
        last = now;
        (same >= 10).then_some(now)
    })
    .await
}

async fn a_slow_reader_holds_the_producer_back(stage: Stage) {
    let streamer = streamer(&stage).await;
    let before = streamer.ask(Produced).await.expect("it answers");
    let mut stream = streamer.ask_stream(CountForEver { ended: gates::fresh_name() });
    let window = u64::from(limits::STREAM_WINDOW_ITEMS);
    // Other stages of this process count together with this one.
    let alone = before == 0;
    let first = produced(&streamer).await;
    assert!(!alone || stage.kind() != mobula_integration_tests::Kind::Processes || first <= window + 1, "{first}");
    for number in 1..=10 * window {
        assert_eq!(next(&mut stream).await, Some(Ok(number)));
    }
    let then = produced(&streamer).await;
    if stage.kind() == mobula_integration_tests::Kind::Processes {
        assert!(then > 10 * window && then <= 11 * window + 1, "{then}");
    }
}

/// An endless stream that was read a little, the keeper of its gates, and the gate that its producer's end opens.
async fn endless(stage: &Stage) -> (ReplyStream<u64>, ActorRef<GateKeeper>, String) {
    let (streamer, keeper, ended) = (streamer(stage).await, stage.keeper(0).await, gates::fresh_name());
    let mut stream = streamer.ask_stream(CountForEver { ended: ended.clone() });
    for number in 1..=3 {
        assert_eq!(next(&mut stream).await, Some(Ok(number)));
    }
    (stream, keeper, ended)
}

async fn entered(keeper: &ActorRef<GateKeeper>, gate: String) {
    within(LONG, "the producer's end", keeper.ask(Entered { gate, count: 1 })).await.expect("the keeper answers");
}

async fn a_dropped_stream_ends_its_producer(stage: Stage) {
    let (stream, keeper, ended) = endless(&stage).await;
    drop(stream);
    entered(&keeper, ended).await;
}

async fn a_stream_ends_at_its_deadline(stage: Stage) {
    let (streamer, keeper, ended) = (streamer(&stage).await, stage.keeper(0).await, gates::fresh_name());
    let mut stream =
        streamer.with_deadline(Duration::from_millis(300)).ask_stream(CountForEver { ended: ended.clone() });
    let last = within(LONG, "the deadline", async {
        loop {
            match stream.next().await {
                Some(Ok(_)) => {}
                other => break other,
            }
        }
    })
    .await;
    assert_eq!(last, Some(Err(CallError::DeadlineExceeded { started: true })));
    assert_eq!(next(&mut stream).await, None, "the error comes once");
    entered(&keeper, ended).await;
}

async fn a_panic_ends_the_stream_once_and_no_life(stage: Stage) {
    let streamer = streamer(&stage).await;
    let mut stream = streamer.ask_stream(PanicAfter(2));
    assert_eq!((next(&mut stream).await, next(&mut stream).await), (Some(Ok(1)), Some(Ok(2))));
    let Some(Err(CallError::Panicked { text, generation, .. })) = next(&mut stream).await else { panic!("it panics") };
    assert_eq!((text.as_str(), generation.0), ("out of numbers", 0));
    assert_eq!(next(&mut stream).await, None);
    let again: Vec<_> = within(LONG, "the items", streamer.ask_stream(CountTo(2)).collect::<Vec<_>>()).await;
    assert_eq!(again, [Ok(1), Ok(2)]);
}

async fn an_item_that_cannot_be_written_ends_the_stream(stage: Stage) {
    let streamer = streamer(&stage).await;
    let mut stream = streamer.ask_stream(Unreadable);
    for number in 1..=2 {
        let item = within(LONG, "the next item", stream.next()).await.expect("an item").expect("it can be written");
        assert_eq!(item.0, number);
    }
    let broken = within(LONG, "the error", stream.next()).await.expect("an error").expect_err("it cannot be written");
    assert!(matches!(broken, CallError::Encode { reply: true, .. }), "{broken:?}");
    assert!(within(LONG, "the end", stream.next()).await.is_none());
}

async fn a_stream_ends_with_its_actor(stage: Stage) {
    let streamer = streamer(&stage).await;
    let mut stream = streamer.ask_stream(CountForEver { ended: gates::fresh_name() });
    assert_eq!(next(&mut stream).await, Some(Ok(1)));
    streamer.kill().await.expect("the order arrives");
    let last = within(LONG, "the end", async {
        loop {
            match stream.next().await {
                Some(Ok(_)) => {}
                other => break other,
            }
        }
    })
    .await;
    assert_eq!(last, Some(Err(CallError::Cancelled { started: true })));
    assert_eq!(next(&mut stream).await, None);
}

async fn a_stream_ends_with_its_node(stage: Stage) {
    let (mut stream, _, _) = endless(&stage).await;
    Process::of(stage.pid(0)).signal(Signal::KILL);
    let last = within(LONG, "the end", async {
        loop {
            match stream.next().await {
                Some(Ok(_)) => {}
                other => break other,
            }
        }
    })
    .await;
    assert!(matches!(last, Some(Err(CallError::Unreachable { sent: true, .. }))), "{last:?}");
    assert_eq!(next(&mut stream).await, None);
}

async fn without_a_reader_nothing_is_produced(stage: Stage) {
    let streamer = streamer(&stage).await;
    within(LONG, "the mailbox", streamer.tell(CountTo(1_000_000_000))).await.expect("there is room");
    let asked = within(LONG, "the answer", streamer.ask(CountTo(1_000_000_000))).await;
    if stage.is_near() {
        assert_eq!(asked, Ok(()));
    } else {
        // The other node cannot know how it was asked; the first item tells.
        let Err(CallError::Decode { reason, reply: true }) = asked else { panic!("{asked:?}") };
        assert!(reason.contains("ask_stream"), "{reason}");
    }
    // The connection is as good as before.
    let items: Vec<_> = within(LONG, "the items", streamer.ask_stream(CountTo(2)).collect::<Vec<_>>()).await;
    assert_eq!(items, [Ok(1), Ok(2)]);
}

async fn streams_do_not_hold_each_other_up(stage: Stage) {
    let streamer = streamer(&stage).await;
    let mut slow = streamer.ask_stream(CountForEver { ended: gates::fresh_name() });
    assert_eq!(next(&mut slow).await, Some(Ok(1)));
    let fast: Vec<_> = within(LONG, "the items", streamer.ask_stream(CountTo(1000)).collect::<Vec<_>>()).await;
    assert_eq!(fast.len(), 1000);
    assert_eq!(next(&mut slow).await, Some(Ok(2)));
}

async fn a_method_that_returns_items_gives_a_stream(stage: Stage) {
    let (dispenser, keeper) = (stage.spawn(0, Dispenser::actor(5)).await, stage.keeper(0).await);
    // Many windows full, one that is not, and none; the state is the actor's.
    let mut first = 5;
    for count in [1000, 3, 0] {
        let items: Vec<_> = within(LONG, "the items", dispenser.draw(count).collect::<Vec<_>>()).await;
        assert_eq!(items, (first..first + count).map(Ok).collect::<Vec<_>>());
        first += count;
    }
    let ended = gates::fresh_name();
    let mut stream = dispenser.show(ended.clone());
    for item in [Ok(1008), Err("1009 is odd".to_owned()), Ok(1010)] {
        assert_eq!(within(LONG, "the next item", stream.next()).await, Some(Ok(item)));
    }
    drop(stream);
    entered(&keeper, ended).await;
}

async fn a_recipient_opens_streams(stage: Stage) {
    let recipient = Recipient::<CountTo>::from(streamer(&stage).await);
    for count in [1000, 3, 0] {
        let items: Vec<_> = within(LONG, "the items", recipient.ask_stream(CountTo(count)).collect::<Vec<_>>()).await;
        assert_eq!(items, (1..=count).map(Ok).collect::<Vec<_>>());
    }
}

async fn a_recipient_that_travelled_opens_streams(stage: Stage) {
    let from = Recipient::from(streamer(&stage).await);
    // At home, and from a third node.
    for node in [0, 1] {
        let switchboard = stage.spawn(node, Switchboard::spec(())).await;
        let read = within(LONG, "the items", switchboard.ask(ReadAll { from: from.clone(), end: 1000 })).await;
        assert_eq!(read, Ok(Ok((1..=1000).collect::<Vec<_>>())));
    }
}

async fn a_stream_of_a_recipient_ends_as_any_does(stage: Stage) {
    let (streamer, keeper, ended) = (streamer(&stage).await, stage.keeper(0).await, gates::fresh_name());
    let endless = Recipient::<CountForEver>::from(streamer.clone());
    let mut stream = endless.ask_stream(CountForEver { ended: ended.clone() });
    assert_eq!(next(&mut stream).await, Some(Ok(1)));
    drop(stream);
    entered(&keeper, ended).await;
    let mut stream = Recipient::<PanicAfter>::from(streamer.clone()).ask_stream(PanicAfter(1));
    assert_eq!(next(&mut stream).await, Some(Ok(1)));
    let panicked = next(&mut stream).await;
    assert!(matches!(panicked, Some(Err(CallError::Panicked { .. }))), "{panicked:?}");
    let mut stream = endless.with_deadline(Duration::ZERO).ask_stream(CountForEver { ended: gates::fresh_name() });
    let late = within(LONG, "the deadline", async {
        loop {
            match stream.next().await {
                Some(Ok(_)) => {}
                other => break other,
            }
        }
    })
    .await;
    assert!(matches!(late, Some(Err(CallError::DeadlineExceeded { .. }))), "{late:?}");
    streamer.kill().await.expect("the order arrives");
    within(LONG, "its end", streamer.monitor()).await;
    let refused = next(&mut endless.ask_stream(CountForEver { ended: gates::fresh_name() })).await;
    assert!(matches!(refused, Some(Err(CallError::Stopped | CallError::NoSuchActor { .. }))), "{refused:?}");
}
