//! The head: keeps the authority, the tokens and the list of those cut off, and answers who wants to join.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use mobula_core::{NodeUid, codec, limits};
use mobula_transport::tls::pki_types::CertificateSigningRequestDer;
use mobula_transport::tls::{Credentials, JoinStream, node_name, role_name};
use mobula_transport::unix::Directory;
use parking_lot::Mutex;
use rcgen::{CertificateSigningRequestParams, PublicKeyData};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::audit::Audit;
use crate::authority::{Authority, ClusterId, Issued};
use crate::error::{IdentityError, Refusal};
use crate::ledger::{Ledger, TokenInfo};
use crate::lines::{Lines, line_name, line_of};
use crate::members::{Members, MembersFile};
use crate::message::{self, Answer, Request};
use crate::people::{CredentialInfo, People};
use crate::process::{Certified, job_name};
use crate::revocations::Revocations;
use crate::role::Role;
use crate::token::{Token, TokenId};
use mobula_core::cluster::UnixTime;

/// Keeper of a cluster's identity.
pub struct Head {
    authority: Authority,
    state: Mutex<State>,
    /// Locked by whoever changes the state, until the change is kept. The state itself is locked for a look at a time.
    changing: Mutex<()>,
    members: Box<dyn Members>,
    audit: Audit,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct State {
    version: u32,
    tokens: Ledger,
    revocations: Revocations,
    /// Heads of before the list have none.
    #[serde(default)]
    people: People,
    /// Written by no head of the first version.
    #[serde(default)]
    lines: Lines,
}

/// What one who wants a certificate has asked, and the connection on which the answer is due.
pub struct Asked {
    stream: JoinStream,
    request: Result<Vec<u8>, Refusal>,
}

impl Asked {
    /// Reads what is asked on `stream`. Gives up after [`limits::HANDSHAKE_DEADLINE`]. Cancel-safe: nothing was decided, and the
    /// connection is closed.
    pub async fn read(mut stream: JoinStream) -> Self {
        let deadline = limits::HANDSHAKE_DEADLINE;
        let request = match tokio::time::timeout(deadline, message::read(&mut stream)).await {
            Ok(read) => read.map_err(|error| Refusal::BadRequest(error.to_string())),
            Err(_) => Err(Refusal::BadRequest(format!("no request within {} s", deadline.as_secs()))),
        };
        Asked { stream, request }
    }

    /// Who asks.
    pub fn address(&self) -> SocketAddr {
        self.stream.address()
    }
}

impl Head {
    /// The head whose state lies in `directory`; founds a cluster there if there is none. One process at a time uses a directory:
    /// the caller sees to it.
    ///
    /// # Errors
    /// [`IdentityError`]; files that are not safe or cannot be read are left as they are.
    pub fn open(directory: &Directory, now: UnixTime) -> Result<Self, IdentityError> {
        let members = MembersFile(directory.path().join("members"));
        Self::open_with(directory, Box::new(members), now)
    }

    /// As [`open`](Self::open), but for tokens and revocations, which lie in `members`: several heads with the same authority share them. Only the one that
    /// leads may be asked; when it begins to, it [reads](Self::read_again) what the one before has kept.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_with(directory: &Directory, members: Box<dyn Members>, now: UnixTime) -> Result<Self, IdentityError> {
        let authority = Authority::open(directory, now)?;
        let (state, audit) = (Mutex::new(read(&*members)?), Audit::open(directory)?);
        Ok(Head { authority, state, changing: Mutex::new(()), members, audit })
    }

    /// Reads tokens and revocations again. May block.
    ///
    /// # Errors
    /// [`IdentityError`]: what was known before stays.
    pub fn read_again(&self) -> Result<(), IdentityError> {
        let _one_at_a_time = self.changing.lock();
        let state = read(&*self.members)?;
        *self.state.lock() = state;
        Ok(())
    }

    /// With certificates that live so long, but no less than [`limits::CERTIFICATE_LIFE_MIN`] and no longer than
    /// [`limits::CERTIFICATE_LIFE`], which is the default. Those that were given before keep their life.
    #[must_use]
    pub fn with_certificate_life(mut self, life: Duration) -> Self {
        self.authority.set_certificate_life(life);
        self
    }

    /// How long the certificates live that it gives.
    pub fn certificate_life(&self) -> Duration {
        self.authority.certificate_life()
    }

    /// The cluster.
    pub fn cluster(&self) -> ClusterId {
        self.authority.cluster()
    }

    /// A certificate for the head's own life `uid`, with a new key.
    ///
    /// # Errors
    /// [`IdentityError::Certificate`].
    pub fn credentials(&self, uid: NodeUid, now: UnixTime) -> Result<Credentials, IdentityError> {
        self.authority.credentials(uid, Role::Head, now)
    }

    /// A certificate for a process of the job `job`, whose life is `uid`. Whoever calls knows that the process is one.
    ///
    /// # Errors
    /// [`Refusal::BadRequest`] for what is not a certificate request, [`Refusal::Revoked`].
    pub fn certify(&self, csr: &[u8], uid: NodeUid, job: &str, now: UnixTime) -> Result<Certified, Refusal> {
        if self.state.lock().revocations.contains(uid) {
            return Err(Refusal::Revoked);
        }
        let csr = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr))
            .map_err(|error| Refusal::BadRequest(format!("certificate request: {error}")))?;
        let issued = self
            .authority
            .issue_with(&csr.public_key, uid, Role::Process, Some(job_name(job)), now)
            .map_err(|error| Refusal::HeadFailed(error.to_string()))?;
        let authority = self.authority.certificate().to_vec();
        Ok(Certified { certificate: issued.certificate.to_vec(), authority, until: issued.until })
    }

    /// Makes a token. It is shown this once: the head keeps its public key alone.
    ///
    /// # Errors
    /// [`IdentityError`]: there is no token then.
    pub fn create_token(&self, role: Role, uses: u32, ttl: Duration, now: UnixTime) -> Result<Token, IdentityError> {
        let (mut id, mut seed) = ([0; 8], Zeroizing::new([0; 32]));
        getrandom::fill(&mut id)?;
        getrandom::fill(&mut *seed)?;
        let token = Token::new(self.cluster().0, TokenId(u64::from_be_bytes(id)), seed);
        let key = token.public_key().ok_or(IdentityError::Certificate { reason: "no Ed25519 key".to_owned() })?;
        let info = TokenInfo { id: token.id(), role, uses_left: uses, expires: now.after(ttl) };
        self.change(|state| state.tokens.add(info, key, now))?;
        self.audit.record(now, "token created", None, &format!("{} {role}", token.id()));
        Ok(token)
    }

    /// The tokens that are accepted at `now`.
    pub fn tokens(&self, now: UnixTime) -> Vec<TokenInfo> {
        self.state.lock().tokens.list(now)
    }

    /// Takes a token back; true if it was there. Who has joined with it stays.
    ///
    /// # Errors
    /// [`IdentityError`] if that cannot be written down: the token is still accepted then.
    pub fn revoke_token(&self, id: TokenId, now: UnixTime) -> Result<bool, IdentityError> {
        let was_there = self.change(|state| Ok(state.tokens.revoke(id)))?;
        self.audit.record(now, "token revoked", None, &id.to_string());
        Ok(was_there)
    }

    /// Cuts a life off: no certificate is renewed for it. What comes back is for the nodes of the cluster, the head's own endpoint among
    /// them, which [adopt](Revocations::adopt) it and [cut](mobula_transport::tls::Endpoint::revoke) its connections.
    ///
    /// # Errors
    /// [`IdentityError`] if that cannot be written down: nothing has changed then.
    pub fn revoke_node(&self, uid: NodeUid, now: UnixTime) -> Result<Revocations, IdentityError> {
        let list = self.change(|state| {
            state.revocations.revoke(uid, now);
            Ok(state.revocations.clone())
        })?;
        self.audit.record(now, "node revoked", None, &uid.to_string());
        Ok(list)
    }

    /// Cuts off a node's life, as [`revoke_node`](Self::revoke_node) does, and the newest lives of those lines for which `also` says so of the life before
    /// the newest and the newest. All in one step: none of them comes back meanwhile.
    ///
    /// # Errors
    /// [`IdentityError`] if that cannot be written down: nothing has changed then.
    pub fn revoke_node_and(
        &self,
        uid: NodeUid,
        also: impl Fn(NodeUid, NodeUid) -> bool,
        now: UnixTime,
    ) -> Result<(), IdentityError> {
        let cut = self.change(|state| {
            let others = state.lines.returned().filter(|(before, newest)| also(*before, *newest));
            let cut: Vec<_> = others.map(|(_, newest)| newest).chain([uid]).collect();
            cut.iter().for_each(|life| state.revocations.revoke(*life, now));
            Ok(cut)
        })?;
        cut.into_iter().for_each(|life| self.audit.record(now, "node revoked", None, &life.to_string()));
        Ok(())
    }

    /// The credentials of people that are good at `now`.
    pub fn credentials_of_people(&self, now: UnixTime) -> Vec<CredentialInfo> {
        self.state.lock().people.list(now)
    }

    /// Cuts a person off, as [`revoke_node`](Self::revoke_node) does; true if there was one with that life.
    ///
    /// # Errors
    /// [`IdentityError`] if that cannot be written down: nothing has changed then.
    pub fn revoke_credential(&self, uid: NodeUid, now: UnixTime) -> Result<bool, IdentityError> {
        let was_there = self.change(|state| {
            let was_there = state.people.remove(uid);
            if was_there {
                state.revocations.revoke(uid, now);
            }
            Ok(was_there)
        })?;
        if was_there {
            self.audit.record(now, "credential revoked", None, &uid.to_string());
        }
        Ok(was_there)
    }

    /// The life `uid` of a line may speak: it was not cut off, and has not come back as another.
    ///
    /// # Errors
    /// As for [`Lines::goes_on`].
    pub fn goes_on(&self, line: NodeUid, uid: NodeUid) -> Result<(), Refusal> {
        let state = self.state.lock();
        state.lines.goes_on(&state.revocations, line, uid)
    }

    /// As [`Lines::is_of`].
    pub fn is_of_line(&self, line: NodeUid, uid: NodeUid) -> bool {
        self.state.lock().lines.is_of(line, uid)
    }

    /// True if a life is cut off.
    pub fn is_revoked(&self, uid: NodeUid) -> bool {
        self.state.lock().revocations.contains(uid)
    }

    /// Who is cut off.
    pub fn revocations(&self) -> Revocations {
        self.state.lock().revocations.clone()
    }

    /// Answers one who wants a certificate: [`Asked::read`] and [`answer`](Self::answer) in one. Gives up after
    /// [`limits::HANDSHAKE_DEADLINE`]; the caller holds a [`Place`](mobula_transport::tls::Place) meanwhile.
    ///
    /// # Errors
    /// As for [`answer`](Self::answer). Not cancel-safe: a token may have been spent for nothing.
    pub async fn serve(self: &Arc<Self>, stream: JoinStream, now: UnixTime) -> Result<Issued, Refusal> {
        self.answer(Asked::read(stream).await, now).await
    }

    /// Answers what was asked.
    ///
    /// # Errors
    /// [`Refusal`], which is in the audit log already. The peer has learned nothing but that; with [`Refusal::HeadFailed`] it has heard
    /// nothing at all. Not cancel-safe: a token may have
    /// been spent for nothing.
    pub async fn answer(self: &Arc<Self>, asked: Asked, now: UnixTime) -> Result<Issued, Refusal> {
        let Asked { mut stream, request } = asked;
        let (from, deadline) = (stream.address(), limits::HANDSHAKE_DEADLINE);
        let question = request.and_then(|bytes| self.question(&bytes, &stream));
        let was = question.as_ref().ok().and_then(Question::comes_back);
        let decided = match question {
            Ok(question) => {
                // It writes to disk.
                let head = Arc::clone(self);
                let decided = tokio::task::spawn_blocking(move || head.decide(question, from, now)).await;
                decided.unwrap_or_else(|error| Err(Refusal::HeadFailed(error.to_string())))
            }
            Err(refusal) => Err(refusal),
        };
        let answer = match &decided {
            Ok(issued) => {
                let given = format!("{} {}", issued.role, issued.uid);
                match was {
                    Some(was) => self.audit.record(now, "came back", Some(from), &format!("{given}, which was {was}")),
                    None => self.audit.record(now, "certificate given", Some(from), &given),
                }
                Answer::Welcome {
                    uid: issued.uid,
                    role: issued.role,
                    certificate: issued.certificate.to_vec(),
                    from: issued.from,
                    until: issued.until,
                }
            }
            Err(refusal) => {
                match was {
                    Some(was) => self.audit.record(now, "return refused", Some(from), &format!("{refusal}: {was}")),
                    None => self.audit.record(now, "join refused", Some(from), &refusal.to_string()),
                }
                if matches!(refusal, Refusal::HeadFailed(_)) {
                    // It is not for this head to say no: it may work later, or at another head.
                    return decided;
                }
                Answer::JoinRejected
            }
        };
        let say = async {
            message::write(&mut stream, &answer).await?;
            tokio::io::AsyncWriteExt::shutdown(&mut stream).await
        };
        // Whether it arrives changes nothing here.
        let _ = tokio::time::timeout(deadline, say).await;
        decided
    }

    /// The request, with all that its connection proves.
    fn question(&self, bytes: &[u8], stream: &JoinStream) -> Result<Question, Refusal> {
        let bad = |error: &dyn std::fmt::Display| Refusal::BadRequest(error.to_string());
        match Request::decode(bytes).map_err(|error| bad(&error))? {
            Request::Join { token, role, csr, signature } => {
                let exported = stream.export(Request::EXPORTER).map_err(|error| bad(&error))?;
                let statement = Request::statement(&self.cluster(), &exported, &csr);
                Ok(Question { csr, by: By::Token { token, role, statement, signature } })
            }
            Request::Renew { uid, csr } => {
                Ok(Question { csr, by: By::Certificate { holder: Holder::of(uid, stream)?, comes_back: false } })
            }
            Request::Return { uid, csr } => {
                Ok(Question { csr, by: By::Certificate { holder: Holder::of(uid, stream)?, comes_back: true } })
            }
        }
    }

    fn decide(&self, question: Question, from: SocketAddr, now: UnixTime) -> Result<Issued, Refusal> {
        let failed = |error: &dyn std::fmt::Display| Refusal::HeadFailed(error.to_string());
        // Before anything is spent: its own signature is checked with it.
        let csr = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(question.csr));
        let csr = csr.map_err(|error| Refusal::BadRequest(format!("certificate request: {error}")));
        let (uid, role, line) = match question.by {
            By::Token { token, role, statement, signature } => {
                let _one_at_a_time = self.changing.lock();
                let mut next = self.state.lock().clone();
                next.tokens.spend(token, role, &statement, &signature, now)?;
                let uid = draw().map_err(|error| failed(&error))?;
                if csr.is_ok() {
                    if role.is_person() {
                        next.people.put(self.person(uid, role, Some(token), from, now), now)?;
                    }
                    // On disk before anything is given for it.
                    self.write(&next).map_err(|error| failed(&error))?;
                    *self.state.lock() = next;
                }
                (uid, role, uid)
            }
            // They get theirs from who knows that they live: the node and the job of a process, and the head itself.
            By::Certificate { holder: Holder { role: Role::Process | Role::Head, .. }, comes_back: false } => {
                return Err(Refusal::WrongRole);
            }
            By::Certificate { holder: Holder { uid, role, line }, comes_back: false } => {
                let _one_at_a_time = self.changing.lock();
                let mut next = self.state.lock().clone();
                next.lines.goes_on(&next.revocations, line, uid)?;
                let is_news = match role.is_person() {
                    true => next.people.put(self.person(uid, role, None, from, now), now).map(|()| true)?,
                    false => next.lines.renewed(line, now),
                };
                if csr.is_ok() && is_news {
                    self.write(&next).map_err(|error| failed(&error))?;
                    *self.state.lock() = next;
                }
                (uid, role, line)
            }
            By::Certificate { holder: Holder { uid, role, line }, comes_back: true } => {
                if role != Role::Worker {
                    return Err(Refusal::WrongRole);
                }
                let key = part_of_hash(&csr.as_ref().map_err(Clone::clone)?.public_key);
                let _one_at_a_time = self.changing.lock();
                let mut next = self.state.lock().clone();
                let drawn = draw().map_err(|error| failed(&error))?;
                let successor = next.lines.comes_back(&next.revocations, line, uid, key, drawn, now)?;
                // On disk before anything is given for it.
                self.write(&next).map_err(|error| failed(&error))?;
                *self.state.lock() = next;
                (successor, role, line)
            }
        };
        let line = (line != uid).then(|| line_name(line));
        self.authority.issue_with(&csr?.public_key, uid, role, line, now).map_err(|error| failed(&error))
    }

    /// One to whom a certificate is given.
    fn person(
        &self,
        uid: NodeUid,
        role: Role,
        token: Option<TokenId>,
        from: SocketAddr,
        now: UnixTime,
    ) -> CredentialInfo {
        CredentialInfo { uid, role, token, from, since: now, until: now.after(self.certificate_life()) }
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> Result<T, IdentityError>) -> Result<T, IdentityError> {
        let _one_at_a_time = self.changing.lock();
        let mut next = self.state.lock().clone();
        let result = change(&mut next)?;
        self.write(&next)?;
        *self.state.lock() = next;
        Ok(result)
    }

    fn write(&self, state: &State) -> Result<(), IdentityError> {
        let bytes = codec::encode(state)
            .map_err(|error| IdentityError::Corrupt { path: self.members.place(), reason: error.to_string() })?;
        self.members.replace(&bytes)
    }
}

fn read(members: &dyn Members) -> Result<State, IdentityError> {
    let Some(bytes) = members.read()? else { return Ok(State { version: 1, ..State::default() }) };
    let corrupt = |reason| IdentityError::Corrupt { path: members.place(), reason };
    let state: State = codec::decode(&bytes).map_err(|error| corrupt(error.to_string()))?;
    if state.version != 1 {
        return Err(corrupt(format!(
            "it has version {}, this program reads version 1: use a newer one",
            state.version
        )));
    }
    Ok(state)
}

/// A new life. Drawn here: nobody can ask for another's.
fn draw() -> Result<NodeUid, getrandom::Error> {
    let mut uid = [0; 8];
    getrandom::fill(&mut uid)?;
    Ok(NodeUid(u64::from_be_bytes(uid)))
}

/// Tells one key from another.
fn part_of_hash(key: &impl PublicKeyData) -> [u8; 16] {
    let hash = digest::digest(&digest::SHA256, &key.subject_public_key_info());
    *hash.as_ref().first_chunk().expect("SHA-256 has 32 bytes")
}

struct Question {
    csr: Vec<u8>,
    by: By,
}

impl Question {
    /// The life that wants to come back.
    fn comes_back(&self) -> Option<NodeUid> {
        match &self.by {
            By::Certificate { holder, comes_back: true } => Some(holder.uid),
            _ => None,
        }
    }
}

enum By {
    Token { token: TokenId, role: Role, statement: Vec<u8>, signature: Vec<u8> },
    Certificate { holder: Holder, comes_back: bool },
}

/// Who has shown a certificate.
struct Holder {
    uid: NodeUid,
    role: Role,
    line: NodeUid,
}

impl Holder {
    /// The holder of the life `uid`, if the other side of `stream` is.
    fn of(uid: NodeUid, stream: &JoinStream) -> Result<Self, Refusal> {
        let role = Role::of(|role| stream.peer_is(&role_name(role.name())));
        let role = role.filter(|_| stream.peer_is(&node_name(uid))).ok_or(Refusal::NotTheHolder)?;
        let names = stream.peer_names();
        Ok(Holder { uid, role, line: line_of(uid, names.iter().map(String::as_str)) })
    }
}
