//! What must hold, one file each.
mod i05_names;
mod i05_one_activation;
mod i10_uids;
mod i11_acknowledged;
mod i11_names;
mod i11_room;
mod i12_silence;
mod i12_views;
mod i14_given_back;
mod i15_outages;
mod i18_isolated;
mod i20_leases;
mod i21_both_sides;
mod i27_repeated;

use super::fact::{Fact, Role};
use crate::params::Time;

/// Watches the facts of one world.
pub(crate) trait Oracle {
    /// What it stands for.
    fn promise(&self) -> &'static str;

    /// Something has happened.
    ///
    /// # Errors
    /// How the promise was broken.
    fn fact(&mut self, fact: &Fact, now: Time) -> Result<(), String>;
}

/// All of them.
pub(crate) fn all() -> Vec<Box<dyn Oracle>> {
    vec![
        Box::new(i05_names::Names::default()),
        Box::new(i05_one_activation::Activations::default()),
        Box::new(i10_uids::Uids::default()),
        Box::new(i11_acknowledged::Acknowledged::default()),
        Box::new(i11_names::Names::default()),
        Box::new(i11_room::Room::default()),
        Box::new(i12_silence::Silence::default()),
        Box::new(i12_views::Views),
        Box::new(i14_given_back::GivenBack),
        Box::new(i15_outages::Outages::default()),
        Box::new(i18_isolated::Isolated::default()),
        Box::new(i20_leases::Leases::default()),
        Box::new(i21_both_sides::BothSides),
        Box::new(i27_repeated::Repeated::default()),
    ]
}
