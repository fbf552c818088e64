//! Looking for a peer over the kind of wire that its connection had.

use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::exchange::{self, Answer};
use super::way_back::{Found, Resume, Returned, Seek, WayBack};
use crate::handshake::{self, HandshakeError};
use crate::preface::{PrefaceError, Purpose};

/// A kind of wire to one peer.
pub(crate) trait Road: Clone + Send + Sync + 'static {
    /// A connection past its handshake.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin;

    /// Connects, proves who looks and for what, and hears the version to speak.
    fn connect(self, purpose: Purpose) -> impl Future<Output = Result<(Self::Stream, u16), HandshakeError>> + Send;

    /// A connection over which the peer has said where it stands.
    fn returned(&self, stream: Self::Stream, version: u16, resume: Resume) -> io::Result<Returned>;

    /// What is told of a failure.
    fn failed(&self, error: HandshakeError) -> String;

    /// Why there is nobody to look for any more, where that is known without looking.
    fn is_over(&self) -> Option<String> {
        None
    }

    /// True if the system says that nobody listens there.
    fn is_deserted(&self, error: &io::Error) -> bool {
        error.kind() == io::ErrorKind::ConnectionRefused
    }
}

/// The way back of whoever dialled: it dials again, with handshakes on `runtime`.
pub(crate) fn redial(road: impl Road, session: u64, runtime: Handle) -> WayBack {
    WayBack { session, dials: true, seek: Box::new(Redial { road, runtime }) }
}

/// The way back of whoever accepted: it can ask whether the dialer lives, where `road` knows of a way there.
pub(crate) fn ask_after<R: Road>(
    road: impl Fn() -> Option<R> + Send + 'static,
    session: u64,
    runtime: Handle,
) -> WayBack {
    WayBack { session, dials: false, seek: Box::new(AskAfter { road, runtime }) }
}

struct Redial<R> {
    road: R,
    runtime: Handle,
}

impl<R: Road> Seek for Redial<R> {
    fn look(&mut self, resume: Resume) -> Pin<Box<dyn Future<Output = Found> + Send>> {
        if let Some(reason) = self.road.is_over() {
            return Box::pin(std::future::ready(Found::Dead { reason }));
        }
        let road = self.road.clone();
        on(&self.runtime, async move {
            let dialled = handshake::in_time(async {
                let (mut stream, version) = road.clone().connect(Purpose::Resume).await?;
                Ok(match exchange::ask_to_resume(&mut stream, resume).await? {
                    Answer::Resumed(theirs) => Found::Back(road.returned(stream, version, theirs)?),
                    Answer::Refused(reason) => Found::Refused { reason },
                })
            });
            dialled.await.unwrap_or_else(|error| not_found(&road, error))
        })
    }
}

struct AskAfter<F> {
    road: F,
    runtime: Handle,
}

impl<R: Road, F: Fn() -> Option<R> + Send + 'static> Seek for AskAfter<F> {
    fn look(&mut self, _: Resume) -> Pin<Box<dyn Future<Output = Found> + Send>> {
        let Some(road) = (self.road)() else {
            let reason = "its address is not known".to_owned();
            return Box::pin(std::future::ready(Found::NotYet { reason }));
        };
        if let Some(reason) = road.is_over() {
            return Box::pin(std::future::ready(Found::Dead { reason }));
        }
        on(&self.runtime, async move {
            match handshake::in_time(road.clone().connect(Purpose::Probe)).await {
                Ok(_) => Found::NotYet { reason: "it lives, and has not come back".to_owned() },
                Err(error) => not_found(&road, error),
            }
        })
    }

    fn can_look(&self) -> bool {
        (self.road)().is_some()
    }
}

/// Nobody listens there any more, or another life does: the one that was looked for has ended. All else may pass.
fn not_found(road: &impl Road, error: HandshakeError) -> Found {
    let dead = match &error {
        HandshakeError::Io(error) => road.is_deserted(error),
        HandshakeError::Preface(error) => matches!(error, PrefaceError::StaleIncarnation { .. }),
        HandshakeError::Deadline { .. } => false,
    };
    let reason = road.failed(error);
    if dead { Found::Dead { reason } } else { Found::NotYet { reason } }
}

/// Runs `work` on `runtime`, for as long as somebody waits for it.
fn on(
    runtime: &Handle,
    work: impl Future<Output = Found> + Send + 'static,
) -> Pin<Box<dyn Future<Output = Found> + Send>> {
    let mut task = Abort(runtime.spawn(work));
    Box::pin(async move {
        let reason = || "the runtime that looked for it has ended".to_owned();
        (&mut task.0).await.unwrap_or_else(|_| Found::NotYet { reason: reason() })
    })
}

struct Abort(JoinHandle<Found>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}
