//! One port for many processes: bytes in the clear, before TLS, that name the life which a connection is for.
//!
//! Whoever keeps the port reads them and hands the socket on; TLS then begins with the process that was named, which alone has the
//! key of that life. Nothing is trusted for these bytes: a wrong name finds nobody, or somebody who cannot prove to be the one that is wanted.
//!
//! | offset | bytes | field  | meaning                        |
//! |-------:|------:|--------|--------------------------------|
//! |      0 |     8 | magic  | `MOBULA>\n`                    |
//! |      8 |     8 | target | uid of the life, big-endian    |

use std::io;

use mobula_core::NodeUid;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::handshake::{self, HandshakeError};

/// Length of the route.
pub const ROUTE_BYTES: usize = 16;

const MAGIC: [u8; 8] = *b"MOBULA>\n";

/// Whom a connection is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Knock {
    /// Whoever keeps the port. Nothing was taken from the stream.
    Here,
    /// That life. The next byte of the stream is for it.
    For(NodeUid),
}

/// The bytes that lead to the life `target` behind a port.
pub fn route(target: NodeUid) -> [u8; ROUTE_BYTES] {
    let mut bytes = [0; ROUTE_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..].copy_from_slice(&target.0.to_be_bytes());
    bytes
}

/// Sees whom a new connection is for, within [`HANDSHAKE_DEADLINE`](mobula_core::limits::HANDSHAKE_DEADLINE).
///
/// # Errors
/// What the system says, `TimedOut`, or `InvalidData` for what only begins like a route. Cancel-safe if the stream is dropped, too.
pub async fn knock(stream: &mut TcpStream) -> io::Result<Knock> {
    let read = handshake::in_time(async {
        let mut first = [0];
        if stream.peek(&mut first).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        // A TLS record begins with 22. What is neither is for TLS to refuse.
        if first[0] != MAGIC[0] {
            return Ok(Knock::Here);
        }
        let mut bytes = [0; ROUTE_BYTES];
        stream.read_exact(&mut bytes).await?;
        let [magic @ .., _, _, _, _, _, _, _, _] = bytes;
        if magic != MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "neither TLS nor the name of a process").into());
        }
        let [_, _, _, _, _, _, _, _, uid @ ..] = bytes;
        Ok(Knock::For(NodeUid(u64::from_be_bytes(uid))))
    });
    read.await.map_err(|error| match error {
        HandshakeError::Io(error) => error,
        HandshakeError::Preface(error) => io::Error::other(error),
        HandshakeError::Deadline { .. } => io::ErrorKind::TimedOut.into(),
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    async fn knocked(bytes: &[u8]) -> (io::Result<Knock>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let mut client = TcpStream::connect(address).await.expect("it listens");
        client.write_all(bytes).await.expect("room for it");
        client.shutdown().await.expect("it is open");
        let (mut stream, _) = listener.accept().await.expect("just connected");
        let found = knock(&mut stream).await;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.expect("it was shut");
        (found, rest)
    }

    #[tokio::test]
    async fn a_route_is_taken_off_and_nothing_else_is() {
        let bytes = [&route(NodeUid(0x0102_0304_0506_0708))[..], b"\x16rest"].concat();
        assert_eq!(bytes[..16], *b"MOBULA>\n\x01\x02\x03\x04\x05\x06\x07\x08");
        let (found, rest) = knocked(&bytes).await;
        assert_eq!(found.expect("a route"), Knock::For(NodeUid(0x0102_0304_0506_0708)));
        assert_eq!(rest, b"\x16rest");
        let (found, rest) = knocked(b"\x16\x03\x01").await;
        assert_eq!(found.expect("the start of TLS"), Knock::Here);
        assert_eq!(rest, b"\x16\x03\x01");
        let (found, rest) = knocked(b"GET / HTTP/1.1\r\n\r\n").await;
        assert_eq!((found.expect("for TLS to refuse"), rest.len()), (Knock::Here, 18));
    }

    #[tokio::test]
    async fn what_only_begins_like_a_route_is_refused() {
        // The preface of the wire in the clear is not for this port.
        let (found, _) = knocked(b"MOBULA\r\n12345678").await;
        assert_eq!(found.expect_err("not a route").kind(), io::ErrorKind::InvalidData);
        for length in 1..ROUTE_BYTES {
            let (found, _) = knocked(&route(NodeUid(7))[..length]).await;
            assert_eq!(found.expect_err("cut short").kind(), io::ErrorKind::UnexpectedEof, "{length}");
        }
        assert_eq!(knocked(b"").await.0.expect_err("nothing").kind(), io::ErrorKind::UnexpectedEof);
    }
}
