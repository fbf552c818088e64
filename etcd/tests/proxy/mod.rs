//! A wire to etcd that can be cut in one direction or both.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What passes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Wire {
    /// All.
    Whole,
    /// What is asked, and no answer.
    Mute,
    /// Nothing, and nobody is told.
    Cut,
}

/// A wire.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    wire: watch::Sender<Wire>,
}

impl Proxy {
    pub(crate) async fn start(to: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("a port");
        let wire = watch::Sender::new(Wire::Whole);
        let changes = wire.subscribe();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let changes = changes.clone();
                tokio::spawn(async move {
                    // Who connects while it is cut waits.
                    let mut open = changes.clone();
                    if open.wait_for(|wire| *wire != Wire::Cut).await.is_err() {
                        return;
                    }
                    let Ok(far) = TcpStream::connect(to).await else { return };
                    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                    tokio::join!(
                        pass(near_in, far_out, changes.clone(), |wire| wire != Wire::Cut),
                        pass(far_in, near_out, changes, |wire| wire == Wire::Whole),
                    );
                });
            }
        });
        Proxy { address, wire }
    }

    pub(crate) fn set(&self, wire: Wire) {
        self.wire.send_replace(wire);
    }
}

/// Passes bytes on. What was held back is lost with its connection once all passes again.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut changes: watch::Receiver<Wire>,
    passes: fn(Wire) -> bool,
) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if !passes(*changes.borrow_and_update()) {
            let _ = changes.wait_for(|wire| *wire == Wire::Whole).await;
            return;
        }
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
