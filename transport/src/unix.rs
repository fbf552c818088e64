//! Unix sockets, between processes of one user on one host: no port, and the kernel says who connects.
//!
//! A socket lies in a [`Directory`] that is this user's alone. Each side asks the kernel for the other's user and goes on
//! only if it is its own; preface and session are those of every other wire. Beside the socket lies `<name>.lock`, locked as
//! long as somebody listens: so a socket file whose owner was killed is told from one in use without connecting to it.

mod back;

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write as _};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};
use std::time::Duration;

use mobula_core::NodeUid;
use parking_lot::Mutex;
use rustix::fs::OFlags;
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};

pub use back::{ask_after, hear_resume, redial};

use crate::handshake::{self, Agreed, HandshakeError};
use crate::preface::{Acceptor, Dial, PrefaceError, Secret, VERSIONS};
use crate::session::Lane;
use crate::wire::{Wire, WireWrite};

/// 107: bytes of a socket's path, which the operating system keeps in a field of 108.
pub const PATH_BYTES_MAX: usize = 107;

/// A Unix socket could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnixError {
    /// The directory is not this user's alone.
    #[error("{path} is not safe for sockets: {fault}", path = path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        fault: DirectoryFault,
    },
    /// The path is too long for a socket.
    #[error("{path} has {bytes} bytes, a socket's path at most {max}: choose a shorter directory", path = path.display(), max = PATH_BYTES_MAX)]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// A process listens there.
    #[error("{path} is in use by process {holder}", path = path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
        /// What the holder wrote down: its process id, or `unknown`.
        holder: String,
    },
    /// Something that is not a socket has the name. It was left alone.
    #[error("{path} exists and is not a socket: it was left alone", path = path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The peer is a process of another user. It got no byte.
    #[error("{path}: ForeignUser: the peer is a process of user {theirs}, only those of user {ours} are accepted", path = path.display())]
    ForeignUser {
        /// The socket.
        path: PathBuf,
        /// Our effective user id.
        ours: u32,
        /// The peer's.
        theirs: u32,
    },
    /// The operating system says no.
    #[error("{what} {path}: {error}", path = path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which path.
        path: PathBuf,
        /// What came of it.
        error: io::Error,
    },
    /// The handshake failed.
    #[error("{path}: {error}", path = path.display())]
    Preface {
        /// The socket.
        path: PathBuf,
        /// Which rule was broken.
        error: PrefaceError,
    },
    /// The handshake took too long.
    #[error("{path}: HandshakeDeadline: no proof within {} s", after.as_secs(), path = path.display())]
    Deadline {
        /// The socket.
        path: PathBuf,
        /// The limit.
        after: Duration,
    },
}

/// Why a directory is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryFault {
    /// It is a symbolic link: who owns the link decides where it leads.
    #[error("it is a symbolic link")]
    Symlink,
    /// It is a file.
    #[error("it is not a directory")]
    NotADirectory,
    /// It belongs to somebody else.
    #[error("it belongs to user {owner} and not to user {ours}; chown it, or choose another")]
    Owner {
        /// Its owner.
        owner: u32,
        /// Our effective user id.
        ours: u32,
    },
    /// Others may enter it.
    #[error("its mode is {mode:04o}; chmod 0700 it")]
    Mode {
        /// Its permission bits.
        mode: u32,
    },
}

/// A directory of mode 0700 that belongs to this process's user and is no symbolic link.
#[derive(Clone, Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// Makes the directory if it does not exist, not its parents, and checks it.
    ///
    /// # Errors
    /// [`UnixError::Directory`], or what the system says.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, UnixError> {
        let path = path.into();
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(UnixError::Io { what: "cannot make", path, error })
            }
            _ => Directory::open(path),
        }
    }

    /// Checks a directory that exists.
    ///
    /// # Errors
    /// As for [`create`](Self::create).
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, UnixError> {
        let path = path.into();
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) => return Err(UnixError::Io { what: "cannot look at", path, error }),
        };
        let (owner, mode, ours) = (metadata.uid(), metadata.mode() & 0o7777, own_user());
        let fault = if metadata.file_type().is_symlink() {
            DirectoryFault::Symlink
        } else if !metadata.is_dir() {
            DirectoryFault::NotADirectory
        } else if owner != ours {
            DirectoryFault::Owner { owner, ours }
        } else if mode != 0o700 {
            DirectoryFault::Mode { mode }
        } else {
            return Ok(Directory(path));
        };
        Err(UnixError::Directory { path, fault })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    fn socket(&self, name: &str) -> Result<PathBuf, UnixError> {
        let path = self.0.join(name);
        match path.as_os_str().len() {
            bytes if bytes > PATH_BYTES_MAX => Err(UnixError::PathTooLong { path, bytes }),
            _ => Ok(path),
        }
    }
}

/// Listens on one socket file, which goes with it.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
    // Held, not used: the lock ends with the file.
    _lock: File,
}

impl Listener {
    /// Listens on `name` in `directory`. A socket file that a killed process left behind is replaced.
    /// Has to be called on the runtime that will accept.
    ///
    /// # Errors
    /// [`UnixError::InUse`], [`UnixError::NotASocket`], [`UnixError::PathTooLong`], or what the system says.
    pub fn bind(directory: &Directory, name: &str) -> Result<Self, UnixError> {
        let path = directory.socket(name)?;
        let lock = lock(&path)?;
        let io_failed = |what| move |path: &Path, error| UnixError::Io { what, path: path.to_owned(), error };
        // With the lock held nobody listens on what lies there.
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.file_type().is_socket() => {
                fs::remove_file(&path).map_err(|error| io_failed("cannot remove the old socket")(&path, error))?;
            }
            Ok(_) => return Err(UnixError::NotASocket { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(UnixError::Io { what: "cannot look at", path, error }),
        }
        let listener = UnixListener::bind(&path).map_err(|error| io_failed("cannot listen on")(&path, error))?;
        Ok(Listener { listener, path, _lock: lock })
    }

    /// The socket file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Accepts one connection, whatever happens to others. Cancel-safe.
    pub async fn accept_next(&self) -> UnixStream {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Lets a process of this user in, as it is, without a preface.
    ///
    /// # Errors
    /// [`UnixError::ForeignUser`]: the connection is to be dropped; it got no byte.
    pub fn admit(&self, stream: &UnixStream) -> Result<(), UnixError> {
        own_peer(stream, &self.path)
    }

    /// Refuses processes of other users, then reads and answers the dialer's preface.
    ///
    /// # Errors
    /// [`UnixError`]: the connection is to be dropped. Strangers got no byte. Cancel-safe in the same sense.
    pub async fn accept(
        &self,
        mut stream: UnixStream,
        acceptor: &Mutex<Acceptor>,
    ) -> Result<(Agreed<StdStream>, Dial), UnixError> {
        own_peer(&stream, &self.path)?;
        let failed = failed("handshake on", &self.path);
        match handshake::in_time(handshake::accept(&mut stream, acceptor, |_| Ok(()))).await {
            Ok((dial, version)) => {
                let stream = stream.into_std().map_err(|error| failed(error.into()))?;
                Ok((Agreed { stream, version, session: dial.session() }, dial))
            }
            Err(error) => Err(failed(error)),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Still under the lock, so it cannot be a successor's.
        let _ = fs::remove_file(&self.path);
    }
}

/// Connects to the life `target`, which listens on `name` in `directory`, and proves to it that we are `dialer`.
/// The stream is returned bare, so that it can be moved to the thread that will read it; see [`wire`].
///
/// # Errors
/// [`UnixError`]. Cancel-safe: dropping the future closes the connection.
pub async fn dial(
    directory: &Directory,
    name: &str,
    secret: &Secret,
    dialer: NodeUid,
    target: NodeUid,
    lane: Lane,
) -> Result<Agreed<StdStream>, UnixError> {
    let path = &directory.socket(name)?;
    let io_failed = |error| failed("cannot connect to", path)(HandshakeError::Io(error));
    let dial = handshake::fresh(dialer, target, lane, VERSIONS).map_err(io_failed)?;
    let mut stream = UnixStream::connect(path).await.map_err(io_failed)?;
    own_peer(&stream, path)?;
    let dialed = handshake::in_time(handshake::dial(&mut stream, secret, &dial)).await;
    let version = dialed.map_err(failed("cannot connect to", path))?;
    Ok(Agreed { stream: stream.into_std().map_err(io_failed)?, version, session: dial.session() })
}

/// Connects to whoever listens on `name` in `directory`, if it is a process of this user. No preface is sent.
///
/// # Errors
/// [`UnixError`]. Cancel-safe: dropping the future closes the connection.
pub async fn connect(directory: &Directory, name: &str) -> Result<UnixStream, UnixError> {
    let path = &directory.socket(name)?;
    let io_failed = |error| failed("cannot connect to", path)(HandshakeError::Io(error));
    let stream = UnixStream::connect(path).await.map_err(io_failed)?;
    own_peer(&stream, path)?;
    Ok(stream)
}

/// Registers a connection with the current runtime, whose thread will read it.
///
/// # Errors
/// If the system refuses.
pub fn wire(agreed: Agreed<StdStream>) -> io::Result<Wire> {
    let (read, write) = UnixStream::from_std(agreed.stream)?.into_split();
    Ok(Wire::new(agreed.version, read, Write(write)))
}

struct Write(OwnedWriteHalf);

impl WireWrite for Write {
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_ref().poll_write_ready(cx)
    }
}

fn lock(socket: &Path) -> Result<File, UnixError> {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let failed = |error| UnixError::Io { what: "cannot lock", path: path.clone(), error };
    let mut open = OpenOptions::new();
    // The file stays when the lock goes: who removed it could remove the one that a successor has locked.
    open.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(OFlags::NOFOLLOW.bits() as i32);
    let mut file = open.open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = (&mut file).take(20).read_to_string(&mut holder);
            let known = !holder.is_empty() && holder.bytes().all(|byte| byte.is_ascii_digit());
            let holder = if known { holder } else { "unknown".to_owned() };
            return Err(UnixError::InUse { path: socket.to_owned(), holder });
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    let write = |mut file: &File| {
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(std::process::id().to_string().as_bytes())
    };
    write(&file).map_err(failed)?;
    Ok(file)
}

fn own_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The kernel's word for it, taken when the connection was made.
fn own_peer(stream: &UnixStream, path: &Path) -> Result<(), UnixError> {
    let peer = stream.peer_cred().map_err(|error| failed("cannot ask who is on", path)(error.into()))?;
    check_user(own_user(), peer.uid(), path)
}

fn check_user(ours: u32, theirs: u32, path: &Path) -> Result<(), UnixError> {
    if theirs == ours { Ok(()) } else { Err(UnixError::ForeignUser { path: path.to_owned(), ours, theirs }) }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(HandshakeError) -> UnixError {
    let path = path.to_owned();
    move |error| match error {
        HandshakeError::Io(error) => UnixError::Io { what, path, error },
        HandshakeError::Preface(error) => UnixError::Preface { path, error },
        HandshakeError::Deadline { after } => UnixError::Deadline { path, after },
    }
}
