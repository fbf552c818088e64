//! What a careful programmer writes by hand: MessagePack bodies and `ask().await`. Bodies are laid out as arrays, without
//! field names, and encoded in place.
use std::io;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::client::Client;
use super::frame::{self, Frames};
use crate::drive::{self, Span};

#[derive(Deserialize, Serialize)]
struct Add {
    by: i64,
}

pub(super) async fn serve(mut stream: TcpStream) -> io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    let mut frames = Frames::new();
    let mut out = Vec::new();
    let mut count = 0i64;
    while frames.read(&mut reader).await? {
        while let Some((id, body)) = frames.next()? {
            let add: Add = rmp_serde::from_slice(body).map_err(io::Error::other)?;
            count += add.by;
            frame::put_with(&mut out, id, |out| rmp_serde::encode::write(out, &count)).map_err(io::Error::other)?;
        }
        writer.write_all(&out).await?;
        out.clear();
    }
    Ok(())
}

/// Replies per second with `in_flight` asks awaited at any time.
pub(crate) async fn rate(mut stream: TcpStream, span: Span, in_flight: usize) -> Result<f64> {
    let (reader, writer) = stream.split();
    let client = Client::<i64>::new();
    let ask = || client.ask(|out| rmp_serde::encode::write(out, &Add { by: 1 }));
    let read_body = |body: &[u8]| Ok(rmp_serde::from_slice(body)?);
    tokio::select! {
        rate = drive::pipelined(span, in_flight, ask) => rate,
        ended = client.receive(reader, Frames::new(), read_body) => ended.and_then(|()| anyhow::bail!("the raw peer hung up")),
        ended = client.transmit(writer) => ended.and_then(|()| anyhow::bail!("the writer stopped")),
    }
}
