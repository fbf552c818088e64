//! I8: NotSent and NotStarted mean that the handler never ran, then or later; a reply means that it ran once, for this
//! very call.

use mobula_core::Outcome;

use super::{Oracle, View};
use crate::fact::{Fact, Verdict};

pub(super) struct OutcomeIsTrue;

impl Oracle for OutcomeIsTrue {
    fn promise(&self) -> &'static str {
        "I8 NotStarted means the handler never ran, a reply that it ran once"
    }

    fn fact(&mut self, fact: &Fact, view: &View<'_>) -> Result<(), String> {
        match *fact {
            Fact::Resolved { op, verdict } if !view.ledger.is_tainted(op) => {
                let call = view.ledger.call(op);
                let started = call.started;
                if let Verdict::Replied { to } | Verdict::HandlerError { to } = verdict
                    && to != op
                {
                    return Err(format!("#{op} gets the answer to #{to}"));
                }
                match verdict.outcome() {
                    Outcome::NotSent | Outcome::NotStarted if started > 0 => {
                        Err(format!("#{op} ends with {verdict:?}, and its handler ran"))
                    }
                    Outcome::NotSent if call.wired.is_some() => {
                        Err(format!("#{op} ends with {verdict:?}, and has left the node"))
                    }
                    Outcome::Done if started != 1 => {
                        Err(format!("#{op} ends with {verdict:?}, and its handler ran {started} times"))
                    }
                    _ => Ok(()),
                }
            }
            Fact::Started { op, .. } | Fact::Wired { op, .. } if !view.ledger.is_tainted(op) => {
                match view.ledger.call(op).verdict {
                    Some((_, verdict)) if verdict.outcome().is_retry_safe() => {
                        Err(format!("#{op} was said to be safe to repeat ({verdict:?}), and now: {fact}"))
                    }
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}
