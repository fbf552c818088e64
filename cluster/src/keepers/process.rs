//! The driver of a keeper: drives a job that is there for detached actors alone, until it has none.

use std::process::ExitCode;

use mobula_core::limits;

use crate::cluster::Cluster;
use crate::error::ClusterError;
use crate::node_process::begin_process;

/// Keeps detached actors until the head says that there are none.
pub(crate) fn run() -> ExitCode {
    begin_process();
    match actix_rt::System::new().block_on(keep()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn keep() -> Result<(), ClusterError> {
    let gone = || ClusterError::Unsupported("a keeper of detached actors is started by a node of a cluster".to_owned());
    let cluster = Cluster::running().await?.ok_or_else(gone)?;
    let driver = cluster.driver().ok_or_else(gone)?;
    loop {
        tokio::time::sleep(limits::KEEPER_IDLE / 4).await;
        match driver.may_close().await {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) if error.is_final() => return Err(error.into()),
            Err(error) => tracing::debug!(%error, "the head was not asked whether there is anything to keep"),
        }
    }
    cluster.shutdown().await;
    Ok(())
}
