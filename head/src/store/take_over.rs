//! From a store to a head.

use super::{MetadataStore, StoreError};
use crate::{Head, HeadConfig, Moment, RecordError};

/// Why there is no head.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TakeOverError {
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record cannot be read. Nothing was written.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Becomes the one who writes to the store, and makes a head of what it has. `moment` is asked when the records have been read: with several heads
/// that may be long after the call.
///
/// What a head wants written is [committed](MetadataStore::commit) as [`Transaction::of_head`](super::Transaction::of_head) of its term.
///
/// # Errors
/// [`TakeOverError`]. Records that cannot be read are found before anything is written, also the term.
///
/// # Cancel safety
/// The head before may have been fenced off, and that is all.
pub async fn take_over(
    store: &dyn MetadataStore,
    config: HeadConfig,
    moment: impl Fn() -> Moment,
) -> Result<Head, TakeOverError> {
    Head::recover(config, 0, store.range("").await?.records(), moment())?;
    let term = store.lead().await?;
    // Whoever led before may have written until now.
    let records = store.range("").await?.records();
    Ok(Head::recover(config, term, records, moment())?)
}
