//! Connections that break and come back: the real `Kept`, `Arrived`, `Absence` and `Doubt`, and a model of what
//! `transport/src/link` and the door of a node (`cluster/src/peers.rs`) do around them. A session is a pair of ends; the
//! connection under it is a pair of pipes, and changes.

use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use mobula_core::frame::{self, Frame, Head};
use mobula_core::planted::{self, Bug};
use mobula_core::{NodeUid, codec, limits};
use mobula_transport::Lane;
use mobula_transport::preface::{Dial, PrefaceError, Purpose};
use mobula_transport::resume::{Absence, Doubt, Next, Resume, Suspicion};

use super::ends::Stage;
use super::{Event, World};
use crate::fact::{Closure, EndId, Fact};
use crate::params::Time;
use crate::reach::Branch;

/// The way back of one end of a session.
#[derive(Default)]
pub(super) struct Back {
    /// It has one.
    pub(super) has: bool,
    pub(super) dials: bool,
    /// The session's name.
    pub(super) session: u64,
    /// There is no connection.
    pub(super) away: Option<Absence>,
    looking: Option<Looking>,
    found: Option<Found>,
    attempts: u32,
    /// The peer's latest attempt.
    attempt_seen: u32,
    /// A connection of the peer's that waits for this side to take it up, and what was said on it.
    returned: Option<(EndId, Resume)>,
    doubt: Option<Doubt>,
    answered: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
enum Looking {
    /// Over the connection of this end.
    By(EndId),
    /// The machine is gone, and nobody says so.
    Nobody { until: Time },
}

#[derive(Clone, Copy, Debug)]
enum Found {
    Back(EndId, Resume),
    Dead,
    Refused,
    NotYet,
}

type Failure = (Closure, String);

impl Back {
    /// When the driver has something to do, in the node's own time, and in the world's.
    pub(super) fn next(&self, now: Instant) -> (Option<Instant>, Option<Time>) {
        let waits = self.away.as_ref().map(|away| match away.next(now) {
            Next::Look if self.looking.is_none() => now,
            Next::Look => away.until(),
            Next::Wait(at) => at,
            Next::GiveUp { .. } => now,
        });
        let doubts = self.doubt.as_ref().and_then(Doubt::next);
        let nobody = match self.looking {
            Some(Looking::Nobody { until }) => Some(until),
            _ => None,
        };
        (waits.into_iter().chain(doubts).min(), nobody)
    }

    /// True while the old connection is not to be read.
    pub(super) fn holds(&self) -> bool {
        self.doubt.as_ref().is_some_and(Doubt::holds)
    }
}

impl World<'_> {
    /// True when no session waits for a connection, or has one that is mute in its direction for ever.
    pub(super) fn connections_settled(&self) -> bool {
        let open = self.ends.iter().filter(|one| one.over.is_none() && one.session.is_some());
        open.into_iter().all(|one| one.back.away.is_none() && !self.pipes[(one.pipe ^ 1) as usize].mute)
    }

    /// A session begins over its first connection.
    pub(super) fn has_way_back(&mut self, end: EndId, dial: &Dial, dials: bool) {
        let now = self.instant_at(end);
        let down_after = Duration::from_micros(self.params.down_after);
        let one = &mut self.ends[end as usize];
        let has = one.version >= 3 && one.intruder.is_none();
        let doubt = (has && dials && one.lane == Lane::Data).then(|| Doubt::begin(down_after, now));
        one.back = Back { has, dials, session: dial.session(), doubt, answered: Some(now), ..Back::default() };
    }

    /// True if the session may go on when its connection has ended in this way.
    pub(super) fn is_break(&self, end: EndId, why: Closure) -> bool {
        self.ends[end as usize].back.has && matches!(why, Closure::Eof | Closure::Reset | Closure::CutInFrame)
    }

    /// The connection has broken.
    pub(super) fn go_away(&mut self, end: EndId, why: Closure) {
        self.fact(Fact::Broken { end, why });
        self.leave_pipe(end);
        self.stop_looking(end);
        let now = self.instant_at(end);
        let one = &mut self.ends[end as usize];
        one.clear_connection();
        let back = &mut one.back;
        // Whoever accepted may know where its dialer listens, or not.
        let looks = back.dials || !self.params.blind;
        let window = if looks { Duration::from_micros(self.params.down_after) } else { limits::RESUME_WINDOW_BLIND };
        back.away = Some(Absence::begin(now, window, looks, back.session ^ u64::from(back.attempts)));
        if let Some(doubt) = &mut back.doubt {
            doubt.stop();
        }
    }

    /// The old connection is closed, whatever is on it.
    fn leave_pipe(&mut self, end: EndId) {
        let pipe = self.ends[end as usize].pipe;
        if self.pipes[pipe as usize].owner == Some(end) {
            self.close_pipe(end);
            self.pipes[pipe as usize].owner = None;
        }
    }

    /// Takes up what the peer has brought, waits, and looks for it. True if there is a connection.
    pub(super) fn is_here(&mut self, end: EndId) -> Result<bool, Failure> {
        if let Some((by, resume)) = self.ends[end as usize].back.returned.take() {
            self.come_back(end, by, resume, true)?;
        }
        if self.ends[end as usize].back.away.is_none() {
            return Ok(true);
        }
        self.flush(end);
        self.timers(end)?;
        self.search_ends(end)?;
        let now = self.instant_at(end);
        let back = &self.ends[end as usize].back;
        let Some(away) = &back.away else { return Ok(true) };
        match away.next(now) {
            Next::GiveUp { .. } => {
                self.reach(Branch::NotRestored);
                Err((Closure::NotRestored, "not restored in time".to_owned()))
            }
            Next::Look if back.looking.is_none() => {
                self.look(end);
                // Nobody listens there.
                self.search_ends(end)?;
                Ok(self.ends[end as usize].back.away.is_none())
            }
            _ => Ok(false),
        }
    }

    /// Sees what came of looking for the peer.
    pub(super) fn search_ends(&mut self, end: EndId) -> Result<(), Failure> {
        if let Some(Looking::Nobody { until }) = self.ends[end as usize].back.looking
            && until <= self.now
        {
            self.ends[end as usize].back.found = Some(Found::NotYet);
        }
        let Some(found) = self.ends[end as usize].back.found.take() else { return Ok(()) };
        let now = self.instant_at(end);
        let back = &mut self.ends[end as usize].back;
        back.looking = None;
        match found {
            Found::Back(by, resume) => {
                if back.away.is_none() {
                    self.judge.reach(Branch::MuteReplaced);
                }
                self.come_back(end, by, resume, false)
            }
            Found::Dead => Err((Closure::Dead, "nobody listens there".to_owned())),
            Found::Refused => {
                self.reach(Branch::ResumeRefused);
                Err((Closure::Quarantined, "the peer does not resume the session".to_owned()))
            }
            Found::NotYet => {
                if let Some(away) = &mut back.away {
                    away.looked_in_vain(now);
                } else if let Some(doubt) = &mut back.doubt {
                    self.judge.reach(Branch::LookedInVain);
                    doubt.looked_in_vain(now);
                }
                Ok(())
            }
        }
    }

    /// A peer that does not answer is asked, and then looked for.
    pub(super) fn suspect(&mut self, end: EndId) -> Result<(), Failure> {
        let now = self.instant_at(end);
        let one = &mut self.ends[end as usize];
        let (Some(doubt), Some(answered)) = (&mut one.back.doubt, one.back.answered) else { return Ok(()) };
        match doubt.step(answered, now) {
            Suspicion::None => {}
            Suspicion::Ask => self.answer_with(end, |session| session.ping()),
            Suspicion::Look if planted::is(Bug::MuteGivenUp) => {
                return Err((Closure::Dead, "no answer comes".to_owned()));
            }
            Suspicion::Look => self.look(end),
        }
        Ok(())
    }

    /// Frames have come: a search has said that less had.
    pub(super) fn heard(&mut self, end: EndId, answer: bool) {
        let now = self.instant_at(end);
        let back = &mut self.ends[end as usize].back;
        if answer {
            back.answered = Some(now);
        }
        if back.looking.is_some() {
            self.stop_looking(end);
            if let Some(doubt) = &mut self.ends[end as usize].back.doubt {
                doubt.looked_in_vain(now);
            }
        }
    }

    fn look(&mut self, end: EndId) {
        let one = &mut self.ends[end as usize];
        one.back.attempts += 1;
        let resume = Resume { session: one.back.session, received: one.arrived.received(), attempt: one.back.attempts };
        let (Some(life), Some(peer), lane) = (one.life, one.peer.clone(), one.lane) else { return };
        let purpose = if one.back.dials { Purpose::Resume } else { Purpose::Probe };
        let Some(to) = self.judge.ledger.life_of(peer.uid.0).map(|peer| self.node_of(peer)) else { return };
        let node = self.node_of(life);
        if self.slots[usize::from(to)].life.is_none() {
            let back = &mut self.ends[end as usize].back;
            if self.slots[usize::from(to)].silent {
                let until = self.now + self.params.handshake;
                back.looking = Some(Looking::Nobody { until });
            } else {
                back.found = Some(Found::Dead);
            }
            return;
        }
        let mut nonce = [0; 32];
        for part in nonce.chunks_mut(8) {
            part.copy_from_slice(&self.random.bits().to_be_bytes());
        }
        let dialer = NodeUid(self.lives[life as usize].uid);
        let versions = self.params.versions_of(node);
        let dial = Dial { dialer, target: peer.uid, lane, versions, purpose, nonce };
        let sent = dial.encode(&self.secret);
        let stage = Stage::Looking { dial, sent, of: end, resume, proven: false };
        let Some(by) = self.connect(Some(life), node, to, lane, stage) else { return };
        self.ends[by as usize].peer = Some(peer);
        self.ends[end as usize].back.looking = Some(Looking::By(by));
        self.send(by, &sent);
    }

    /// The search of an end is given up, if there is one.
    pub(super) fn stop_looking(&mut self, end: EndId) {
        let back = &mut self.ends[end as usize].back;
        let looking = back.looking.take();
        back.found = None;
        if let Some(Looking::By(by)) = looking
            && self.ends[by as usize].over.is_none()
        {
            self.ends[by as usize].over = Some(Closure::Moved);
            self.close_pipe(by);
        }
    }

    /// The end of a session is over, and with it all attempts to restore it.
    pub(super) fn nobody_comes_back(&mut self, end: EndId) {
        self.stop_looking(end);
        if let Some((by, _)) = self.ends[end as usize].back.returned.take() {
            self.ends[by as usize].over = Some(Closure::Moved);
            self.close_pipe(by);
        }
    }

    /// A search has failed with its connection.
    pub(super) fn search_fails(&mut self, by: EndId, dead: bool) {
        let Stage::Looking { of, .. } = self.ends[by as usize].stage else { return };
        self.search_tells(of, by, if dead { Found::Dead } else { Found::NotYet });
    }

    fn search_tells(&mut self, of: EndId, by: EndId, found: Found) {
        let back = &mut self.ends[of as usize].back;
        if back.found.is_none() && matches!(back.looking, Some(Looking::By(looking)) if looking == by) {
            back.found = Some(found);
            self.wake(of);
        }
    }

    /// The peer has proven itself on a connection that looks for it.
    pub(super) fn looker_is_welcome(&mut self, by: EndId) -> Result<(), Failure> {
        let Stage::Looking { of, resume, dial, proven, .. } = &mut self.ends[by as usize].stage else { return Ok(()) };
        let (of, resume, purpose) = (*of, *resume, dial.purpose);
        *proven = true;
        if purpose == Purpose::Probe {
            self.search_tells(of, by, Found::NotYet);
            self.ends[by as usize].over = Some(Closure::Moved);
            self.close_pipe(by);
            return Ok(());
        }
        let mut out = BytesMut::new();
        frame::write_bare(&mut out, head(resume));
        self.send(by, &out);
        self.looker_hears(by)
    }

    /// The acceptor says where it stands, or that it does not know the session.
    pub(super) fn looker_hears(&mut self, by: EndId) -> Result<(), Failure> {
        let one = &mut self.ends[by as usize];
        let Stage::Looking { of, resume, .. } = &one.stage else { return Ok(()) };
        let (of, resume) = (*of, *resume);
        let heard = match frame::decode(&one.inbox, limits::FRAME_BYTES_MAX) {
            Ok(None) => return Ok(()),
            Ok(Some((Frame::Resume { session, received, attempt }, length)))
                if (session, attempt) == (resume.session, resume.attempt) =>
            {
                one.inbox.advance(length);
                Found::Back(by, Resume { session, received, attempt })
            }
            Ok(Some((Frame::Goodbye { .. }, _))) => Found::Refused,
            _ => return Err((Closure::Handshake, "another frame than a resume".to_owned())),
        };
        one.stage = Stage::Handed;
        self.search_tells(of, by, heard);
        if !matches!(heard, Found::Back(..)) {
            self.ends[by as usize].over = Some(Closure::Moved);
            self.close_pipe(by);
        }
        Ok(())
    }

    /// At the door: a dialer that comes back says where it stands.
    pub(super) fn door_hears(&mut self, by: EndId) -> Result<(), Failure> {
        let one = &mut self.ends[by as usize];
        let (Some(life), Some(dialer)) = (one.life, one.peer.clone()) else { return Ok(()) };
        let resume = match frame::decode(&one.inbox, limits::FRAME_BYTES_MAX) {
            Ok(None) => return Ok(()),
            Ok(Some((Frame::Resume { session, received, attempt }, length))) => {
                one.inbox.advance(length);
                Resume { session, received, attempt }
            }
            _ => return Err((Closure::Handshake, "another frame than a resume".to_owned())),
        };
        let lost = self.lives[life as usize].lost.contains(&dialer.uid.0) && !planted::is(Bug::QuarantineIgnored);
        let of_session = |end: &EndId| {
            let one = &self.ends[*end as usize];
            let back = &one.back;
            one.life == Some(life)
                && (back.has, back.dials, back.session) == (true, false, resume.session)
                && one.over.is_none()
                && one.peer.as_ref().is_some_and(|peer| peer.uid == dialer.uid)
        };
        let found = (0..self.ends.len() as EndId).find(of_session).filter(|_| !lost);
        let later = found.filter(|end| resume.attempt > self.ends[*end as usize].back.attempt_seen);
        let Some(end) = later else {
            self.refuse_session(by, "there is no such session here");
            return Ok(());
        };
        self.ends[by as usize].stage = Stage::Handed;
        let back = &mut self.ends[end as usize].back;
        back.attempt_seen = resume.attempt;
        if let Some((overtaken, _)) = back.returned.replace((by, resume)) {
            self.reach(Branch::AttemptOvertaken);
            self.ends[overtaken as usize].over = Some(Closure::Moved);
            self.close_pipe(overtaken);
        }
        self.wake(end);
        Ok(())
    }

    /// Says on a connection that its session cannot go on, and closes it.
    fn refuse_session(&mut self, by: EndId, reason: &str) {
        let mut goodbye = BytesMut::new();
        // A text is small, and writing it cannot fail.
        let _ = frame::write(&mut goodbye, Head::Goodbye, |out| codec::encode_into(reason, out));
        self.send(by, &goodbye);
        self.ends[by as usize].over = Some(Closure::Moved);
        self.close_pipe(by);
    }

    /// Goes on over the connection of `by`.
    fn come_back(&mut self, end: EndId, by: EndId, resume: Resume, answer: bool) -> Result<(), Failure> {
        self.leave_pipe(end);
        let pipe = self.ends[by as usize].pipe;
        self.pipes[pipe as usize].owner = Some(end);
        self.ends[by as usize].over = Some(Closure::Moved);
        if self.judge.ledger.tainted.contains(&by) && !self.judge.ledger.tainted.contains(&end) {
            self.fact(Fact::Forged { end });
        }
        let unread = std::mem::take(&mut self.ends[by as usize].inbox);
        let now = self.instant_at(end);
        let one = &mut self.ends[end as usize];
        one.pipe = pipe;
        one.clear_connection();
        one.inbox = unread;
        let back = &mut one.back;
        (back.away, back.looking, back.found) = (None, None, None);
        let Some(kept) = &mut one.kept else { return Ok(()) };
        if let Err(error) = kept.resume(resume.received) {
            let reason = error.to_string();
            let mut goodbye = BytesMut::new();
            // As above.
            let _ = frame::write(&mut goodbye, Head::Goodbye, |out| codec::encode_into(&reason, out));
            self.send(end, &goodbye);
            return Err((Closure::Quarantined, reason));
        }
        if answer {
            let received = one.arrived.received();
            frame::write_bare(&mut one.aside, head(Resume { received, ..resume }));
        }
        one.arrived.told();
        one.back.answered = Some(now);
        if let Some(doubt) = &mut one.back.doubt {
            doubt.restart(now);
        }
        self.reach(Branch::CameBack);
        self.fact(Fact::Resumed { end });
        self.plan(self.now, Event::Arrive(pipe));
        Ok(())
    }
}

/// True if a handshake that failed in this way shows that the life that was wanted has ended.
pub(super) fn shows_death(error: &PrefaceError) -> bool {
    matches!(error, PrefaceError::StaleIncarnation { .. })
}

fn head(Resume { session, received, attempt }: Resume) -> Head {
    Head::Resume { session, received, attempt }
}
