//! Messages on a stream: each a u32 length, big-endian, and MessagePack.
//!
//! A connection begins with a request. What answers it are frames of [`Answered`]: one item, or for a subscription any number; then the
//! next request may follow.

use std::io;

use mobula_core::{codec, limits};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::error::Refusal;

/// What comes back for a request.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answered {
    /// The answer, or one item of a subscription.
    Item(#[serde(with = "serde_bytes")] Vec<u8>),
    /// A subscription is over.
    End,
    /// It was not done.
    Refused(Refusal),
}

/// A stream of bytes to a peer who is known.
pub(crate) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

/// Writes one message. Not cancel-safe.
///
/// # Errors
/// `InvalidInput` beyond [`limits::CONTROL_MESSAGE_BYTES_MAX`], or what the stream says.
pub(crate) async fn write(stream: &mut (impl AsyncWrite + Unpin + ?Sized), message: &impl Serialize) -> io::Result<()> {
    let mut bytes = vec![0; 4];
    bytes.extend_from_slice(&codec::encode(message).map_err(io::Error::other)?);
    let length = bytes.len() - 4;
    if length > limits::CONTROL_MESSAGE_BYTES_MAX {
        return Err(too_large(io::ErrorKind::InvalidInput, length));
    }
    // The limit fits.
    bytes[..4].copy_from_slice(&(length as u32).to_be_bytes());
    stream.write_all(&bytes).await?;
    stream.flush().await
}

/// Reads one message; none at the end of the stream, between messages. A length beyond the limit is an error before anything is
/// allocated for it, and memory grows with what has arrived. Not cancel-safe.
///
/// # Errors
/// `InvalidData`, `UnexpectedEof`, or what the stream says.
pub(crate) async fn read<T: DeserializeOwned>(stream: &mut (impl AsyncRead + Unpin + ?Sized)) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    if stream.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut length[1..]).await?;
    let length = u32::from_be_bytes(length) as usize;
    if length > limits::CONTROL_MESSAGE_BYTES_MAX {
        return Err(too_large(io::ErrorKind::InvalidData, length));
    }
    let mut body = Vec::new();
    stream.take(length as u64).read_to_end(&mut body).await?;
    if body.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    codec::decode(&body).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn too_large(kind: io::ErrorKind, length: usize) -> io::Error {
    let max = limits::CONTROL_MESSAGE_BYTES_MAX;
    io::Error::new(kind, format!("ControlMessageTooLarge: {length} bytes, at most {max} are accepted"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_keep_to_the_limit_on_both_sides() {
        let around = |bytes: usize| vec![b'a'; bytes];
        // A string of this length has a head of 5 bytes.
        let fits = String::from_utf8(around(limits::CONTROL_MESSAGE_BYTES_MAX - 5)).expect("ASCII");
        let mut out = Vec::new();
        write(&mut out, &fits).await.expect("it fits");
        let back: Option<String> = read(&mut &out[..]).await.expect("just written");
        assert_eq!(back.map(|text| text.len()), Some(fits.len()));
        let error = write(&mut Vec::new(), &format!("{fits}a")).await.expect_err("a byte more");
        assert!(error.to_string().contains("ControlMessageTooLarge"), "{error}");
        let announced = (limits::CONTROL_MESSAGE_BYTES_MAX as u32 + 1).to_be_bytes();
        let error = read::<String>(&mut &announced[..]).await.expect_err("a byte more");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn the_end_is_an_end_between_messages_alone() {
        let mut out = Vec::new();
        write(&mut out, &"word").await.expect("room");
        assert!(read::<String>(&mut &out[..0]).await.expect("an end").is_none());
        for length in 1..out.len() {
            let error = read::<String>(&mut &out[..length]).await.expect_err("cut short");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{length}");
        }
        let mut garbage = 3_u32.to_be_bytes().to_vec();
        garbage.extend_from_slice(&[0xc1, 0xc1, 0xc1]);
        assert_eq!(read::<String>(&mut &garbage[..]).await.expect_err("garbage").kind(), io::ErrorKind::InvalidData);
    }
}
