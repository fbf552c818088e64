//! This node's end of the cluster's directory: as its head, or as a member that asks the head.
//!
//! The decisions are in [`mobula_core::directory`]. Here they meet the clock and the control connection.
mod follow;
mod head;
mod lease;
mod member;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use mobula_core::directory::{Directory, GroupName, LeaseTimes};
use mobula_core::planted::{self, Bug};
use mobula_core::{ActorId, Fence, NodeId};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};

pub(crate) use follow::GroupView;
use lease::LeaseCell;
pub(crate) use member::Afterwards;

/// What a node knows of the directory. Every node could be a head; it serves as one as long as it has no other.
pub(crate) struct DirectoryEnd {
    times: LeaseTimes,
    /// Who keeps the directory.
    head: RwLock<NodeId>,
    clock: head::Clock,
    own: Mutex<Directory>,
    /// The next deadline in `own` may be sooner than before.
    changed: Notify,
    lease: Arc<LeaseCell>,
    /// The connection to the head has opened.
    head_reached: Notify,
    /// The head's time in the newest of its answers.
    heard: Mutex<Option<Duration>>,
    /// Actors of this node that hold something in the directory. At the end of the lease they end in this order.
    listed: Mutex<BTreeSet<ActorId>>,
    next_number: AtomicU64,
    /// As the head: whom to tell when a group changes.
    followers: Mutex<HashMap<GroupName, watch::Sender<()>>>,
    /// The groups that are followed here.
    views: Mutex<HashMap<GroupName, Weak<GroupView>>>,
    /// True once the lease is over.
    fenced: watch::Sender<bool>,
}

/// An actor's right to act under its name.
#[derive(Clone, Debug)]
pub(crate) struct Tenure {
    pub(crate) fence: Fence,
    lease: Arc<LeaseCell>,
}

impl Tenure {
    /// False once the node's lease is over: then somebody else may be given the name.
    pub(crate) fn holds(&self) -> bool {
        self.lease.holds(mobula_transport::now()) || planted::is(Bug::LeaseIgnored)
    }
}

impl DirectoryEnd {
    /// Of a node that is its own head.
    pub(crate) fn new(node: &NodeId, times: LeaseTimes) -> Arc<Self> {
        Arc::new(DirectoryEnd {
            times,
            head: RwLock::new(node.clone()),
            clock: head::Clock::start(),
            own: Mutex::new(Directory::new(node.clone(), times)),
            changed: Notify::new(),
            lease: LeaseCell::of_head(&times),
            head_reached: Notify::new(),
            heard: Mutex::default(),
            listed: Mutex::default(),
            next_number: AtomicU64::new(0),
            followers: Mutex::default(),
            views: Mutex::default(),
            fenced: watch::Sender::new(false),
        })
    }

    /// For a request that changes something.
    fn next_number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn times(&self) -> LeaseTimes {
        self.times
    }

    /// A connection for control to `peer` has opened.
    pub(crate) fn peer_found(&self, peer: &NodeId) {
        if *peer == *self.head.read() {
            self.head_reached.notify_one();
        }
    }

    fn heard(&self, at: Duration) {
        let mut heard = self.heard.lock();
        *heard = (*heard).max(Some(at));
    }

    pub(crate) fn head(&self) -> NodeId {
        self.head.read().clone()
    }
}
