//! The switch that makes calls within the process take the form that they would have on the wire.

use bytes::BytesMut;
use mobula_core::{CallError, codec, limits};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::node::Node;
use crate::scope;

/// Set to `1`, every node of the process encodes its own calls.
const VARIABLE: &str = "MOBULA_ENCODE_LOCAL";

pub(crate) fn is_asked_for() -> bool {
    std::env::var_os(VARIABLE).is_some_and(|value| value == "1")
}

/// How a value gets from a sender to a receiver of one node.
pub(crate) type Pass<T> = fn(&Node, T) -> Result<T, CallError>;

impl Node {
    /// A message on its way to an actor of this node.
    pub(crate) fn pass_message<M: Serialize + DeserializeOwned>(&self, message: M) -> Result<M, CallError> {
        if self.encodes_local_calls() { there_and_back(self, message, false) } else { Ok(message) }
    }

    /// What an answer or an item goes through on its way back, if anything.
    pub(crate) fn pass_answer<T: Serialize + DeserializeOwned>(&self) -> Option<Pass<T>> {
        self.encodes_local_calls().then_some(|node, value| there_and_back(node, value, true))
    }
}

/// Writes and reads a value as the wire would.
fn there_and_back<T: Serialize + DeserializeOwned>(node: &Node, value: T, reply: bool) -> Result<T, CallError> {
    let encode = |reason| CallError::Encode { reason, reply };
    let mut bytes = BytesMut::new();
    codec::encode_into(&value, &mut bytes).map_err(|error| encode(error.to_string()))?;
    if bytes.len() > limits::FRAME_BYTES_MAX {
        let (bytes, max) = (bytes.len(), limits::FRAME_BYTES_MAX);
        return Err(encode(format!("the value takes {bytes} bytes, at most {max} fit; send large values in parts")));
    }
    // References in it become local ones again.
    scope::on_node(Some(node), || codec::decode(&bytes))
        .map_err(|error| CallError::Decode { reason: error.to_string(), reply })
}
