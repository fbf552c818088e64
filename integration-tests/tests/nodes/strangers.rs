//! Whoever breaks the rules on a node's port loses that connection, and nobody else notices.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use mobula::{Node, NodeUid};
use mobula_core::limits;
use mobula_integration_tests::actors::{Probe, Record};
use mobula_integration_tests::door::{self, Insider};
use mobula_integration_tests::stage::{run_plain, start_node};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, suites, within};
use mobula_transport::preface::{Dial, PrefaceError, Purpose, Secret, VERSIONS};
use mobula_transport::tcp::{self, ConnectError};
use mobula_transport::{Lane, now};

suites! {
    garbage_on_a_port_closes_only_that_connection on [processes];
    a_wrong_secret_gets_no_byte on [processes];
}

/// Sends `bytes` as a stranger; gives what comes back until the node closes the connection.
fn knock(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("the node listens");
    stream.set_read_timeout(Some(LONG)).expect("a time");
    // The node may close before it has read all of it.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => answer,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => answer,
        Err(error) => panic!("the node does not close the connection: {error}"),
    }
}

async fn garbage_on_a_port_closes_only_that_connection(stage: Stage) {
    let probe = stage.probe(0).await;
    let address = stage.cluster().nodes()[0].address.expect("it listens");
    let mut almost = b"MOBULA\r\n".to_vec();
    almost.resize(96, 0xff);
    let garbage: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        &[0; 8],
        &[0xff; 4096],
        b"MOBULA\r\r and no more of it",
        &almost,
    ];
    for (round, bytes) in garbage.into_iter().enumerate() {
        let pending = probe.ask(Record(1));
        assert_eq!(knock(address, bytes), b"", "a stranger got an answer to {bytes:?}");
        assert_eq!(within(LONG, "another peer", pending).await, Ok(round as u64 + 2));
    }
    // Strangers that wait and say nothing, more than a few.
    let silent: Vec<_> = (0..50).map(|_| TcpStream::connect(address).expect("the node listens")).collect();
    assert_eq!(within(LONG, "another peer", probe.ask(Record(1))).await, Ok(garbage.len() as u64 + 2));
    drop(silent);
    assert!(stage.cluster().nodes().iter().all(|node| node.alive));
}

async fn a_wrong_secret_gets_no_byte(stage: Stage) {
    let probe = stage.probe(0).await;
    let address = stage.cluster().nodes()[0].address.expect("it listens");
    let (dialer, target) = (NodeUid(1), stage.home(0).uid);
    let secret = Secret::from_bytes([7; 32]);
    for lane in [Lane::Data, Lane::Control] {
        let dial = Dial { dialer, target, lane, versions: VERSIONS, purpose: Purpose::Open, nonce: [1; 32] };
        assert_eq!(knock(address, &dial.encode(&secret)), b"");
        let refused = within(LONG, "the refusal", tcp::dial(address, &secret, dialer, target, lane)).await;
        let unauthorized = matches!(refused, Err(ConnectError::Preface { error: PrefaceError::Unauthorized, .. }));
        assert!(unauthorized, "{refused:?}");
    }
    assert_eq!(within(LONG, "another peer", probe.ask(Record(1))).await, Ok(2));
}

/// Two honest nodes over TCP, and the address at which the second lets peers in.
async fn two_nodes(secret: &Secret) -> (Node, Node, SocketAddr) {
    let (one, other) = (start_node("one"), start_node("other"));
    let address = door::open(&other, secret);
    door::connect(&one, other.id(), address, secret).await;
    (one, other, address)
}

#[test]
fn an_insider_that_breaks_a_rule_loses_only_its_connection() {
    run_plain(async {
        let secret = Secret::from_bytes([7; 32]);
        let (one, other, address) = two_nodes(&secret).await;
        let probe = one.spawn_on(other.id(), mobula::RemoteActor::spec(0)).await.expect("spawned");
        let probe: mobula::ActorRef<Probe> = probe;
        let over = (limits::FRAME_BYTES_MAX as u32 + 1).to_be_bytes();
        let rules: [(&[u8], &str); 8] = [
            (&over, "FrameTooLarge"),
            (&[0xff; 64], "FrameTooLarge"),
            (&[0, 0, 0, 1, 0], "EmptyFrame"),
            (&[0, 0, 0, 2, 0x77, 0], "UnknownFrameKind"),
            (&[0, 0, 0, 2, 0x11, 0], "Truncated"),
            (&[0, 0, 0, 10, 0x01, 1, 0, 0, 0, 0, 0, 0, 0, 0], "ReservedBits"),
            (&[0, 0, 0, 3, 0x03, 0, 0xc0], "HelloTwice"),
            // Credit that it was never given.
            (&[0, 0, 0, 14, 0x16, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 9], "FlowControlViolation"),
        ];
        for (number, (bytes, rule)) in rules.into_iter().enumerate() {
            let pending = probe.ask(Record(1));
            let uid = NodeUid(100 + number as u64);
            let mut insider = within(LONG, "a peer", Insider::connect(uid, other.id().uid, address, &secret)).await;
            insider.send(bytes).await;
            let last_words = within(LONG, "the end", insider.read_to_the_end()).await;
            // The goodbye names the rule.
            let text = String::from_utf8_lossy(&last_words);
            assert!(text.contains(rule), "{rule}: {text}");
            assert_eq!(within(LONG, "an honest peer", pending).await, Ok(number as u64 + 2));
        }
        let heard = one.control_link(other.id()).expect("the link is there").heard();
        assert!(now().saturating_duration_since(heard) < limits::SUSPECT_AFTER);
        one.shut_down("over");
        other.shut_down("over");
    });
}

#[test]
fn a_peer_that_claims_to_be_another_is_refused() {
    run_plain(async {
        let secret = Secret::from_bytes([7; 32]);
        let (one, other, address) = two_nodes(&secret).await;
        // It proves to be 5 and says hello as `one`.
        let stream = tcp::dial(address, &secret, NodeUid(5), other.id().uid, Lane::Data).await.expect("let in");
        let closed = one.attach(Lane::Data, other.id().clone(), move || tcp::wire(stream));
        // `one` hears a hello, and then why it has to go.
        let link = within(LONG, "a verdict", closed).await;
        let reason = match link {
            Ok(link) => within(LONG, "the end", link.closed()).await.reason,
            Err(closed) => closed.reason,
        };
        assert!(reason.contains("SpoofedSource"), "{reason}");
        one.shut_down("over");
        other.shut_down("over");
    });
}
