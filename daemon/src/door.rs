//! The node's one port: processes of jobs get the connections that are for them, and who is for the node itself proves who it is.

use std::net::SocketAddr;
use std::sync::Arc;

use mobula_control::{Service, serve_certified};
use mobula_identity::{Head as Identity, UnixTime};
use mobula_transport::tls::{Accepted, Door, Endpoint, Knock, knock};
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
}

/// Serves the port for ever.
pub(crate) async fn keep<S: Service + 'static>(
    listener: TcpListener,
    processes: Arc<Processes>,
    leading: Option<Arc<Leading<S>>>,
) {
    let door = Door::default();
    let conversations = Arc::new(Semaphore::new(CONVERSATIONS_MAX));
    loop {
        let (stream, address) = mobula_transport::tcp::accept_next(&listener).await;
        let Some(place) = door.enter(address.ip()) else {
            tracing::debug!(%address, "too many handshakes at once, refused");
            continue;
        };
        let (processes, leading, conversations) = (Arc::clone(&processes), leading.clone(), Arc::clone(&conversations));
        tokio::spawn(async move {
            match welcome(stream, address, &processes, leading.as_deref()).await {
                Ok(Some((leading, accepted))) => serve(leading, accepted, place, &conversations).await,
                Ok(None) => {}
                Err(error) => tracing::debug!(%address, %error, "connection refused"),
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

async fn serve<S: Service>(
    leading: &Leading<S>,
    accepted: Accepted,
    place: mobula_transport::tls::Place,
    conversations: &Semaphore,
) {
    match accepted {
        Accepted::Joiner(stream) => {
            let address = stream.address();
            match leading.identity.serve(stream, UnixTime::now()).await {
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
