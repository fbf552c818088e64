//! I14: when all is said, pending asks, lines, queued bytes and credit are back where they began.

use super::{Oracle, Rest, View};

pub(super) struct Baseline;

impl Oracle for Baseline {
    fn promise(&self) -> &'static str {
        "I14 slots, credits and map entries return to baseline"
    }

    fn rest(&mut self, rest: &Rest, view: &View<'_>) -> Result<(), String> {
        if rest.services.left > 0 {
            return Err(format!("{} questions are kept that nobody waits for", rest.services.left));
        }
        for gauge in &rest.gauges {
            let bytes = [gauge.queued_bytes, gauge.unsent_large_bytes, gauge.reassembly_bytes];
            let left = [bytes.iter().sum(), gauge.pending, gauge.in_line, gauge.targets, gauge.mail_max as usize];
            if left != [0; 5] && !view.ledger.tainted.contains(&gauge.end) {
                return Err(format!("left over: {gauge:?}"));
            }
        }
        Ok(())
    }
}
