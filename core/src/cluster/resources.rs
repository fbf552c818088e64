//! What a node has and what an actor, a task or a bundle asks for.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Amount, BadFlag};
use crate::limits;

/// Amounts of cores, GPUs, memory and custom resources. What is not named is zero.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Resources {
    /// Cores; fractions may be asked for.
    #[serde(default)]
    pub cpus: Amount,
    /// GPUs. Less than one is a share of one GPU; more is a whole number of them.
    #[serde(default)]
    pub gpus: Amount,
    /// Bytes of memory.
    #[serde(default)]
    pub memory: Amount,
    /// Whatever else the operator has given a name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub custom: BTreeMap<Arc<str>, Amount>,
}

/// The names that are taken.
const CPU: &str = "cpu";
const GPU: &str = "gpu";
const MEMORY: &str = "memory";

const CUSTOM_VALID: &str = "name=amount pairs such as disk=1,license=0.5";

impl Resources {
    /// Nothing.
    pub fn new() -> Self {
        Resources::default()
    }

    /// So many cores, and nothing else.
    pub fn cpus(cpus: Amount) -> Self {
        Resources { cpus, ..Resources::default() }
    }

    /// With so many GPUs.
    #[must_use]
    pub fn with_gpus(mut self, gpus: Amount) -> Self {
        self.gpus = gpus;
        self
    }

    /// With so many bytes of memory.
    #[must_use]
    pub fn with_memory(mut self, memory: Amount) -> Self {
        self.memory = memory;
        self
    }

    /// With so much of a custom resource; nothing of it is as if it were not named.
    #[must_use]
    pub fn with(mut self, name: &str, amount: Amount) -> Self {
        if amount.is_zero() {
            self.custom.remove(name);
        } else {
            self.custom.insert(Arc::from(name), amount);
        }
        self
    }

    /// Reads the custom resources of the command line: `disk=1,license=0.5`.
    ///
    /// # Errors
    /// [`BadFlag`] names `flag`, the pair, and what is valid.
    pub fn parse_custom(flag: &str, text: &str) -> Result<BTreeMap<Arc<str>, Amount>, BadFlag> {
        let mut custom = BTreeMap::new();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let bad = |reason: &str| BadFlag::new(flag, pair, reason, CUSTOM_VALID);
            let (name, amount) = pair.split_once('=').ok_or_else(|| bad("it has no ="))?;
            check_name(name).map_err(&bad)?;
            let amount = Amount::parse(flag, amount).map_err(|error| bad(&error.reason))?;
            if custom.len() >= limits::CUSTOM_RESOURCES_MAX {
                return Err(bad(&format!("{} names is the most", limits::CUSTOM_RESOURCES_MAX)));
            }
            if custom.insert(Arc::from(name), amount).is_some() {
                return Err(bad("it is there twice"));
            }
        }
        custom.retain(|_, amount| !amount.is_zero());
        Ok(custom)
    }

    /// Whether this can be asked for or offered: names and numbers within their limits. What comes from a peer is checked before
    /// it is used.
    ///
    /// # Errors
    /// [`BadFlag`] names the resource, as in `--resources`, and what is valid.
    pub fn check(&self) -> Result<(), BadFlag> {
        let most = [("--num-cpus", self.cpus), ("--num-gpus", self.gpus), ("--memory", self.memory)];
        for (flag, amount) in most {
            if amount > Amount::MAX {
                return Err(BadFlag::new(flag, &amount.to_string(), "it is too large", "at most 10^15 units"));
            }
        }
        if self.gpus > Amount::ONE && !self.gpus.is_whole() {
            let valid = "a part of one GPU such as 0.5, or a whole number of them";
            return Err(BadFlag::new("--num-gpus", &self.gpus.to_string(), "it is part of a GPU and more", valid));
        }
        if self.gpus > Amount::units(limits::GPUS_MAX as u64) {
            let valid = format!("at most {}", limits::GPUS_MAX);
            return Err(BadFlag::new("--num-gpus", &self.gpus.to_string(), "it is too large", &valid));
        }
        if self.custom.len() > limits::CUSTOM_RESOURCES_MAX {
            let valid = format!("at most {} names", limits::CUSTOM_RESOURCES_MAX);
            return Err(BadFlag::new("--resources", &self.custom.len().to_string(), "too many", &valid));
        }
        for (name, amount) in &self.custom {
            let reason = if *amount > Amount::MAX { Err("it is too large") } else { check_name(name) };
            reason.map_err(|reason| BadFlag::new("--resources", name, reason, CUSTOM_VALID))?;
        }
        Ok(())
    }

    /// True if there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// How much there is of `name`.
    pub fn get(&self, name: &str) -> Amount {
        match name {
            CPU => self.cpus,
            GPU => self.gpus,
            MEMORY => self.memory,
            _ => self.custom.get(name).copied().unwrap_or_default(),
        }
    }

    /// What there is, by name, without what there is nothing of.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Amount)> {
        let known = [(CPU, self.cpus), (GPU, self.gpus), (MEMORY, self.memory)];
        let custom = self.custom.iter().map(|(name, amount)| (&**name, *amount));
        known.into_iter().chain(custom).filter(|(_, amount)| !amount.is_zero())
    }

    /// True if `asked` can be taken from this.
    pub fn fits(&self, asked: &Resources) -> bool {
        asked.cpus <= self.cpus
            && asked.gpus <= self.gpus
            && asked.memory <= self.memory
            && asked.custom.iter().all(|(name, amount)| *amount <= self.get(name))
    }

    /// What of `asked` there is too little of.
    pub fn lacking<'a>(&'a self, asked: &'a Resources) -> impl Iterator<Item = Lack> + 'a {
        asked.iter().filter_map(|(name, amount)| {
            let there = self.get(name);
            (amount > there).then(|| Lack { name: name.to_owned(), asked: amount, there })
        })
    }

    /// Takes `asked` away, if all of it is there.
    #[must_use]
    pub fn take(&mut self, asked: &Resources) -> bool {
        if !self.fits(asked) {
            return false;
        }
        let minus = |from: Amount, less: Amount| from.minus(less).unwrap_or_default();
        self.cpus = minus(self.cpus, asked.cpus);
        self.gpus = minus(self.gpus, asked.gpus);
        self.memory = minus(self.memory, asked.memory);
        for (name, amount) in &asked.custom {
            if let Some(there) = self.custom.get_mut(name) {
                *there = minus(*there, *amount);
            }
        }
        true
    }

    /// Puts `more` to it.
    pub fn put(&mut self, more: &Resources) {
        self.cpus = self.cpus.plus(more.cpus);
        self.gpus = self.gpus.plus(more.gpus);
        self.memory = self.memory.plus(more.memory);
        for (name, amount) in &more.custom {
            let there = self.custom.entry(Arc::clone(name)).or_default();
            *there = there.plus(*amount);
        }
    }
}

impl fmt::Display for Resources {
    /// `2 cpu, 1 gpu, 4294967296 memory, 0.5 license`, or `nothing`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for (name, amount) in self.iter() {
            write!(f, "{between}{amount} {name}")?;
            between = ", ";
        }
        if between.is_empty() { f.write_str("nothing") } else { Ok(()) }
    }
}

/// Of what there is too little.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Lack {
    /// The resource.
    pub name: String,
    /// How much was asked for.
    pub asked: Amount,
    /// How much there is.
    pub there: Amount,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} {}", self.there, self.asked, self.name)
    }
}

fn check_name(name: &str) -> Result<(), &'static str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    match name {
        "" => Err("it has no name"),
        CPU | GPU | MEMORY | "cpus" | "gpus" => Err("there is a flag of its own for it"),
        _ if name.len() > limits::LABEL_BYTES_MAX => Err("its name is too long"),
        _ if !name.chars().all(is_word) => Err("a name has letters, digits and _-./"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amount(text: &str) -> Amount {
        Amount::parse("--num-cpus", text).expect("a number")
    }

    fn node() -> Resources {
        Resources::cpus(amount("4")).with_gpus(amount("2")).with("disk", amount("1"))
    }

    #[test]
    fn what_is_taken_and_put_back_is_there_again() {
        let mut there = node();
        let asked = Resources::cpus(amount("0.1")).with("disk", amount("0.3"));
        for _ in 0..3 {
            assert!(there.take(&asked));
        }
        assert!(!there.take(&asked), "only 0.1 disk is left");
        assert_eq!(there.to_string(), "3.7 cpu, 2 gpu, 0.1 disk");
        (0..3).for_each(|_| there.put(&asked));
        assert_eq!(there, node());
    }

    #[test]
    fn what_is_lacking_is_named() {
        let asked = Resources::cpus(amount("5")).with_memory(amount("7")).with("disk", amount("1"));
        let lacks: Vec<String> = node().lacking(&asked).map(|lack| lack.to_string()).collect();
        assert_eq!(lacks, ["4 of 5 cpu", "0 of 7 memory"]);
        assert!(!node().fits(&asked));
        assert_eq!(Resources::new().to_string(), "nothing");
    }

    #[test]
    fn custom_resources_are_read_from_the_command_line() {
        let custom = Resources::parse_custom("--resources", "disk=1, license=0.5,none=0").expect("pairs");
        let custom: Vec<String> = custom.iter().map(|(name, amount)| format!("{name}={amount}")).collect();
        assert_eq!(custom, ["disk=1", "license=0.5"]);
        for text in ["disk", "=1", "disk=x", "disk=1,disk=2", "cpu=1", "gpu=1", "a b=1", "disk=-1"] {
            let error = Resources::parse_custom("--resources", text).expect_err(text).to_string();
            assert!(error.contains("--resources") && error.contains("license=0.5"), "{error}");
        }
    }

    #[test]
    fn a_request_is_checked_against_the_limits() {
        node().check().expect("plain");
        Resources::new().with_gpus(amount("0.25")).check().expect("a share");
        Resources::new().with_gpus(amount("1.5")).check().expect_err("part of a GPU and more");
        Resources::new().with_gpus(amount("100000")).check().expect_err("too many");
        Resources::new().with("cpu", Amount::ONE).check().expect_err("a name that is taken");
        let many =
            (0..=limits::CUSTOM_RESOURCES_MAX).fold(Resources::new(), |r, n| r.with(&format!("r{n}"), Amount::ONE));
        many.check().expect_err("too many names");
    }

    #[test]
    fn they_travel() {
        let bytes = crate::codec::encode(&node()).expect("plain data");
        assert_eq!(crate::codec::decode::<Resources>(&bytes).expect("own bytes"), node());
        let bytes = crate::codec::encode(&Resources::new()).expect("plain data");
        assert_eq!(bytes, b"\x83\xa4cpus\x00\xa4gpus\x00\xa6memory\x00");
    }
}
