//! Two links: one echoes what the other asks.
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use mobula_core::frame::MessageIndex;
use mobula_core::{ActorId, CallError, Deadline, MessageKey, NodeId, NodeUid, RequestId, limits};
use mobula_transport::preface::{Acceptor, Secret, VERSIONS};
use mobula_transport::tls::{Accepted, Endpoint};
use mobula_transport::unix::{Directory, Listener};
use mobula_transport::{
    Call, Driver, Hello, Inbound, Lane, Link, ReceiveCredit, Request, SessionConfig, SessionError, Waiter, Wire, tcp,
    tls, unix,
};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::certificates::credentials;
use super::{Address, Load, Road};
use crate::drive::{self, Span};
use crate::threads::{on_own_thread, runtime};

const CLIENT: NodeUid = NodeUid(1);
const SERVER: NodeUid = NodeUid(2);
const SOCKET: &str = "node.sock";

fn secret() -> Secret {
    Secret::from_bytes([7; 32])
}

/// Takes connections and echoes until it is dropped.
pub(super) async fn serve(road: Road, packs: bool, listening: oneshot::Sender<Address>) -> Result<()> {
    let acceptor = Mutex::new(Acceptor::new(secret(), SERVER, VERSIONS));
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    match road {
        Road::Tcp => {
            let listener = TcpListener::from_std(tcp::listen(loopback)?)?;
            tell(listening, Address::Port(listener.local_addr()?))?;
            loop {
                let (stream, address) = tcp::accept_next(&listener).await;
                echo(tcp::wire(tcp::accept(stream, address, &acceptor).await?.0)?, packs);
            }
        }
        Road::Unix => {
            let folder = tempfile::tempdir()?;
            let directory = Directory::create(folder.path().join("mobula"))?;
            let listener = Listener::bind(&directory, SOCKET)?;
            tell(listening, Address::Folder(folder))?;
            loop {
                let stream = listener.accept_next().await;
                echo(unix::wire(listener.accept(stream, &acceptor).await?.0)?, packs);
            }
        }
        Road::Tls => {
            let listener = tls::listen(loopback)?;
            let endpoint = Endpoint::new(SERVER, &credentials(SERVER)?, false)?;
            tell(listening, Address::Port(listener.local_addr()?))?;
            loop {
                let (stream, address) = tcp::accept_next(&listener).await;
                match endpoint.accept(stream, address).await? {
                    Accepted::Node(secured, _) => echo(tls::wire(secured)?, packs),
                    _ => bail!("the client came to join"),
                }
            }
        }
    }
}

fn echo(wire: Wire, packs: bool) {
    let (link, driver) = open(wire, SERVER, CLIENT, packs);
    tokio::spawn(async move {
        driver.await;
        drop(link);
    });
}

fn tell(listening: oneshot::Sender<Address>, address: Address) -> Result<()> {
    listening.send(address).map_err(|_| anyhow!("the client is gone"))
}

async fn dial(road: Road, address: &Address, packs: bool) -> Result<Arc<Link<Waiting>>> {
    let wire = match (road, address) {
        (Road::Tcp, Address::Port(address)) => {
            tcp::wire(tcp::dial(*address, &secret(), CLIENT, SERVER, Lane::Data).await?)?
        }
        (Road::Unix, Address::Folder(folder)) => {
            let directory = Directory::open(folder.path().join("mobula"))?;
            unix::wire(unix::dial(&directory, SOCKET, &secret(), CLIENT, SERVER, Lane::Data).await?)?
        }
        (Road::Tls, Address::Port(address)) => {
            let endpoint = Endpoint::new(CLIENT, &credentials(CLIENT)?, false)?;
            tls::wire(endpoint.dial(*address, SERVER, Lane::Data).await?)?
        }
        _ => bail!("no way to dial"),
    };
    let (link, driver) = open(wire, CLIENT, SERVER, packs);
    tokio::spawn(driver);
    link.opened().await?;
    Ok(link)
}

fn open(wire: Wire, own: NodeUid, peer: NodeUid, packs: bool) -> (Arc<Link<Waiting>>, Driver<Waiting, Echo>) {
    let id = |uid: NodeUid| NodeId::new("bench", uid);
    let hello = Hello {
        node: id(own),
        pid: std::process::id(),
        capabilities: Hello::CAPABILITIES | if packs { Hello::LZ4 } else { 0 },
        credit_messages: limits::CREDIT_MESSAGES,
    };
    let echo = Echo { credit: ReceiveCredit::new(limits::CREDIT_MESSAGES) };
    Link::open(wire, SessionConfig::new(Lane::Data), &hello, id(peer), echo)
}

pub(super) async fn rate(road: Road, address: &Address, load: Load, span: Span) -> Result<f64> {
    let mut links = Vec::new();
    for _ in 0..load.connections {
        links.push(dial(road, address, load.packs).await?);
    }
    let payload = load.payload();
    if load.senders == 0 {
        let mut links = links.iter().cycle();
        return drive::pipelined(span, load.in_flight, || match links.next() {
            Some(link) => ask(link, &payload),
            None => unreachable!("there is a connection"),
        })
        .await;
    }
    let senders = (0..load.senders).map(|_| {
        let (link, payload) = (Arc::clone(&links[0]), payload.clone());
        let in_flight = load.in_flight / load.senders;
        on_own_thread(move || runtime()?.block_on(drive::pipelined(span, in_flight, || ask(&link, &payload))))
    });
    Ok(futures::future::try_join_all(senders).await?.iter().sum())
}

pub(super) async fn latency(road: Road, address: &Address, span: Span) -> Result<f64> {
    let (link, payload) = (dial(road, address, false).await?, Load::SMALL.payload());
    drive::latency(span, async || ask(&link, &payload).await).await
}

/// An ask, sent before its future is polled. Answers the bytes of the reply.
fn ask(link: &Arc<Link<Waiting>>, payload: &[u8]) -> impl Future<Output = Result<usize>> + use<> {
    let call =
        Call { target: ActorId(1), key: MessageKey(1), name: "bench::Echo", schema: 1, deadline: Deadline::NEVER };
    let (sender, receiver) = oneshot::channel();
    let waiting = Waiting(Arc::new(Mutex::new(Some(sender))));
    let bytes = payload.len();
    let sent = link.ask(&call, waiting, |out| {
        out.extend_from_slice(payload);
        Ok(())
    });
    async move {
        sent.map_err(|(error, _)| error)?;
        let answered = receiver.await.context("no answer")??;
        if answered != bytes {
            bail!("{answered} bytes came back of {bytes}");
        }
        Ok(answered)
    }
}

/// Hears how many bytes came back.
type Told = oneshot::Sender<Result<usize, CallError>>;

#[derive(Clone)]
struct Waiting(Arc<Mutex<Option<Told>>>);

impl Waiter for Waiting {
    fn answer(self, answer: Result<&[u8], CallError>) {
        if let Some(sender) = self.0.lock().take() {
            let _ = sender.send(answer.map(<[u8]>::len));
        }
    }

    fn accepted(self) {}
}

struct Echo {
    credit: ReceiveCredit,
}

impl Inbound<Waiting> for Echo {
    fn define(&mut self, _: MessageIndex, _: &str, _: u64) {}

    fn request(&mut self, link: &Arc<Link<Waiting>>, request: Request<'_>) -> Result<(), SessionError> {
        self.credit.on_message()?;
        if let Some(count) = self.credit.on_taken() {
            link.grant(request.target, count);
        }
        if let Some(id) = request.request {
            link.reply(id, |out| {
                out.extend_from_slice(&request.payload);
                Ok(())
            });
        }
        Ok(())
    }

    fn cancel(&mut self, _: RequestId) {}

    fn closed(&mut self, _: &Arc<Link<Waiting>>, _: &str) {}
}
