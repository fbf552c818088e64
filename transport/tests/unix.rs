//! The door of a Unix socket: whose directory, whose process, and what an earlier owner left behind.

#[allow(dead_code)]
mod common;

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};

use common::*;
use mobula_transport::Lane;
use mobula_transport::preface::{Dial, PrefaceError, Purpose, VERSIONS};
use mobula_transport::unix::{Directory, DirectoryFault, Listener, PATH_BYTES_MAX, UnixError};

fn fault(directory: Result<Directory, UnixError>) -> DirectoryFault {
    match directory {
        Err(UnixError::Directory { fault, .. }) => fault,
        other => panic!("a faulty directory: {other:?}"),
    }
}

#[test]
fn only_a_directory_of_our_own_will_do() {
    let parent = tempfile::tempdir().expect("a directory");
    let path = parent.path().join("own");
    assert_eq!(Directory::create(&path).expect("made").path(), path);
    assert_eq!(Directory::create(&path).expect("there already").path(), path);

    let link = parent.path().join("link");
    symlink(&path, &link).expect("a link");
    assert_eq!(fault(Directory::open(&link)), DirectoryFault::Symlink);
    assert_eq!(fault(Directory::create(&link)), DirectoryFault::Symlink);
    for mode in [0o755, 0o710, 0o701, 0o1700, 0o500] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("ours");
        assert_eq!(fault(Directory::open(&path)), DirectoryFault::Mode { mode });
    }
    let file = parent.path().join("file");
    fs::write(&file, b"").expect("written");
    assert_eq!(fault(Directory::open(&file)), DirectoryFault::NotADirectory);
    assert!(matches!(Directory::open(parent.path().join("none")), Err(UnixError::Io { .. })));
    // Root's, and not ours; or, where the tests run as root, somebody else's.
    let ours = rustix::process::geteuid().as_raw();
    let foreign = if ours == 0 {
        std::os::unix::fs::chown(&link, Some(65_534), None).expect("root may");
        fs::set_permissions(&path, Permissions::from_mode(0o700)).expect("ours");
        std::os::unix::fs::chown(&path, Some(65_534), None).expect("root may");
        (path.clone(), 65_534)
    } else {
        ("/".into(), 0)
    };
    assert_eq!(fault(Directory::open(foreign.0)), DirectoryFault::Owner { owner: foreign.1, ours });
}

#[tokio::test]
async fn the_socket_of_a_killed_process_is_replaced_and_one_in_use_is_not() {
    let parent = tempfile::tempdir().expect("a directory");
    let directory = Directory::create(parent.path().join("own")).expect("made");
    // What `kill -9` leaves: a socket on which nobody listens, and a lock file that nobody holds.
    drop(UnixListener::bind(directory.path().join("a")).expect("bound"));
    fs::write(directory.path().join("a.lock"), "12345678901234567890").expect("written");
    let listener = Listener::bind(&directory, "a").expect("nobody listens");

    let Err(UnixError::InUse { holder, .. }) = Listener::bind(&directory, "a") else { panic!("it is in use") };
    assert_eq!(holder, std::process::id().to_string());
    within(async { tokio::join!(tokio::net::UnixStream::connect(listener.path()), listener.accept_next()) })
        .await
        .0
        .expect("the first listener is still the one");
    let path = listener.path().to_owned();
    drop(listener);
    assert!(!path.exists(), "the socket goes with its listener");
    Listener::bind(&directory, "a").expect("free again");
}

#[tokio::test]
async fn what_is_not_a_socket_is_left_alone() {
    let parent = tempfile::tempdir().expect("a directory");
    let directory = Directory::create(parent.path().join("own")).expect("made");
    fs::write(directory.path().join("a"), b"precious").expect("written");
    assert!(matches!(Listener::bind(&directory, "a"), Err(UnixError::NotASocket { .. })));
    assert_eq!(fs::read(directory.path().join("a")).expect("there"), b"precious");

    symlink("/dev/null", directory.path().join("b")).expect("a link");
    assert!(matches!(Listener::bind(&directory, "b"), Err(UnixError::NotASocket { .. })));
    symlink(directory.path().join("a"), directory.path().join("c.lock")).expect("a link");
    assert!(matches!(Listener::bind(&directory, "c"), Err(UnixError::Io { what: "cannot lock", .. })));
    assert_eq!(fs::read(directory.path().join("a")).expect("there"), b"precious");
}

#[tokio::test]
async fn a_path_that_no_socket_can_have_is_refused_with_the_limit() {
    let parent = tempfile::tempdir().expect("a directory");
    let directory = Directory::create(parent.path().join("own")).expect("made");
    let room = PATH_BYTES_MAX - directory.path().as_os_str().len() - 1;
    Listener::bind(&directory, &"x".repeat(room)).expect("exactly the limit");
    let Err(UnixError::PathTooLong { bytes, .. }) = Listener::bind(&directory, &"x".repeat(room + 1)) else {
        panic!("too long")
    };
    assert_eq!(bytes, PATH_BYTES_MAX + 1);
}

#[tokio::test]
async fn a_wrong_secret_is_unauthorized_on_both_sides() {
    let port = UnixPort::open();
    let other = Port::other_secret();
    let (dialed, accepted) = within(async { tokio::join!(port.dial(&other), port.accept()) }).await;
    for error in [dialed.map(|_| ()).expect_err("wrong"), accepted.map(|_| ()).expect_err("wrong")] {
        assert!(matches!(&error, UnixError::Preface { error: PrefaceError::Unauthorized, .. }), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_not_waited_for() {
    let port = UnixPort::open();
    let mut silent = UnixStream::connect(port.listener.path()).expect("it listens");
    assert!(matches!(port.accept().await, Err(UnixError::Deadline { .. })));
    assert_eq!(silent.read(&mut [0]).expect("a clean end"), 0);
}

/// Another user who found a way to the socket, and who even knows the secret. Needs root to play the other user.
#[tokio::test]
async fn a_process_of_another_user_gets_no_byte() {
    let port = UnixPort::open();
    if rustix::process::geteuid().is_root() {
        let path = port.listener.path().to_owned();
        for open in [port.directory.path().parent().expect("it has one"), port.directory.path(), &path] {
            fs::set_permissions(open, Permissions::from_mode(0o777)).expect("ours");
        }
        let dial = Dial {
            dialer: Port::DIALER,
            target: Port::UID,
            lane: Lane::Data,
            versions: VERSIONS,
            purpose: Purpose::Open,
            nonce: [1; 32],
        };
        let preface = dial.encode(&Port::secret());
        // The kernel notes the user of the thread that connects, and this one's changes alone.
        let foreigner = std::thread::spawn(move || {
            rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(65_534)).expect("root may");
            let mut stream = UnixStream::connect(path).expect("the doors are open");
            let _ = stream.write_all(&preface);
            let mut heard = Vec::new();
            let _ = stream.read_to_end(&mut heard);
            heard
        });
        let Err(UnixError::ForeignUser { theirs, .. }) = within(port.accept()).await else { panic!("a foreigner") };
        assert_eq!(theirs, 65_534);
        assert_eq!(foreigner.join().expect("no panic"), []);
    }
    let secret = Port::secret();
    let (dialed, accepted) = within(async { tokio::join!(port.dial(&secret), port.accept()) }).await;
    assert!(dialed.is_ok() && accepted.is_ok(), "the own user is welcome");
}
