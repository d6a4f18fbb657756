//! What a finished run or comparison speaks for: its policy, the engine that decided, and headline figures. Read from
//! the folder that it left behind.

use crate::SimError;
use muster_common::job::Hash;
use muster_engine::policy::Policy;
use muster_engine::state::policies::TEXT_BYTES_MAX;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::Path;

/// A run's folder, as far as a policy's promotion rests on it.
#[derive(Debug, Clone, PartialEq)]
pub struct RunEvidence {
    /// The folder's name, and what was played.
    pub run: String,
    pub policy: Policy,
    /// SHA-256 of `manifest.json`, or of a comparison's `compare.json`.
    pub manifest: Hash,
    pub engine_version: u32,
    /// By name.
    pub figures: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct RunManifest {
    engine_version: u32,
    complete: bool,
    policy: Policy,
    trace_file: File,
    world_file: File,
    seed: u64,
}

#[derive(Deserialize)]
struct File {
    name: String,
    sha256: String,
}

#[derive(Deserialize)]
struct Compared {
    engine_version: u32,
    complete: bool,
    base: String,
    seeds: Vec<u64>,
    against: Vec<Against>,
    policies: Vec<File>,
    policy_values: Vec<Policy>,
    trace: File,
    world: File,
}

#[derive(Deserialize)]
struct Against {
    verdict: String,
    differences: Vec<Difference>,
}

#[derive(Deserialize)]
struct Difference {
    figure: String,
    base_mean: f64,
    mean: f64,
}

/// Of a summary, what is kept of it, and by which name.
const HEADLINES: [(&str, &[&str]); 8] = [
    ("jobs_succeeded", &["succeeded"]),
    ("jobs_unfinished", &["unfinished"]),
    ("wait_mean_s", &["wait_s", "mean"]),
    ("wait_p95_s", &["wait_s", "p95"]),
    ("utilisation", &["utilisation", "full_span"]),
    ("goodput", &["usage", "goodput"]),
    ("preemptions", &["preemptions"]),
    ("cost_usd", &["cost", "total_usd"]),
];
/// Of a comparison.
const COMPARED: [&str; 6] = ["wait_mean_s", "wait_p95_s", "utilisation", "goodput", "preemptions", "cost_usd"];
/// Reads the folder of a run or a comparison. `wanted`: the policy that is meant; a comparison of more than two leaves
/// no other way to say it.
///
/// # Errors
/// A folder that is none of a run, a run that was stopped, or one of another policy.
pub fn read(folder: &Path, wanted: Option<&Policy>) -> Result<RunEvidence, SimError> {
    // Also of `.` and `..`.
    let whole = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_path_buf());
    let name = whole.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if folder.join("manifest.json").exists() {
        return of_run(folder, &name, wanted);
    }
    if folder.join("compare.json").exists() {
        return of_comparison(folder, &name, wanted);
    }
    let why = "it holds neither manifest.json nor compare.json; name the folder that `sim run` or `sim compare` wrote";
    Err(wrong(folder, why))
}

fn wrong(path: &Path, why: impl Into<String>) -> SimError {
    SimError::Report { path: path.to_path_buf(), why: why.into() }
}

/// The file is sound, and speaks of something else than was asked.
fn unfit(path: &Path, why: impl Into<String>) -> SimError {
    SimError::Policy { path: path.to_path_buf(), why: why.into() }
}

fn document<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<(T, Hash), SimError> {
    let bytes = std::fs::read(path).map_err(|source| SimError::Read { path: path.to_path_buf(), source })?;
    let known = serde_json::from_slice(&bytes).map_err(|error| wrong(path, error.to_string()))?;
    Ok((known, Hash(Sha256::digest(&bytes).into())))
}

fn of_run(folder: &Path, name: &str, wanted: Option<&Policy>) -> Result<RunEvidence, SimError> {
    let path = folder.join("manifest.json");
    let (manifest, hash): (RunManifest, Hash) = document(&path)?;
    if !manifest.complete {
        return Err(unfit(&path, "the run was stopped before its end, so it speaks for nothing"));
    }
    if wanted.is_some_and(|wanted| *wanted != manifest.policy) {
        return Err(unfit(&path, "the run played another policy than the given one"));
    }
    let (summary, _): (Value, Hash) = document(&folder.join("summary.json"))?;
    let figure = |(name, path): &(&str, &[&str])| {
        let value = path.iter().try_fold(&summary, |value, key| value.get(key))?;
        (!value.is_null()).then(|| ((*name).to_owned(), number(value)))
    };
    let mut figures: Vec<_> = HEADLINES.iter().filter_map(figure).collect();
    figures.extend(played(&manifest.trace_file, &manifest.world_file, &[manifest.seed]));
    let engine_version = manifest.engine_version;
    Ok(RunEvidence { run: cut(name), policy: manifest.policy, manifest: hash, engine_version, figures })
}

fn of_comparison(folder: &Path, name: &str, wanted: Option<&Policy>) -> Result<RunEvidence, SimError> {
    let path = folder.join("compare.json");
    let (known, hash): (Compared, Hash) = document(&path)?;
    if !known.complete {
        return Err(unfit(&path, "the comparison was stopped before its end, so it speaks for nothing"));
    }
    let at = match wanted {
        Some(wanted) => known.policy_values.iter().position(|policy| policy == wanted),
        None if known.policy_values.len() == 2 => Some(1),
        None => {
            let names: Vec<&str> = known.policies.iter().map(|file| file.name.as_str()).collect();
            return Err(unfit(&path, format!("it compares {}; say with --policy which is meant", names.join(", "))));
        }
    };
    let Some(at) = at else { return Err(unfit(&path, "it compares other policies than the given one")) };
    let mut figures = Vec::new();
    if let Some(against) = at.checked_sub(1).and_then(|at| known.against.get(at)) {
        figures.push(("verdict".to_owned(), cut(&against.verdict)));
        figures.push(("against".to_owned(), cut(&known.base)));
        let kept = |difference: &&Difference| {
            let priced = difference.figure != "cost_usd" || difference.base_mean + difference.mean > 0.0;
            priced && COMPARED.contains(&difference.figure.as_str())
        };
        figures.extend(against.differences.iter().filter(kept).map(|difference| {
            let Difference { figure, base_mean, mean } = difference;
            (figure.clone(), format!("{mean:.4} (before {base_mean:.4})"))
        }));
    }
    figures.extend(played(&known.trace, &known.world, &known.seeds));
    let policy = known.policy_values[at].clone();
    Ok(RunEvidence { run: cut(name), policy, manifest: hash, engine_version: known.engine_version, figures })
}

/// What it was played on.
fn played(trace: &File, world: &File, seeds: &[u64]) -> [(String, String); 3] {
    let file = |file: &File| cut(&format!("{} {}", file.name, file.sha256));
    let seeds = match seeds {
        [one] => one.to_string(),
        many => format!("{} seeds", many.len()),
    };
    [("trace".to_owned(), file(trace)), ("world".to_owned(), file(world)), ("seed".to_owned(), seeds)]
}

fn number(value: &Value) -> String {
    match value.as_f64().filter(|_| value.is_f64()) {
        Some(number) => format!("{number:.4}"),
        None => cut(&value.to_string()),
    }
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
