//! Ids in JSON: as people and the command line write them, since a number beyond 2^53 is another one in many a reader.

use std::fmt::Display;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Writes a number as `text` where people read it, and as itself on the wire.
///
/// # Errors
/// The serializer's.
pub fn serialize<S: Serializer>(number: u64, text: &impl Display, to: S) -> Result<S::Ok, S::Error> {
    if to.is_human_readable() { to.collect_str(text) } else { number.serialize(to) }
}

/// Reads it again, by `parse` where people read it.
///
/// # Errors
/// The deserializer's, for what is none.
pub fn deserialize<'de, D: Deserializer<'de>>(
    from: D,
    parse: impl FnOnce(&str) -> Option<u64>,
) -> Result<u64, D::Error> {
    if !from.is_human_readable() {
        return u64::deserialize(from);
    }
    let text = String::deserialize(from)?;
    parse(&text).ok_or_else(|| D::Error::custom(format!("{text:?} is no id")))
}

/// The number that 16 hexadecimal digits are.
pub fn from_hex(text: &str) -> Option<u64> {
    let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(text, 16).ok().filter(|_| is_hex)
}
