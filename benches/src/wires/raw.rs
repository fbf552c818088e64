//! What a careful programmer writes by hand over the same kind of connection; its bodies are plain bytes.
use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Result, anyhow, bail};
use mobula_core::NodeUid;
use mobula_transport::tls::pki_types::ServerName;
use mobula_transport::tls::{node_name, provider};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::certificates::credentials;
use super::{Address, KIB, Load, Road};
use crate::drive::{self, Span};
use crate::raw::client::Client;
use crate::raw::frame::{self, Frames};
use crate::threads::{on_own_thread, runtime};

const SERVER: NodeUid = NodeUid(2);
const SOCKET: &str = "raw.sock";

/// Room for frames of any load.
fn frames(load: Load) -> Frames {
    Frames::of(load.bytes + KIB)
}

/// Takes connections and echoes until it is dropped.
pub(super) async fn serve(road: Road, load: Load, listening: oneshot::Sender<Address>) -> Result<()> {
    let tell = |address| listening.send(address).map_err(|_| anyhow!("the client is gone"));
    match road {
        Road::Tcp | Road::Tls => {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            tell(Address::Port(listener.local_addr()?))?;
            let own = credentials(SERVER)?;
            let config = ServerConfig::builder_with_provider(provider())
                .with_protocol_versions(&[&TLS13])?
                .with_no_client_auth()
                .with_single_cert(own.chain.clone(), own.key.clone_key())?;
            let config = Arc::new(config);
            loop {
                let (mut stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let config = Arc::clone(&config);
                tokio::spawn(async move {
                    if road == Road::Tcp {
                        let (reader, writer) = stream.split();
                        return echo(reader, writer, load).await;
                    }
                    let (reader, writer) = tokio::io::split(TlsAcceptor::from(config).accept(stream).await?);
                    echo(reader, writer, load).await
                });
            }
        }
        Road::Unix => {
            let folder = tempfile::tempdir()?;
            let listener = UnixListener::bind(folder.path().join(SOCKET))?;
            tell(Address::Folder(folder))?;
            let (mut stream, _) = listener.accept().await?;
            let (reader, writer) = stream.split();
            echo(reader, writer, load).await
        }
    }
}

async fn echo(mut reader: impl AsyncRead + Unpin, mut writer: impl AsyncWrite + Unpin, load: Load) -> Result<()> {
    let (mut frames, mut out) = (frames(load), Vec::new());
    while frames.read(&mut reader).await.unwrap_or(false) {
        while let Some((id, body)) = frames.next()? {
            frame::put_with(&mut out, id, |out| {
                out.extend_from_slice(body);
                Ok::<_, io::Error>(())
            })?;
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
            let stream = UnixStream::connect(folder.path().join(SOCKET)).await?;
            asks(vec![stream.into_split()], load, span).await
        }
        (_, Address::Port(address)) => {
            let mut streams = Vec::new();
            for _ in 0..load.connections {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                streams.push(stream);
            }
            if road == Road::Tcp {
                return asks(streams.into_iter().map(TcpStream::into_split).collect(), load, span).await;
            }
            let mut roots = RootCertStore::empty();
            roots.add(credentials(SERVER)?.authority.clone())?;
            let config = ClientConfig::builder_with_provider(provider())
                .with_protocol_versions(&[&TLS13])?
                .with_root_certificates(roots)
                .with_no_client_auth();
            let connector = TlsConnector::from(Arc::new(config));
            let mut halves = Vec::new();
            for stream in streams {
                let name = ServerName::try_from(node_name(SERVER))?;
                halves.push(tokio::io::split(connector.connect(name, stream).await?));
            }
            asks(halves, load, span).await
        }
        _ => bail!("no way to dial"),
    }
}

async fn asks<R, W>(streams: Vec<(R, W)>, load: Load, span: Span) -> Result<f64>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let clients: Vec<_> = streams.iter().map(|_| Client::<usize>::new()).collect();
    let read_body = |body: &[u8]| Ok(body.len());
    let serving = clients.iter().zip(streams).map(|(client, (reader, writer))| async move {
        tokio::select! {
            ended = client.receive(reader, frames(load), read_body) => ended.and_then(|()| bail!("the raw peer hung up")),
            ended = client.transmit(writer) => ended.and_then(|()| bail!("the writer stopped")),
        }
    });
    let serving = futures::future::try_join_all(serving);
    let asking = async {
        let payload = load.payload();
        if load.senders == 0 {
            let mut clients = clients.iter().cycle();
            return drive::pipelined(span, load.in_flight, || match clients.next() {
                Some(client) => ask(client, &payload),
                None => unreachable!("there is a connection"),
            })
            .await;
        }
        let senders = (0..load.senders).map(|_| {
            let (client, payload) = (clients[0].clone(), payload.clone());
            let in_flight = load.in_flight / load.senders;
            on_own_thread(move || runtime()?.block_on(drive::pipelined(span, in_flight, || ask(&client, &payload))))
        });
        Ok(futures::future::try_join_all(senders).await?.iter().sum())
    };
    tokio::select! {
        rate = asking => rate,
        ended = serving => ended.and_then(|_: Vec<()>| bail!("all connections ended")),
    }
}

fn ask(client: &Client<usize>, payload: &[u8]) -> oneshot::Receiver<usize> {
    client.ask(|out| {
        out.extend_from_slice(payload);
        Ok::<_, Infallible>(())
    })
}
