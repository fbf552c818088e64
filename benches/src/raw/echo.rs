//! The floor of many asks in flight, without an API: a batch of frames there, the same number back,
//! both ends reading and writing whole batches.
use std::io;
use std::time::Instant;

use anyhow::{Result, ensure};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::frame::{self, Frames};
use crate::drive::Span;

pub(super) async fn serve(mut stream: TcpStream) -> io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    let mut frames = Frames::new();
    let mut out = Vec::new();
    let mut total = 0u64;
    while frames.read(&mut reader).await? {
        while let Some((id, bytes)) = frames.next()? {
            total = total.wrapping_add(frame::body(bytes)?);
            frame::put(&mut out, id, total);
        }
        writer.write_all(&out).await?;
        out.clear();
    }
    Ok(())
}

/// Replies per second with batches of `in_flight` frames.
pub(crate) async fn rate(mut stream: TcpStream, span: Span, in_flight: u64) -> Result<f64> {
    let (mut reader, mut writer) = stream.split();
    let mut frames = Frames::new();
    let mut out = Vec::new();
    let mut next_id = 0u64;
    let mut batch = async || {
        out.clear();
        let first = next_id;
        next_id += in_flight;
        for id in first..next_id {
            frame::put(&mut out, id, 1);
        }
        writer.write_all(&out).await?;
        let mut expected = first;
        while expected < next_id {
            ensure!(frames.read(&mut reader).await?, "the raw peer hung up");
            while let Some((id, _)) = frames.next()? {
                ensure!(id == expected, "reply {id} instead of {expected}");
                expected += 1;
            }
        }
        Ok(())
    };

    let warm_until = Instant::now() + span.warm;
    while Instant::now() < warm_until {
        batch().await?;
    }
    let begun = Instant::now();
    let mut replies = 0;
    while begun.elapsed() < span.run {
        batch().await?;
        replies += in_flight;
    }
    Ok(replies as f64 / begun.elapsed().as_secs_f64())
}
