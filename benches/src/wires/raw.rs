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
use super::{Address, Load, MIB, Road};
use crate::drive::{self, Span};
use crate::raw::client::Client;
use crate::raw::frame::{self, Frames};

const SERVER: NodeUid = NodeUid(2);
const SOCKET: &str = "raw.sock";

/// Room for frames of any load.
fn frames() -> Frames {
    Frames::of(2 * MIB)
}

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
    let (mut frames, mut out) = (frames(), Vec::new());
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
    let (client, payload) = (Client::<usize>::new(), load.payload());
    let ask = || {
        client.ask(|out| {
            out.extend_from_slice(&payload);
            Ok::<_, Infallible>(())
        })
    };
    let read_body = |body: &[u8]| Ok(body.len());
    tokio::select! {
        rate = drive::pipelined(span, load.in_flight(), ask) => rate,
        ended = client.receive(reader, frames(), read_body) => ended.and_then(|()| bail!("the raw peer hung up")),
        ended = client.transmit(writer) => ended.and_then(|()| bail!("the writer stopped")),
    }
}
