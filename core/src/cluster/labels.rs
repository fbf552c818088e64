//! What an operator says of a node, and what a request wants of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::BadFlag;
use crate::limits;

const VALID: &str = "key=value pairs such as zone=a,disk=ssd";

/// Keys and values of a node.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// The key of a label that the node of the head has. Drivers go elsewhere while there is room: so they survive the head.
    pub const HEAD: &str = "mobula.head";

    /// None.
    pub fn new() -> Self {
        Labels::default()
    }

    /// With one more.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.0.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Reads `zone=a,disk=ssd`.
    ///
    /// # Errors
    /// [`BadFlag`] names `flag`, the pair, and what is valid.
    pub fn parse(flag: &str, text: &str) -> Result<Self, BadFlag> {
        let mut labels = Labels::new();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let bad = |reason: &str| BadFlag::new(flag, pair, reason, VALID);
            let (key, value) = pair.split_once('=').ok_or_else(|| bad("it has no ="))?;
            if labels.0.insert(key.to_owned(), value.to_owned()).is_some() {
                return Err(bad("its key is there twice"));
            }
        }
        labels.check(flag)?;
        Ok(labels)
    }

    /// Whether keys, values and their number are within the limits.
    ///
    /// # Errors
    /// [`BadFlag`] names `flag`, the label, and what is valid.
    pub fn check(&self, flag: &str) -> Result<(), BadFlag> {
        let bad = |value: &str, reason: &str| Err(BadFlag::new(flag, value, reason, VALID));
        if self.0.len() > limits::LABELS_MAX {
            return bad(&self.0.len().to_string(), &format!("{} labels is the most", limits::LABELS_MAX));
        }
        for (key, value) in &self.0 {
            if key.is_empty() {
                return bad(&format!("={value}"), "it has no key");
            }
            if key.len() > limits::LABEL_BYTES_MAX || value.len() > limits::LABEL_BYTES_MAX {
                return bad(key, &format!("{} bytes is the most", limits::LABEL_BYTES_MAX));
            }
            if key.chars().chain(value.chars()).any(|c| c.is_control() || c == ',' || c == '=') {
                return bad(key, "control characters, commas and = cannot be in it");
            }
        }
        Ok(())
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// All, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for (key, value) in &self.0 {
            write!(f, "{between}{key}={value}")?;
            between = ",";
        }
        Ok(())
    }
}

/// What must hold of one key.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub enum LabelRule {
    /// It has one of these values.
    In(BTreeSet<String>),
    /// It is missing, or has none of these values.
    NotIn(BTreeSet<String>),
    /// It is there.
    Exists,
    /// It is not there.
    Missing,
}

/// What must hold of all keys that are named.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LabelSelector(BTreeMap<String, LabelRule>);

impl LabelSelector {
    /// Every node will do.
    pub fn new() -> Self {
        LabelSelector::default()
    }

    /// `key` has to have this value.
    #[must_use]
    pub fn is(self, key: &str, value: &str) -> Self {
        self.rule(key, LabelRule::In(BTreeSet::from([value.to_owned()])))
    }

    /// `rule` has to hold of `key`.
    #[must_use]
    pub fn rule(mut self, key: &str, rule: LabelRule) -> Self {
        self.0.insert(key.to_owned(), rule);
        self
    }

    /// True if all of it holds.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|(key, rule)| match (rule, labels.get(key)) {
            (LabelRule::In(values), value) => value.is_some_and(|value| values.contains(value)),
            (LabelRule::NotIn(values), value) => value.is_none_or(|value| !values.contains(value)),
            (LabelRule::Exists, value) => value.is_some(),
            (LabelRule::Missing, value) => value.is_none(),
        })
    }

    /// Rules and values in it, which are bounded.
    pub fn len(&self) -> usize {
        let values = |rule: &LabelRule| match rule {
            LabelRule::In(values) | LabelRule::NotIn(values) => values.len(),
            LabelRule::Exists | LabelRule::Missing => 1,
        };
        self.0.values().map(values).sum()
    }

    /// True if it wants nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for (key, rule) in &self.0 {
            let values = |values: &BTreeSet<String>| values.iter().cloned().collect::<Vec<_>>().join("|");
            match rule {
                LabelRule::In(these) => write!(f, "{between}{key}={}", values(these))?,
                LabelRule::NotIn(these) => write!(f, "{between}{key}!={}", values(these))?,
                LabelRule::Exists => write!(f, "{between}{key}")?,
                LabelRule::Missing => write!(f, "{between}!{key}")?,
            }
            between = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_and_written_the_same() {
        let labels = Labels::parse("--labels", "zone=a,disk=ssd").expect("labels");
        assert_eq!(labels.to_string(), "disk=ssd,zone=a");
        assert_eq!(Labels::parse("--labels", "").expect("none"), Labels::new());
        let long = format!("a={}", "x".repeat(limits::LABEL_BYTES_MAX + 1));
        for text in ["zone", "=a", "zone=a,zone=b", "a=b=c", "a=\u{7}", &long] {
            let error = Labels::parse("--labels", text).expect_err(text).to_string();
            assert!(error.contains("--labels") && error.contains("disk=ssd"), "{error}");
        }
        let many = (0..=limits::LABELS_MAX).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        Labels::parse("--labels", &many).expect_err("too many");
    }

    #[test]
    fn a_selector_holds_if_each_of_its_rules_does() {
        let labels = Labels::new().with("zone", "a").with("disk", "ssd");
        let values = |value: &str| BTreeSet::from([value.to_owned(), "z".to_owned()]);
        let all = LabelSelector::new;
        assert!(all().matches(&labels));
        assert!(all().is("zone", "a").rule("disk", LabelRule::Exists).matches(&labels));
        assert!(!all().is("zone", "a").rule("disk", LabelRule::Missing).matches(&labels));
        assert!(all().rule("zone", LabelRule::In(values("a"))).matches(&labels));
        assert!(!all().rule("zone", LabelRule::NotIn(values("a"))).matches(&labels));
        assert!(all().rule("rack", LabelRule::NotIn(values("a"))).matches(&labels));
        assert!(!all().rule("rack", LabelRule::In(values("a"))).matches(&labels));
        assert_eq!(all().is("zone", "a").rule("rack", LabelRule::Missing).to_string(), "!rack,zone=a");
    }
}
