//! The head's host: the real keeper over records that outlive its process, and the real server of the control protocol.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use mobula_control::private::serve;
use mobula_daemon::private::{Keeper, Outside};
use mobula_head::HeadConfig;
use tokio::sync::{mpsc, watch};
use turmoil::net::TcpListener;

use super::service::HeadService;
use super::{net, state};

/// Changes that nobody has rung for are seen after this time.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// One life of the head's process.
pub(super) async fn run() -> turmoil::Result {
    let (store, streams) = state::head_starts();
    let (cut, mut cuts) = mpsc::unbounded_channel();
    let outside = Outside { chance: state::chance, date: state::date };
    let keeper = Keeper::open(HeadConfig::default(), Arc::new(store), cut, outside).await?;
    state::head_begins(&keeper);
    let revoked = watch::Sender::new(());
    let service = Arc::new(HeadService { keeper: Arc::clone(&keeper), revoked: revoked.clone() });
    tokio::spawn(Arc::clone(&keeper).tick());
    tokio::spawn(async move {
        while let Some(life) = cuts.recv().await {
            state::cut_off(life);
            revoked.send_replace(());
        }
    });
    tokio::spawn(look(Arc::clone(&keeper)));
    let broken = Arc::clone(&keeper);
    tokio::spawn(async move {
        broken.breaks().await;
        state::head_breaks();
    });
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, net::PORT)).await?;
    loop {
        let (stream, address) = listener.accept().await?;
        let (service, mut stream) = (Arc::clone(&service), streams.add(stream));
        tokio::spawn(async move {
            if let Some(peer) = net::welcome(&mut stream, address).await {
                serve(&*service, &peer, stream).await;
            }
        });
    }
}

/// Tells what the head has decided of nodes and jobs, whenever that may have changed.
async fn look(keeper: Arc<Keeper>) {
    let mut views = keeper.views.subscribe();
    loop {
        keeper.look(|head, now| state::see(&head.nodes(now), &head.jobs())).await;
        let _ = tokio::time::timeout(LOOK_EVERY, views.changed()).await;
    }
}
