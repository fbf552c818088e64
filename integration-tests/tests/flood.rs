//! Memory under a stopped consumer: 200,000 tells to an actor that takes none. In a file of its own, since it measures
//! the memory of its own process, too.

use std::time::Duration;

use mobula::CallError;
use mobula_core::limits;
use mobula_integration_tests::actors::{Fill, Log};
use mobula_integration_tests::process::Process;
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, eventually, suites};
use mobula_transport::now;

suites! {
    memory_stays_bounded_under_a_flood_of_tells on [processes];
}

const TELLS: usize = 200_000;
const BYTES: usize = 1024;
const MIB: u64 = 1024 * 1024;

async fn memory_stays_bounded_under_a_flood_of_tells(stage: Stage) {
    let probe = stage.probe(0).await;
    let (sender, receiver) = (Process::of(std::process::id()), Process::of(stage.pid(0)));
    let held = stage.hold(&probe).await;

    // Those who want no wait are told at once, and what was accepted fits into the credit.
    let before = (sender.memory_bytes(), receiver.memory_bytes());
    let control = stage.caller().control_link(stage.home(0)).expect("the nodes are connected");
    let mut longest = Duration::ZERO;
    let mut look = |number: usize| {
        if number.is_multiple_of(1000) {
            longest = longest.max(now().saturating_duration_since(control.heard()));
        }
    };
    let mut accepted = 0;
    for number in 0..TELLS {
        look(number);
        match probe.try_tell(Fill(vec![1; BYTES])) {
            Ok(()) => accepted += 1,
            Err(error) => assert_eq!(error, CallError::Full { limit: limits::CREDIT_MESSAGES.into() }),
        }
    }
    assert!(accepted <= limits::CREDIT_MESSAGES as usize, "{accepted}");
    let grown = grown(before, (sender.memory_bytes(), receiver.memory_bytes()));
    println!(
        "{TELLS} try_tells of {BYTES} bytes, {accepted} accepted: sender +{} MiB, receiver +{} MiB",
        grown.0, grown.1
    );
    assert!(grown.0 <= 16 && grown.1 <= 16, "{grown:?} MiB");

    // Those who would wait stand in line, and the line is bounded as well, also if nobody polls.
    let mut in_line = 0;
    for number in 0..TELLS {
        look(number);
        let told = futures::FutureExt::now_or_never(probe.tell(Fill(vec![1; BYTES])));
        match told {
            None => in_line += 1,
            Some(Ok(())) => panic!("there is no credit"),
            Some(Err(error)) => assert_eq!(error, CallError::Full { limit: limits::LINE_MESSAGES_MAX as u64 }),
        }
    }
    assert_eq!(in_line, limits::LINE_MESSAGES_MAX);
    let (sender_grown, receiver_grown) = self::grown(before, (sender.memory_bytes(), receiver.memory_bytes()));
    println!("{TELLS} tells more, {in_line} in line: sender +{sender_grown} MiB, receiver +{receiver_grown} MiB");
    let line_mib = (limits::LINE_MESSAGES_MAX * (BYTES + 1024)) as u64 / MIB;
    assert!(sender_grown <= line_mib && receiver_grown <= 16, "sender +{sender_grown}, receiver +{receiver_grown} MiB");

    println!("heard at least every {longest:?}");
    assert!(longest < limits::SUSPECT_AFTER, "nothing heard for {longest:?}");

    // All that was accepted arrives, and nothing else.
    held.release().await;
    let log = eventually(LONG, "room in the line, and the log", async || match probe.ask(Log).await {
        Ok(log) => Some(log),
        Err(CallError::Full { .. }) => None,
        Err(error) => panic!("{error}"),
    })
    .await;
    assert_eq!(log.len(), 1 + accepted + in_line);
}

/// In MiB.
fn grown(before: (u64, u64), after: (u64, u64)) -> (u64, u64) {
    (after.0.saturating_sub(before.0) / MIB, after.1.saturating_sub(before.1) / MIB)
}
