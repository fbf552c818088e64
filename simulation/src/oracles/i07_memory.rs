//! I7: memory stays within bounds: bytes queued towards a peer, messages of one node for one actor, the line, what was
//! read of a frame. Answers, credit and heartbeats never wait, and are bounded by what they answer.

use mobula_core::limits;

use super::{Gauge, Oracle, View};
use crate::fact::Fact;

pub(super) struct Memory;

/// The largest message of a world, with its frame and the definition of its type ahead of it.
const MESSAGE_BYTES_MAX: usize = 800;
/// What may have been queued at once beyond the window.
const BATCH_BYTES: usize = 200_000;
/// Pings, pongs and the hello.
const URGENT_BYTES_MAX: usize = 4096 + 300;

impl Oracle for Memory {
    fn promise(&self) -> &'static str {
        "I7 memory within bounds under a slow consumer"
    }

    fn fact(&mut self, fact: &Fact, view: &View<'_>) -> Result<(), String> {
        let Fact::Queued { op, queued_bytes_before } = *fact else { return Ok(()) };
        let to_node = view.ledger.call(op).is_to_node();
        if !to_node && queued_bytes_before >= view.params.send_window_bytes {
            return Err(format!("#{op} is queued behind {queued_bytes_before} bytes, beyond the window"));
        }
        Ok(())
    }

    fn gauge(&mut self, gauge: &Gauge, view: &View<'_>) -> Result<(), String> {
        let urgent = if gauge.control { URGENT_BYTES_MAX } else { 300 };
        let bound = view.params.send_window_bytes + MESSAGE_BYTES_MAX + urgent + gauge.exempt_bytes;
        // The first fragments of as many as may begin, and as much of the next as is queued ahead of the wire.
        let fragments = (limits::FRAGMENTED_MAX + 3) * view.params.fragment_bytes.min(MESSAGE_BYTES_MAX);
        let bound = bound + fragments;
        if gauge.reassembly_bytes > limits::FRAGMENTED_MAX * MESSAGE_BYTES_MAX {
            return Err(format!("{} bytes of unfinished messages are kept", gauge.reassembly_bytes));
        }
        if gauge.queued_bytes > bound {
            return Err(format!("{} bytes are queued at end {}, at most {bound} may", gauge.queued_bytes, gauge.end));
        }
        // A batch may be all that was queued, with what never waits.
        let kept = view.params.resume_bytes + bound + BATCH_BYTES;
        if gauge.kept_bytes > kept {
            return Err(format!("{} bytes are kept at end {}, at most {kept} may", gauge.kept_bytes, gauge.end));
        }
        if gauge.mail_max > view.params.credit_messages {
            let (have, may) = (gauge.mail_max, view.params.credit_messages);
            return Err(format!("{have} messages of end {} wait for one actor, at most {may} may", gauge.end));
        }
        if gauge.in_line > limits::LINE_MESSAGES_MAX || gauge.inbox_bytes > limits::FRAME_BYTES_MAX + 65_536 {
            return Err(format!("{gauge:?} passes a limit"));
        }
        Ok(())
    }
}
