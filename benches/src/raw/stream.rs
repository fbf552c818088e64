//! The floor of tells: frames one way, written a batch at a time, counted at the other end.
use std::io;
use std::time::Instant;

use anyhow::{Result, ensure};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::frame::{self, Frames};
use crate::drive::Span;

/// Frames for each write.
const BATCH_FRAMES: u64 = 1000;

/// The id of the frame that asks for the count; others carry their number.
const REPORT_ID: u64 = u64::MAX;

pub(super) async fn serve(mut stream: TcpStream) -> io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    let mut frames = Frames::new();
    let mut out = Vec::new();
    let mut count = 0u64;
    while frames.read(&mut reader).await? {
        while let Some((id, body)) = frames.next()? {
            let by = frame::body(body)?;
            if id == REPORT_ID {
                frame::put(&mut out, id, count);
            } else {
                count += by;
            }
        }
        if !out.is_empty() {
            writer.write_all(&out).await?;
            out.clear();
        }
    }
    Ok(())
}

/// Frames per second until the peer has counted them all.
pub(crate) async fn rate(mut stream: TcpStream, span: Span) -> Result<f64> {
    let (mut reader, mut writer) = stream.split();
    let mut frames = Frames::new();
    let mut out = Vec::new();
    let mut sent = 0u64;
    let mut send_for = async |time| {
        let begun = Instant::now();
        let before = sent;
        while begun.elapsed() < time {
            out.clear();
            for id in sent..sent + BATCH_FRAMES {
                frame::put(&mut out, id, 1);
            }
            sent += BATCH_FRAMES;
            writer.write_all(&out).await?;
        }
        out.clear();
        frame::put(&mut out, REPORT_ID, 0);
        writer.write_all(&out).await?;
        loop {
            ensure!(frames.read(&mut reader).await?, "the raw peer hung up");
            if let Some((_, body)) = frames.next()? {
                let count = frame::body(body)?;
                ensure!(count == sent, "the raw peer counted {count} of {sent}");
                return Ok((sent - before) as f64 / begun.elapsed().as_secs_f64());
            }
        }
    };
    send_for(span.warm).await?;
    send_for(span.run).await
}
