//! A connection that ends while nobody uses it.

use std::io;
use std::time::Duration;

use mobula_control::{Client, Home, ListHeads, Peer, Reply, Request, SOCKET, Service, serve_local};
use mobula_transport::unix::Listener;
use tokio::sync::mpsc;

/// Answers, and hangs up.
struct Brief;

impl Service for Brief {
    async fn serve(&self, _peer: &Peer, _request: Request, mut reply: Reply<'_>) -> io::Result<()> {
        reply.answer::<ListHeads>(Ok(Vec::new())).await?;
        Err(io::ErrorKind::ConnectionAborted.into())
    }

    fn denied(&self, _peer: &Peer, _request: &'static str, _needs: mobula_identity::Capability) {}
}

#[tokio::test]
async fn a_question_over_a_connection_that_has_ended_is_asked_over_another() {
    let place = tempfile::tempdir().expect("a directory");
    let home = Home::create(&place.path().join("home")).expect("made");
    let listener = Listener::bind(home.directory(), SOCKET).expect("a socket");
    let (hung_up, mut ends) = mpsc::unbounded_channel();
    let door = tokio::spawn(async move {
        loop {
            let stream = listener.accept_next().await;
            serve_local(&Brief, stream).await;
            if hung_up.send(()).is_err() {
                return;
            }
        }
    });
    let client = Client::local(home.directory().path());
    for _ in 0..3 {
        assert_eq!(client.ask_within(ListHeads {}, Duration::from_secs(30)).await.expect("it was not asked"), []);
        ends.recv().await.expect("the door is there");
    }
    door.abort();
}
