//! Who gets through TLS, and what those get who do not.

#[allow(dead_code)]
mod common;

use std::sync::Arc;

use common::certificates::{Authority, expired};
use common::*;
use mobula_core::{NodeUid, limits};
use mobula_transport::Lane;
use mobula_transport::preface::{Dial, PrefaceError, Purpose, Secret, VERSIONS};
use mobula_transport::tls::pki_types::ServerName;
use mobula_transport::tls::{
    Accepted, Credentials, Endpoint, NODE_PROTOCOL, TlsError, node_name, provider, role_name, wire,
};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, SanType};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A client with its own idea of TLS.
fn client(
    credentials: Option<&Credentials>,
    versions: &[&'static SupportedProtocolVersion],
    protocol: &[u8],
) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(Authority::of_the_tests().node(Port::UID).authority.clone()).expect("an authority");
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions).expect("known");
    let builder = builder.with_root_certificates(roots);
    let mut config = match credentials {
        Some(own) => builder.with_client_auth_cert(own.chain.clone(), own.key.clone_key()).expect("they fit"),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    TlsConnector::from(Arc::new(config))
}

async fn connect(port: &TlsPort, connector: &TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(port.address).await.expect("the port is open");
    let name = ServerName::try_from(node_name(Port::UID)).expect("a name");
    connector.connect(name, stream).await
}

/// What a client sees that shows `credentials` and then sends `preface`: the error, or the bytes that came back.
async fn shows(port: &TlsPort, connector: &TlsConnector, preface: &[u8]) -> Result<Vec<u8>, String> {
    let mut tls = connect(port, connector).await.map_err(|error| error.to_string())?;
    // In TLS 1.3 the client is done before its certificate is looked at.
    let _ = tls.write_all(preface).await;
    let mut heard = Vec::new();
    match tls.read_to_end(&mut heard).await {
        Ok(_) => Ok(heard),
        Err(error) if heard.is_empty() => Err(error.to_string()),
        Err(error) => panic!("{heard:?}, then {error}"),
    }
}

fn refused(accepted: Result<Accepted, TlsError>) -> TlsError {
    match accepted {
        Ok(_) => panic!("it was let in"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn without_a_certificate_of_the_cluster_nobody_gets_in() {
    let port = TlsPort::open();
    let cluster = Authority::of_the_tests();
    let uid = Port::DIALER;
    let not_for_clients =
        |params: &mut CertificateParams| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let wrong: [(&str, Option<Credentials>); 6] = [
        ("CertificateRequired", None),
        ("UnknownCA", Some(Authority::named("another").node(uid))),
        // With the same name it is the signature that tells them apart.
        ("DecryptError", Some(Authority::named(Authority::NAME).node(uid))),
        ("CertificateExpired", Some(cluster.sign(uid, expired))),
        ("UnknownCA", Some(cluster.self_signed(uid))),
        ("UnsupportedCertificate", Some(cluster.sign(uid, not_for_clients))),
    ];
    for (alert, credentials) in wrong {
        let connector = client(credentials.as_ref(), &[&TLS13], NODE_PROTOCOL);
        let (heard, accepted) = within(async { tokio::join!(shows(&port, &connector, &[0; 96]), port.accept()) }).await;
        let error = refused(accepted);
        assert!(matches!(error, TlsError::Io { .. }), "{error}");
        let heard = heard.expect_err("an alert, and no byte of the application");
        assert!(heard.contains(alert), "{alert}: {heard}; {error}");
    }
}

/// A hello of TLS 1.2: one cipher suite, one curve, one signature.
fn hello_of_tls_1_2() -> Vec<u8> {
    let extensions = [0, 10, 0, 4, 0, 2, 0, 0x17, 0, 13, 0, 4, 0, 2, 4, 3, 0, 11, 0, 2, 1, 0];
    let body = [
        &[3, 3][..],
        &[7; 32],
        &[0],
        &[0, 2, 0xc0, 0x2b],
        &[1, 0],
        &(extensions.len() as u16).to_be_bytes(),
        &extensions,
    ]
    .concat();
    let message = [&[1, 0, 0, body.len() as u8][..], &body].concat();
    [&[22, 3, 1, 0, message.len() as u8][..], &message].concat()
}

#[tokio::test]
async fn what_is_not_tls_1_3_gets_an_alert_or_nothing() {
    let port = TlsPort::open();
    let old = hello_of_tls_1_2();
    let strangers: [(&[u8], Option<u8>); 5] = [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", None),
        (b"SSH-2.0-x\r\n", None),
        (b"MOBULA\r\n", None),
        (&[22, 3, 1, 0, 5, 1, 0, 0, 1, 0], None),
        // 70: protocol_version.
        (&old, Some(70)),
    ];
    for (bytes, alert) in strangers {
        let stranger = async {
            let mut stream = TcpStream::connect(port.address).await.expect("the port is open");
            stream.write_all(bytes).await.expect("it is open");
            let _ = stream.shutdown().await;
            let mut heard = Vec::new();
            let _ = stream.read_to_end(&mut heard).await;
            heard
        };
        let (heard, accepted) = within(async { tokio::join!(stranger, port.accept()) }).await;
        let error = refused(accepted);
        // Content type 21, an alert of two bytes: level fatal, and which.
        let is_alert = heard.len() == 7 && heard[0] == 21 && heard[5] == 2;
        assert!(is_alert || (heard.is_empty() && alert.is_none()), "{heard:?}: {error}");
        assert!(alert.is_none_or(|alert| heard[6] == alert), "{heard:?}: {error}");
    }
}

#[tokio::test]
async fn other_protocols_inside_tls_are_refused() {
    let port = TlsPort::open();
    let own = Authority::of_the_tests().node(Port::DIALER);
    let connector = client(Some(&own), &[&TLS13], b"h2");
    let (heard, accepted) = within(async { tokio::join!(shows(&port, &connector, b""), port.accept()) }).await;
    refused(accepted);
    let heard = heard.expect_err("an alert");
    assert!(heard.contains("NoApplicationProtocol"), "{heard}");
    let connector = client(None, &[&TLS13], mobula_transport::tls::JOIN_PROTOCOL);
    let (_, accepted) = within(async { tokio::join!(shows(&port, &connector, b""), port.accept()) }).await;
    assert!(matches!(refused(accepted), TlsError::NotTheHead { .. }));
}

/// The dialer's preface over a connection, with what is changed about it.
fn preface(tls: &TlsStream<TcpStream>, change: impl FnOnce(&mut Dial)) -> Vec<u8> {
    let key = tls.get_ref().1.export_keying_material([0; 32], b"EXPORTER-mobula-preface/1", None).expect("open");
    let mut dial = Dial {
        dialer: Port::DIALER,
        target: Port::UID,
        lane: Lane::Data,
        versions: VERSIONS,
        purpose: Purpose::Open,
        nonce: [1; 32],
    };
    change(&mut dial);
    dial.encode(&Secret::from_bytes(key)).to_vec()
}

/// The server's verdict about a node with good credentials that sends what `make` says, and what the node hears.
async fn says(port: &TlsPort, make: impl FnOnce(&TlsStream<TcpStream>) -> Vec<u8>) -> (TlsError, Vec<u8>) {
    let connector = client(Some(&Authority::of_the_tests().node(Port::DIALER)), &[&TLS13], NODE_PROTOCOL);
    let insider = async {
        let mut tls = connect(port, &connector).await.expect("good credentials");
        let bytes = make(&tls);
        tls.write_all(&bytes).await.expect("open");
        let mut heard = Vec::new();
        let _ = tls.read_to_end(&mut heard).await;
        heard
    };
    let (heard, accepted) = within(async { tokio::join!(insider, port.accept()) }).await;
    (refused(accepted), heard)
}

#[tokio::test]
async fn a_life_that_is_not_the_certificates_is_refused() {
    let port = TlsPort::open();
    let (error, heard) = says(&port, |tls| preface(tls, |dial| dial.dialer = NodeUid(7))).await;
    let TlsError::Preface { error: PrefaceError::SpoofedSource { claimed: NodeUid(7) }, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(heard, []);
}

#[tokio::test]
async fn a_preface_fits_its_connection_its_lane_and_its_target_alone() {
    let port = TlsPort::open();
    // Made for another connection of the same node: a relay has nothing else to offer.
    let connector = client(Some(&Authority::of_the_tests().node(Port::DIALER)), &[&TLS13], NODE_PROTOCOL);
    let elsewhere = async {
        let tls = connect(&port, &connector).await.expect("good credentials");
        preface(&tls, |_| {})
    };
    let (relayed, accepted) = within(async { tokio::join!(elsewhere, port.accept()) }).await;
    refused(accepted);
    let (error, heard) = says(&port, |_| relayed).await;
    assert!(matches!(error, TlsError::Preface { error: PrefaceError::Unauthorized, .. }), "{error}");
    assert_eq!(heard, []);

    for at in 8..96 {
        let (error, heard) = says(&port, |tls| {
            let mut bytes = preface(tls, |_| {});
            bytes[at] ^= 1;
            bytes
        })
        .await;
        assert!(matches!(error, TlsError::Preface { error: PrefaceError::Unauthorized, .. }), "byte {at}: {error}");
        assert_eq!(heard, [], "byte {at}");
    }
    let (error, heard) = says(&port, |tls| preface(tls, |dial| dial.target = NodeUid(3))).await;
    assert!(matches!(error, TlsError::Preface { error: PrefaceError::StaleIncarnation { .. }, .. }), "{error}");
    assert_eq!(heard, []);
}

/// The dialer looks as closely as the acceptor.
#[tokio::test]
async fn a_server_without_the_certificate_of_the_target_is_not_spoken_to() {
    let cluster = Authority::of_the_tests();
    let other = Port::DIALER;
    let not_for_servers =
        |params: &mut CertificateParams| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let wrong: [(&str, NodeUid, Credentials); 5] = [
        ("another node", NodeUid(9), cluster.node(NodeUid(9))),
        ("another cluster", Port::UID, Authority::named(Authority::NAME).node(Port::UID)),
        ("expired", Port::UID, cluster.sign(Port::UID, expired)),
        ("self-signed", Port::UID, cluster.self_signed(Port::UID)),
        ("a client's", Port::UID, cluster.sign(Port::UID, not_for_servers)),
    ];
    for (name, uid, credentials) in wrong {
        let mut port = TlsPort::open();
        port.endpoint = Endpoint::new(uid, &credentials, false).expect("the server trusts itself");
        port.dialer = Endpoint::new(other, &cluster.node(other), false).expect("good credentials");
        let (dialed, accepted) = within(async { tokio::join!(port.dial(), port.accept()) }).await;
        refused(accepted);
        let Err(TlsError::Io { error, .. }) = dialed else { panic!("{name}") };
        assert!(error.to_string().contains("invalid peer certificate"), "{name}: {error}");
    }
}

#[tokio::test]
async fn credentials_of_another_node_are_refused_at_once() {
    let cluster = Authority::of_the_tests();
    let own = cluster.node(Port::UID);
    assert!(matches!(Endpoint::new(NodeUid(9), &own, false), Err(TlsError::Credentials { .. })));
    let mut mixed = cluster.node(Port::UID);
    mixed.key = cluster.node(Port::UID).key.clone_key();
    assert!(matches!(Endpoint::new(Port::UID, &mixed, false), Err(TlsError::Credentials { .. })));
    let mut none = cluster.node(Port::UID);
    none.chain.clear();
    assert!(matches!(Endpoint::new(Port::UID, &none, false), Err(TlsError::Credentials { .. })));
    let endpoint = Endpoint::new(Port::UID, &own, false).expect("its own");
    assert!(endpoint.renew(&cluster.node(NodeUid(9))).is_err());
    endpoint.renew(&cluster.node(Port::UID)).expect("its own");
}

#[tokio::test]
async fn roles_are_read_from_the_certificate() {
    let mut port = TlsPort::open();
    let worker = Authority::of_the_tests().sign(Port::DIALER, |params| {
        params.subject_alt_names.push(SanType::DnsName(role_name("worker").try_into().expect("a name")));
    });
    port.dialer = Endpoint::new(Port::DIALER, &worker, false).expect("its own");
    let (dialed, accepted) = within(async { tokio::join!(port.dial(), port.accept()) }).await;
    let (Ok(_), Ok(Accepted::Node(accepted, _))) = (dialed, accepted) else { panic!("let in") };
    assert!(accepted.peer_is(&role_name("worker")) && accepted.peer_is(&node_name(Port::DIALER)));
    assert!(!accepted.peer_is(&role_name("head")) && !accepted.peer_is(&node_name(Port::UID)));
    assert!(!accepted.peer_is("not a name"));
}

#[tokio::test]
async fn a_revoked_node_is_cut_at_once_and_stays_out() {
    let port = TlsPort::open();
    let (dialed, accepted) = within(async { tokio::join!(port.dial(), port.accept()) }).await;
    let (Ok(dialed), Ok(Accepted::Node(accepted, _))) = (dialed, accepted) else { panic!("let in") };
    let (link, _) = Side::new(wire(dialed).expect("fresh"), 1, Mode::Echo, data()).run();
    let (peer, _) = Side::new(wire(accepted).expect("fresh"), 2, Mode::Hold, data()).run();
    within(link.opened()).await.expect("open");
    let end = ask(&link, A, b"x");
    port.endpoint.revoke(NodeUid(77));
    assert!(link.pending() == 1, "another node is not this one");
    port.endpoint.revoke(Port::DIALER);
    tokio::time::timeout(std::time::Duration::from_secs(2), async { tokio::join!(link.closed(), peer.closed()) })
        .await
        .expect("cut within two seconds");
    assert!(matches!(within(end).await, Ok(End::Failed(_))));

    let (_, accepted) = within(async { tokio::join!(port.dial(), port.accept()) }).await;
    assert!(matches!(accepted, Err(TlsError::Revoked { uid: Port::DIALER, .. })));
    port.dialer.revoke(Port::UID);
    assert!(matches!(within(port.dial()).await, Err(TlsError::Revoked { uid: Port::UID, .. })));
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_not_waited_for() {
    let port = TlsPort::open();
    let _silent = TcpStream::connect(port.address).await.expect("the port is open");
    let Err(TlsError::Deadline { after, .. }) = port.accept().await else { panic!("it says nothing") };
    assert_eq!(after, limits::HANDSHAKE_DEADLINE);
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_read_no_further_than_its_limit() {
    let port = TlsPort::open();
    // A handshake message of 60,000 bytes, in records of 1,000: allowed by TLS, and never a hello of ours.
    let mut records = Vec::new();
    let mut body = vec![1, 0, 0xea, 0x60];
    body.resize(60_004, 0x5a);
    for piece in body.chunks(1_000) {
        records.extend_from_slice(&[0x16, 3, 1]);
        records.extend_from_slice(&(piece.len() as u16).to_be_bytes());
        records.extend_from_slice(piece);
    }
    let stranger = async {
        let mut stream = TcpStream::connect(port.address).await.expect("the port is open");
        let _ = stream.write_all(&records).await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    };
    let (_, accepted) = within(async { tokio::join!(stranger, port.accept()) }).await;
    let error = refused(accepted).to_string();
    assert!(error.contains("HandshakeTooLarge") || error.contains("Message"), "{error}");
}

#[test]
fn a_port_in_use_is_named() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _inside = runtime.enter();
    let port = TlsPort::open();
    let listened = mobula_transport::tls::listen(port.address);
    assert!(matches!(listened, Err(TlsError::PortInUse { address }) if address == port.address));
}
