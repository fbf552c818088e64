//! Following a subscription over several connections.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mobula_control::{
    Client, Home, Peer, Refusal, Reply, Request, SOCKET, Service, Target, WatchAssignment, follow, serve_local,
};
use mobula_core::NodeUid;
use mobula_core::cluster::{Assignment, Revision};
use mobula_transport::unix::Listener;

/// Refuses the first, ends the second, breaks the third off, and goes on with the fourth; each begins with the newest.
#[derive(Default)]
struct Unsteady {
    times: AtomicU64,
}

impl Service for Unsteady {
    async fn serve(&self, _peer: &Peer, request: Request, mut reply: Reply<'_>) -> io::Result<()> {
        assert!(matches!(request, Request::WatchAssignment(_)), "{request:?}");
        let number = self.times.fetch_add(1, Ordering::Relaxed);
        if number == 0 {
            return reply.refuse(Refusal::NotNow("it is busy".to_owned())).await;
        }
        reply.item(&Assignment { revision: Revision { term: 1, number }, ..Assignment::default() }).await?;
        match number {
            1 => reply.end().await,
            2 => Err(io::ErrorKind::BrokenPipe.into()),
            _ => {
                reply.gone().await;
                Ok(())
            }
        }
    }
}

#[tokio::test]
async fn a_subscription_is_asked_for_again_until_its_listener_has_enough() {
    let place = tempfile::tempdir().expect("a directory");
    let home = Home::create(&place.path().join("home")).expect("made");
    let listener = Listener::bind(home.directory(), SOCKET).expect("a socket");
    let service = Arc::new(Unsteady::default());
    let serving = Arc::clone(&service);
    let door = tokio::spawn(async move {
        loop {
            let (stream, service) = (listener.accept_next().await, Arc::clone(&serving));
            tokio::spawn(async move { serve_local(&*service, stream).await });
        }
    });
    let client = Client::new(Target::Local(home.directory().path().to_owned()));
    let mut heard = Vec::new();
    let following = follow(&client, WatchAssignment { node: NodeUid(7) }, |assignment| {
        heard.push(assignment.map(|assignment| assignment.revision.number));
        heard.last() != Some(&Some(3))
    });
    tokio::time::timeout(Duration::from_secs(30), following).await.expect("it ends with the third");
    assert_eq!(heard, [Some(1), None, Some(2), Some(3)]);
    assert_eq!(service.times.load(Ordering::Relaxed), 4);
    door.abort();
}
