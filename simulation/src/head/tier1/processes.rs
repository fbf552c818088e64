//! What runs on a node: processes that do nothing but act, in place of the daemon's real ones, which start, are told to end and are reaped in the same order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mobula_control::Client;
use mobula_core::cluster::{Assignment, DriverStatus, JobId, Revision, Running, RunningWorker};
use mobula_core::{LeaseTimes, NodeUid, limits};
use mobula_daemon::private::{Hosted, tell_of_end};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::state;
use crate::head::fact::Role;

/// For whoever has promised to live for ever.
const FOR_EVER: Duration = Duration::from_secs(24 * 3600);

/// The processes of one life of a node.
pub(super) struct SimProcesses {
    node: NodeUid,
    host: u32,
    head: Client,
    table: Mutex<Table>,
    times: Mutex<LeaseTimes>,
    changed: Notify,
}

#[derive(Default)]
struct Table {
    seen: Revision,
    fenced: bool,
    processes: BTreeMap<NodeUid, Entry>,
}

struct Entry {
    role: Role,
    ready: bool,
    /// Set once it is not wanted any more.
    told: watch::Sender<bool>,
}

impl Entry {
    /// It is to end.
    fn tell(&self) {
        self.told.send_replace(true);
    }
}

/// What a process is going to do.
struct Plan {
    starts: Duration,
    lives: Duration,
    /// After it was told to end.
    ends: Duration,
    acts_every: Duration,
    succeeds: bool,
}

impl SimProcesses {
    pub(super) fn new(node: NodeUid, host: u32, head: Client) -> Arc<Self> {
        let (table, times, changed) = (Mutex::default(), Mutex::default(), Notify::new());
        Arc::new(SimProcesses { node, host, head, table, times, changed })
    }

    fn start(self: &Arc<Self>, table: &mut Table, uid: NodeUid, job: JobId, role: Role) {
        if table.processes.contains_key(&uid) {
            return;
        }
        let (told, is_told) = watch::channel(false);
        table.processes.insert(uid, Entry { role, ready: false, told });
        tokio::spawn(Arc::clone(self).run(uid, job, role, is_told, plan(role)));
    }

    async fn run(
        self: Arc<Self>,
        uid: NodeUid,
        job: JobId,
        role: Role,
        mut is_told: watch::Receiver<bool>,
        plan: Plan,
    ) {
        sleep(plan.starts).await;
        if !*is_told.borrow() && !self.is_fenced() {
            state::process_begins(self.host, self.node, uid, job, role);
            self.note_ready(uid);
            let mut until = Instant::now() + plan.lives;
            loop {
                state::process_acts(self.node, uid);
                let acts_at = Instant::now() + plan.acts_every;
                let was_told = *is_told.borrow();
                if !was_told && timeout_at(acts_at.min(until), is_told.wait_for(|told| *told)).await.is_ok() {
                    until = until.min(Instant::now() + plan.ends);
                    continue;
                }
                sleep_until(acts_at.min(until)).await;
                if self.is_fenced() {
                    return;
                }
                if Instant::now() >= until {
                    break;
                }
            }
            state::process_ends(self.node, uid, *is_told.borrow());
        }
        self.tell_of_the_end(uid, role, plan.succeeds).await;
    }

    fn note_ready(&self, uid: NodeUid) {
        if let Some(entry) = self.table.lock().processes.get_mut(&uid) {
            entry.ready = true;
        }
        self.changed.notify_one();
    }

    /// As the daemon does: until the head knows, the process is listed as running.
    async fn tell_of_the_end(&self, uid: NodeUid, role: Role, succeeds: bool) {
        let status = match role {
            Role::Driver if succeeds => DriverStatus::Succeeded,
            _ => DriverStatus::Failed { reason: "signal 9".to_owned() },
        };
        // What it will not hear of is no news to it.
        let _ = tell_of_end(&self.head, (self.node, uid), &status, || self.is_fenced()).await;
        self.table.lock().processes.remove(&uid);
        self.changed.notify_one();
    }

    fn is_fenced(&self) -> bool {
        self.table.lock().fenced
    }
}

fn plan(role: Role) -> Plan {
    state::draw(|random| {
        let mut between = |low, high| Duration::from_millis(random.between(low, high));
        let (starts, lives, acts_every) = (between(5, 150), between(300, 60_000), between(100, 400));
        let ends = match role {
            Role::Driver => between(0, 1_500),
            _ => between(0, 200),
        };
        let (forever, succeeds) = (random.one_in(2), random.one_in(2));
        let lives = if forever || state::is_calm_after(lives) { FOR_EVER } else { lives };
        Plan { starts, lives, ends, acts_every, succeeds }
    })
}

impl Hosted for SimProcesses {
    fn running(&self) -> Running {
        let table = self.table.lock();
        let of = |is_driver| table.processes.iter().filter(move |(_, it)| (it.role == Role::Driver) == is_driver);
        let worker = |(uid, entry): (&NodeUid, &Entry)| RunningWorker { uid: *uid, ready: entry.ready, pid: 1 };
        Running {
            seen: table.seen,
            workers: of(false).map(worker).collect(),
            drivers: of(true).map(|(uid, _)| *uid).collect(),
        }
    }

    fn is_idle(&self) -> bool {
        self.table.lock().processes.is_empty()
    }

    fn times(&self) -> LeaseTimes {
        *self.times.lock()
    }

    fn set_times(&self, times: LeaseTimes) {
        *self.times.lock() = times;
    }

    fn changed(&self) -> &Notify {
        &self.changed
    }

    fn reconcile(self: &Arc<Self>, assignment: Assignment) {
        let mut table = self.table.lock();
        if table.fenced || assignment.revision < table.seen {
            return;
        }
        table.seen = assignment.revision;
        let workers = assignment.workers.iter().map(|spec| {
            let role = spec.isolated.as_ref().map_or(Role::Worker(spec.order), |own| Role::Isolated(own.lease));
            (spec.uid, (spec.job, role))
        });
        let drivers = assignment.drivers.iter().map(|spec| (spec.uid, (spec.job, Role::Driver)));
        let wanted: BTreeMap<_, _> = workers.chain(drivers).collect();
        let unwanted = table.processes.iter().filter(|(uid, _)| !wanted.contains_key(uid));
        unwanted.for_each(|(_, entry)| entry.tell());
        for (uid, (job, role)) in wanted {
            self.start(&mut table, uid, job, role);
        }
        drop(table);
        self.changed.notify_one();
    }

    async fn leave(&self, _: &str) {
        self.table.lock().processes.values().filter(|entry| entry.role != Role::Driver).for_each(Entry::tell);
        let left = async {
            while self.table.lock().processes.values().any(|entry| entry.role != Role::Driver) {
                self.changed.notified().await;
            }
        };
        let _ = timeout(limits::LEAVE_WITHIN, left).await;
    }

    fn fence(&self) {
        self.table.lock().fenced = true;
        state::processes_are_killed(self.node);
    }
}
