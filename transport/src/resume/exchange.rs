//! What is said right after the preface of a connection that takes the place of another.

use std::io;

use bytes::BytesMut;
use mobula_core::codec;
use mobula_core::frame::{self, Frame, Head};
use mobula_core::limits;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::way_back::Resume;

/// Room for a resume, or for a goodbye with as much text as is read.
const ANSWER_BYTES_MAX: usize = 4 * limits::PEER_TEXT_BYTES_MAX;

/// What the peer answers.
#[derive(Debug)]
pub(crate) enum Answer {
    Resumed(Resume),
    Refused(String),
}

/// The dialer's part: says where it stands, and hears where the peer does.
pub(crate) async fn ask_to_resume<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    resume: Resume,
) -> io::Result<Answer> {
    let mut out = BytesMut::new();
    frame::write_bare(&mut out, head(resume));
    stream.write_all(&out).await?;
    stream.flush().await?;
    match hear(stream).await? {
        Answer::Resumed(theirs) if (theirs.session, theirs.attempt) != (resume.session, resume.attempt) => {
            Err(invalid("the peer resumes another session"))
        }
        answer => Ok(answer),
    }
}

/// The acceptor's part: hears where the dialer stands. The answer is the link's to give, or a
/// [refusal](super::Returned::refuse).
pub(crate) async fn hear_resume<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Resume> {
    match hear(stream).await? {
        Answer::Resumed(resume) => Ok(resume),
        Answer::Refused(text) => Err(invalid(&text)),
    }
}

/// The frame that says `resume`.
pub(crate) fn head(resume: Resume) -> Head {
    Head::Resume { session: resume.session, received: resume.received, attempt: resume.attempt }
}

/// Reads one frame and no byte more: what follows belongs to the stream.
async fn hear<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Answer> {
    let mut bytes = vec![0; 4];
    stream.read_exact(&mut bytes).await?;
    let length = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
    if length > ANSWER_BYTES_MAX {
        return Err(invalid("another frame than a resume"));
    }
    bytes.resize(4 + length, 0);
    stream.read_exact(&mut bytes[4..]).await?;
    match frame::decode(&bytes, ANSWER_BYTES_MAX) {
        Ok(Some((Frame::Resume { session, received, attempt }, _))) => {
            Ok(Answer::Resumed(Resume { session, received, attempt }))
        }
        Ok(Some((Frame::Goodbye { body }, _))) => {
            let text = codec::decode::<String>(body).map_err(|error| invalid(&error.to_string()))?;
            Ok(Answer::Refused(crate::session::cut(text)))
        }
        Ok(_) => Err(invalid("another frame than a resume")),
        Err(error) => Err(invalid(&error.to_string())),
    }
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("ResumeExpected: {text}"))
}
