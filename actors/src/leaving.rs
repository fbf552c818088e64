//! A node that ends on purpose: it says so, finishes what others have sent it, and closes with its reason.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use crate::control::{self, Control};
use crate::inbound::Flow;
use crate::node::Node;
use crate::requests::Requests;

/// How often it is looked whether something is in progress still: nobody counts that while the node lives.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What other nodes have in progress here, over all connections.
#[derive(Default)]
pub(crate) struct Conversations(Mutex<Known>);

#[derive(Default)]
struct Known {
    requests: Vec<Weak<Requests>>,
    flows: Vec<Weak<Flow>>,
    /// With so many, those that have gone are forgotten.
    sweep_at: usize,
}

impl Conversations {
    /// A connection begins.
    pub(crate) fn enter(&self, requests: &Arc<Requests>) {
        let mut known = self.0.lock();
        known.requests.retain(|requests| requests.strong_count() > 0);
        known.requests.push(Arc::downgrade(requests));
    }

    /// The first message of a connection to one of the actors here has come.
    pub(crate) fn enter_flow(&self, flow: &Arc<Flow>) {
        let mut known = self.0.lock();
        if known.flows.len() >= known.sweep_at {
            known.flows.retain(|flow| flow.strong_count() > 0);
            known.sweep_at = (2 * known.flows.len()).max(64);
        }
        known.flows.push(Arc::downgrade(flow));
    }

    fn any_in_progress(&self) -> bool {
        let known = self.0.lock();
        // A flow is held by its connection, and by each of its messages until that is answered.
        let messages = known.flows.iter().any(|flow| flow.strong_count() > 1);
        let requests: Vec<_> = known.requests.iter().filter_map(Weak::upgrade).collect();
        // The last one to hold them may be here.
        drop(known);
        messages || requests.iter().any(|requests| requests.any_in_progress())
    }
}

impl Node {
    /// Ends this node in order. It [goes away](Self::go_away): other nodes start nothing new here, and calls that have not been sent fail at
    /// once, as not sent. What they have sent is handled and answered, for `within` at most. Then the node [shuts down](Self::shut_down),
    /// and all links end with a goodbye and `reason`, so that nobody looks for it. True if nothing was in progress any more.
    ///
    /// In progress are asks that other nodes wait for, and messages in mailboxes. What a tell has begun and left to a future is not waited
    /// for. Takes place on a tokio runtime; [`control_runtime`](Self::control_runtime) is one that no actor holds up.
    ///
    /// # Cancel safety
    /// Dropping the future leaves a node that goes away, and has not shut down.
    pub async fn leave(&self, reason: &str, within: Duration) -> bool {
        self.go_away(reason);
        let finished = async {
            self.news_is_out().await;
            while self.owes_anybody() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let finished = tokio::time::timeout(within, finished).await.is_ok();
        self.shut_down(reason);
        finished
    }

    /// Waits until all peers have heard that this node goes away, and what they had queued before that is here: their answers to a question
    /// come behind it.
    async fn news_is_out(&self) {
        let links = self.data_links();
        let questions = links.iter().map(|link| async {
            // A link that ends meanwhile brings nothing more.
            let _ = control::request(link, &Control::Report).await;
        });
        futures::future::join_all(questions).await;
    }

    fn owes_anybody(&self) -> bool {
        // In the order in which an answer goes: what has left one place is in the next already.
        self.conversations().any_in_progress()
            || self.any_mail()
            || self.data_links().iter().any(|link| link.bytes_under_way() > 0)
    }
}
