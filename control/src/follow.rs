//! Subscriptions that outlive their connections.

use std::time::{Duration, Instant};

use crate::client::Client;
use crate::error::ControlError;
use crate::request::Subscribe;

/// The first rest after the head could not be heard; it doubles.
const RETRY_MIN: Duration = Duration::from_millis(50);
/// As long as a head that is back is not heard, at most.
const RETRY_MAX: Duration = Duration::from_secs(1);

/// Follows what `question` asks for over as many connections as it takes, and tells `hear` each item; none means that the head has ended the
/// subscription. Ends when `hear` says false: until then the question is asked again, after 50 ms at first and at most 1 s, however often the head
/// is away or says no.
///
/// # Cancel safety
/// Nothing is lost where each item is all that there is to know, as for whoever was away: the next connection begins with the newest.
pub async fn follow<Q: Subscribe + Clone>(client: &Client, question: Q, mut hear: impl FnMut(Option<Q::Item>) -> bool) {
    let mut rest = RETRY_MIN;
    loop {
        match client.subscribe(question.clone()).await {
            Ok(mut items) => loop {
                match items.next().await {
                    Ok(Some(item)) => {
                        rest = RETRY_MIN;
                        if !hear(Some(item)) {
                            return;
                        }
                    }
                    Ok(None) if !hear(None) => return,
                    Ok(None) => break,
                    Err(error) => {
                        tracing::debug!(question = std::any::type_name::<Q>(), %error, "the head cannot be heard");
                        break;
                    }
                }
            },
            Err(error) => {
                tracing::debug!(question = std::any::type_name::<Q>(), %error, "the head cannot be asked");
            }
        }
        tokio::time::sleep(rest).await;
        rest = (rest * 2).min(RETRY_MAX);
    }
}

/// What is heard of a subscription for people.
#[derive(Debug)]
pub enum Heard<'a, T> {
    /// An item.
    Item(T),
    /// The head has been heard and is not any more: it is asked again. Said once for each time that it is away.
    Away(&'a ControlError),
}

/// As [`follow`], for whoever waits in front of it: a head that was heard once and then is away is asked again for `patience` at most. Ends when `hear` fails.
///
/// # Errors
/// [`ControlError`] if the head says no, was never heard, or is not heard again in time; or what `hear` says. Cancel-safe as [`follow`].
pub async fn follow_patiently<Q: Subscribe + Clone, E: From<ControlError>>(
    client: &Client,
    question: Q,
    patience: Duration,
    mut hear: impl FnMut(Heard<'_, Q::Item>) -> Result<(), E>,
) -> Result<(), E> {
    let (mut was_heard, mut away_since) = (false, None::<Instant>);
    loop {
        let failed = match client.subscribe(question.clone()).await {
            Ok(mut items) => loop {
                match items.next().await {
                    Ok(Some(item)) => {
                        (was_heard, away_since) = (true, None);
                        hear(Heard::Item(item))?;
                    }
                    // The head ends, and another comes.
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            },
            Err(error) => Some(error),
        };
        let now = mobula_transport::now();
        if let Some(error) = failed {
            if error.is_final() || !was_heard || away_since.is_some_and(|since| now - since > patience) {
                return Err(error.into());
            }
            if away_since.is_none() {
                hear(Heard::Away(&error))?;
            }
        }
        away_since.get_or_insert(now);
        tokio::time::sleep(RETRY_MAX).await;
    }
}
