//! The other end: reads requests, refuses what the asker's role may not, and lets a service answer the rest.

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use mobula_core::cluster::JobId;
use mobula_core::{NodeUid, limits};
use mobula_identity::{Capability, Role, job_name, line_of};
use mobula_transport::tls::{ControlStream, node_name, role_name};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::error::Refusal;
use crate::request::{Question, Request};
use crate::wire::{self, Answered, ByteStream};

/// Who asks, for a service.
#[derive(Debug)]
pub struct Peer {
    role: Role,
    /// None for one on this host.
    address: Option<SocketAddr>,
    /// Names that its certificate bears.
    life: Option<NodeUid>,
    line: Option<NodeUid>,
    job: Option<String>,
}

impl Peer {
    /// A process of this user on this host.
    pub fn local() -> Self {
        Peer { role: Role::Operator, address: None, life: None, line: None, job: None }
    }

    /// One that has proven in some other way who it is: for simulations.
    pub(crate) fn known(role: Role, address: SocketAddr, life: NodeUid, line: NodeUid, job: Option<String>) -> Self {
        Peer { role, address: Some(address), life: Some(life), line: Some(line), job }
    }

    /// What it is to the cluster.
    pub fn role(&self) -> Role {
        self.role
    }

    /// True if it may. A process of this user on the head's host may do all: it can read the authority's key.
    pub fn may(&self, capability: Capability) -> bool {
        self.is_local() || self.role.may(capability)
    }

    /// The life that its certificate is of; none for a process on this host.
    pub fn life(&self) -> Option<NodeUid> {
        self.life
    }

    /// The [line](mobula_identity::Lines) of that life: the life that it began with.
    pub fn line(&self) -> Option<NodeUid> {
        self.line
    }

    /// True for a process of this user on this host.
    pub fn is_local(&self) -> bool {
        self.address.is_none()
    }

    /// Where it is, if it is not here.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The job of which it is a process.
    pub fn job(&self) -> Option<JobId> {
        self.job.as_deref().filter(|_| self.role == Role::Process).and_then(|job| job.parse().ok())
    }

    /// # Errors
    /// [`Refusal::Unauthorized`] unless its certificate is of the life `uid`, or it is a process of this user on this host.
    pub fn must_be(&self, uid: NodeUid) -> Result<(), Refusal> {
        match self.is_local() || self.life == Some(uid) {
            true => Ok(()),
            false => Err(Refusal::Unauthorized {
                role: self.role.to_string(),
                what: format!("speak for {uid}"),
                needed: "its certificate is of another life".to_owned(),
            }),
        }
    }

    /// # Errors
    /// [`Refusal::Unauthorized`] unless it is a process of that job, or may manage all jobs.
    pub fn must_be_of(&self, job: &str) -> Result<(), Refusal> {
        let is_of_it = self.role == Role::Process && self.job.as_deref() == Some(job);
        match is_of_it || self.may(Capability::ManageJobs) {
            true => Ok(()),
            false => Err(Refusal::Unauthorized {
                role: self.role.to_string(),
                what: format!("speak for {job}"),
                needed: "its certificate is not of that job".to_owned(),
            }),
        }
    }
}

/// What a service answers with: the one answer, or the items of a subscription.
pub struct Reply<'a> {
    stream: &'a mut dyn ByteStream,
}

impl Reply<'_> {
    /// The answer to a question. One of more than [`limits::CONTROL_ANSWER_BYTES_MAX`] is refused instead.
    ///
    /// # Errors
    /// What the stream says, or `TimedOut` if a large answer is not taken: the connection is over.
    pub async fn answer<Q: Question>(&mut self, answer: Result<Q::Answer, Refusal>) -> io::Result<()> {
        match answer {
            // Whoever has asked may ask something else.
            Ok(answer) => wire::write_item(self.stream, &answer).await.map(drop),
            Err(refusal) => self.refuse(refusal).await,
        }
    }

    /// An item of a subscription.
    ///
    /// # Errors
    /// As for [`answer`](Self::answer), and `InvalidInput` for one that was refused, with which the subscription ends.
    pub async fn item(&mut self, item: &impl Serialize) -> io::Result<()> {
        let written = wire::write_item(self.stream, item).await?;
        written.map_err(|refusal| io::Error::new(io::ErrorKind::InvalidInput, refusal))
    }

    /// Nothing was done.
    ///
    /// # Errors
    /// As for [`answer`](Self::answer).
    pub async fn refuse(&mut self, refusal: Refusal) -> io::Result<()> {
        wire::write(self.stream, &Answered::Refused(refusal)).await
    }

    /// A subscription is over.
    ///
    /// # Errors
    /// As for [`answer`](Self::answer).
    pub async fn end(&mut self) -> io::Result<()> {
        wire::write(self.stream, &Answered::End).await
    }

    /// Resolves when the asker is gone, or says something in the middle of its subscription, which ends it as well. Cancel-safe.
    pub async fn gone(&mut self) {
        let _ = self.stream.read_u8().await;
    }
}

/// Answers requests.
pub trait Service: Send + Sync {
    /// Answers one request, which the peer's role may make. An error ends the connection.
    fn serve(&self, peer: &Peer, request: Request, reply: Reply<'_>) -> impl Future<Output = io::Result<()>> + Send;

    /// A request was refused for the asker's role.
    fn denied(&self, _peer: &Peer, _request: &'static str, _needs: Capability) {}
}

/// Serves a process of this user on this host until it goes.
pub async fn serve_local(service: &impl Service, stream: tokio::net::UnixStream) {
    serve(service, &Peer::local(), Box::new(stream)).await;
}

/// Serves the holder of a certificate until it goes.
pub async fn serve_certified(service: &impl Service, mut stream: ControlStream) {
    let Some(role) = role_of(&stream) else { return };
    let hello = tokio::time::timeout(limits::HANDSHAKE_DEADLINE, wire::read::<Hello>(&mut stream)).await;
    let Ok(Ok(Some(hello))) = hello else { return };
    // Who does not say whose life it is cannot be cut off.
    if !stream.peer_is(&node_name(hello.life)) {
        return;
    }
    let line = line_of(hello.life, stream.peer_names().iter().map(String::as_str));
    let job = hello.job.filter(|job| stream.peer_is(&job_name(job)));
    let peer = Peer { role, address: Some(stream.address()), life: Some(hello.life), line: Some(line), job };
    serve(service, &peer, Box::new(stream)).await;
}

/// The one role in a certificate; one that bears several or none gives none.
fn role_of(stream: &ControlStream) -> Option<Role> {
    let mut roles = Role::ALL.into_iter().filter(|role| stream.peer_is(&role_name(role.name())));
    roles.next().filter(|_| roles.next().is_none())
}

/// Serves requests one after the other.
pub(crate) async fn serve(service: &impl Service, peer: &Peer, mut stream: Box<dyn ByteStream>) {
    loop {
        let request: Request = match wire::read(&mut stream).await {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(error) => {
                // Read whole, and not understood: one who speaks another version hears it.
                let text =
                    format!("this head does not understand the request: {error}; do both sides run the same version?");
                let _ = wire::write(&mut stream, &Answered::Refused(Refusal::Invalid(text))).await;
                let _ = stream.shutdown().await;
                return;
            }
        };
        let (needs, what) = (request.needs(), request.what());
        let served = if peer.may(needs) {
            service.serve(peer, request, Reply { stream: &mut *stream }).await
        } else {
            service.denied(peer, what, needs);
            let roles: Vec<_> = Role::ALL.into_iter().filter(|role| role.may(needs)).map(Role::name).collect();
            let refusal = Refusal::Unauthorized {
                role: peer.role().to_string(),
                what: what.to_owned(),
                needed: format!("that takes the capability {needs:?}, which these have: {}", roles.join(", ")),
            };
            Reply { stream: &mut *stream }.refuse(refusal).await
        };
        if served.is_err() {
            return;
        }
    }
}

/// The first message of the holder of a certificate: which of its names count here. That it bears them is checked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) life: NodeUid,
    pub(crate) job: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(role: Role, life: u64, job: Option<&str>) -> Peer {
        let address = Some(SocketAddr::from(([10, 0, 0, 1], 1)));
        let life = Some(NodeUid(life));
        Peer { role, address, life, line: life, job: job.map(str::to_owned) }
    }

    #[test]
    fn nobody_speaks_for_another_life() {
        for role in Role::ALL {
            assert!(peer(role, 7, None).must_be(NodeUid(7)).is_ok());
            let refusal = peer(role, 7, None).must_be(NodeUid(8)).expect_err("another");
            assert!(refusal.to_string().contains(role.name()), "{refusal}");
        }
        assert!(Peer::local().must_be(NodeUid(8)).is_ok());
    }

    #[test]
    fn a_job_is_for_its_own_processes_and_for_operators() {
        assert!(peer(Role::Process, 7, Some("job-1")).must_be_of("job-1").is_ok());
        assert!(peer(Role::Process, 7, Some("job-1")).must_be_of("job-2").is_err());
        assert!(peer(Role::Process, 7, None).must_be_of("job-1").is_err());
        // A name of a job in another certificate counts for nothing.
        for role in [Role::Worker, Role::Client, Role::Observer, Role::Head] {
            assert!(peer(role, 7, Some("job-1")).must_be_of("job-1").is_err(), "{role}");
        }
        assert!(peer(Role::Operator, 7, None).must_be_of("job-1").is_ok());
        assert!(Peer::local().must_be_of("job-1").is_ok());
    }
}
