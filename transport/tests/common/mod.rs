//! Two nodes of a test: links with an echo behind them, and a peer whose bytes are written by hand.

// Each test program uses a part of it.
#[allow(dead_code)]
pub(crate) mod certificates;
#[allow(dead_code)]
pub(crate) mod faulty;
#[allow(dead_code)]
pub(crate) mod returning;

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use certificates::Authority;
use faulty::{Fault, faulty};
use mobula_core::codec::{self, EncodeError};
use mobula_core::frame::{self, Frame, Head, MessageIndex};
use mobula_core::{ActorId, CallError, Deadline, IdMap, MessageKey, NodeId, NodeUid, RequestId, limits};
use mobula_transport::preface::{Acceptor, Dial, Secret, VERSIONS, Versions};
use mobula_transport::tls::{Accepted, Endpoint, Secured, TlsError};
use mobula_transport::unix::{Directory, UnixError};
use mobula_transport::{
    Accepted as Told, Agreed, Call, Driver, Hello, Inbound, Lane, Link, ReceiveCredit, Request, SessionConfig,
    SessionError, Waiter, Wire, memory, tcp, tls, unix,
};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

pub(crate) const A: ActorId = ActorId(1);

/// Waits for what has to come; that it never comes is an error, not a hang.
pub(crate) async fn within<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(30), what).await.expect("came in time")
}

/// The wires under test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Memory,
    /// Memory that pauses, and carries the bytes in pieces of any size.
    Pieces,
    Tcp,
    Tls,
    Unix,
}

impl Kind {
    /// A connected pair, past the preface where there is one.
    pub(crate) async fn pair(self) -> (Wire, Wire) {
        match self {
            Kind::Memory => memory::pair(64 * 1024),
            Kind::Pieces => {
                let (here, there) = memory::pair(64 * 1024);
                let pieces = |wire, seed| faulty(wire, Fault::Pieces(seed), Fault::Pieces(seed << 32)).0;
                (pieces(here, 7), pieces(there, 11))
            }
            Kind::Tcp => {
                let port = Port::open();
                let secret = Port::secret();
                let (dialed, accepted) = tokio::join!(port.dial(&secret), port.accept());
                let (accepted, dial) = accepted.expect("accepted");
                assert_eq!((dial.dialer, dial.target, dial.lane), (Port::DIALER, Port::UID, Lane::Data));
                let wire = |stream| tcp::wire(stream).expect("a fresh stream");
                (wire(dialed.expect("dialed")), wire(accepted))
            }
            Kind::Tls => {
                let port = TlsPort::open();
                let (dialed, accepted) = tokio::join!(port.dial(), port.accept());
                let Ok(Accepted::Node(accepted, dial)) = accepted else { panic!("accepted") };
                assert_eq!((dial.dialer, dial.target, dial.lane), (Port::DIALER, Port::UID, Lane::Data));
                let wire = |secured| tls::wire(secured).expect("a fresh connection");
                (wire(dialed.expect("dialed")), wire(accepted))
            }
            Kind::Unix => {
                let port = UnixPort::open();
                let secret = Port::secret();
                let (dialed, accepted) = tokio::join!(port.dial(&secret), port.accept());
                let (accepted, dial) = accepted.expect("accepted");
                assert_eq!((dial.dialer, dial.target, dial.lane), (Port::DIALER, Port::UID, Lane::Data));
                let wire = |stream| unix::wire(stream).expect("a fresh stream");
                (wire(dialed.expect("dialed")), wire(accepted))
            }
        }
    }
}

/// A guarded TCP port.
pub(crate) struct Port {
    pub(crate) address: SocketAddr,
    listener: TcpListener,
    acceptor: Mutex<Acceptor>,
}

impl Port {
    pub(crate) const UID: NodeUid = NodeUid(2);
    pub(crate) const DIALER: NodeUid = NodeUid(1);

    pub(crate) fn open() -> Self {
        Port::speaking(VERSIONS)
    }

    pub(crate) fn speaking(versions: Versions) -> Self {
        let listener = tcp::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a port of the system's choice");
        let listener = TcpListener::from_std(listener).expect("a fresh listener");
        let acceptor = Mutex::new(Acceptor::new(Port::secret(), Port::UID, versions));
        Port { address: listener.local_addr().expect("it is bound"), listener, acceptor }
    }

    pub(crate) fn secret() -> Secret {
        Secret::from_bytes([7; 32])
    }

    pub(crate) fn other_secret() -> Secret {
        Secret::from_bytes([8; 32])
    }

    pub(crate) async fn dial(&self, secret: &Secret) -> Result<Agreed<std::net::TcpStream>, tcp::ConnectError> {
        tcp::dial(self.address, secret, Port::DIALER, Port::UID, Lane::Data).await
    }

    pub(crate) async fn accept(&self) -> Result<(Agreed<std::net::TcpStream>, Dial), tcp::ConnectError> {
        let (stream, address) = tcp::accept_next(&self.listener).await;
        tcp::accept(stream, address, &self.acceptor).await
    }
}

/// A guarded Unix socket in a directory of its own.
pub(crate) struct UnixPort {
    pub(crate) directory: Directory,
    pub(crate) listener: unix::Listener,
    acceptor: Mutex<Acceptor>,
    _parent: TempDir,
}

impl UnixPort {
    pub(crate) const NAME: &str = "node.sock";

    pub(crate) fn open() -> Self {
        let parent = tempfile::tempdir().expect("a directory for the test");
        let directory = Directory::create(parent.path().join("mobula")).expect("a directory of our own");
        let listener = unix::Listener::bind(&directory, UnixPort::NAME).expect("a free name");
        let acceptor = Mutex::new(Acceptor::new(Port::secret(), Port::UID, VERSIONS));
        UnixPort { directory, listener, acceptor, _parent: parent }
    }

    pub(crate) async fn dial(&self, secret: &Secret) -> Result<Agreed<UnixStream>, UnixError> {
        unix::dial(&self.directory, UnixPort::NAME, secret, Port::DIALER, Port::UID, Lane::Data).await
    }

    pub(crate) async fn accept(&self) -> Result<(Agreed<UnixStream>, Dial), UnixError> {
        let stream = self.listener.accept_next().await;
        self.listener.accept(stream, &self.acceptor).await
    }
}

/// A TLS port of node 2, and node 1, which may come in.
pub(crate) struct TlsPort {
    pub(crate) address: SocketAddr,
    pub(crate) listener: TcpListener,
    pub(crate) endpoint: Endpoint,
    pub(crate) dialer: Endpoint,
}

impl TlsPort {
    pub(crate) fn open() -> Self {
        let listener = tls::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a port of the system's choice");
        let address = listener.local_addr().expect("it is bound");
        let endpoint = |uid| Endpoint::new(uid, &Authority::of_the_tests().node(uid), false).expect("good credentials");
        TlsPort { address, listener, endpoint: endpoint(Port::UID), dialer: endpoint(Port::DIALER) }
    }

    pub(crate) async fn dial(&self) -> Result<Secured, TlsError> {
        self.dialer.dial(self.address, Port::UID, Lane::Data).await
    }

    pub(crate) async fn accept(&self) -> Result<Accepted, TlsError> {
        let (stream, address) = tcp::accept_next(&self.listener).await;
        self.endpoint.accept(stream, address).await
    }
}

/// How an operation ended.
#[derive(Debug, PartialEq)]
pub(crate) enum End {
    Answer(Vec<u8>),
    Failed(CallError),
    Accepted,
}

#[derive(Clone)]
pub(crate) struct Waiting(Arc<Mutex<Option<oneshot::Sender<End>>>>);

impl Waiting {
    fn end(self, end: End) {
        if let Some(sender) = self.0.lock().take() {
            let _ = sender.send(end);
        }
    }
}

impl Waiter for Waiting {
    fn answer(self, answer: Result<&[u8], CallError>) {
        self.end(match answer {
            Ok(bytes) => End::Answer(bytes.to_vec()),
            Err(error) => End::Failed(error),
        });
    }

    fn accepted(self) {
        self.end(End::Accepted);
    }
}

pub(crate) fn waiting() -> (Waiting, oneshot::Receiver<End>) {
    let (sender, receiver) = oneshot::channel();
    (Waiting(Arc::new(Mutex::new(Some(sender)))), receiver)
}

pub(crate) fn to(target: ActorId) -> Call {
    Call { target, key: MessageKey(1), name: "test::Note", schema: 1, deadline: Deadline::NEVER }
}

pub(crate) fn bytes(bytes: &[u8]) -> impl FnOnce(&mut BytesMut) -> Result<(), EncodeError> + '_ {
    |out| {
        out.extend_from_slice(bytes);
        Ok(())
    }
}

/// Sends an ask; its end comes with the receiver.
pub(crate) fn ask(link: &Link<Waiting>, target: ActorId, payload: &[u8]) -> oneshot::Receiver<End> {
    let (waiter, end) = waiting();
    assert!(link.ask(&to(target), waiter, bytes(payload)).is_ok(), "refused");
    end
}

/// Sends a tell; the receiver gets something only if it stood in line.
pub(crate) fn tell(
    link: &Link<Waiting>,
    target: ActorId,
    payload: &[u8],
) -> (Result<Told, CallError>, oneshot::Receiver<End>) {
    let (waiter, end) = waiting();
    (link.tell(&to(target), || waiter, bytes(payload)), end)
}

/// What came to one side, for the test to look at.
pub(crate) struct Seen {
    pub(crate) messages: Mutex<Vec<(ActorId, Vec<u8>)>>,
    pub(crate) count: watch::Sender<usize>,
    pub(crate) closed: watch::Sender<Option<String>>,
}

impl Seen {
    pub(crate) async fn messages(&self, count: usize) -> Vec<(ActorId, Vec<u8>)> {
        within(self.count.subscribe().wait_for(|now| *now >= count)).await.expect("the inbound lives");
        self.messages.lock().clone()
    }

    pub(crate) async fn closed(&self) -> String {
        let mut closed = self.closed.subscribe();
        let closed = within(closed.wait_for(Option::is_some)).await.expect("the inbound lives").clone();
        closed.expect("it is some")
    }
}

/// What an inbound does with requests, after it has written them down.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Mode {
    Echo,
    /// Takes messages and answers nothing.
    Hold,
    /// Every request breaks a rule.
    Refuse,
}

pub(crate) struct Recorder {
    mode: Mode,
    seen: Arc<Seen>,
    credit: IdMap<u64, ReceiveCredit>,
    types: u32,
}

impl Inbound<Waiting> for Recorder {
    fn define(&mut self, index: MessageIndex, name: &str, schema: u64) {
        assert_eq!((index.0, name, schema), (self.types, "test::Note", 1));
        self.types += 1;
    }

    fn request(&mut self, link: &Arc<Link<Waiting>>, request: Request<'_>) -> Result<(), SessionError> {
        if self.mode == Mode::Refuse {
            return Err(SessionError::UndefinedMessage { index: 99 });
        }
        let credit = self.credit.entry(request.target.0).or_insert_with(|| ReceiveCredit::new(CREDIT));
        credit.on_message()?;
        self.seen.messages.lock().push((request.target, request.payload.to_vec()));
        if let Some(count) = credit.on_taken() {
            link.grant(request.target, count);
        }
        if let Some(id) = request.request
            && self.mode == Mode::Echo
        {
            link.reply(id, bytes(&request.payload));
        }
        self.seen.count.send_modify(|count| *count += 1);
        Ok(())
    }

    fn cancel(&mut self, _: RequestId) {}

    fn closed(&mut self, _: &Arc<Link<Waiting>>, reason: &str) {
        self.seen.closed.send_modify(|closed| {
            assert_eq!(*closed, None, "the end comes once");
            *closed = Some(reason.to_owned());
        });
    }
}

/// The window of every test node.
pub(crate) const CREDIT: u32 = 64;

pub(crate) fn id(uid: u64) -> NodeId {
    NodeId::new(&format!("node-{uid}"), NodeUid(uid))
}

thread_local! {
    static PACKING: Cell<bool> = const { Cell::new(false) };
}

/// From here on, the sides that this thread makes pack whatever gets shorter by it.
#[allow(dead_code)]
pub(crate) fn pack_from_here_on() {
    PACKING.set(true);
}

pub(crate) fn hello(uid: u64) -> Hello {
    let packing = if PACKING.get() { Hello::LZ4 } else { 0 };
    let capabilities = Hello::CAPABILITIES | packing;
    Hello { node: id(uid), pid: uid as u32, capabilities, credit_messages: CREDIT }
}

/// Bytes that do not get shorter by packing.
#[allow(dead_code)]
pub(crate) fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

/// Without a timer that could wake a driver by chance: a lost wake-up has to show.
pub(crate) fn data() -> SessionConfig {
    SessionConfig { hello_deadline: Duration::from_secs(3600), pack_above_bytes: 0, ..SessionConfig::new(Lane::Data) }
}

/// One side of a connection, its driver not yet running.
pub(crate) struct Side {
    pub(crate) link: Arc<Link<Waiting>>,
    pub(crate) seen: Arc<Seen>,
    pub(crate) driver: Driver<Waiting, Recorder>,
}

impl Side {
    pub(crate) fn new(wire: Wire, uid: u64, mode: Mode, config: SessionConfig) -> Self {
        Side::saying(wire, &hello(uid), mode, config)
    }

    pub(crate) fn saying(wire: Wire, hello: &Hello, mode: Mode, config: SessionConfig) -> Self {
        let uid = hello.node.uid.0;
        let seen = Arc::new(Seen {
            messages: Mutex::default(),
            count: watch::Sender::new(0),
            closed: watch::Sender::new(None),
        });
        let recorder = Recorder { mode, seen: Arc::clone(&seen), credit: IdMap::default(), types: 0 };
        let (link, driver) = Link::open(wire, config, hello, id(3 - uid), recorder);
        Side { link, seen, driver }
    }

    /// Runs the driver as a task of its own.
    pub(crate) fn run(self) -> (Arc<Link<Waiting>>, Arc<Seen>) {
        tokio::spawn(self.driver);
        (self.link, self.seen)
    }
}

/// Two sides, open and running: node 1 asks, node 2 is in `mode`.
pub(crate) async fn connected(kind: Kind, mode: Mode) -> (Arc<Link<Waiting>>, (Arc<Link<Waiting>>, Arc<Seen>)) {
    let (here, there) = kind.pair().await;
    let (link, _) = Side::new(here, 1, Mode::Echo, data()).run();
    let there = Side::new(there, 2, mode, data()).run();
    within(link.opened()).await.expect("open");
    (link, there)
}

/// A peer without a session: its frames are made by hand.
pub(crate) struct Raw {
    pub(crate) wire: Wire,
    buffer: BytesMut,
}

impl Raw {
    pub(crate) fn new(wire: Wire) -> Self {
        Raw { wire, buffer: BytesMut::new() }
    }

    pub(crate) async fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.wire.write.try_write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    within(poll_fn(|cx| self.wire.write.poll_writable(cx))).await.expect("open");
                }
                // The other side has seen enough.
                Err(_) => return,
            }
        }
    }

    /// The next frame, shown to `look`; none at the end of the connection.
    pub(crate) async fn next<T>(&mut self, look: impl FnOnce(Frame<'_>) -> T) -> Option<T> {
        loop {
            if let Some((frame, length)) = frame::decode(&self.buffer, limits::FRAME_BYTES_MAX).expect("a link's bytes")
            {
                let seen = look(frame);
                self.buffer.advance(length);
                return Some(seen);
            }
            if within(self.wire.read.read_buf(&mut self.buffer)).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// The text of the link's goodbye, after whatever else it says.
    pub(crate) async fn goodbye(&mut self) -> Option<String> {
        loop {
            let text = self.next(|frame| match frame {
                Frame::Goodbye { body } => Some(codec::decode(body).expect("a text")),
                _ => None,
            });
            if let Some(text) = text.await? {
                return Some(text);
            }
        }
    }
}

/// The bytes of a frame with a body of `bytes`.
pub(crate) fn frame_of(head: Head, body: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame::write(&mut out, head, bytes(body)).expect("small");
    out.to_vec()
}

pub(crate) fn hello_frame(uid: u64) -> Vec<u8> {
    frame_of(Head::Hello, &codec::encode(&hello(uid)).expect("plain data"))
}

pub(crate) fn define_frame() -> Vec<u8> {
    frame_of(Head::Define { index: MessageIndex(0) }, b"\x82\xa4name\xaatest::Note\xa6schema\x01")
}

/// A wire that notes the largest buffer into which it was asked to read.
pub(crate) fn probed(mut wire: Wire) -> (Wire, Arc<AtomicUsize>) {
    let offered_max = Arc::new(AtomicUsize::new(0));
    wire.read = Box::new(Probe { inner: wire.read, offered_max: Arc::clone(&offered_max) });
    (wire, offered_max)
}

struct Probe {
    inner: Box<dyn AsyncRead + Send + Unpin>,
    offered_max: Arc<AtomicUsize>,
}

impl AsyncRead for Probe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.offered_max.fetch_max(out.remaining(), Ordering::Relaxed);
        Pin::new(&mut self.inner).poll_read(cx, out)
    }
}
