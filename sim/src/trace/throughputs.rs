//! A table of throughputs: steps a second of each kind of work on each device model, as JSON
//! `{model: {kind: {"null": steps per second alone}}}`, the format of Gavel (OSDI 2020). A model
//! with `_unconsolidated` behind its name is for work on more than one node.

use super::Work;
use crate::SimError;
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Debug, Clone, PartialEq)]
pub struct Throughputs {
    models: BTreeMap<String, BTreeMap<String, f64>>,
}

const APART: &str = "_unconsolidated";
/// Under which the table keeps work that shares its device with nothing.
const ALONE: &str = "null";

impl Throughputs {
    /// Reads `.json` or `.json.gz`.
    pub fn read(path: &Path) -> Result<Self, SimError> {
        let text = super::read_text(path)?;
        Self::parse(&text).map_err(|why| SimError::Trace { path: path.to_path_buf(), why })
    }

    pub fn parse(text: &str) -> Result<Self, String> {
        type Table = BTreeMap<String, BTreeMap<String, BTreeMap<String, serde_json::Value>>>;
        let table: Table = serde_json::from_str(text).map_err(|error| format!("no table of throughputs: {error}"))?;
        let alone = |(kind, with): (String, BTreeMap<String, serde_json::Value>)| {
            let steps = with.get(ALONE)?.as_f64()?;
            Some((kind, steps))
        };
        let models: BTreeMap<String, BTreeMap<String, f64>> =
            table.into_iter().map(|(model, kinds)| (model, kinds.into_iter().filter_map(alone).collect())).collect();
        if models.values().all(BTreeMap::is_empty) {
            return Err("the table has no throughput of work that runs alone".into());
        }
        Ok(Self { models })
    }

    /// How long work takes on a model; `None` where it does not run.
    pub fn run_ms(&self, work: &Work, model: &str, apart: bool) -> Option<u64> {
        let of = |model: &str| self.models.get(model)?.get(&work.kind).copied();
        let steps = if apart { of(&format!("{model}{APART}")).or_else(|| of(model)) } else { of(model) };
        let steps = steps.filter(|steps| steps.is_finite() && *steps > 0.0)?;
        Some(((work.steps as f64 * 1000.0 / steps).round() as u64).max(1))
    }

    /// Models that run the work on one node, the fastest first.
    pub fn fastest(&self, work: &Work) -> Vec<(&str, u64)> {
        let models = self.models.keys().filter(|model| !model.ends_with(APART));
        let mut found: Vec<(&str, u64)> =
            models.filter_map(|model| Some((model.as_str(), self.run_ms(work, model, false)?))).collect();
        found.sort_by_key(|(model, run_ms)| (*run_ms, *model));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = r#"{"k80": {"a": {"null": 2.0, "b": [1.0, 1.0]}, "b": {"null": 0.0}},
        "v100": {"a": {"null": 8.0}}, "v100_unconsolidated": {"a": {"null": 4.0}}}"#;

    #[test]
    fn run_times_follow_from_steps() {
        let table = Throughputs::parse(TABLE).unwrap();
        let work = |kind: &str| Work { kind: kind.into(), steps: 80 };
        assert_eq!(table.fastest(&work("a")), [("v100", 10_000), ("k80", 40_000)]);
        assert_eq!(table.run_ms(&work("a"), "v100", true), Some(20_000));
        assert_eq!(table.run_ms(&work("a"), "k80", true), Some(40_000));
        assert_eq!(table.fastest(&work("b")), []);
    }

    #[test]
    fn what_is_no_table_is_refused() {
        assert!(Throughputs::parse("[1]").unwrap_err().contains("no table"));
        assert!(Throughputs::parse(r#"{"a": {"b": {}}}"#).unwrap_err().contains("alone"));
    }
}
