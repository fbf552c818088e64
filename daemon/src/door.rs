//! The node's one port: processes of jobs get the connections that are for them, and who is for the node itself proves who it is.

use std::net::SocketAddr;
use std::sync::Arc;

use mobula_control::{Service, serve_certified};
use mobula_identity::{Asked, Head as Identity, UnixTime};
use mobula_transport::tls::{Accepted, Door, Endpoint, Entrance, Knock, Place, knock};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::processes::Processes;

/// Certified peers that may talk of the cluster at the same time.
const CONVERSATIONS_MAX: usize = 4096;

/// What answers those who are for the node itself: the head alone does.
pub(crate) struct Leading<S> {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) service: Arc<S>,
    /// Of several heads only one lets others in: who asks another goes on.
    pub(crate) lets_in: Box<dyn Fn() -> bool + Send + Sync>,
}

/// Serves the port for ever.
pub(crate) async fn keep<S: Service + 'static>(
    listener: TcpListener,
    processes: Arc<Processes>,
    leading: Option<Arc<Leading<S>>>,
) {
    let entrance = match Entrance::open(listener, Door::default()) {
        Ok(entrance) => entrance,
        Err(error) => return tracing::error!(%error, "the port cannot be kept"),
    };
    let conversations = Arc::new(Semaphore::new(CONVERSATIONS_MAX));
    loop {
        let (stream, address, mut place) = entrance.next().await;
        let (processes, leading, conversations) = (Arc::clone(&processes), leading.clone(), Arc::clone(&conversations));
        tokio::spawn(async move {
            match place.hold(welcome(stream, address, &processes, leading.as_deref())).await {
                Some(Ok(Some((leading, accepted)))) => serve(leading, accepted, place, &conversations).await,
                Some(Ok(None)) => {}
                Some(Err(error)) => tracing::debug!(%address, %error, "connection refused"),
                None => tracing::debug!(%address, "too slow for a full door, dropped"),
            }
        });
    }
}

type Refused = Box<dyn std::error::Error + Send + Sync>;

async fn welcome<'a, S>(
    mut stream: TcpStream,
    address: SocketAddr,
    processes: &Processes,
    leading: Option<&'a Leading<S>>,
) -> Result<Option<(&'a Leading<S>, Accepted)>, Refused> {
    match (knock(&mut stream).await?, leading) {
        (Knock::For(target), _) => {
            processes.connection(target, stream.into_std()?);
            Ok(None)
        }
        (Knock::Here, Some(leading)) => Ok(Some((leading, leading.endpoint.accept(stream, address).await?))),
        (Knock::Here, None) => Err("only the head is asked".into()),
    }
}

async fn serve<S: Service>(leading: &Leading<S>, accepted: Accepted, mut place: Place, conversations: &Semaphore) {
    match accepted {
        Accepted::Joiner(stream) => {
            if !(leading.lets_in)() {
                return;
            }
            // What is decided is not broken off: a token is spent by it.
            let Some(asked) = place.hold(Asked::read(stream)).await.filter(|_| place.settle()) else { return };
            let address = asked.address();
            match leading.identity.answer(asked, UnixTime::now()).await {
                Ok(issued) => tracing::info!(%address, uid = %issued.uid, role = %issued.role, "certificate given"),
                Err(refusal) => tracing::warn!(%address, %refusal, "join refused"),
            }
            drop(place);
        }
        Accepted::Controller(stream) => {
            drop(place);
            let address = stream.address();
            match conversations.try_acquire() {
                Ok(_held) => serve_certified(&*leading.service, stream).await,
                Err(_) => tracing::warn!(%address, max = CONVERSATIONS_MAX, "too many conversations at once, refused"),
            }
        }
        // The node itself hosts no actors.
        Accepted::Node(..) => {}
    }
}
