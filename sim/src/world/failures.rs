//! What breaks, how often, and for how long: given in the world file, or from a published profile.

use muster_common::Name;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A year.
pub(crate) const REPAIR_S_MAX: u64 = 366 * 86_400;

/// Failures of machines. Each kind is a Poisson process for each machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Failures {
    /// A set of published rates: `meta-rsc1`, `meta-rsc2` or `llama3`. Kinds given beside it
    /// replace its own.
    pub profile: Option<String>,
    /// One device of a node: whoever holds it is stopped, and it stays in quarantine.
    pub gpu: Option<Rate>,
    /// The machine goes down and comes back with another boot.
    pub node: Option<Rate>,
    /// A rank of every gang on the node exits with 1; nothing has to be repaired.
    pub software: Option<Rate>,
    /// A domain of `leaf_level` cannot be reached; what runs there is lost.
    pub leaf: Option<Rate>,
    pub leaf_level: Option<Name>,
    /// Nodes that fail more often than others.
    pub lemons: Lemons,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Failures in a thousand days of one machine (or domain).
    pub per_1000_days: f64,
    /// Mean of the exponential repair time; 0 = none, the machine is back at once.
    #[serde(default)]
    pub repair_mean_s: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lemons {
    pub percent_of_nodes: f64,
    /// How many times the rate of other nodes.
    pub times: f64,
}

impl Default for Lemons {
    fn default() -> Self {
        Self { percent_of_nodes: 0.0, times: 1.0 }
    }
}

/// The kinds whose rate is per node; also the order in which they are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Gpu,
    Node,
    Software,
    Leaf,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Gpu, Kind::Node, Kind::Software, Kind::Leaf];

    pub const fn word(self) -> &'static str {
        match self {
            Kind::Gpu => "gpu",
            Kind::Node => "node",
            Kind::Software => "software",
            Kind::Leaf => "leaf",
        }
    }
}

/// The rates in force, by [`Kind`].
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Rates {
    pub gpu: Option<Rate>,
    pub node: Option<Rate>,
    pub software: Option<Rate>,
    pub leaf: Option<Rate>,
}

impl Rates {
    /// `None` where it never happens.
    pub fn of(&self, kind: Kind) -> Option<Rate> {
        self.given(kind).filter(|rate| rate.per_1000_days > 0.0)
    }

    fn given(&self, kind: Kind) -> Option<Rate> {
        match kind {
            Kind::Gpu => self.gpu,
            Kind::Node => self.node,
            Kind::Software => self.software,
            Kind::Leaf => self.leaf,
        }
    }
}

#[derive(Deserialize)]
struct Published {
    profiles: BTreeMap<String, Profile>,
    causes: Causes,
    leaf: Leaf,
    repair_mean_s: Repairs,
}

#[derive(Deserialize)]
struct Profile {
    per_1000_node_days: f64,
}

#[derive(Deserialize)]
struct Causes {
    gpu: BTreeMap<String, f64>,
    node: BTreeMap<String, f64>,
    software: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct Leaf {
    per_1000_leaf_days: f64,
}

#[derive(Deserialize)]
struct Repairs {
    gpu: u64,
    node: u64,
    leaf: u64,
}

fn published() -> Published {
    serde_json::from_str(include_str!("../../data/failures.json")).expect("the file of the source tree is sound")
}

impl Failures {
    /// What is in force: the profile, overlaid with what is given.
    ///
    /// # Errors
    /// An unknown profile, or a number that is none.
    pub fn rates(&self) -> Result<Rates, String> {
        let base = self.profile.as_deref().map(profile).transpose()?.unwrap_or_default();
        let rates = Rates {
            gpu: self.gpu.or(base.gpu),
            node: self.node.or(base.node),
            software: self.software.or(base.software),
            leaf: self.leaf.or(base.leaf.filter(|_| self.leaf_level.is_some())),
        };
        for (kind, rate) in Kind::ALL.into_iter().filter_map(|kind| Some((kind, rates.given(kind)?))) {
            let kind = kind.word();
            if !(0.0..=1e6).contains(&rate.per_1000_days) {
                return Err(format!("failures.{kind}.per_1000_days must be from 0 to 1000000"));
            }
            if rate.repair_mean_s > REPAIR_S_MAX {
                return Err(format!("failures.{kind}.repair_mean_s is at most {REPAIR_S_MAX}"));
            }
        }
        if rates.leaf.is_some() && self.leaf_level.is_none() {
            return Err("failures.leaf needs failures.leaf_level, the level of the fabric that fails as one".into());
        }
        let Lemons { percent_of_nodes, times } = self.lemons;
        if !(0.0..=100.0).contains(&percent_of_nodes) || !(0.0..=1e6).contains(&times) {
            return Err("failures.lemons: percent_of_nodes is from 0 to 100, times from 0 to 1000000".into());
        }
        Ok(rates)
    }

    /// Does anything ever break?
    pub fn is_none(&self) -> bool {
        self.rates().is_ok_and(|rates| Kind::ALL.into_iter().all(|kind| rates.of(kind).is_none()))
    }
}

/// A published rate, split by the causes of another publication.
fn profile(name: &str) -> Result<Rates, String> {
    let published = published();
    let Some(profile) = published.profiles.get(name) else {
        let known: Vec<&str> = published.profiles.keys().map(String::as_str).collect();
        return Err(format!("failures.profile `{name}` is not known; there are {}", known.join(", ")));
    };
    let sum = |causes: &BTreeMap<String, f64>| causes.values().sum::<f64>();
    let Causes { gpu, node, software } = &published.causes;
    let all = sum(gpu) + sum(node) + sum(software);
    let rate = |causes, repair_mean_s| {
        Some(Rate { per_1000_days: profile.per_1000_node_days * sum(causes) / all, repair_mean_s })
    };
    let repair = &published.repair_mean_s;
    Ok(Rates {
        gpu: rate(gpu, repair.gpu),
        node: rate(node, repair.node),
        software: rate(software, 0),
        leaf: Some(Rate { per_1000_days: published.leaf.per_1000_leaf_days, repair_mean_s: repair.leaf }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_has_its_published_total() {
        let failures = Failures { profile: Some("meta-rsc1".into()), ..Failures::default() };
        let rates = failures.rates().unwrap();
        let per_node = [Kind::Gpu, Kind::Node, Kind::Software];
        let total: f64 = per_node.iter().map(|kind| rates.of(*kind).unwrap().per_1000_days).sum();
        assert!((total - 6.5).abs() < 1e-9);
        // Without a level that fails as one, no leaf fails.
        assert_eq!(rates.leaf, None);
    }

    #[test]
    fn a_rate_of_0_is_never() {
        let rates = toml::from_str::<Failures>("profile = \"meta-rsc1\"\ngpu = { per_1000_days = 0.0 }\n").unwrap();
        let rates = rates.rates().unwrap();
        assert!(rates.of(Kind::Gpu).is_none() && rates.of(Kind::Node).is_some());
    }

    #[test]
    fn mistakes_are_named() {
        let told = |text: &str| toml::from_str::<Failures>(text).unwrap().rates().unwrap_err();
        assert!(told("profile = \"nobody\"").contains("meta-rsc1"));
        assert!(told("leaf = { per_1000_days = 1.0 }").contains("leaf_level"));
        for rate in ["1e9", "-1.0", "-0.001", "nan", "inf", "-inf"] {
            for kind in ["gpu", "node", "software"] {
                let why = told(&format!("{kind} = {{ per_1000_days = {rate} }}"));
                assert!(why.contains(&format!("failures.{kind}.per_1000_days")), "{rate}: {why}");
            }
            assert!(
                told(&format!("leaf_level = \"leaf\"\nleaf = {{ per_1000_days = {rate} }}"))
                    .contains("failures.leaf.per")
            );
        }
        let repair = format!("node = {{ per_1000_days = 1.0, repair_mean_s = {} }}", i64::MAX);
        assert!(told(&repair).contains("failures.node.repair_mean_s"));
        assert!(told("lemons = { percent_of_nodes = 101.0 }").contains("lemons"));
    }
}
