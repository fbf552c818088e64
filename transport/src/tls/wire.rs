//! A TLS connection as a link's wire: one state, read by the driver and written by whoever sends.
//!
//! rustls keeps both directions in one object, so both halves share it under a mutex, which is held for encrypting,
//! decrypting and a system call that cannot block, and never while user code runs. The socket is non-blocking, and only the driver
//! waits for it.
//!
//! Bytes count as written when their ciphertext is with the system. What is encrypted and not yet sent is kept; until it is
//! gone `try_write` says `WouldBlock`, so the link waits for the socket as it does on every wire, and its next try offers
//! the same bytes again, which are then known to be done. Nothing sleeps with bytes in hand.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use rustls::Connection;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::Secured;
use crate::wire::{Wire, WireWrite};

/// One read from the socket: four records.
const READ_BYTES: usize = 64 * 1024;
/// What one record holds, and so what TLS has in hand at a time.
const RECORD_BYTES: usize = 16 * 1024;

/// Registers a connection with the current runtime, whose thread will read it.
///
/// # Errors
/// If the system refuses.
pub fn wire(secured: Secured) -> io::Result<Wire> {
    let version = secured.version;
    let (read, write) = TcpStream::from_std(secured.stream)?.into_split();
    let write = Write { socket: write, shared: Arc::clone(&secured.shared) };
    let read = Read { socket: read, shared: secured.shared, cipher: Vec::new(), used: 0, failed: None };
    Ok(Wire::new(version, read, write))
}

/// What both halves share.
pub(super) struct Shared {
    tls: Mutex<State>,
    /// For cutting alone.
    socket: std::net::TcpStream,
}

struct State {
    connection: Connection,
    /// Bytes that were encrypted and not yet reported as written: the first of the next `try_write`.
    owed_bytes: usize,
}

impl Shared {
    pub(super) fn new(socket: std::net::TcpStream, connection: Connection) -> Self {
        Shared { tls: Mutex::new(State { connection, owed_bytes: 0 }), socket }
    }

    /// Ends the connection at once, in the middle of whatever it does.
    pub(super) fn cut(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

impl State {
    /// Sends what is encrypted: all of it (true), or what the socket takes now.
    fn flush(&mut self, socket: &TcpStream) -> io::Result<bool> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut Socket(socket)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

struct Write {
    socket: OwnedWriteHalf,
    shared: Arc<Shared>,
}

impl WireWrite for Write {
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.shared.tls.lock();
        let mut written = 0;
        while state.flush(self.socket.as_ref())? {
            let done = state.owed_bytes.min(bytes.len() - written);
            state.owed_bytes -= done;
            written += done;
            if written == bytes.len() {
                return Ok(written);
            }
            // As much as rustls buffers, 64 KiB, becomes one system call.
            state.owed_bytes = state.connection.writer().write(&bytes[written..])?;
            if state.owed_bytes == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        if written > 0 { Ok(written) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.as_ref().poll_write_ready(cx)
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        let mut state = self.shared.tls.lock();
        state.connection.send_close_notify();
        let _ = state.flush(self.socket.as_ref());
    }
}

struct Read {
    socket: OwnedReadHalf,
    shared: Arc<Shared>,
    /// Read from the socket; from `used` on not yet given to TLS.
    cipher: Vec<u8>,
    used: usize,
    /// What came after bytes that were to be heard first.
    failed: Option<io::Error>,
}

impl AsyncRead for Read {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(error) = this.failed.take() {
            return Poll::Ready(Err(error));
        }
        let socket: &TcpStream = this.socket.as_ref();
        let before = out.filled().len();
        // Until the room is used up, or nothing more is in hand: the link is locked once for all of it.
        while out.remaining() > 0 {
            let mut state = this.shared.tls.lock();
            // No more than may come is made ready for it, which means to fill it with zeros.
            let room = out.remaining().min(RECORD_BYTES);
            match state.connection.reader().read(out.initialize_unfilled_to(room)) {
                // The peer's close_notify.
                Ok(0) => break,
                Ok(count) => {
                    out.advance(count);
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // An end without farewell, as of a killed process. Frames carry their length, so nothing cut short is
                // taken for whole.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return end(&mut this.failed, out.filled().len() > before, error),
            }
            if this.used == this.cipher.len() {
                drop(state);
                if out.filled().len() > before {
                    break;
                }
                this.cipher.resize(READ_BYTES, 0);
                this.used = READ_BYTES;
                let count = loop {
                    ready!(socket.poll_read_ready(cx))?;
                    match socket.try_read(&mut this.cipher) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        read => break read?,
                    }
                };
                this.cipher.truncate(count);
                this.used = 0;
                state = this.shared.tls.lock();
            }
            // The slice moves on as it is read; an empty one is the end of the connection.
            let mut left = &this.cipher[this.used..];
            let count = match state.connection.read_tls(&mut left) {
                Ok(count) => count,
                Err(error) => return end(&mut this.failed, out.filled().len() > before, error),
            };
            this.used += count;
            let processed = state.connection.process_new_packets();
            // Answers to key updates, and the alert that names what was wrong. That nothing can be written is the writer's to
            // find: what has been read is still to be heard.
            if let Ok(false) = state.flush(socket) {
                // The rest goes with the next write, or when the socket takes more.
                let _ = socket.poll_write_ready(cx);
            }
            if let Err(error) = processed {
                let error = io::Error::new(io::ErrorKind::InvalidData, error);
                return end(&mut this.failed, out.filled().len() > before, error);
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The connection has failed; what has come before is heard first.
fn end(failed: &mut Option<io::Error>, has_come: bool, error: io::Error) -> Poll<io::Result<()>> {
    if !has_come {
        return Poll::Ready(Err(error));
    }
    *failed = Some(error);
    Poll::Ready(Ok(()))
}

/// Writes to a socket without waiting; many records with one system call.
struct Socket<'a>(&'a TcpStream);

impl io::Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
