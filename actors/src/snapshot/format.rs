//! A snapshot as bytes, and the names under which they lie in a store. No I/O.
//!
//! | bytes | field   | meaning                                     |
//! |------:|---------|---------------------------------------------|
//! |     8 | magic   | `mobulasn`                                  |
//! |     4 | version | big-endian; 1                               |
//! |    32 | hash    | BLAKE3 of the rest                          |
//! |  rest | body    | MessagePack of [`Body`], named              |

use mobula_core::{codec, limits};
use serde::{Deserialize, Serialize};

use super::SnapshotError;

const MAGIC: &[u8; 8] = b"mobulasn";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 8 + 4 + 32;

/// Where a snapshot stands in the history of its actor. What a later holder of the identity writes is later, however
/// long an earlier one goes on writing.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Place {
    /// Counts the holders of the identity.
    pub(crate) epoch: u64,
    /// Counts the snapshots of one holder.
    pub(crate) number: u64,
}

/// What a snapshot says.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct Body {
    pub(crate) actor_type: String,
    pub(crate) identity: String,
    /// None where an actor has begun and saved nothing yet.
    #[serde(with = "serde_bytes")]
    pub(crate) state: Option<Vec<u8>>,
}

impl Body {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, SnapshotError> {
        let body = codec::encode(self).map_err(|error| SnapshotError::Encode { reason: error.to_string() })?;
        if body.len() > limits::SNAPSHOT_BYTES_MAX {
            return Err(SnapshotError::TooLarge { bytes: body.len() as u64, limit: limits::SNAPSHOT_BYTES_MAX as u64 });
        }
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(blake3::hash(&body).as_bytes());
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let corrupt = |reason: &str| SnapshotError::Corrupt { reason: reason.to_owned() };
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| corrupt("it does not begin as a snapshot does"))?;
        let (version, rest) = rest.split_first_chunk::<4>().ok_or_else(|| corrupt("it ends within its header"))?;
        let version = u32::from_be_bytes(*version);
        if version != VERSION {
            return Err(SnapshotError::NewerFormat { version, known: VERSION });
        }
        let (hash, body) = rest.split_first_chunk::<32>().ok_or_else(|| corrupt("it ends within its header"))?;
        if blake3::hash(body).as_bytes() != hash {
            return Err(corrupt("its checksum is that of other bytes"));
        }
        codec::decode(body).map_err(|error| corrupt(&error.to_string()))
    }
}

/// The folder of an identity: whatever characters it has, these are harmless.
pub(crate) fn folder(actor_type: &str, identity: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(actor_type.len() as u64).to_be_bytes());
    hasher.update(actor_type.as_bytes());
    hasher.update(identity.as_bytes());
    let hash = hasher.finalize().to_hex();
    hash[..32].to_owned()
}

impl Place {
    pub(crate) fn name(self) -> String {
        format!("{:016x}-{:016x}.snapshot", self.epoch, self.number)
    }

    /// None for a file that is no snapshot.
    pub(crate) fn of(name: &str) -> Option<Self> {
        let (epoch, number) = name.strip_suffix(".snapshot")?.split_once('-')?;
        let number_of = |hex: &str| (hex.len() == 16).then(|| u64::from_str_radix(hex, 16).ok()).flatten();
        Some(Place { epoch: number_of(epoch)?, number: number_of(number)? })
    }
}

/// Those of `places` that are not needed any more: older than the `keep` newest up to `restored`, which is readable.
/// What is newer than that and was not read stays where it is, for whoever wants to look at it.
pub(crate) fn superseded(places: &[Place], restored: Place, keep: usize) -> Vec<Place> {
    let mut old: Vec<Place> = places.iter().copied().filter(|place| *place <= restored).collect();
    old.sort_unstable_by(|a, b| b.cmp(a));
    old.into_iter().skip(keep).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body() -> Body {
        Body { actor_type: "a::B".to_owned(), identity: "till".to_owned(), state: Some(vec![1, 2, 3]) }
    }

    #[test]
    fn a_snapshot_comes_back_as_it_was() {
        for state in [None, Some(Vec::new()), Some(vec![7; 1000])] {
            let body = Body { state, ..body() };
            assert_eq!(Body::decode(&body.encode().expect("small")), Ok(body));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = body().encode().expect("small");
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut broken = bytes.clone();
                broken[at] ^= 1 << bit;
                let error = Body::decode(&broken).expect_err("a bit is wrong");
                let is_version = (8..12).contains(&at);
                assert_eq!(matches!(error, SnapshotError::NewerFormat { .. }), is_version, "byte {at}: {error}");
            }
            assert!(matches!(Body::decode(&bytes[..at]), Err(SnapshotError::Corrupt { .. })), "cut at {at}");
        }
    }

    #[test]
    fn names_sort_as_their_places_do() {
        let places = [(1, 0), (1, 9), (1, 10), (2, 0), (16, 1), (u64::MAX, u64::MAX)];
        let places = places.map(|(epoch, number)| Place { epoch, number });
        let names = places.map(Place::name);
        assert!(names.is_sorted() && places.is_sorted());
        assert_eq!(names.map(|name| Place::of(&name)), places.map(Some));
        for strange in ["", "x.snapshot", "1-2.snapshot", "0000000000000001-000000000000000g.snapshot", ".tmp"] {
            assert_eq!(Place::of(strange), None, "{strange}");
        }
        assert_ne!(folder("a", "bc"), folder("ab", "c"));
    }

    #[test]
    fn the_newest_readable_ones_are_kept_and_what_could_not_be_read() {
        let at = |number| Place { epoch: 1, number };
        let places: Vec<Place> = (0..6).map(at).collect();
        assert_eq!(superseded(&places, at(4), 3), [at(1), at(0)]);
        assert_eq!(superseded(&places, at(1), 3), []);
    }
}
