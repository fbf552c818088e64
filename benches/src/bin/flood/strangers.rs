//! Those who do not belong to the cluster.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use mobula_core::NodeUid;
use mobula_identity::{Head, UnixTime};
use mobula_transport::tls::pki_types::{CertificateDer, ServerName, UnixTime as TlsTime};
use mobula_transport::tls::{JOIN_PROTOCOL, NODE_PROTOCOL, node_name, provider};
use mobula_transport::unix::Directory;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

use crate::Args;
use crate::port::UID;

/// One who is dropped comes back after so long.
const REST: Duration = Duration::from_secs(2);

/// One whose handshake is not answered any more goes.
const GIVES_UP_AFTER: Duration = Duration::from_secs(10);

/// All of them, on a thread of their own.
pub(crate) struct Strangers {
    over: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
    seen: Arc<Counters>,
}

#[derive(Default)]
struct Counters {
    silent: AtomicU64,
    at_once: AtomicU64,
    most_at_once: AtomicU64,
    slow: AtomicU64,
    handshakes: AtomicU64,
}

/// What they did.
pub(crate) struct Seen {
    pub(crate) silent: u64,
    pub(crate) most_at_once: u64,
    pub(crate) slow: u64,
    pub(crate) handshakes: u64,
}

impl Strangers {
    pub(crate) fn let_loose(args: &Args, target: SocketAddr) -> Self {
        let (over, ended) = oneshot::channel();
        let seen = Arc::new(Counters::default());
        let (args, counters) = (args.clone(), Arc::clone(&seen));
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let home =
                    |number: u32| SocketAddr::from((Ipv4Addr::from_bits(0x7f01_0000 + 1 + number % args.addresses), 0));
                for number in 0..args.half_open {
                    tokio::spawn(say_nothing(home(number), target, Arc::clone(&counters)));
                }
                for number in 0..args.slow {
                    tokio::spawn(say_little(home(number), target, Arc::clone(&counters)));
                }
                let pretending = async {
                    let configs = [Arc::new(foreign_node()), Arc::new(joiner())];
                    let mut next = tokio::time::interval(Duration::from_secs(1) / args.handshakes.max(1));
                    for number in 0..u32::MAX {
                        next.tick().await;
                        let config = Arc::clone(&configs[number as usize % 2]);
                        let counters = Arc::clone(&counters);
                        let home = home(number);
                        tokio::spawn(async move {
                            counters.handshakes.fetch_add(1, Ordering::Relaxed);
                            let _ = tokio::time::timeout(GIVES_UP_AFTER, pretend(home, target, config)).await;
                        });
                    }
                };
                tokio::select! {
                    () = pretending, if args.handshakes > 0 => {}
                    _ = ended => {}
                }
            });
        });
        Strangers { over, thread, seen }
    }

    pub(crate) fn stop(self) -> Seen {
        let _ = self.over.send(());
        self.thread.join().expect("it only talks");
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Seen {
            silent: count(&self.seen.silent),
            most_at_once: count(&self.seen.most_at_once),
            slow: count(&self.seen.slow),
            handshakes: count(&self.seen.handshakes),
        }
    }
}

async fn connect(from: SocketAddr, target: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(from)?;
    socket.connect(target).await
}

async fn say_nothing(from: SocketAddr, target: SocketAddr, counters: Arc<Counters>) {
    loop {
        if let Ok(mut stream) = connect(from, target).await {
            counters.silent.fetch_add(1, Ordering::Relaxed);
            let at_once = counters.at_once.fetch_add(1, Ordering::Relaxed) + 1;
            counters.most_at_once.fetch_max(at_once, Ordering::Relaxed);
            // It ends when the node has enough of it.
            let _ = stream.read(&mut [0]).await;
            counters.at_once.fetch_sub(1, Ordering::Relaxed);
        }
        tokio::time::sleep(REST).await;
    }
}

/// A record of TLS that would take an hour.
async fn say_little(from: SocketAddr, target: SocketAddr, counters: Arc<Counters>) {
    const RECORD: [u8; 9] = [22, 3, 1, 0x0e, 0x10, 1, 0, 0x0e, 0x0c];
    loop {
        if let Ok(mut stream) = connect(from, target).await {
            counters.slow.fetch_add(1, Ordering::Relaxed);
            for byte in RECORD.into_iter().chain(std::iter::repeat(0)) {
                if stream.write_all(&[byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        tokio::time::sleep(REST).await;
    }
}

/// Goes as far as it can get, and waits there.
async fn pretend(from: SocketAddr, target: SocketAddr, config: Arc<ClientConfig>) -> io::Result<()> {
    let name = ServerName::try_from(node_name(UID)).map_err(io::Error::other)?;
    let mut tls = TlsConnector::from(config).connect(name, connect(from, target).await?).await?;
    tls.read(&mut [0]).await.map(|_| ())
}

/// A node of another cluster.
fn foreign_node() -> ClientConfig {
    let directory = tempfile::tempdir().expect("a directory");
    let state = Directory::create(directory.path().join("other")).expect("a directory of our own");
    let other = Head::open(&state, UnixTime::now()).expect("another cluster");
    let credentials = other.credentials(NodeUid(0xbad), UnixTime::now()).expect("credentials");
    let config = believer().with_client_auth_cert(credentials.chain.clone(), credentials.key.clone_key());
    offering(config.expect("its own key"), NODE_PROTOCOL)
}

/// One who wants to join, and never asks.
fn joiner() -> ClientConfig {
    offering(believer().with_no_client_auth(), JOIN_PROTOCOL)
}

fn believer() -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]).expect("known");
    builder.dangerous().with_custom_certificate_verifier(Arc::new(BelievesAll))
}

fn offering(mut config: ClientConfig, protocol: &[u8]) -> ClientConfig {
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config
}

/// A stranger does not care with whom it speaks.
#[derive(Debug)]
struct BelievesAll;

impl ServerCertVerifier for BelievesAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: TlsTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
