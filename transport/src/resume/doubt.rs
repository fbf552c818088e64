//! A connection over which no answer comes: when to ask whether it still carries anything, and when to look for the peer beside
//! it.

use std::time::{Duration, Instant};

use mobula_core::planted::{self, Bug};

/// What to do about the silence.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Suspicion {
    /// Nothing yet.
    None,
    /// Ask: send a ping.
    Ask,
    /// Look for the peer over another connection, and keep this one meanwhile. Whatever is read on this one ends the search,
    /// which has said that less had come.
    Look,
}

/// The dialer's view of a data connection that may carry nothing any more, in one direction or both, although its peer lives.
/// A peer that reads nothing, since its thread is at work, looks the same; so a connection is never given up for this: it
/// is replaced when the peer takes up another one, which only a peer that reads can do.
#[derive(Debug)]
pub struct Doubt {
    /// The peer is asked so long after its last answer.
    quiet: Duration,
    /// How long it has to answer, and how long after a search in vain the next one begins.
    mute: Duration,
    state: State,
}

#[derive(Debug)]
enum State {
    /// There was an answer not long before this moment, or it is to be looked at then.
    Calm {
        until: Instant,
    },
    Asked {
        at: Instant,
    },
    /// The search has so much time for itself; then the old connection is read again.
    Looking {
        holds: Option<Instant>,
    },
    /// There is no connection.
    Off,
}

impl Doubt {
    /// For a connection that begins at `now`. The peer is asked half of `down_after`, the silence after which a node is given
    /// up, after its last answer, and looked for after a quarter more.
    pub fn begin(down_after: Duration, now: Instant) -> Self {
        let quiet = down_after / 2;
        Doubt { quiet, mute: down_after / 4, state: State::Calm { until: now + quiet } }
    }

    /// When [`step`](Self::step) is due.
    pub fn next(&self) -> Option<Instant> {
        match self.state {
            State::Calm { .. } if planted::is(Bug::MuteUnnoticed) => None,
            State::Calm { until } => Some(until),
            State::Asked { at } => Some(at + self.mute),
            State::Looking { holds } => holds,
            State::Off => None,
        }
    }

    /// What to do at `now`, if the last answer, a pong or an ack, came at `answered`.
    pub fn step(&mut self, answered: Instant, now: Instant) -> Suspicion {
        if self.next().is_none_or(|due| due > now) {
            return Suspicion::None;
        }
        match self.state {
            State::Asked { at } if answered < at => {
                self.state = State::Looking { holds: Some(now + self.mute / 2) };
                Suspicion::Look
            }
            State::Looking { .. } => {
                self.state = State::Looking { holds: None };
                Suspicion::None
            }
            _ if now >= answered + self.quiet => {
                self.state = State::Asked { at: now };
                Suspicion::Ask
            }
            _ => {
                self.state = State::Calm { until: answered + self.quiet };
                Suspicion::None
            }
        }
    }

    /// True while the old connection is not to be read, so that a search is not ended by what comes over a connection of
    /// which only the other direction is mute. A peer that reads takes up another connection sooner.
    pub fn holds(&self) -> bool {
        matches!(self.state, State::Looking { holds: Some(_) })
    }

    /// The search is over, and the peer has taken up no other connection.
    pub fn looked_in_vain(&mut self, now: Instant) {
        if matches!(self.state, State::Looking { .. }) {
            self.state = State::Asked { at: now };
        }
    }

    /// There is another connection.
    pub fn restart(&mut self, now: Instant) {
        self.state = State::Calm { until: now + self.quiet };
    }

    /// There is no connection, and so nothing to doubt.
    pub fn stop(&mut self) {
        self.state = State::Off;
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the origin of the time that the tests hand out")]
mod tests {
    use super::*;

    const DOWN_AFTER: Duration = Duration::from_secs(8);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn who_answers_is_not_asked() {
        let mut now = Instant::now();
        let mut doubt = Doubt::begin(DOWN_AFTER, now);
        for _ in 0..100 {
            let due = doubt.next().expect("there is a connection");
            let answered = due - SECOND;
            now = due;
            assert_eq!(doubt.step(answered, now), Suspicion::None);
            assert_eq!(doubt.next(), Some(answered + 4 * SECOND), "one look for many answers");
        }
    }

    #[test]
    fn a_mute_peer_is_asked_and_then_looked_for_again_and_again() {
        let begun = Instant::now();
        let mut doubt = Doubt::begin(DOWN_AFTER, begun);
        let mut now = doubt.next().expect("due");
        assert_eq!(doubt.step(begun, now - Duration::from_nanos(1)), Suspicion::None);
        assert_eq!((doubt.step(begun, now), now), (Suspicion::Ask, begun + 4 * SECOND));
        for _ in 0..10 {
            now = doubt.next().expect("it has 2 s to answer");
            assert_eq!(doubt.step(begun, now), Suspicion::Look);
            assert!(doubt.holds() && doubt.next() == Some(now + SECOND));
            now += SECOND;
            assert_eq!(doubt.step(begun, now), Suspicion::None);
            assert_eq!((doubt.holds(), doubt.next()), (false, None), "one search at a time");
            now += SECOND;
            doubt.looked_in_vain(now);
            assert_eq!(doubt.next(), Some(now + 2 * SECOND));
        }
    }

    #[test]
    fn an_answer_ends_the_doubt() {
        let begun = Instant::now();
        let mut doubt = Doubt::begin(DOWN_AFTER, begun);
        let asked = doubt.next().expect("due");
        assert_eq!(doubt.step(begun, asked), Suspicion::Ask);
        let answered = asked + SECOND;
        let due = doubt.next().expect("due");
        assert_eq!(doubt.step(answered, due), Suspicion::None);
        assert_eq!(doubt.next(), Some(answered + 4 * SECOND));
        let due = doubt.next().expect("due");
        assert_eq!(doubt.step(answered, due), Suspicion::Ask);
        assert_eq!(doubt.step(answered, due + 2 * SECOND), Suspicion::Look);
        // The answer has come over the old connection, which ends the search.
        let late = due + 3 * SECOND;
        doubt.looked_in_vain(late);
        let due = doubt.next().expect("due");
        assert_eq!((doubt.step(late, due), due), (Suspicion::None, late + 2 * SECOND));
        assert_eq!(doubt.next(), Some(late + 4 * SECOND));
        doubt.looked_in_vain(due);
        assert_eq!(doubt.next(), Some(late + 4 * SECOND), "what was given up has no say any more");
        doubt.stop();
        assert_eq!((doubt.next(), doubt.step(begun, due + 99 * SECOND)), (None, Suspicion::None));
        doubt.restart(due);
        assert_eq!(doubt.next(), Some(due + 4 * SECOND));
    }

    /// A node that was frozen finds everything overdue when it goes on: it asks once, and what came meanwhile is read before
    /// it looks for anybody.
    #[test]
    fn after_a_pause_of_ones_own_the_peer_is_asked_first() {
        let begun = Instant::now();
        let mut doubt = Doubt::begin(DOWN_AFTER, begun);
        let now = begun + 100 * SECOND;
        assert_eq!(doubt.step(begun, now), Suspicion::Ask);
        assert_eq!(doubt.step(begun, now), Suspicion::None);
        assert_eq!(doubt.next(), Some(now + 2 * SECOND));
    }
}
