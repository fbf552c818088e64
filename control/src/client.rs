//! Asking the head: over the socket of this user's node, or over TLS.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mobula_core::{NodeUid, codec, limits};
use mobula_transport::tls::{self, Credentials};
use mobula_transport::unix::{self, UnixError};
use parking_lot::RwLock;
use tokio::sync::Mutex;

use crate::error::ControlError;
use crate::local::{Home, SOCKET};
use crate::request::{Question, Subscribe};
use crate::server::Hello;
use crate::wire::{self, Answered, ByteStream};

/// Credentials that several use, and one renews.
pub type SharedCredentials = Arc<RwLock<Arc<Credentials>>>;

/// Whom to ask.
#[derive(Clone)]
pub enum Target {
    /// The node of this user whose home this is.
    Local(PathBuf),
    /// The head at an address, as the holder of a certificate.
    Remote {
        /// Where the head is.
        address: SocketAddr,
        /// The certificate and its key, which may be renewed.
        credentials: SharedCredentials,
        /// The life that the certificate is for.
        life: NodeUid,
        /// The job that it is for.
        job: Option<String>,
    },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Local(path) => write!(f, "{}", path.display()),
            Target::Remote { address, .. } => write!(f, "{address}"),
        }
    }
}

/// Asks one head, question by question, over a connection that is kept for the next one.
pub struct Client {
    target: Target,
    idle: Mutex<Option<Box<dyn ByteStream>>>,
}

impl Client {
    /// A client that has not connected yet.
    pub fn new(target: Target) -> Self {
        Client { target, idle: Mutex::new(None) }
    }

    /// The client of the node whose home is `path`.
    pub fn local(path: &Path) -> Self {
        Client::new(Target::Local(path.to_owned()))
    }

    /// Whom it asks.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Asks, and waits for the answer for [`limits::CONTROL_DEADLINE`] at most. Questions of one client are asked one after the other.
    ///
    /// # Errors
    /// [`ControlError`]. Dropping the future gives the connection up; the question may have been answered.
    pub async fn ask<Q: Question>(&self, question: Q) -> Result<Q::Answer, ControlError> {
        self.ask_within(question, limits::CONTROL_DEADLINE).await
    }

    /// As [`ask`](Self::ask), for so long.
    ///
    /// # Errors
    /// As for [`ask`](Self::ask).
    pub async fn ask_within<Q: Question>(&self, question: Q, after: Duration) -> Result<Q::Answer, ControlError> {
        let asked = tokio::time::timeout(after, async {
            let mut idle = self.idle.lock().await;
            // Taken: whatever goes wrong, a connection in the middle of something is not used again.
            let mut stream = match idle.take() {
                Some(stream) => stream,
                None => self.connect().await?,
            };
            let sent = wire::write(&mut stream, &question.request()).await;
            sent.map_err(|error| self.broken(error, false))?;
            let answered = wire::read(&mut stream).await.map_err(|error| self.broken(error, true))?;
            let answer = match answered {
                Some(Answered::Item(bytes)) => {
                    codec::decode(&bytes).map_err(|error| self.broken(io::Error::other(error), true))
                }
                Some(Answered::Refused(refusal)) => Err(ControlError::Refused(refusal)),
                Some(Answered::End) => Err(self.broken(io::Error::other("a subscription ended that was none"), true)),
                None => return Err(self.broken(io::ErrorKind::UnexpectedEof.into(), true)),
            };
            *idle = Some(stream);
            answer
        });
        asked.await.unwrap_or_else(|_| Err(ControlError::Deadline { peer: self.target.to_string(), after }))
    }

    /// Subscribes, over a connection of its own.
    ///
    /// # Errors
    /// [`ControlError`] if nobody is reached; a refusal comes with the first item. Cancel-safe.
    pub async fn subscribe<Q: Subscribe>(&self, question: Q) -> Result<Subscription<Q::Item>, ControlError> {
        let after = limits::CONTROL_DEADLINE;
        let begun = tokio::time::timeout(after, async {
            let mut stream = self.connect().await?;
            wire::write(&mut stream, &question.request()).await.map_err(|error| self.broken(error, false))?;
            Ok(Subscription { stream, peer: self.target.to_string(), items: PhantomData })
        });
        begun.await.unwrap_or_else(|_| Err(ControlError::Deadline { peer: self.target.to_string(), after }))
    }

    async fn connect(&self) -> Result<Box<dyn ByteStream>, ControlError> {
        match &self.target {
            Target::Local(path) => {
                let none_here = || ControlError::NoneHere { path: path.join(SOCKET).display().to_string() };
                let home = Home::open(path).map_err(|error| match error {
                    UnixError::Io { error, .. } if error.kind() == io::ErrorKind::NotFound => none_here(),
                    error => error.into(),
                })?;
                match unix::connect(home.directory(), SOCKET).await {
                    Ok(stream) => Ok(Box::new(stream)),
                    Err(UnixError::Io { error, .. })
                        if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
                    {
                        Err(none_here())
                    }
                    Err(error) => Err(error.into()),
                }
            }
            Target::Remote { address, credentials, life, job } => {
                let own = Arc::clone(&credentials.read());
                let mut stream = tls::dial_control(*address, &own).await?;
                let hello = Hello { life: *life, job: job.clone() };
                wire::write(&mut stream, &hello).await.map_err(|error| self.broken(error, false))?;
                Ok(Box::new(stream))
            }
        }
    }

    fn broken(&self, error: io::Error, sent: bool) -> ControlError {
        ControlError::Broken { peer: self.target.to_string(), error, sent }
    }
}

/// Items that come until one side ends it.
pub struct Subscription<T> {
    stream: Box<dyn ByteStream>,
    peer: String,
    items: PhantomData<fn() -> T>,
}

impl<T: serde::de::DeserializeOwned> Subscription<T> {
    /// The next item; none at the end. Not cancel-safe: a subscription whose `next` was dropped is over.
    ///
    /// # Errors
    /// [`ControlError`]; the subscription is over then.
    pub async fn next(&mut self) -> Result<Option<T>, ControlError> {
        let broken = |error| ControlError::Broken { peer: self.peer.clone(), error, sent: true };
        match wire::read(&mut self.stream).await.map_err(broken)? {
            Some(Answered::Item(bytes)) => {
                codec::decode(&bytes).map(Some).map_err(|error| broken(io::Error::other(error)))
            }
            Some(Answered::Refused(refusal)) => Err(ControlError::Refused(refusal)),
            Some(Answered::End) => Ok(None),
            None => Err(broken(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}
