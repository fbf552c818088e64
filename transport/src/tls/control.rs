//! Connections for control: a stream of bytes between two who have both shown a certificate of the cluster.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

use super::credentials::{Credentials, names, names_in};
use super::joining::dial_as;
use super::limited::Limited;
use super::{CONTROL_PROTOCOL, TlsError};

/// A connection for control, of either side. What is said on it is for others to decide.
pub struct ControlStream {
    tls: Box<TlsStream<Limited>>,
    address: SocketAddr,
}

impl ControlStream {
    /// Past its handshakes, in which both sides have shown a certificate.
    pub(super) fn new(mut tls: TlsStream<Limited>, address: SocketAddr) -> Self {
        match &mut tls {
            TlsStream::Client(tls) => tls.get_mut().0.lift(),
            TlsStream::Server(tls) => tls.get_mut().0.lift(),
        }
        ControlStream { tls: Box::new(tls), address }
    }

    /// The other side.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// True if the other side's certificate bears `name`; see [`role_name`](super::role_name) and [`node_name`](super::node_name).
    pub fn peer_is(&self, name: &str) -> bool {
        let chain = self.tls.get_ref().1.peer_certificates();
        chain.and_then(<[_]>::first).is_some_and(|certificate| names(certificate, name))
    }

    /// The names in the other side's certificate.
    pub fn peer_names(&self) -> Vec<String> {
        let chain = self.tls.get_ref().1.peer_certificates();
        chain.and_then(<[_]>::first).map_or_else(Vec::new, names_in)
    }
}

/// Connects to the head at `address`, which has to show a certificate of the same authority as the head, to talk of the cluster.
///
/// # Errors
/// [`TlsError`]. Cancel-safe: dropping the future closes the connection.
pub async fn dial_control(address: SocketAddr, own: &Credentials) -> Result<ControlStream, TlsError> {
    let tls = dial_as(CONTROL_PROTOCOL, address, &own.authority, Some(own)).await?;
    Ok(ControlStream::new(tls, address))
}

impl AsyncRead for ControlStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(cx, out)
    }
}

impl AsyncWrite for ControlStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
