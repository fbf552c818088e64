//! The workers of keepers, as the head tells of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use mobula_control::handover::{Keeper, PeerWorker};
use mobula_control::{Client, WatchJob, follow};
use mobula_core::cluster::JobId;
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use crate::driver::live_workers;

type Known = Arc<Mutex<BTreeMap<JobId, Vec<PeerWorker>>>>;

/// Follows the jobs whose detached actors another job may call, and tells of all their workers together whenever one of them has changed. Ends
/// when it is dropped.
pub struct FollowedKeepers {
    client: Arc<Client>,
    followed: HashMap<JobId, AbortHandle>,
    known: Known,
    tell: Arc<dyn Fn(Vec<Keeper>) + Send + Sync>,
}

impl FollowedKeepers {
    /// None yet. `tell` must not wait.
    pub fn new(client: Arc<Client>, tell: impl Fn(Vec<Keeper>) + Send + Sync + 'static) -> Self {
        FollowedKeepers { client, followed: HashMap::new(), known: Known::default(), tell: Arc::new(tell) }
    }

    /// These are the ones. To be called on a tokio runtime.
    pub fn are(&mut self, keepers: &[JobId]) {
        let gone: Vec<JobId> = self.followed.keys().filter(|known| !keepers.contains(known)).copied().collect();
        for job in gone {
            if let Some(followed) = self.followed.remove(&job) {
                followed.abort();
            }
            learn(&self.known, &*self.tell, job, None);
        }
        for job in keepers {
            self.followed.entry(*job).or_insert_with(|| {
                let (client, known, tell) = (Arc::clone(&self.client), Arc::clone(&self.known), Arc::clone(&self.tell));
                let job = *job;
                let followed = async move {
                    follow(&client, WatchJob { job }, |view| {
                        // A head that ends the subscription for another reason comes back, or says that the job is none any more.
                        let Some(view) = view else { return true };
                        let is_over = view.phase.is_over();
                        learn(&known, &*tell, job, (!is_over).then(|| live_workers(&view)));
                        !is_over
                    })
                    .await;
                };
                tokio::spawn(followed).abort_handle()
            });
        }
    }
}

fn learn(known: &Known, tell: &(dyn Fn(Vec<Keeper>) + Send + Sync), job: JobId, workers: Option<Vec<PeerWorker>>) {
    // Told under the lock: what is newest is told last.
    let mut known = known.lock();
    match workers {
        Some(workers) => drop(known.insert(job, workers)),
        None => drop(known.remove(&job)),
    }
    tell(known.iter().map(|(job, workers)| Keeper { job: *job, workers: workers.clone() }).collect());
}

impl Drop for FollowedKeepers {
    fn drop(&mut self) {
        self.followed.values().for_each(AbortHandle::abort);
    }
}
