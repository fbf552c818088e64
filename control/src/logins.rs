//! The clusters that a person has logged in to: a file for each in `logins/` of the home, of which one is current.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mobula_core::cluster::UnixTime;
use mobula_identity::{
    IdentityError, JoinError, Kept, KeptLock, Role, first_that_leads, keep_renewed, read_private, renew,
    replace_private,
};
use mobula_transport::tls::{self, TlsError};
use mobula_transport::unix::{Directory, UnixError};
use parking_lot::RwLock;
use tokio::sync::Mutex;

use crate::address::{BadAddress, is_name, resolve};
use crate::client::{Client, SharedCredentials, Target};
use crate::heads::Heads;
use crate::local::Home;
use crate::request::ListHeads;

const DIRECTORY: &str = "logins";
/// The file with the name of the current one; no login is called that.
const CURRENT: &str = "current";

/// A cluster cannot be asked with what this user has.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoginError {
    /// There is no credential for it.
    #[error(
        "you are not logged in to a cluster at {to}: whoever runs it makes a token with `mobula token create --role client`; with that, \
         `mobula login --address {to}`"
    )]
    NotLoggedIn {
        /// Where its heads are said to be.
        to: String,
    },
    /// There is no login of that name.
    #[error(
        "you are logged in to no cluster {name:?}: `mobula cluster list` shows those to which you are; the address of a head has a port, as in HOST:6379"
    )]
    NoSuchLogin {
        /// What was asked for.
        name: String,
    },
    /// Several, and none is current.
    #[error("you are logged in to several clusters and none is current: `mobula cluster use` one of {}", names.join(", "))]
    NoneIsCurrent {
        /// Their names.
        names: Vec<String>,
    },
    /// The certificate's life has ended.
    #[error(
        "your credential for cluster {name} is over: whoever runs the cluster makes a token with `mobula token create --role {role}`; with that, \
         `mobula login --address {heads} --role {role} --name {name}`"
    )]
    Over {
        /// The login.
        name: String,
        /// What it was for.
        role: Role,
        /// Where its heads are.
        heads: String,
    },
    /// The head does not renew it.
    #[error(
        "the head does not renew your credential for cluster {name}, which was revoked, then; its audit log says why. A new login takes a new \
         token of the role {role}"
    )]
    NotRenewed {
        /// The login.
        name: String,
        /// What it is for.
        role: Role,
    },
    /// The name is taken.
    #[error(
        "{name} is your login to another cluster, {cluster}: choose another --name, or `mobula logout {name}` first"
    )]
    OtherCluster {
        /// The name.
        name: String,
        /// The other.
        cluster: String,
    },
    /// Not a name.
    #[error(
        "{name:?} cannot be the name of a login: valid are 1 to 64 letters, digits, - and _, but for auto, local and current"
    )]
    BadName {
        /// What was given.
        name: String,
    },
    /// An address is none.
    #[error(transparent)]
    Address(#[from] BadAddress),
    /// The home, or what is in it, is not this user's alone.
    #[error(transparent)]
    Home(#[from] UnixError),
    /// The file of a credential is not as it has to be.
    #[error(transparent)]
    Credential(#[from] IdentityError),
    /// No head was reached.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The directory cannot be read.
    #[error("{path}: {error}", path = path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// What came of it.
        error: io::Error,
    },
}

/// All logins of a home. They lie in a directory of mode 0700, each file has mode 0600, and both are checked whenever they are used.
pub struct Logins {
    directory: Directory,
}

/// One login: a credential, and its name.
pub struct Login {
    name: String,
    path: PathBuf,
    kept: Kept,
    /// Where heads are, if not where they were when it was made.
    at: Option<Vec<String>>,
}

impl Logins {
    /// Those in the home at `home`; none if nobody has logged in there.
    ///
    /// # Errors
    /// [`LoginError::Home`].
    pub fn open(home: &Path) -> Result<Option<Self>, LoginError> {
        let path = home.join(DIRECTORY);
        if let Err(error) = fs::symlink_metadata(&path)
            && error.kind() == io::ErrorKind::NotFound
        {
            return Ok(None);
        }
        Home::open(home)?;
        Ok(Some(Logins { directory: Directory::open(path)? }))
    }

    /// As [`open`](Self::open); what is missing is made.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn create(home: &Path) -> Result<Self, LoginError> {
        Ok(Logins { directory: Home::create(home)?.inside(DIRECTORY)? })
    }

    /// The names, sorted.
    ///
    /// # Errors
    /// [`LoginError::Io`].
    pub fn names(&self) -> Result<Vec<String>, LoginError> {
        let failed = |error| LoginError::Io { path: self.directory.path().to_owned(), error };
        let mut names = Vec::new();
        for entry in fs::read_dir(self.directory.path()).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            names.extend(name.to_str().filter(|name| may_be_called(name)).map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    /// The name of the current one, if one is.
    ///
    /// # Errors
    /// [`LoginError::Credential`].
    pub fn current(&self) -> Result<Option<String>, LoginError> {
        let bytes = read_private(&self.file(CURRENT))?;
        let name = bytes.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
        Ok(name.filter(|name| may_be_called(name) && self.file(name).exists()))
    }

    /// Makes the login with that name, or to the cluster with that id, the current one, and gives its name.
    ///
    /// # Errors
    /// [`LoginError`].
    pub fn make_current(&self, name: &str) -> Result<String, LoginError> {
        let name = self.read(name)?.name;
        let path = self.file(CURRENT);
        let _one_at_a_time = KeptLock::take(&path)?;
        replace_private(&path, name.as_bytes())?;
        Ok(name)
    }

    /// The login with that name, or to the cluster with that id.
    ///
    /// # Errors
    /// [`LoginError`].
    pub fn read(&self, name: &str) -> Result<Login, LoginError> {
        let missing = || LoginError::NoSuchLogin { name: name.to_owned() };
        if may_be_called(name)
            && let Some(login) = self.find(name)?
        {
            return Ok(login);
        }
        for login in self.all()? {
            if login.kept.cluster()?.to_string() == name {
                return Ok(login);
            }
        }
        Err(missing())
    }

    /// The current login; if none is, the only one.
    ///
    /// # Errors
    /// [`LoginError::NoneIsCurrent`], or what is wrong with its file.
    pub fn default(&self) -> Result<Option<Login>, LoginError> {
        if let Some(current) = self.current()? {
            return self.find(&current);
        }
        match &self.names()?[..] {
            [] => Ok(None),
            [only] => self.find(only),
            names => Err(LoginError::NoneIsCurrent { names: names.to_vec() }),
        }
    }

    /// The login to the cluster whose heads are there: one that was made with one of these addresses, the current one before others, else one whose
    /// authority the head there shows.
    ///
    /// # Errors
    /// [`LoginError::NotLoggedIn`], or what is in the way.
    pub async fn to_heads(&self, heads: &[String]) -> Result<Login, LoginError> {
        let (mut logins, current) = (self.all()?, self.current()?);
        logins.sort_by_key(|login| Some(&login.name) != current.as_ref());
        let known = logins.iter().position(|login| login.kept.heads.iter().any(|head| heads.contains(head)));
        let found = match known {
            Some(known) => Some(known),
            None => whose_authority_is_shown(&logins, heads).await?,
        };
        let login = found.and_then(|at| logins.into_iter().nth(at));
        let login = login.ok_or_else(|| LoginError::NotLoggedIn { to: heads.join(",") })?;
        Ok(Login { at: Some(heads.to_vec()), ..login })
    }

    /// Keeps a credential under `name`, or under the id of its cluster, makes it current, and learns where other heads are. A login of that name to the
    /// same cluster is replaced.
    ///
    /// # Errors
    /// [`LoginError`]; nothing was kept then.
    pub async fn keep(&self, name: Option<&str>, kept: Kept) -> Result<Login, LoginError> {
        let cluster = kept.cluster()?.to_string();
        let name = name.unwrap_or(&cluster).to_owned();
        if !may_be_called(&name) {
            return Err(LoginError::BadName { name });
        }
        self.may_keep(&name, &cluster)?;
        let path = self.file(&name);
        // It is of use before the head has answered once more.
        kept.write(&path)?;
        let mut login = Login { name, path, kept, at: None };
        self.make_current(&login.name)?;
        login.learn_heads().await;
        login.kept.write(&login.path)?;
        Ok(login)
    }

    /// That [`keep`](Self::keep) will not refuse the name for a credential of this cluster: a token is not to be spent for nothing.
    ///
    /// # Errors
    /// [`LoginError::BadName`], [`LoginError::OtherCluster`].
    pub fn may_keep(&self, name: &str, cluster: &str) -> Result<(), LoginError> {
        if !may_be_called(name) {
            return Err(LoginError::BadName { name: name.to_owned() });
        }
        match self.find(name)?.map(|login| login.kept.cluster()).transpose()?.map(|id| id.to_string()) {
            Some(other) if other != cluster => Err(LoginError::OtherCluster { name: name.to_owned(), cluster: other }),
            _ => Ok(()),
        }
    }

    /// Forgets the login with that name, or to the cluster with that id, and gives its name. One whose file is not safe is forgotten by its name, too.
    ///
    /// # Errors
    /// [`LoginError`].
    pub fn remove(&self, name: &str) -> Result<String, LoginError> {
        let name = match may_be_called(name) && fs::symlink_metadata(self.file(name)).is_ok() {
            true => name.to_owned(),
            false => self.read(name)?.name,
        };
        let path = self.file(&name);
        let _one_at_a_time = KeptLock::take(&path)?;
        fs::remove_file(&path).map_err(|error| LoginError::Io { path, error })?;
        Ok(name)
    }

    fn find(&self, name: &str) -> Result<Option<Login>, LoginError> {
        let path = self.file(name);
        let kept = Kept::read(&path)?;
        Ok(kept.map(|kept| Login { name: name.to_owned(), path, kept, at: None }))
    }

    fn all(&self) -> Result<Vec<Login>, LoginError> {
        let found = self.names()?.into_iter().map(|name| self.find(&name));
        found.filter_map(Result::transpose).collect()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Login {
    /// What this user calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The credential.
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Whom to ask with it, and what keeps it good for longer than one question takes. A certificate of whose life two thirds are over is renewed first,
    /// and kept, unless another process does so at this moment, or no head answers: it is good until its end.
    ///
    /// # Errors
    /// [`LoginError::Over`], [`LoginError::NotRenewed`], or what is in the way. Cancel-safe: what was renewed may not be kept, and is again the next time.
    pub async fn target(mut self) -> Result<(Target, Renewal), LoginError> {
        if self.kept.is_over(UnixTime::now()) {
            let (name, role) = (self.name, self.kept.joined.role);
            return Err(LoginError::Over { name, role, heads: self.kept.heads.join(",") });
        }
        let heads = self.heads().await?;
        match self.renew(&heads).await {
            Err(NotYet::Login(error)) => return Err(error),
            Err(NotYet::Head(error)) => {
                tracing::debug!(login = self.name, %error, "the credential cannot be renewed yet");
            }
            Ok(_) => {}
        }
        let credentials = self.share();
        let target = self.ask(heads.clone(), Arc::clone(&credentials));
        Ok((target, Renewal { login: Mutex::new(self), heads, credentials }))
    }

    /// Renews what is due. False if it is not this user's any more, or another one by now.
    async fn renew(&mut self, heads: &Heads) -> Result<bool, NotYet> {
        if !self.kept.is_due(UnixTime::now()) {
            return Ok(true);
        }
        let Some(lock) = KeptLock::try_take(&self.path)? else { return Ok(true) };
        // Another process may have renewed it, or have logged out.
        match Kept::read(&self.path)? {
            Some(kept) if kept.joined.uid == self.kept.joined.uid => self.kept = kept,
            _ => return Ok(false),
        }
        let now = UnixTime::now();
        if !self.kept.is_due(now) {
            return Ok(true);
        }
        if self.kept.is_over(now) {
            return Ok(false);
        }
        match first_that_leads(&heads.all(), |head| renew(head, &self.kept.joined)).await {
            Ok((_, joined)) => self.kept.joined = joined,
            Err(JoinError::JoinRejected { .. }) => {
                return Err(LoginError::NotRenewed { name: self.name.clone(), role: self.kept.joined.role }.into());
            }
            Err(error) => return Err(NotYet::Head(error)),
        }
        self.learn_heads().await;
        self.kept.write_locked(&lock)?;
        Ok(true)
    }

    /// Where heads are by now, as far as its role may ask.
    async fn learn_heads(&mut self) {
        let Ok(heads) = self.heads().await else { return };
        let known = heads.all();
        let Ok(more) = Client::new(self.ask(heads, self.share())).ask(ListHeads {}).await else { return };
        let new = more.iter().filter(|head| !known.contains(head)).map(SocketAddr::to_string);
        let known = &mut self.kept.heads;
        known.extend(new);
        // As they were typed first; of those that were learned the last ones.
        known.truncate(mobula_core::limits::HEADS_MAX);
    }

    fn ask(&self, heads: Heads, credentials: SharedCredentials) -> Target {
        Target::Remote { heads, credentials, life: self.kept.joined.uid, job: None }
    }

    fn share(&self) -> SharedCredentials {
        Arc::new(RwLock::new(Arc::new(self.credentials())))
    }

    fn credentials(&self) -> tls::Credentials {
        let own = &self.kept.joined.credentials;
        tls::Credentials { chain: own.chain.clone(), key: own.key.clone_key(), authority: own.authority.clone() }
    }

    async fn heads(&self) -> Result<Heads, LoginError> {
        look_up(self.at.as_ref().unwrap_or(&self.kept.heads)).await
    }
}

/// Why a login that is due was not renewed.
#[derive(Debug, thiserror::Error)]
enum NotYet {
    /// No head could be asked: the next try may be better.
    #[error(transparent)]
    Head(JoinError),
    /// It will not be.
    #[error(transparent)]
    Login(#[from] LoginError),
}

impl From<IdentityError> for NotYet {
    fn from(error: IdentityError) -> Self {
        NotYet::Login(error.into())
    }
}

/// Keeps a login good for who asks with it for long: see [`keep`](Self::keep).
pub struct Renewal {
    login: Mutex<Login>,
    heads: Heads,
    credentials: SharedCredentials,
}

impl Renewal {
    /// Renews the login whenever two thirds of its certificate's life are over, for its [`Target`] and in its file, whose renewal by other processes
    /// it notices; while no head answers it tries again. Ends when the user has logged out, or in anew.
    ///
    /// # Cancel safety
    /// It is for as long as somebody asks, and may be dropped at any time.
    pub async fn keep(self) {
        let Renewal { login, heads, credentials } = &self;
        let (whose, until) = {
            let login = login.lock().await;
            (format!("the login {}", login.name), login.kept.joined.until)
        };
        let renew = || async {
            let mut login = login.lock().await;
            if !login.renew(heads).await? || login.kept.is_over(UnixTime::now()) {
                return Ok(None);
            }
            *credentials.write() = Arc::new(login.credentials());
            Ok::<_, NotYet>(Some(login.kept.joined.until))
        };
        keep_renewed(&whose, until, renew).await;
    }
}

/// Of which login the head at one of these addresses shows the authority.
async fn whose_authority_is_shown(logins: &[Login], heads: &[String]) -> Result<Option<usize>, LoginError> {
    if logins.is_empty() {
        return Ok(None);
    }
    let mut last = None;
    for head in look_up(heads).await?.all() {
        for (at, login) in logins.iter().enumerate() {
            match tls::find_authority(head, login.kept.cluster()?.0).await {
                Ok(_) => return Ok(Some(at)),
                Err(TlsError::WrongAuthority { .. }) => last = None,
                Err(error) => last = Some(error),
            }
        }
    }
    last.map_or(Ok(None), |error| Err(error.into()))
}

/// Of several names those that are not known are left out.
async fn look_up(heads: &[String]) -> Result<Heads, LoginError> {
    let names = heads.to_vec();
    let looked = tokio::task::spawn_blocking(move || names.iter().map(|name| resolve(name)).collect::<Vec<_>>()).await;
    let mut last = BadAddress::new("", "no head is known");
    let mut found = Vec::new();
    for looked in looked.unwrap_or_default() {
        match looked {
            Ok(address) => found.push(address),
            Err(error) => last = error,
        }
    }
    match found.split_first() {
        Some((first, others)) => Ok(Heads::new(*first, others.iter().copied())),
        None => Err(last.into()),
    }
}

fn may_be_called(name: &str) -> bool {
    is_name(name) && !["auto", "local", CURRENT].contains(&name)
}
