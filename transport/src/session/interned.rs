//! Message types by number: a name travels once per connection, afterwards its index does.

use mobula_core::codec;
use mobula_core::frame::{Head, MessageIndex};
use mobula_core::planted::{self, Bug};
use mobula_core::{CallError, IdMap, limits};
use serde::{Deserialize, Serialize};

use super::encode_failure;
use super::error::{SessionError, bad_body, check_name};
use super::outgoing::Outgoing;
use super::types::Call;

#[derive(Serialize, Deserialize)]
struct Definition {
    name: String,
    schema: u64,
}

#[derive(Default)]
pub(super) struct Interned {
    /// What was sent last: mostly what is sent next.
    latest: Option<(u64, MessageIndex)>,
    ours: IdMap<u64, MessageIndex>,
    /// Our names by their index: the peer names by it what it could not deliver.
    names: Vec<&'static str>,
    /// How many the peer has introduced: their indices count up from 0.
    theirs: u32,
}

impl Interned {
    /// The index of the message's type, introduced to the peer if it is new.
    #[inline]
    pub(super) fn index(&mut self, call: &Call, out: &mut Outgoing) -> Result<MessageIndex, CallError> {
        if let Some((key, index)) = self.latest
            && key == call.key.0
        {
            return Ok(index);
        }
        let index = self.find(call, out)?;
        self.latest = Some((call.key.0, index));
        Ok(index)
    }

    fn find(&mut self, call: &Call, out: &mut Outgoing) -> Result<MessageIndex, CallError> {
        if let Some(index) = self.ours.get(&call.key.0) {
            return Ok(*index);
        }
        // The peer would close the connection; better that this one message fails.
        if call.name.len() > limits::NAME_BYTES_MAX || self.ours.len() >= limits::MESSAGE_TYPES_MAX {
            let (types, bytes) = (limits::MESSAGE_TYPES_MAX, limits::NAME_BYTES_MAX);
            let reason = format!("at most {types} message types, with names of at most {bytes} bytes");
            return Err(CallError::Encode { reason, reply: false });
        }
        let index = MessageIndex(self.ours.len() as u32);
        let definition = Definition { name: call.name.to_owned(), schema: call.schema };
        if !planted::is(Bug::DefineSkipped) || index.0 == 0 {
            out.put_introduction(Head::Define { index }, |out| codec::encode_into(&definition, out))
                .map_err(encode_failure)?;
        }
        self.ours.insert(call.key.0, index);
        self.names.push(call.name);
        Ok(index)
    }

    /// The name that was introduced to the peer under `index`.
    ///
    /// # Errors
    /// [`SessionError::UndefinedMessage`].
    pub(super) fn name(&self, index: MessageIndex) -> Result<&'static str, SessionError> {
        self.names.get(index.0 as usize).copied().ok_or(SessionError::UndefinedMessage { index: index.0 })
    }

    /// Takes in the peer's next definition: name and schema.
    pub(super) fn define(&mut self, index: MessageIndex, body: &[u8]) -> Result<(String, u64), SessionError> {
        if index.0 != self.theirs {
            return Err(SessionError::DefineOutOfOrder { index: index.0, expected: self.theirs });
        }
        if self.theirs as usize >= limits::MESSAGE_TYPES_MAX {
            return Err(SessionError::TooManyMessageTypes { max: limits::MESSAGE_TYPES_MAX });
        }
        let Definition { name, schema } = codec::decode(body).map_err(bad_body("define"))?;
        check_name("define", &name)?;
        self.theirs += 1;
        Ok((name, schema))
    }

    /// How many types the peer has introduced.
    pub(super) fn theirs(&self) -> u32 {
        self.theirs
    }

    /// # Errors
    /// [`SessionError::UndefinedMessage`].
    pub(super) fn check(&self, message: MessageIndex) -> Result<(), SessionError> {
        if message.0 < self.theirs { Ok(()) } else { Err(SessionError::UndefinedMessage { index: message.0 }) }
    }
}
