//! The socket on which this user's programs ask the node of their host.

use std::io;
use std::sync::Arc;

use mobula_control::{
    BeginDriver, DriverBegun, HasExecutable, Heads, Peer, Refusal, Reply, Request, Service, StopNode, serve_local,
};
use mobula_transport::unix::Listener;
use tokio::sync::watch;

use crate::agent::Hosted;
use crate::processes::Processes;
use crate::programs::Programs;

/// Serves the socket for ever.
pub(crate) async fn keep<S: Service + 'static>(listener: Listener, service: Arc<S>) {
    loop {
        let stream = listener.accept_next().await;
        if let Err(error) = listener.admit(&stream) {
            tracing::warn!(%error, "refused");
            continue;
        }
        let service = Arc::clone(&service);
        tokio::spawn(async move { serve_local(&*service, stream).await });
    }
}

/// What a node answers that is not the head: drivers that it has started get their certificates here, and it can be stopped.
pub(crate) struct NodeService {
    pub(crate) processes: Arc<Processes>,
    pub(crate) programs: Arc<Programs>,
    pub(crate) heads: Heads,
    pub(crate) stop: watch::Sender<bool>,
}

impl Service for NodeService {
    async fn serve(&self, _peer: &Peer, request: Request, mut reply: Reply<'_>) -> io::Result<()> {
        match request {
            Request::HasExecutable(HasExecutable { executable }) => {
                reply.answer::<HasExecutable>(Ok(self.programs.find(&executable).is_some())).await
            }
            Request::BeginDriver(begin) => reply.answer::<BeginDriver>(self.begin_driver(begin).await).await,
            Request::StopNode(_) => {
                self.stop.send_replace(true);
                reply.answer::<StopNode>(Ok(())).await
            }
            _ => reply.refuse(self.elsewhere()).await,
        }
    }
}

impl NodeService {
    fn elsewhere(&self) -> Refusal {
        let head = self.heads.current();
        Refusal::Invalid(format!(
            "this node is not the head: ask on the host of the head, {}, or log in with `mobula login --address {head}` and ask with `--address {head}`",
            head.ip()
        ))
    }

    async fn begin_driver(&self, begin: BeginDriver) -> Result<DriverBegun, Refusal> {
        let (job, uid) = begin.submitted.ok_or_else(|| self.elsewhere())?;
        if !self.processes.drives(uid, job) {
            return Err(Refusal::NotFound { what: format!("driver {uid} of {job} that was started here") });
        }
        let certified = self.processes.certify(uid, begin.csr).await;
        let certified = certified.map_err(|error| Refusal::NotNow(error.to_string()))?;
        Ok(DriverBegun { job, uid, certified, times: self.processes.times(), heads: self.heads.all() })
    }
}
