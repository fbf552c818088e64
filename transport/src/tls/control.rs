//! Connections for control: a stream of bytes between two who have both shown a certificate of the cluster.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use super::credentials::{Credentials, names, names_in};
use super::joining::dial_as;
use super::limited::Limited;
use super::{CONTROL_PROTOCOL, TlsError};

/// So long the other side is believed to be there without a word. Who only listens, to a machine that is off, would never know else.
const SILENT_FOR: Duration = Duration::from_secs(5);
/// Then the other side's kernel is asked so often, and so many times, before the connection is over: 11 s after the last byte.
const ASK_EVERY: Duration = Duration::from_secs(2);
const ASK_TIMES: u32 = 3;

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
        if let Err(error) = end_when_silent(&tls.get_ref().0.stream) {
            tracing::warn!(%address, %error, "if the machine at the other end is off, this connection will not know");
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

fn end_when_silent(stream: &TcpStream) -> rustix::io::Result<()> {
    sockopt::set_tcp_keepidle(stream, SILENT_FOR)?;
    sockopt::set_tcp_keepintvl(stream, ASK_EVERY)?;
    sockopt::set_tcp_keepcnt(stream, ASK_TIMES)?;
    sockopt::set_socket_keepalive(stream, true)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_is_told_to_ask_a_silent_peer() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("it listens");
        end_when_silent(&stream).expect("options that Linux has");
        let after = sockopt::tcp_keepidle(&stream).expect("told");
        let (every, times) = (sockopt::tcp_keepintvl(&stream).expect("told"), sockopt::tcp_keepcnt(&stream));
        assert!(sockopt::socket_keepalive(&stream).expect("told"));
        assert_eq!(after + every * times.expect("told"), Duration::from_secs(11));
    }
}
