//! Memory wires that come back: when one breaks, its dialer makes another.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::BytesMut;
use mobula_core::frame::{self, Frame, Head};
use mobula_core::limits;
use mobula_transport::{Found, Link, Resume, Returned, Seek, WayBack, Wire, memory};
use parking_lot::Mutex;
use tokio::io::AsyncReadExt;

use super::Waiting;
use super::faulty::{Fault, faulty};

pub(crate) const SESSION: u64 = 0x5e55;

/// What dialer and acceptor of one session share.
#[derive(Clone, Default)]
pub(crate) struct Road(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    acceptor: Option<Arc<Link<Waiting>>>,
    /// Of the connections to come, at the dialer's end. Those after them have none.
    faults: VecDeque<(Fault, Fault)>,
    connections: usize,
    dead: bool,
    forgotten: bool,
    shifted: i64,
}

impl Road {
    /// The first connection, with its faults, and those of later ones.
    pub(crate) fn open(faults: impl IntoIterator<Item = (Fault, Fault)>) -> (Road, Wire, Wire) {
        let road = Road::default();
        road.0.lock().faults = faults.into_iter().collect();
        let (here, there) = road.connection();
        let dials = WayBack { session: SESSION, dials: true, seek: Box::new(Dials(road.clone())) };
        let waits = WayBack { session: SESSION, dials: false, seek: Box::new(Waits) };
        (road.clone(), here.with_way_back(dials), there.with_way_back(waits))
    }

    /// The acceptor's link has to be known before anything breaks.
    pub(crate) fn leads_to(&self, acceptor: &Arc<Link<Waiting>>) {
        self.0.lock().acceptor = Some(Arc::clone(acceptor));
    }

    /// From now on whoever looks for the acceptor is told that its process has ended.
    pub(crate) fn die(&self) {
        self.0.lock().dead = true;
    }

    /// From now on the acceptor does not know the session.
    pub(crate) fn forget(&self) {
        self.0.lock().forgotten = true;
    }

    /// From now on dialers say that they have so many bytes more, or less, than they have.
    pub(crate) fn shift(&self, bytes: i64) {
        self.0.lock().shifted = bytes;
    }

    pub(crate) fn connections(&self) -> usize {
        self.0.lock().connections
    }

    fn connection(&self) -> (Wire, Wire) {
        let mut state = self.0.lock();
        state.connections += 1;
        let (read, write) = state.faults.pop_front().unwrap_or((Fault::None, Fault::None));
        let (here, there) = memory::pair(64 * 1024);
        (faulty(here, read, write).0, there)
    }
}

struct Waits;

impl Seek for Waits {
    fn look(&mut self, _: Resume) -> Pin<Box<dyn Future<Output = Found> + Send>> {
        Box::pin(std::future::ready(Found::NotYet { reason: "it has to come by itself".to_owned() }))
    }
}

struct Dials(Road);

impl Seek for Dials {
    fn look(&mut self, resume: Resume) -> Pin<Box<dyn Future<Output = Found> + Send>> {
        let road = self.0.clone();
        Box::pin(async move {
            let (acceptor, shifted) = {
                let state = road.0.lock();
                if state.dead {
                    return Found::Dead { reason: "nobody listens there".to_owned() };
                }
                if state.forgotten {
                    return Found::Refused { reason: "no such session".to_owned() };
                }
                (state.acceptor.clone().expect("the road leads somewhere"), state.shifted)
            };
            let resume = Resume { received: resume.received.saturating_add_signed(shifted), ..resume };
            match tokio::time::timeout(limits::HANDSHAKE_DEADLINE, dial(&road, &acceptor, resume)).await {
                Ok(Ok(found)) => found,
                Err(_) => Found::NotYet { reason: "no answer in time".to_owned() },
                Ok(Err(error)) => Found::NotYet { reason: error.to_string() },
            }
        })
    }
}

async fn dial(road: &Road, acceptor: &Arc<Link<Waiting>>, resume: Resume) -> io::Result<Found> {
    let (mut here, mut there) = road.connection();
    let mut said = BytesMut::new();
    let Resume { session, received, attempt } = resume;
    frame::write_bare(&mut said, Head::Resume { session, received, attempt });
    let mut left = &said[..];
    while !left.is_empty() {
        match here.write.try_write(left) {
            Ok(count) => left = &left[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::task::yield_now().await,
            Err(error) => return Err(error),
        }
    }
    let resume = hear(&mut there).await?;
    let returned = Returned { wire: Box::new(move || Ok(there)), resume: resume.expect("a resume") };
    if acceptor.come_back(returned).is_err() {
        return Ok(Found::Refused { reason: "the link has ended".to_owned() });
    }
    Ok(match hear(&mut here).await? {
        Some(resume) => Found::Back(Returned { wire: Box::new(move || Ok(here)), resume }),
        None => Found::Refused { reason: "goodbye".to_owned() },
    })
}

/// Reads a resume, or none if it is a goodbye.
async fn hear(wire: &mut Wire) -> io::Result<Option<Resume>> {
    let mut bytes = vec![0; 4];
    wire.read.read_exact(&mut bytes).await?;
    let length = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
    bytes.resize(4 + length, 0);
    wire.read.read_exact(&mut bytes[4..]).await?;
    Ok(match frame::decode(&bytes, limits::FRAME_BYTES_MAX).expect("a link's bytes") {
        Some((Frame::Resume { session, received, attempt }, _)) => Some(Resume { session, received, attempt }),
        Some((Frame::Goodbye { .. }, _)) => None,
        other => panic!("{other:?}"),
    })
}
