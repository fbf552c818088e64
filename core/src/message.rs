//! What a message must be to travel between nodes.

use serde::{Serialize, de::DeserializeOwned};

use crate::MessageKey;

/// A message that may cross from one process to another, with the type of its reply.
///
/// Usually derived (`#[derive(RemoteMessage)]` with `#[rtype(result = "…")]`), which also implements actix's
/// `Message`. Implement it by hand when the name or the schema must differ from what the derive makes of them.
pub trait RemoteMessage: Serialize + DeserializeOwned + Send + 'static {
    /// The name under which the type is known on the wire: `<package>::<Type>` by default. Two types with one
    /// name in one executable are refused at start-up. Moving a type between modules does not change it.
    const NAME: &'static str;

    /// A hash of the definition and of the reply's type ([`schema_hash`](crate::schema_hash)). Two nodes whose
    /// hashes differ refuse the message with [`SchemaMismatch`](crate::CallError::SchemaMismatch).
    const SCHEMA: u64;

    /// What the handler answers.
    type Reply: Serialize + DeserializeOwned + Send + 'static;

    /// [`NAME`](Self::NAME) as the key that dispatch tables use.
    const KEY: MessageKey = MessageKey::of(Self::NAME);
}
