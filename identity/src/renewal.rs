//! A certificate that is replaced before it is over, for as long as somebody needs one.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use mobula_core::cluster::UnixTime;

use crate::time::renew_after;

/// The longest rest after a certificate could not be renewed.
const RETRY_MAX: Duration = Duration::from_secs(60);
const RETRY_MIN: Duration = Duration::from_secs(1);

/// Asks for another certificate at two thirds of the life of the one before, which is good until `until`, and again and again if that fails.
/// `renew` puts the new one into use and says how long it is good; it says nothing when none is needed any more, which ends this. `whose` is for the log.
///
/// # Cancel safety
/// It is for ever, and may be dropped at any time.
pub async fn keep_renewed<E: Display, F: Future<Output = Result<Option<UnixTime>, E>>>(
    whose: &str,
    mut until: UnixTime,
    mut renew: impl FnMut() -> F,
) {
    loop {
        tokio::time::sleep(renew_after(UnixTime::now(), until)).await;
        until = loop {
            match renew().await {
                Ok(Some(next)) => break next,
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(whose, %error, "the certificate cannot be renewed yet");
                    let left = Duration::from_secs(until.0.saturating_sub(UnixTime::now().0));
                    tokio::time::sleep((left / 4).clamp(RETRY_MIN, RETRY_MAX)).await;
                }
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_renewed_at_two_thirds_and_again_after_a_failure() {
        let begun = tokio::time::Instant::now();
        let mut asked = Vec::new();
        keep_renewed("mine", UnixTime::now().after(Duration::from_secs(90)), || {
            asked.push(begun.elapsed().as_secs());
            let answer = match asked.len() {
                1 => Err("no"),
                // The wall does not know that time is paused: what is left is counted from when the test began.
                2 => Ok(Some(UnixTime::now().after(Duration::from_secs(30)))),
                _ => Ok(None),
            };
            async move { answer }
        })
        .await;
        let rests: Vec<_> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
        // A second of the wall may have passed in between.
        assert!((58..=60).contains(&asked[0]), "{asked:?}");
        assert!((21..=23).contains(&rests[0]) && (18..=20).contains(&rests[1]), "{asked:?}");
    }
}
