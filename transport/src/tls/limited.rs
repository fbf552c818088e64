//! A stream that is read no further than a stranger may go.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use mobula_core::limits;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

pub(super) struct Limited {
    pub(super) stream: TcpStream,
    left_bytes: usize,
}

impl Limited {
    pub(super) fn new(stream: TcpStream) -> Self {
        Limited { stream, left_bytes: limits::HANDSHAKE_BYTES_MAX }
    }

    /// It is no stranger any more.
    pub(super) fn lift(&mut self) {
        self.left_bytes = usize::MAX;
    }
}

impl AsyncRead for Limited {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.left_bytes == 0 {
            let text = format!("HandshakeTooLarge: no proof within {} bytes", limits::HANDSHAKE_BYTES_MAX);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, text)));
        }
        let most = self.left_bytes.min(out.remaining());
        let mut part = ReadBuf::new(out.initialize_unfilled_to(most));
        let polled = Pin::new(&mut self.stream).poll_read(cx, &mut part);
        let count = part.filled().len();
        out.advance(count);
        self.left_bytes -= count;
        polled
    }
}

impl AsyncWrite for Limited {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
