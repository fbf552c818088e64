//! I4: a monitor fires once, and says what is true: an end only of an actor that has ended, the loss of a node only
//! where one was cut off or ended. When the world rests, every monitor of what is gone has fired; one that was dropped
//! never does.

use std::collections::{BTreeMap, BTreeSet};

use super::{Oracle, Rest, View};
use crate::fact::{EndId, Fact, LifeId, News};
use crate::params::Fault;

#[derive(Default)]
pub(super) struct MonitorOnce {
    monitors: BTreeMap<u32, Monitor>,
    over: BTreeSet<(LifeId, u64)>,
    /// Who has had a data link to whom, where links are told.
    linked: BTreeSet<(LifeId, u64)>,
    ends: BTreeMap<EndId, (LifeId, u64)>,
}

struct Monitor {
    life: LifeId,
    target: LifeId,
    actor: u64,
    fired: Option<News>,
    dropped: bool,
}

impl Oracle for MonitorOnce {
    fn promise(&self) -> &'static str {
        "I4 a monitor fires once"
    }

    fn fact(&mut self, fact: &Fact, view: &View<'_>) -> Result<(), String> {
        match *fact {
            Fact::LinkUp { end, life, peer, control: false, .. } => {
                self.linked.insert((life, peer));
                self.ends.insert(end, (life, peer));
            }
            Fact::MonitorSet { monitor, life, target, actor } => {
                self.monitors.insert(monitor, Monitor { life, target, actor, fired: None, dropped: false });
            }
            Fact::MonitorDropped { monitor } => {
                if let Some(monitor) = self.monitors.get_mut(&monitor) {
                    monitor.dropped = true;
                }
            }
            Fact::ActorOver { life, actor } => {
                self.over.insert((life, actor));
            }
            Fact::MonitorFired { monitor: number, news } => {
                let Some(monitor) = self.monitors.get_mut(&number) else {
                    return Err(format!("monitor {number} fires and was never set"));
                };
                if let Some(before) = monitor.fired.replace(news) {
                    return Err(format!("monitor {number} said {before:?}, and now {news:?}"));
                }
                if monitor.dropped {
                    return Err(format!("monitor {number} was dropped, and says {news:?}"));
                }
                let node = |life: LifeId| view.ledger.lives[life as usize].node;
                let target = &view.ledger.lives[monitor.target as usize];
                let unlinked = view.params.watched && !self.linked.contains(&(monitor.life, target.uid));
                if news == News::NoConnection
                    && !unlinked
                    && target.until.is_none()
                    && !disturbed(view, node(monitor.life), node(monitor.target))
                {
                    return Err(format!("monitor {number} says {news:?}, and nothing came between the two"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn rest(&mut self, _: &Rest, view: &View<'_>) -> Result<(), String> {
        let forged = view.ledger.tainted.iter().filter_map(|end| self.ends.get(end));
        let forged: BTreeSet<(LifeId, LifeId)> =
            forged.filter_map(|(life, peer)| Some((*life, view.ledger.life_of(*peer)?))).collect();
        for (number, monitor) in &self.monitors {
            // After forged bytes what is asked may never arrive.
            if forged.contains(&(monitor.life, monitor.target)) {
                continue;
            }
            let gone = |life: LifeId| view.ledger.lives[life as usize].until.is_some();
            let over = self.over.contains(&(monitor.target, monitor.actor)) || gone(monitor.target);
            match monitor.fired {
                None if over && !monitor.dropped && !gone(monitor.life) => {
                    let (target, actor) = (monitor.target, monitor.actor);
                    return Err(format!("monitor {number} never fired; actor {actor} of life {target} is gone"));
                }
                Some(news @ (News::Ended | News::NoProc)) if !over => {
                    return Err(format!("monitor {number} says {news:?}, and the actor lives"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// True if anything may have come between the two so far.
pub(super) fn disturbed(view: &View<'_>, one: u8, other: u8) -> bool {
    let begun = || view.params.faults.iter().filter(|fault| fault.at <= view.now).map(|fault| &fault.fault);
    // Whoever loses the head may lose its lease, and ends.
    let fenced = |node: u8| begun().any(|fault| fault.touches(0) && (fault.touches(node) || ends(fault)));
    if view.params.services && (fenced(one) || fenced(other)) {
        return true;
    }
    begun().any(|fault| match *fault {
        Fault::Crash { node, .. } | Fault::Pause { node } | Fault::Jump { node, .. } | Fault::Drain { node } => {
            node == one || node == other
        }
        Fault::Flap { a, b, .. } => (a, b) == (one, other) || (b, a) == (one, other),
        Fault::Cut { a, b, .. } | Fault::Delay { a, b, .. } | Fault::Stall { a, b, .. } | Fault::Reset { a, b, .. } => {
            (a, b) == (one, other) || (b, a) == (one, other)
        }
        Fault::Forget { a, b, .. } => (a, b) == (one, other) || (b, a) == (one, other),
        // They lose nobody.
        Fault::Mute { .. } | Fault::Busy { .. } => false,
        Fault::Slow { .. } | Fault::Forge { .. } | Fault::Dial { .. } => true,
    })
}

fn ends(fault: &Fault) -> bool {
    matches!(fault, Fault::Crash { .. } | Fault::Drain { .. })
}
