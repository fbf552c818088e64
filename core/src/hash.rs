//! Hashes: the stable one for names and schemas, and the trivial one for keys that are already well spread.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// The stable 64-bit hash of a name or of a definition's tokens: FNV-1a (Fowler, Noll, Vo; offset basis
/// 0xcbf29ce484222325, prime 0x100000001b3). Usable in constants; the value is part of the wire protocol.
pub const fn schema_hash(text: &str) -> u64 {
    let bytes = text.as_bytes();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut at = 0;
    while at < bytes.len() {
        hash ^= bytes[at] as u64;
        hash = hash.wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}

/// A map whose keys are ids of this crate: small integers or hashes, which need no second hashing.
pub type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// Spreads one 64-bit id by a multiplication (Fibonacci hashing; Knuth, TAOCP vol. 3, 6.4).
/// Only for keys that this process or an authenticated peer has chosen: it resists no deliberate collisions.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = (self.0 ^ id).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnv_reference_values() {
        assert_eq!(schema_hash(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(schema_hash("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(schema_hash("foobar"), 0x8594_4171_f739_67e8);
    }
}
