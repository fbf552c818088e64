//! The floor of one ask in flight: a frame there, a frame back, one write and one read on each side.
use std::io;

use anyhow::{Result, ensure};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::frame::{self, Frames};
use crate::drive::{self, Span};

pub(super) async fn serve(mut stream: TcpStream) -> io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    let mut frames = Frames::new();
    let mut out = Vec::new();
    while frames.read(&mut reader).await? {
        while let Some((id, bytes)) = frames.next()? {
            frame::put(&mut out, id, frame::body(bytes)?);
        }
        writer.write_all(&out).await?;
        out.clear();
    }
    Ok(())
}

/// Microseconds, the median of one round trip at a time.
pub(crate) async fn latency(mut stream: TcpStream, span: Span) -> Result<f64> {
    let (mut reader, mut writer) = stream.split();
    let mut frames = Frames::new();
    let mut out = Vec::new();
    let mut sent = 0;
    drive::latency(span, async || {
        sent += 1;
        out.clear();
        frame::put(&mut out, sent, 1);
        writer.write_all(&out).await?;
        loop {
            ensure!(frames.read(&mut reader).await?, "the raw peer hung up");
            if let Some((id, _)) = frames.next()? {
                ensure!(id == sent, "reply {id} to call {sent}");
                return Ok(());
            }
        }
    })
    .await
}
