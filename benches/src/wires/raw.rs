//! What a careful programmer writes by hand over the same kind of connection: frames, and `ask().await` with a oneshot for
//! each call and writes that coalesce.
use std::io;
use std::mem;
use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use mobula_core::NodeUid;
use mobula_transport::tls::pki_types::ServerName;
use mobula_transport::tls::{node_name, provider};
use parking_lot::Mutex;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use slab::Slab;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Notify, oneshot};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::certificates::credentials;
use super::{Address, Load, Road};
use crate::drive::{self, Span};

const SERVER: NodeUid = NodeUid(2);
const SOCKET: &str = "raw.sock";
const READ_BYTES: usize = 256 * 1024;
const HEAD_BYTES: usize = 12;

/// Takes one connection and echoes until it ends.
pub(super) async fn serve(road: Road, listening: oneshot::Sender<Address>) -> Result<()> {
    let tell = |address| listening.send(address).map_err(|_| anyhow!("the client is gone"));
    match road {
        Road::Tcp | Road::Tls => {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            tell(Address::Port(listener.local_addr()?))?;
            let (mut stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            if road == Road::Tcp {
                let (reader, writer) = stream.split();
                return echo(reader, writer).await;
            }
            let own = credentials(SERVER)?;
            let config = ServerConfig::builder_with_provider(provider())
                .with_protocol_versions(&[&TLS13])?
                .with_no_client_auth()
                .with_single_cert(own.chain.clone(), own.key.clone_key())?;
            let (reader, writer) = tokio::io::split(TlsAcceptor::from(Arc::new(config)).accept(stream).await?);
            echo(reader, writer).await
        }
        Road::Unix => {
            let folder = tempfile::tempdir()?;
            let listener = UnixListener::bind(folder.path().join(SOCKET))?;
            tell(Address::Folder(folder))?;
            let (mut stream, _) = listener.accept().await?;
            let (reader, writer) = stream.split();
            echo(reader, writer).await
        }
    }
}

async fn echo(mut reader: impl AsyncRead + Unpin, mut writer: impl AsyncWrite + Unpin) -> Result<()> {
    let (mut frames, mut out) = (Frames::new(), Vec::new());
    while frames.read(&mut reader).await.unwrap_or(false) {
        while let Some((id, body)) = frames.next() {
            put(&mut out, id, body);
        }
        writer.write_all(&out).await?;
        writer.flush().await?;
        out.clear();
    }
    Ok(())
}

pub(super) async fn rate(road: Road, address: &Address, load: Load, span: Span) -> Result<f64> {
    match (road, address) {
        (Road::Unix, Address::Folder(folder)) => {
            let mut stream = UnixStream::connect(folder.path().join(SOCKET)).await?;
            let (reader, writer) = stream.split();
            asks(reader, writer, load, span).await
        }
        (_, Address::Port(address)) => {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            if road == Road::Tcp {
                let (reader, writer) = stream.split();
                return asks(reader, writer, load, span).await;
            }
            let mut roots = RootCertStore::empty();
            roots.add(credentials(SERVER)?.authority.clone())?;
            let config = ClientConfig::builder_with_provider(provider())
                .with_protocol_versions(&[&TLS13])?
                .with_root_certificates(roots)
                .with_no_client_auth();
            let name = ServerName::try_from(node_name(SERVER))?;
            let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
            let (reader, writer) = tokio::io::split(stream);
            asks(reader, writer, load, span).await
        }
        _ => bail!("no way to dial"),
    }
}

async fn asks(reader: impl AsyncRead + Unpin, writer: impl AsyncWrite + Unpin, load: Load, span: Span) -> Result<f64> {
    let (client, payload) = (Client::default(), load.payload());
    tokio::select! {
        rate = drive::pipelined(span, load.in_flight(), || client.ask(&payload)) => rate,
        ended = client.receive(reader) => ended.and_then(|()| bail!("the raw peer hung up")),
        ended = client.transmit(writer) => ended.and_then(|()| bail!("the writer stopped")),
    }
}

#[derive(Default)]
struct Client {
    state: Mutex<State>,
    queued: Notify,
}

#[derive(Default)]
struct State {
    out: Vec<u8>,
    pending: Slab<oneshot::Sender<usize>>,
}

impl Client {
    fn ask(&self, payload: &[u8]) -> impl Future<Output = Result<usize>> + use<> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state.lock();
        let first = state.out.is_empty();
        let id = state.pending.insert(sender) as u64;
        put(&mut state.out, id, payload);
        drop(state);
        if first {
            self.queued.notify_one();
        }
        async move { receiver.await.context("no answer") }
    }

    async fn transmit(&self, mut writer: impl AsyncWrite + Unpin) -> Result<()> {
        let mut writing = Vec::new();
        loop {
            self.queued.notified().await;
            mem::swap(&mut writing, &mut self.state.lock().out);
            writer.write_all(&writing).await?;
            writer.flush().await?;
            writing.clear();
        }
    }

    async fn receive(&self, mut reader: impl AsyncRead + Unpin) -> Result<()> {
        let mut frames = Frames::new();
        while frames.read(&mut reader).await? {
            let mut state = self.state.lock();
            while let Some((id, body)) = frames.next() {
                if let Some(sender) = state.pending.try_remove(id as usize) {
                    let _ = sender.send(body.len());
                }
            }
        }
        Ok(())
    }
}

fn put(out: &mut Vec<u8>, id: u64, body: &[u8]) {
    out.extend_from_slice(&(body.len() as u32).to_be_bytes());
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(body);
}

/// Reads as much as there is and hands out whole frames.
struct Frames {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Frames {
    fn new() -> Self {
        Frames { bytes: vec![0; READ_BYTES], start: 0, end: 0 }
    }

    /// `false` at the end of the stream.
    async fn read(&mut self, reader: &mut (impl AsyncRead + Unpin)) -> io::Result<bool> {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.bytes.len() - self.end < READ_BYTES / 2 {
            self.bytes.resize(self.bytes.len() * 2, 0);
        }
        let count = reader.read(&mut self.bytes[self.end..]).await?;
        self.end += count;
        Ok(count > 0)
    }

    fn next(&mut self) -> Option<(u64, &[u8])> {
        let unread = &self.bytes[self.start..self.end];
        let length = u32::from_be_bytes(*unread.first_chunk()?) as usize;
        let id = u64::from_be_bytes(*unread.get(4..)?.first_chunk()?);
        unread.get(HEAD_BYTES..HEAD_BYTES + length)?;
        let body = self.start + HEAD_BYTES;
        self.start = body + length;
        Some((id, &self.bytes[body..body + length]))
    }
}
