//! What a job prints, read over as many connections as it takes.

use std::time::{Duration, Instant};

use mobula_core::cluster::JobId;

use crate::client::Client;
use crate::error::ControlError;
use crate::request::{LogPart, ReadLogs};

/// The rest after the head could not be heard. A connection that was there for longer has been one.
const RETRY: Duration = Duration::from_millis(200);

/// Tells `hear` what the processes of a job have printed, from the start; with `follow` on and on, until the job is over. A head that was reached once
/// and then is away is asked again, for `patience` at most, and what was heard does not come twice.
///
/// # Errors
/// [`ControlError`] if the head says no, was never reached, or is not reached again in time; or what `hear` says. Cancel-safe: it reads, and no more.
pub async fn read_logs<E: From<ControlError>>(
    client: &Client,
    job: JobId,
    follow: bool,
    patience: Duration,
    mut hear: impl FnMut(LogPart) -> Result<(), E>,
) -> Result<(), E> {
    let mut after = 0;
    let mut away_since: Option<Instant> = None;
    let mut parts = client.subscribe(ReadLogs { job, follow, after }).await?;
    let mut begun = mobula_transport::now();
    loop {
        let mut failed = match parts.next().await {
            Ok(Some(part)) => {
                after = part.number.max(after);
                away_since = None;
                hear(part)?;
                continue;
            }
            Ok(None) => return Ok(()),
            Err(error) => error,
        };
        if begun.elapsed() > RETRY {
            away_since = None;
        }
        parts = loop {
            let since = *away_since.get_or_insert_with(mobula_transport::now);
            if failed.is_final() || since.elapsed() > patience {
                return Err(failed.into());
            }
            tracing::debug!(%job, error = %failed, "what the job prints is not heard");
            tokio::time::sleep(RETRY).await;
            begun = mobula_transport::now();
            match client.subscribe(ReadLogs { job, follow, after }).await {
                Ok(parts) => break parts,
                Err(error) => failed = error,
            }
        };
    }
}
