//! Of several heads, the one that lets others in.

use std::future::Future;
use std::net::SocketAddr;

use crate::join::JoinError;

/// Asks heads, one after the other, until one answers: one that does not lead hangs up.
///
/// # Errors
/// [`JoinError`]: the refusal of one that leads, or what the last one has said; [`JoinError::NoHeads`] if there is none.
pub async fn first_that_leads<T, F: Future<Output = Result<T, JoinError>>>(
    heads: &[SocketAddr],
    ask: impl Fn(SocketAddr) -> F,
) -> Result<(SocketAddr, T), JoinError> {
    let mut last = JoinError::NoHeads;
    for head in heads {
        match ask(*head).await {
            Ok(answer) => return Ok((*head, answer)),
            // It leads, and says no.
            Err(error @ JoinError::JoinRejected { .. }) => return Err(error),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[tokio::test]
    async fn who_does_not_lead_is_followed_by_the_next_and_who_says_no_by_nobody() {
        let [silent, leads, rejects] = [1, 2, 3].map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
        let ask = async |address: SocketAddr| match address {
            _ if address == leads => Ok("welcome"),
            _ if address == rejects => Err(JoinError::JoinRejected { address }),
            _ => Err(JoinError::Io { address, error: io::ErrorKind::UnexpectedEof.into() }),
        };
        let asked = async |heads: &[SocketAddr]| first_that_leads(heads, ask).await;
        assert_eq!(asked(&[silent, leads, rejects]).await.ok(), Some((leads, "welcome")));
        assert!(matches!(asked(&[silent, rejects, leads]).await, Err(JoinError::JoinRejected { .. })));
        assert!(matches!(asked(&[silent, silent]).await, Err(JoinError::Io { .. })));
        assert!(matches!(asked(&[]).await, Err(JoinError::NoHeads)));
    }
}
