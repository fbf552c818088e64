//! An actor that takes resources, and can ask for another from where it is.

use mobula::{Amount, Cluster, Granted};

/// Takes what it is given.
#[derive(Clone, Default)]
pub struct Tenant;

#[mobula::actor]
impl Tenant {
    /// One that takes nothing by itself.
    pub fn new() -> Self {
        Tenant
    }

    /// What it has.
    pub fn granted(&self) -> Option<Granted> {
        mobula::granted()
    }

    /// Spawns another on the cluster that this process belongs to, which takes so many parts of a core; gives its node's name, or the error.
    pub async fn sublet(&self, parts: u64) -> Result<String, String> {
        let cluster = Cluster::connect().await.map_err(|error| error.to_string())?;
        let spawned = cluster.spawn(Tenant::actor().cpus(Amount::parts(parts)).place_within(std::time::Duration::ZERO));
        let tenant = spawned.await.map_err(|error| error.to_string())?;
        Ok(tenant.node().name.to_string())
    }
}
