//! Asking the head: over the socket of this user's node, or over TLS.

use std::fmt;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use mobula_core::{NodeUid, Outcome, codec, limits};
use mobula_transport::tls::{self, Credentials};
use mobula_transport::unix::{self, UnixError};
use parking_lot::RwLock;
use tokio::io::AsyncReadExt;
use tokio::sync::Mutex;

use crate::error::{ControlError, Refusal};
use crate::heads::Heads;
use crate::local::{Home, SOCKET};
use crate::request::{ListHeads, Question, Request, Subscribe};
use crate::server::Hello;
use crate::wire::{self, Answer, ByteStream};

/// Credentials that several use, and one renews.
pub type SharedCredentials = Arc<RwLock<Arc<Credentials>>>;

/// Whom to ask.
#[derive(Clone)]
pub enum Target {
    /// The node of this user whose home this is.
    Local(PathBuf),
    /// The head that leads, as the holder of a certificate.
    Remote {
        /// Where heads are.
        heads: Heads,
        /// The certificate and its key, which may be renewed.
        credentials: SharedCredentials,
        /// The life that the certificate is for.
        life: NodeUid,
        /// The job that it is for.
        job: Option<String>,
    },
    /// A head that is reached over some other stream: for simulations. No promise holds for it.
    #[doc(hidden)]
    Dialled(Dial),
}

/// Opens a stream to a head that knows who asks.
#[doc(hidden)]
pub type Dial = Arc<dyn Fn() -> Dialling + Send + Sync>;

/// A stream that is being opened.
#[doc(hidden)]
pub type Dialling = Pin<Box<dyn Future<Output = io::Result<Box<dyn ByteStream>>> + Send>>;

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Local(path) => write!(f, "{}", path.display()),
            Target::Remote { heads, .. } => write!(f, "{}", heads.current()),
            Target::Dialled(_) => write!(f, "the head"),
        }
    }
}

/// The rest before another head is asked, or the same one again.
const GO_ON_AFTER: Duration = Duration::from_millis(100);

/// Asks one head, question by question, over a connection that is kept for the next one. Of several heads it finds the one that leads.
pub struct Client {
    target: Target,
    idle: Mutex<Option<Connection>>,
}

/// A connection, and to which of the heads.
struct Connection {
    stream: Box<dyn ByteStream>,
    to: Option<SocketAddr>,
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
        let request = question.request();
        // Who is asked, and while nobody is, why the last one has not done it.
        let (mut at, mut last) = (None, None);
        let asked = tokio::time::timeout(after, async {
            let mut idle = self.idle.lock().await;
            loop {
                (at, last) = (self.heads().map(Heads::current), None);
                let error = match self.ask_once::<Q>(&request, at, &mut idle).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => error,
                };
                if !self.goes_on(&error, at) {
                    return Err(error);
                }
                last = Some(error);
                tokio::time::sleep(GO_ON_AFTER).await;
            }
        });
        let asked = asked.await;
        asked.unwrap_or_else(|_| {
            // One that was asked and is silent may have done it, whatever others have said before.
            let silent = || {
                let peer = at.map_or_else(|| self.target.to_string(), |at| at.to_string());
                if let Some((heads, at)) = self.heads().zip(at) {
                    heads.failed(at);
                }
                ControlError::Deadline { peer, after }
            };
            Err(last.unwrap_or_else(silent))
        })
    }

    /// Notes what came of asking the head at `at`. True if it is certain that nothing was done there, and another may be asked the same.
    fn goes_on(&self, error: &ControlError, at: Option<SocketAddr>) -> bool {
        let Some((heads, at)) = self.heads().zip(at) else { return false };
        match error {
            // The next leader is waited for as long as the question may take. The one that is named may be dead.
            ControlError::Refused(Refusal::NotLeading { leader }) => {
                heads.refused(at, *leader);
                true
            }
            ControlError::Refused(Refusal::InDoubt(_)) => {
                heads.failed(at);
                false
            }
            ControlError::Refused(_) => false,
            // The question is too large, whoever is asked.
            ControlError::Broken { error, .. } if error.kind() == io::ErrorKind::InvalidInput => false,
            error => {
                heads.failed(at);
                error.outcome() == Outcome::NotSent && self.has_several_heads()
            }
        }
    }

    async fn ask_once<Q: Question>(
        &self,
        request: &Request,
        to: Option<SocketAddr>,
        idle: &mut Option<Connection>,
    ) -> Result<Q::Answer, ControlError> {
        // Taken: whatever goes wrong, a connection in the middle of something is not used again.
        let mut known = idle.take().filter(|connection| connection.to == to);
        if let Some(connection) = &mut known {
            // One that has ended while nobody used it says so, and who speaks unasked is not understood. The question was not asked there.
            let has_ended = tokio::time::timeout(Duration::ZERO, connection.stream.read_u8()).await.is_ok();
            if has_ended || wire::write(&mut connection.stream, request).await.is_err() {
                known = None;
            }
        }
        let mut connection = match known {
            Some(connection) => connection,
            None => {
                let mut connection = self.connect(to).await?;
                let sent = wire::write(&mut connection.stream, request).await;
                sent.map_err(|error| self.broken(error, false))?;
                connection
            }
        };
        let answered = wire::read_answer(&mut connection.stream).await.map_err(|error| self.broken(error, true))?;
        let answer = match answered {
            Some(Answer::Item(bytes)) => {
                codec::decode_large(&bytes).map_err(|error| self.broken(io::Error::other(error), true))
            }
            Some(Answer::Refused(refusal)) => Err(ControlError::Refused(refusal)),
            Some(Answer::End) => Err(self.broken(io::Error::other("a subscription ended that was none"), true)),
            None => return Err(self.broken(io::ErrorKind::UnexpectedEof.into(), true)),
        };
        *idle = Some(connection);
        answer
    }

    fn heads(&self) -> Option<&Heads> {
        match &self.target {
            Target::Local(_) | Target::Dialled(_) => None,
            Target::Remote { heads, .. } => Some(heads),
        }
    }

    /// True if there is another head that it can ask.
    fn has_several_heads(&self) -> bool {
        self.heads().is_some_and(|heads| heads.all().len() > 1)
    }

    /// Learns of heads that come, for ever; ends at once where only the node of this host is asked.
    pub async fn learn_heads(&self) {
        let Some(heads) = self.heads() else { return };
        loop {
            if let Ok(all) = self.ask(ListHeads {}).await {
                heads.learn(all);
            }
            tokio::time::sleep(limits::HEADS_EVERY).await;
        }
    }

    /// Subscribes, over a connection of its own.
    ///
    /// # Errors
    /// [`ControlError`] if nobody is reached; a refusal comes with the first item. Cancel-safe.
    pub async fn subscribe<Q: Subscribe>(&self, question: Q) -> Result<Subscription<Q::Item>, ControlError> {
        let after = limits::CONTROL_DEADLINE;
        let at = self.heads().map(Heads::current);
        let begun = tokio::time::timeout(after, async {
            let Connection { mut stream, to } = self.connect(at).await?;
            wire::write(&mut stream, &question.request()).await.map_err(|error| self.broken(error, false))?;
            let heads = self.heads().cloned().zip(to);
            Ok(Subscription { stream, heads, peer: self.target.to_string(), items: PhantomData })
        });
        let begun = begun.await;
        let begun = begun.unwrap_or_else(|_| Err(ControlError::Deadline { peer: self.target.to_string(), after }));
        if let (Err(_), Some((heads, at))) = (&begun, self.heads().zip(at)) {
            heads.failed(at);
        }
        begun
    }

    /// To the head at `to`, if it is one that is asked.
    async fn connect(&self, to: Option<SocketAddr>) -> Result<Connection, ControlError> {
        match &self.target {
            Target::Local(path) => {
                let none_here = || ControlError::NoneHere { path: path.join(SOCKET).display().to_string() };
                let home = Home::open(path).map_err(|error| match error {
                    UnixError::Io { error, .. } if error.kind() == io::ErrorKind::NotFound => none_here(),
                    error => error.into(),
                })?;
                match unix::connect(home.directory(), SOCKET).await {
                    Ok(stream) => Ok(Connection { stream: Box::new(stream), to: None }),
                    Err(UnixError::Io { error, .. })
                        if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
                    {
                        Err(none_here())
                    }
                    Err(error) => Err(error.into()),
                }
            }
            Target::Remote { heads, credentials, life, job } => {
                let (address, own) = (to.unwrap_or_else(|| heads.current()), Arc::clone(&credentials.read()));
                let mut stream = tls::dial_control(address, &own).await?;
                let hello = Hello { life: *life, job: job.clone() };
                wire::write(&mut stream, &hello).await.map_err(|error| self.broken(error, false))?;
                Ok(Connection { stream: Box::new(stream), to: Some(address) })
            }
            Target::Dialled(dial) => {
                let stream = dial().await.map_err(|error| self.broken(error, false))?;
                Ok(Connection { stream, to: None })
            }
        }
    }

    fn broken(&self, error: io::Error, sent: bool) -> ControlError {
        ControlError::Broken { peer: self.target.to_string(), error, sent }
    }
}

/// Items that come until one side ends it, or another head leads.
pub struct Subscription<T> {
    stream: Box<dyn ByteStream>,
    /// Of several heads, which one it is from.
    heads: Option<(Heads, SocketAddr)>,
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
        let read = wire::read_answer(&mut self.stream);
        let answered = match &self.heads {
            None => read.await,
            Some((heads, from)) => tokio::select! {
                answered = read => answered,
                // The one that it is from may be silent for ever.
                () = heads.moved_from(*from) => Err(io::Error::other("another head is asked now")),
            },
        };
        if let (Ok(Some(Answer::Refused(Refusal::NotLeading { leader }))), Some((heads, from))) =
            (&answered, &self.heads)
        {
            heads.refused(*from, *leader);
        }
        match answered.map_err(broken)? {
            Some(Answer::Item(bytes)) => {
                codec::decode_large(&bytes).map(Some).map_err(|error| broken(io::Error::other(error)))
            }
            Some(Answer::Refused(refusal)) => Err(ControlError::Refused(refusal)),
            Some(Answer::End) => Ok(None),
            None => Err(broken(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}
