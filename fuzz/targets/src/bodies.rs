//! MessagePack from a peer: the scan, and the bodies that Mobula itself reads.

use mobula_core::codec;
use mobula_core::prescan::{PrescanLimits, prescan};
use mobula_core::{CallError, ExitReason, NodeId};
use mobula_transport::Hello;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

/// The type that overflows the stack where nobody looks at the bytes before: an enum within itself.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
enum Nested {
    Leaf,
    Inner(Box<Nested>),
    Pair(Vec<Nested>),
}

/// Whatever the scan lets through, a decoder reads without a panic, and to the end.
pub(crate) fn prescanned(data: &[u8]) {
    let scanned = prescan(data, &PrescanLimits::default());
    let tight = prescan(data, &PrescanLimits { depth_max: 3, elements_max: 10 });
    assert!(scanned.is_ok() || tight.is_err(), "tighter limits let more through");
    let any = codec::decode::<IgnoredAny>(data);
    assert!(scanned.is_ok() || any.is_err());
    both_ways::<Nested>(data);
}

/// Bodies of frames: what can be read can be written, and is the same when it is read again.
pub(crate) fn bodies(data: &[u8]) {
    both_ways::<CallError>(data);
    both_ways::<Hello>(data);
    both_ways::<NodeId>(data);
    both_ways::<String>(data);
    both_ways::<ExitReason>(data);
    both_ways::<(String, u64)>(data);
}

fn both_ways<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(data: &[u8]) {
    if let Ok(value) = codec::decode::<T>(data) {
        let bytes = codec::encode(&value).expect("it was read");
        let again: T = codec::decode(&bytes).expect("it was written");
        assert_eq!(value, again);
    }
}
