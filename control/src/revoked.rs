//! Hearing from the head who was cut off.

use std::time::Duration;

use mobula_identity::Revocations;

use crate::client::Client;
use crate::request::WatchRevocations;

/// The first rest after the head could not be heard; it doubles.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// Hears who is cut off, now and whenever somebody is, and tells `adopt`, until that says false. The head may be away meanwhile.
///
/// # Cancel safety
/// Nothing is lost: whoever begins anew hears all of it.
pub async fn follow_revocations(client: &Client, mut adopt: impl FnMut(Revocations) -> bool) {
    let mut rest = RETRY_MIN;
    loop {
        match client.subscribe(WatchRevocations {}).await {
            Ok(mut lists) => loop {
                match lists.next().await {
                    Ok(Some(list)) => {
                        rest = RETRY_MIN;
                        if !adopt(list) {
                            return;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => {
                        tracing::debug!(%error, "the head does not say who is cut off");
                        break;
                    }
                }
            },
            Err(error) => tracing::debug!(%error, "the head cannot be asked who is cut off"),
        }
        tokio::time::sleep(rest).await;
        rest = (rest * 2).min(RETRY_MAX);
    }
}
