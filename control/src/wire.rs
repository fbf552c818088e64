//! Messages on a stream: each a u32 length, big-endian, and MessagePack.
//!
//! A connection begins with a request. What answers it are messages of [`Answered`]: one item, or for a subscription any number; then the
//! next request may follow.
//!
//! An item is the MessagePack of an answer. One of more than [`limits::CONTROL_PART_BYTES`] travels in several messages, one right behind the
//! other: parts of exactly that size, then an item with the rest, which is not empty. Together they are at most
//! [`limits::CONTROL_ANSWER_BYTES_MAX`]. What is larger is refused as a whole, before its first part.

use std::io;

use mobula_core::{codec, limits};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::error::Refusal;

/// What comes back for a request, once it is whole.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The MessagePack of the answer, or of one item of a subscription.
    Item(Vec<u8>),
    /// A subscription is over.
    End,
    /// It was not done.
    Refused(Refusal),
}

/// What comes back for a request, message by message.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answered {
    /// An item, or the rest of one.
    Item(#[serde(with = "serde_bytes")] Vec<u8>),
    /// A subscription is over.
    End,
    /// It was not done.
    Refused(Refusal),
    /// The beginning of an item, or what comes next of it: more follows.
    Part(#[serde(with = "serde_bytes")] Vec<u8>),
}

/// A stream of bytes to a peer who is known.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
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

/// Writes an item, in several messages where it is large; or the refusal of one that is too large, and gives that back. Of a large one the other
/// side has to take each message within [`limits::CONTROL_DEADLINE`]. Not cancel-safe.
///
/// # Errors
/// `TimedOut`, or what the stream says: the connection is over.
pub(crate) async fn write_item(
    stream: &mut (impl AsyncWrite + Unpin + ?Sized),
    item: &impl Serialize,
) -> io::Result<Result<(), Refusal>> {
    write_item_within(stream, item, limits::CONTROL_ANSWER_BYTES_MAX).await
}

async fn write_item_within(
    stream: &mut (impl AsyncWrite + Unpin + ?Sized),
    item: &impl Serialize,
    limit: usize,
) -> io::Result<Result<(), Refusal>> {
    let Some(bytes) = codec::encode_within(item, limit).map_err(io::Error::other)? else {
        let refusal = Refusal::AnswerTooLarge { limit: limit as u64 };
        write(stream, &Answered::Refused(refusal.clone())).await?;
        return Ok(Err(refusal));
    };
    if bytes.len() <= limits::CONTROL_PART_BYTES {
        return write(stream, &Answered::Item(bytes)).await.map(Ok);
    }
    let mut parts = bytes.chunks(limits::CONTROL_PART_BYTES).peekable();
    while let Some(part) = parts.next() {
        let message =
            if parts.peek().is_some() { Answered::Part(part.to_vec()) } else { Answered::Item(part.to_vec()) };
        // Whoever takes nothing must not keep the rest in this process.
        tokio::time::timeout(limits::CONTROL_DEADLINE, write(stream, &message)).await??;
    }
    Ok(Ok(()))
}

/// Reads what answers a request, a large item whole; none at the end of the stream, between answers. Memory grows with what has arrived, up to
/// [`limits::CONTROL_ANSWER_BYTES_MAX`]. Not cancel-safe.
///
/// # Errors
/// As for [`read`]; `InvalidData` also for parts that are none.
pub(crate) async fn read_answer(stream: &mut (impl AsyncRead + Unpin + ?Sized)) -> io::Result<Option<Answer>> {
    read_answer_within(stream, limits::CONTROL_ANSWER_BYTES_MAX).await
}

async fn read_answer_within(
    stream: &mut (impl AsyncRead + Unpin + ?Sized),
    limit: usize,
) -> io::Result<Option<Answer>> {
    let mut whole = Vec::new();
    loop {
        let answered = read(stream).await?;
        let is_begun = !whole.is_empty();
        match answered {
            // Whole parts alone: there are not more of them than fit.
            Some(Answered::Part(part)) if part.len() == limits::CONTROL_PART_BYTES => append(&mut whole, &part, limit)?,
            Some(Answered::Part(_)) => return Err(broken_parts("a part of another size than parts have")),
            Some(Answered::Item(rest)) if is_begun && !rest.is_empty() && rest.len() <= limits::CONTROL_PART_BYTES => {
                append(&mut whole, &rest, limit)?;
                return Ok(Some(Answer::Item(whole)));
            }
            Some(_) if is_begun => return Err(broken_parts("something else in the middle of an answer")),
            None if is_begun => return Err(io::ErrorKind::UnexpectedEof.into()),
            Some(Answered::Item(item)) => return Ok(Some(Answer::Item(item))),
            Some(Answered::End) => return Ok(Some(Answer::End)),
            Some(Answered::Refused(refusal)) => return Ok(Some(Answer::Refused(refusal))),
            None => return Ok(None),
        }
    }
}

fn append(whole: &mut Vec<u8>, part: &[u8], limit: usize) -> io::Result<()> {
    if part.len() > limit - whole.len() {
        return Err(broken_parts(&format!("AnswerTooLarge: more than {limit} bytes, which is the limit")));
    }
    whole.extend_from_slice(part);
    Ok(())
}

fn broken_parts(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
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

    /// A text whose MessagePack has so many bytes.
    fn text_of(bytes: usize) -> String {
        "a".repeat(bytes - 5)
    }

    #[tokio::test]
    async fn a_large_item_travels_in_parts() {
        const PART: usize = limits::CONTROL_PART_BYTES;
        let (fits, longer, long) = (text_of(PART), text_of(PART + 1), text_of(2 * PART));
        let mut out = Vec::new();
        for text in [&fits, &longer, &long] {
            write_item(&mut out, text).await.expect("room").expect("not too large");
        }
        // u32 length | map of 1, "Item" or "Part" | bin32, length | bytes.
        let head = |name: &[u8; 4], bytes: usize| -> Vec<u8> {
            let (message, bytes) = ((bytes as u32 + 11).to_be_bytes(), (bytes as u32).to_be_bytes());
            [&message[..], b"\x81\xa4", name, b"\xc6", &bytes].concat()
        };
        let text = |text: &str| [b"\xdb", &(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat();
        let (longer_bytes, long_bytes) = (text(&longer), text(&long));
        let expected: [&[u8]; 10] = [
            &head(b"Item", PART),
            &text(&fits),
            &head(b"Part", PART),
            &longer_bytes[..PART],
            // A short one has a shorter head: bin8.
            b"\x00\x00\x00\x09\x81\xa4Item\xc4\x01",
            &longer_bytes[PART..],
            &head(b"Part", PART),
            &long_bytes[..PART],
            &head(b"Item", PART),
            &long_bytes[PART..],
        ];
        assert!(out == expected.concat(), "other bytes");

        let mut bytes = &out[..];
        for text in [fits, longer, long] {
            let Ok(Some(Answer::Item(item))) = read_answer(&mut bytes).await else { panic!("an item") };
            assert!(codec::decode_large::<String>(&item).expect("own bytes") == text, "another text");
        }
        assert!(read_answer(&mut bytes).await.expect("the end").is_none());
    }

    #[tokio::test]
    async fn an_item_beyond_the_limit_is_refused_by_name() {
        let limit = limits::CONTROL_PART_BYTES + 10;
        let mut out = Vec::new();
        write_item_within(&mut out, &text_of(limit), limit).await.expect("room").expect("it fits");
        let refused = write_item_within(&mut out, &text_of(limit + 1), limit).await.expect("room");
        let wanted = Refusal::AnswerTooLarge { limit: limit as u64 };
        assert_eq!(refused, Err(wanted.clone()));
        let mut bytes = &out[..];
        assert!(
            matches!(read_answer_within(&mut bytes, limit).await, Ok(Some(Answer::Item(item))) if item.len() == limit)
        );
        let heard = read_answer_within(&mut bytes, limit).await;
        assert!(matches!(heard, Ok(Some(Answer::Refused(refusal))) if refusal == wanted));
        assert!(wanted.to_string().contains(&format!("AnswerTooLarge: the answer takes more than {limit} bytes")));
        // The reader has the same limit.
        let error = read_answer_within(&mut &out[..], limit - 1).await.expect_err("a byte too many");
        assert!(error.to_string().contains("AnswerTooLarge"), "{error}");
    }

    #[tokio::test]
    async fn endless_parts_end_at_the_limit() {
        let (mut near, mut far) = tokio::io::duplex(64 * 1024);
        let endless = tokio::spawn(async move {
            let part = Answered::Part(vec![0; limits::CONTROL_PART_BYTES]);
            let mut written = 0;
            while write(&mut far, &part).await.is_ok() {
                written += 1;
            }
            written
        });
        let limit = 5 * limits::CONTROL_PART_BYTES;
        let error = read_answer_within(&mut near, limit).await.expect_err("more than the limit");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        assert!(error.to_string().contains("AnswerTooLarge"), "{error}");
        drop(near);
        assert_eq!(endless.await.expect("no panic"), 6);
    }

    #[tokio::test]
    async fn parts_that_are_none_are_refused() {
        let part = || Answered::Part(vec![0; limits::CONTROL_PART_BYTES]);
        let short = || Answered::Part(vec![0; limits::CONTROL_PART_BYTES - 1]);
        let long = || Answered::Part(vec![0; limits::CONTROL_PART_BYTES + 1]);
        let too_much = || Answered::Item(vec![0; limits::CONTROL_PART_BYTES + 1]);
        let refused = || Answered::Refused(Refusal::Failed("it".to_owned()));
        let wrong: [&[Answered]; 8] = [
            &[Answered::Part(Vec::new())],
            &[short()],
            &[long()],
            &[part(), short()],
            &[part(), Answered::Item(Vec::new())],
            &[part(), too_much()],
            &[part(), Answered::End],
            &[part(), refused()],
        ];
        for (case, messages) in wrong.iter().enumerate() {
            let mut out = Vec::new();
            for message in *messages {
                write(&mut out, message).await.expect("room");
            }
            let error = read_answer(&mut &out[..]).await.expect_err("no answer");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{case}: {error}");
        }
        let mut out = Vec::new();
        write(&mut out, &part()).await.expect("room");
        let error = read_answer(&mut &out[..]).await.expect_err("it is not whole");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_no_part_is_given_up() {
        let (mut near, _far) = tokio::io::duplex(1024);
        let error = write_item(&mut near, &text_of(2 * limits::CONTROL_PART_BYTES)).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
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
