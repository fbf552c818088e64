//! What nodes ask of each other besides spawns and stops: requests to the node itself, with a body of their own, over the
//! control lane, or over the data lane where they must keep their place among messages.

use std::sync::Arc;

use mobula_core::directory::{Answer, GroupName, Request};
use mobula_core::{ActorId, MessageKey, NodeId, RequestId};
use mobula_transport::{Accepted, Call, Lane};
use serde::{Deserialize, Serialize};

use super::ends::{Message, Reply};
use super::names::Found;
use super::{World, plan_of};
use crate::fact::{EndId, Fact, LifeId, Op, Verdict};
use crate::ledger::{DATA_NODE, Entry};
use crate::params::{CallParams, Kind, Time};

/// A request to a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Control {
    /// What the plan of the call says.
    Planned,
    Directory(Request),
    /// Answered when the members are others than in the known version.
    Follow {
        group: GroupName,
        known: Option<u64>,
    },
    /// Answered when the keyed actor is there.
    Activate {
        key: u8,
    },
    /// Answered when the actor has ended.
    AwaitEnd {
        actor: u64,
    },
    /// From one end of a link to the other; wants no answer.
    Signal(Signal),
}

/// As in `actors/src/link.rs`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Signal {
    Link {
        from: u64,
        to: u64,
    },
    Unlink {
        from: u64,
        to: u64,
        number: u64,
    },
    /// The unlink with this number is known.
    Unlinked {
        from: u64,
        to: u64,
        number: u64,
    },
    Exit {
        from: u64,
        to: u64,
        normal: bool,
    },
}

/// What a node answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Told {
    Nothing,
    Directory(Answer),
    Active(Option<Found>),
    Ended { no_proc: bool },
}

/// What follows on the answer, or on the news that there is none.
#[derive(Clone, Debug)]
pub(super) enum Wait {
    Nothing,
    Renew {
        life: LifeId,
        sent: std::time::Instant,
    },
    Claim {
        life: LifeId,
        actor: u64,
        name: u8,
    },
    End {
        life: LifeId,
        actor: u64,
    },
    Join {
        life: LifeId,
        actor: u64,
    },
    Follow {
        life: LifeId,
        group: u8,
    },
    /// The caller calls whom is found.
    Find {
        life: LifeId,
        plan: Arc<CallParams>,
    },
    Monitor {
        monitor: u32,
    },
}

/// Whom an answer goes to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    pub(super) end: EndId,
    pub(super) request: RequestId,
    pub(super) op: Op,
}

const NAME: &str = "simulation::Control";

impl World<'_> {
    /// Asks `to`; what follows on the answer is `wait`. Without a time `after` it waits for ever.
    pub(super) fn ask_node(
        &mut self,
        life: LifeId,
        to: &NodeId,
        lane: Lane,
        control: Control,
        after: Option<Time>,
        wait: Wait,
    ) -> Option<Op> {
        let Ok(end) = self.link(life, to, lane == Lane::Control) else {
            self.goes_on(wait, None);
            return None;
        };
        let node = self.node_of(life);
        let deadline = after.map(|after| self.after(node, after));
        let op = self.enter(life, to, end, lane, Kind::Control, deadline)?;
        // Renewals and what waits for ever go on while the world rests.
        let renews = matches!(control, Control::Directory(Request::Renew { .. }));
        let entry = &mut self.judge.ledger.calls[op as usize];
        (entry.background, entry.ahead) = (renews || deadline.is_none(), renews);
        self.judge.line(self.now, || format!("    #{op} to {to}: {control:?}"));
        self.waits.insert(op, wait);
        self.send_control(op, end, control, true);
        Some(op)
    }

    /// Tells `to`, if it can be reached.
    pub(super) fn signal(&mut self, life: LifeId, to: &NodeId, signal: Signal) -> bool {
        let Ok(end) = self.link(life, to, false) else { return false };
        let Some(op) = self.enter(life, to, end, Lane::Data, Kind::Tell, None) else { return false };
        self.judge.line(self.now, || format!("    #{op} to {to}: {signal:?}"));
        self.send_control(op, end, Control::Signal(signal), false);
        true
    }

    fn enter(
        &mut self,
        life: LifeId,
        to: &NodeId,
        end: EndId,
        lane: Lane,
        kind: Kind,
        deadline: Option<Time>,
    ) -> Option<Op> {
        let target = self.judge.ledger.life_of(to.uid.0)?;
        let number = if lane == Lane::Control { 0 } else { DATA_NODE };
        let op = self.judge.ledger.calls.len() as Op;
        let issued = Entry::issued(&plan_of(kind), life, (target, number), self.now, deadline);
        self.judge.ledger.calls.push(Entry { end: Some(end), ..issued });
        self.parents.push(None);
        self.requests.push(None);
        self.fact(Fact::Issued { op });
        Some(op)
    }

    fn send_control(&mut self, op: Op, end: EndId, control: Control, ask: bool) {
        let entry = self.judge.ledger.call(op);
        let (node, ahead) = (self.node_of(entry.caller), entry.ahead);
        let (deadline, now) = (self.deadline(node, entry.deadline), self.instant(node));
        let call = Call { target: ActorId::NODE, key: MessageKey::of(NAME), name: NAME, schema: 1, deadline };
        let one = &mut self.ends[end as usize];
        let Some(session) = &mut one.session else { return };
        let queued_bytes_before = session.queued_bytes();
        let body = Message { op, padding: String::new(), control };
        let write = |out: &mut bytes::BytesMut| mobula_core::codec::encode_into(&body, out);
        let accepted = if ask {
            let asked = match ahead {
                true => session.ask_ahead(&call, op, now, write),
                false => session.ask(&call, op, now, write),
            };
            match asked {
                Ok((request, accepted)) => {
                    self.requests[op as usize] = Some(request);
                    Ok(accepted)
                }
                Err((error, _)) => Err(error),
            }
        } else {
            session.tell(&call, || op, now, write)
        };
        // Requests to the node itself wait for no window.
        one.exempt_bytes += session.queued_bytes().saturating_sub(queued_bytes_before);
        match accepted {
            Ok(Accepted::Queued) => self.fact(Fact::Queued { op, queued_bytes_before }),
            Ok(Accepted::InLine) => self.fact(Fact::InLine { op, window_full: false }),
            Err(error) => self.resolve(op, Verdict::of(&error)),
        }
        self.wake(end);
    }

    /// A request to the node itself, of a peer that was proven.
    pub(super) fn serve_control(
        &mut self,
        life: LifeId,
        end: EndId,
        request: Option<RequestId>,
        op: Op,
        control: Control,
    ) {
        let from = self.judge.ledger.call(op).caller;
        let from = self.lives[from as usize].id().clone();
        self.fact(Fact::Started { op, life, actor: 0, generation: 0 });
        let asker = request.map(|request| Asker { end, request, op });
        match (control, asker) {
            (Control::Directory(request), Some(asker)) => {
                let answer = self.serve_directory(life, &from, request);
                self.tell_back(asker, Told::Directory(answer));
            }
            (Control::Follow { group, known }, Some(asker)) => self.serve_follower(life, asker, group, known),
            (Control::Activate { key }, Some(asker)) => self.activate(life, key, super::names::KeyedAsker::Far(asker)),
            (Control::AwaitEnd { actor }, Some(asker)) => self.await_end(life, actor, asker),
            (Control::Signal(signal), None) => self.hear_signal(life, &from, signal),
            _ => {}
        }
    }

    pub(super) fn tell_back(&mut self, to: Asker, told: Told) {
        self.fact(Fact::Finished { op: to.op });
        let ahead = matches!(told, Told::Directory(Answer::Renewed { .. }));
        let reply = Reply { op: to.op, error: false, told };
        match ahead {
            true => self.answer_ahead(to.end, to.request, &reply),
            false => self.answer(to.end, to.request, Ok(reply)),
        }
    }

    /// A reply has come.
    pub(super) fn answered(&mut self, op: Op, verdict: Verdict, told: Told) {
        let wait = self.waits.remove(&op);
        self.resolve(op, verdict);
        if let Some(wait) = wait {
            self.goes_on(wait, Some(told));
        }
    }

    /// What follows on an answer, or on there being none.
    pub(super) fn goes_on(&mut self, wait: Wait, told: Option<Told>) {
        let directory = match &told {
            Some(Told::Directory(answer)) => Some(answer.clone()),
            _ => None,
        };
        match wait {
            Wait::Nothing => {}
            Wait::Renew { life, sent } => self.renewed(life, sent, directory),
            Wait::Claim { life, actor, name } => self.claimed(life, actor, name, directory),
            Wait::End { life, actor } => self.publish(life, actor),
            Wait::Join { life, actor } => self.joined(life, actor),
            Wait::Follow { life, group } => self.followed(life, group, directory),
            Wait::Find { life, plan } => {
                let found = match (directory, told) {
                    (Some(Answer::Found(Some(found))), _) => Some((found.node.uid.0, found.actor.0)),
                    (_, Some(Told::Active(found))) => found,
                    _ => None,
                };
                if let Some(found) = found {
                    self.call_found(&plan, life, found);
                }
            }
            Wait::Monitor { monitor } => self.monitor_answered(monitor, told),
        }
    }
}
