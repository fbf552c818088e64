//! Subscriptions that outlive their connections.

use std::time::Duration;

use crate::client::Client;
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
