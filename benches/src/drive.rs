//! The loops that call and take the time, the same for Mobula and for its references.
//!
//! Each warms up first, and each fails with the first call that fails.
use std::collections::VecDeque;
use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::measure::percentile;

/// How long one side of one round takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// Calls made before the clock starts.
    pub(crate) warm: Duration,
    /// Calls that count.
    pub(crate) run: Duration,
}

/// Calls between two looks at the clock, which costs about as much as a tell.
const CALLS_PER_LOOK: u32 = 256;

/// Microseconds, the median over calls made one after another.
pub(crate) async fn latency<T, E: Display>(span: Span, call: impl AsyncFnMut() -> Result<T, E>) -> Result<f64> {
    latency_at(50.0, span, call).await
}

/// Microseconds, a percentile over calls made one after another.
pub(crate) async fn latency_at<T, E: Display>(
    percent: f64,
    span: Span,
    mut call: impl AsyncFnMut() -> Result<T, E>,
) -> Result<f64> {
    let warm_until = Instant::now() + span.warm;
    while Instant::now() < warm_until {
        call().await.map_err(failed)?;
    }
    let mut micros = Vec::new();
    let mut before = Instant::now();
    let until = before + span.run;
    while before < until {
        call().await.map_err(failed)?;
        let after = Instant::now();
        micros.push((after - before).as_secs_f64() * 1e6);
        before = after;
    }
    Ok(percentile(&mut micros, percent))
}

/// Calls per second, made one after another.
pub(crate) async fn one_by_one<T, E: Display>(span: Span, mut call: impl AsyncFnMut() -> Result<T, E>) -> Result<f64> {
    let mut calls_for = async |time| {
        let begun = Instant::now();
        let mut calls = 0u64;
        while begun.elapsed() < time {
            for _ in 0..CALLS_PER_LOOK {
                call().await.map_err(failed)?;
            }
            calls += u64::from(CALLS_PER_LOOK);
        }
        Ok::<_, anyhow::Error>(calls as f64 / begun.elapsed().as_secs_f64())
    };
    calls_for(span.warm).await?;
    calls_for(span.run).await
}

/// Replies per second while `in_flight` calls are under way; `call` must send before its future is polled.
///
/// The oldest call is awaited and replaced by a new one, so the window slides and never drains.
pub(crate) async fn pipelined<T, E: Display, F: Future<Output = Result<T, E>>>(
    span: Span,
    in_flight: usize,
    mut call: impl FnMut() -> F,
) -> Result<f64> {
    let mut window: VecDeque<F> = (0..in_flight).map(|_| call()).collect();
    // Large ones take long, and are few.
    let per_look = CALLS_PER_LOOK.min(u32::try_from(in_flight).unwrap_or(CALLS_PER_LOOK));
    let mut replies_for = async |time| {
        let begun = Instant::now();
        let mut replies = 0u64;
        while begun.elapsed() < time {
            for _ in 0..per_look {
                if let Some(oldest) = window.pop_front() {
                    oldest.await.map_err(failed)?;
                }
                window.push_back(call());
            }
            replies += u64::from(per_look);
        }
        Ok::<_, anyhow::Error>(replies as f64 / begun.elapsed().as_secs_f64())
    };
    replies_for(span.warm).await?;
    let rate = replies_for(span.run).await?;
    for rest in window {
        rest.await.map_err(failed)?;
    }
    Ok(rate)
}

fn failed(error: impl Display) -> anyhow::Error {
    anyhow!("a call failed: {error}")
}
