//! What must hold, one file each.
mod i32_cut;
mod i33_tokens;
mod s01_returns;

use super::fact::Fact;
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
        Box::new(i32_cut::CutOff::default()),
        Box::new(i33_tokens::Tokens::default()),
        Box::new(s01_returns::Returns::default()),
    ]
}
