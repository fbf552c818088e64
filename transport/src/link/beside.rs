//! A data connection over which no answer comes: its dialer asks, and then looks for the peer over another connection, beside
//! this one. A driver without a way back, or one that accepted, has none of this.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use crate::resume::{Doubt, Found, Resume, Suspicion, WayBack};
use crate::session::{Lane, SessionConfig};

pub(super) struct Beside {
    doubt: Doubt,
    answered: Instant,
    looking: Option<Pin<Box<dyn Future<Output = Found> + Send>>>,
}

impl Beside {
    /// For the dialer of a data connection that has a way back.
    pub(super) fn new(config: &SessionConfig, way_back: Option<&WayBack>, now: Instant) -> Option<Self> {
        way_back.filter(|way_back| way_back.dials && config.lane == Lane::Data)?;
        Some(Beside { doubt: Doubt::begin(config.down_after, now), answered: now, looking: None })
    }

    /// When [`step`](Self::step) is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.doubt.next()
    }

    pub(super) fn step(&mut self, now: Instant) -> Suspicion {
        self.doubt.step(self.answered, now)
    }

    /// True while nothing is to be read.
    pub(super) fn holds(&self) -> bool {
        self.doubt.holds()
    }

    /// Looks for the peer. What this side says of itself holds until something is [heard](Self::heard).
    pub(super) fn look(&mut self, way_back: &mut WayBack, resume: Resume) {
        self.looking = Some(way_back.seek.look(resume));
    }

    /// What came of the search, if there is one and it is over.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, now: Instant) -> Option<Found> {
        let Poll::Ready(found) = self.looking.as_mut()?.as_mut().poll(cx) else { return None };
        self.looking = None;
        self.doubt.looked_in_vain(now);
        Some(found)
    }

    /// Frames have come over the connection, an answer among them or not. A search is given up: it has said that less had come.
    pub(super) fn heard(&mut self, answer: bool, now: Instant) {
        if answer {
            self.answered = now;
        }
        if self.looking.take().is_some() {
            self.doubt.looked_in_vain(now);
        }
    }

    /// There is another connection.
    pub(super) fn begin(&mut self, now: Instant) {
        self.looking = None;
        self.answered = now;
        self.doubt.restart(now);
    }

    /// There is none.
    pub(super) fn stop(&mut self) {
        self.looking = None;
        self.doubt.stop();
    }
}
