//! Watching: from a revision on, over as many connections as it takes.

use std::time::Duration;

use etcd_client::{Client, EventType, WatchOptions, WatchStream};
use futures::stream::{self, BoxStream, StreamExt};
use mobula_core::limits;
use mobula_head::store::{Event, StoreError};
use tokio::time::{sleep, timeout};

use crate::failure::Failure;

/// The rest between two tries.
const RETRY: Duration = Duration::from_millis(200);

struct Changes {
    client: Client,
    prefix: String,
    /// All up to this revision has been told.
    told: u64,
    stream: Option<WatchStream>,
    /// There is nothing more to tell than this.
    over: Option<StoreError>,
}

/// What is changed under `prefix` after the revision `from`, all of a revision together; keys are told without the prefix.
/// After [`StoreError::Compacted`] and what is as bad it gives the same again.
pub(crate) fn changes(client: Client, prefix: String, from: u64) -> BoxStream<'static, Result<Vec<Event>, StoreError>> {
    let changes = Changes { client, prefix, told: from, stream: None, over: None };
    stream::unfold(changes, |mut changes| async move {
        let told = changes.next().await;
        Some((told, changes))
    })
    .boxed()
}

impl Changes {
    async fn next(&mut self) -> Result<Vec<Event>, StoreError> {
        loop {
            if let Some(error) = &self.over {
                return Err(error.clone());
            }
            match self.look().await {
                Ok(events) if events.is_empty() => {}
                Ok(events) => return Ok(events),
                Err(error) => self.over = Some(error),
            }
        }
    }

    /// The next message; nothing for one that brings none, and after what makes a new stream necessary.
    async fn look(&mut self) -> Result<Vec<Event>, StoreError> {
        let Some(stream) = &mut self.stream else {
            self.stream = self.begin().await?;
            return Ok(Vec::new());
        };
        let message = match stream.message().await {
            Ok(Some(message)) => message,
            Ok(None) => {
                self.stream = None;
                return Ok(Vec::new());
            }
            Err(error) => {
                self.stream = None;
                return self.after(error.into()).await;
            }
        };
        if message.canceled() {
            self.stream = None;
            let oldest = u64::try_from(message.compact_revision()).unwrap_or_default();
            if oldest > 0 {
                return Err(StoreError::Compacted { from: self.told, oldest });
            }
            return self.after(Failure::Silent(message.cancel_reason().to_owned())).await;
        }
        let mut events = Vec::new();
        for event in message.events() {
            let Some(kv) = event.kv() else { continue };
            let revision = u64::try_from(kv.mod_revision()).unwrap_or_default();
            // After a new stream it may say some of it again.
            if revision <= self.told {
                continue;
            }
            let value = match event.event_type() {
                EventType::Put => Some(kv.value().to_vec()),
                EventType::Delete => None,
            };
            events.push(Event { revision, key: key_under(&self.prefix, kv.key())?, value });
        }
        self.told = events.last().map_or(self.told, |event| event.revision);
        Ok(events)
    }

    async fn begin(&mut self) -> Result<Option<WatchStream>, StoreError> {
        let next = i64::try_from(self.told.saturating_add(1)).unwrap_or(i64::MAX);
        let options = WatchOptions::new().with_range(end_of(&self.prefix)).with_start_revision(next);
        let mut client = self.client.watch_client().max_decoding_message_size(limits::STORE_MESSAGE_BYTES_MAX * 4);
        match timeout(limits::STORE_REQUEST_DEADLINE, client.watch(self.prefix.as_str(), Some(options))).await {
            Ok(Ok(stream)) => Ok(Some(stream)),
            Ok(Err(error)) => self.after(error.into()).await.map(|_| None),
            Err(_) => Ok(None),
        }
    }

    /// Rests, if it may be tried again.
    async fn after(&self, failure: Failure) -> Result<Vec<Event>, StoreError> {
        match failure {
            Failure::Silent(reason) => {
                tracing::debug!(reason, prefix = self.prefix, "watching etcd again");
                sleep(RETRY).await;
                Ok(Vec::new())
            }
            // What is too large for one message is read by whoever reads all again.
            Failure::AnswerTooLarge => Err(StoreError::Compacted { from: self.told, oldest: self.told }),
            failure => Err(failure.of_reading()),
        }
    }
}

/// Behind all keys with the prefix, which is text and not empty.
pub(crate) fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    end
}

/// The rest of a key.
pub(crate) fn key_under(prefix: &str, key: &[u8]) -> Result<String, StoreError> {
    let text = std::str::from_utf8(key).ok().and_then(|key| key.strip_prefix(prefix));
    text.map(str::to_owned).ok_or_else(|| StoreError::Foreign {
        key: String::from_utf8_lossy(key).into_owned(),
        reason: format!("it is no text under {prefix}"),
    })
}
