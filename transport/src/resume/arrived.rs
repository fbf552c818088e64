//! The incoming half: how much has arrived, and when to say so.

use mobula_core::frame::Frame;
use mobula_core::limits;
use mobula_core::planted::{self, Bug};

/// Counts the frames that came whole.
#[derive(Debug, Default)]
pub struct Arrived {
    received: u64,
    told: u64,
}

impl Arrived {
    /// A frame that took `bytes` has come.
    pub fn count(&mut self, frame: &Frame<'_>, bytes: usize) {
        if !matches!(frame, Frame::Ack { .. } | Frame::Resume { .. }) {
            self.count_bytes(bytes);
        }
    }

    /// A frame of the stream has come, which is no ack and no resume.
    pub fn count_bytes(&mut self, bytes: usize) {
        self.received += bytes as u64;
    }

    /// The bytes of all frames that came whole.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// What to acknowledge now, if enough has come since the last time, or with a `heartbeat` if anything has.
    pub fn ack(&mut self, heartbeat: bool) -> Option<u64> {
        let since = self.received - self.told;
        if since < limits::ACK_BYTES && !(heartbeat && since > 0) {
            return None;
        }
        self.told = self.received;
        Some(self.received + u64::from(planted::is(Bug::AckOffByOne)))
    }

    /// The peer was told all by other means, as a connection was restored.
    pub fn told(&mut self) {
        self.told = self.received;
    }
}
