//! The job file: what a user writes (as TOML) and a program sends (as JSON, schema `muster.job/1`),
//! and its translation into what the house passes on.
//!
//! The types here take only what can be meant: unknown keys and wrong types are refused while
//! reading. [`compile`] checks the rest, and reports everything that is wrong at once, each with the
//! dotted path of the value, so that whoever has the text can point at it.

mod array;
mod compile;
mod decompile;
mod env;
mod error;
mod gang;
mod groups;
mod moment;
mod start;
mod text;
mod value;
mod wishes;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub use compile::compile;
pub use decompile::{decompile, reads_as_number, scheduling_file};
pub use error::{SpecError, SpecErrorKind};
pub use moment::{MomentText, parse_moment_ms};
pub use start::After;
pub use text::{DurationText, SizeText, TextError, parse_duration_ms, parse_size_bytes};
pub use value::{Command, Inline, Later, NodeCount, OneOrMany, Ranks, Scalar};

/// A job file. Everything except `gang.run` has a default.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JobFile {
    /// `muster.job/1`; may be left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Priority class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
    /// May be stopped for the sake of others; true unless said otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preemptible: Option<bool>,
    /// Absolute on the nodes once it reaches a server; the command line makes it so, relative to
    /// the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Not to start before this moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub begin: Option<MomentText>,
    /// Given up when it can no longer end by this moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<MomentText>,
    pub after: After,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gang: Option<Gang>,
    /// The roles of a gang that has several; `gang` then says what holds for all of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub group: Vec<Gang>,
    pub limits: Limits,
    pub retry: Retry,
    pub checkpoint: Checkpoint,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub array: Option<Array>,
    pub logs: Logs,
    pub fence: Fence,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<Later>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Later>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<Later>,
}

/// All nodes or none; or one role of several, which has a name and may have variables of its own.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gang {
    /// Of a `[[group]]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodeCount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus_per_node: Option<u32>,
    /// In all; without `nodes` and `gpus_per_node` they are spread as fits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus: Option<u32>,
    /// Acceptable models, the preferred first: `H100 | H200`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
    /// Not all of one model if need be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mixed_gpus: Option<bool>,
    /// Of each device, above 0 and at most 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus_per_node: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_per_node: Option<SizeText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ranks_per_node: Option<Ranks>,
    /// Whole nodes, whatever is used of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclusive: Option<bool>,
    /// One wish, or a list of them for several levels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topology: Option<OneOrMany<Topology>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segments: Option<Segments>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<Spread>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Nodes with one of these labels are kept off.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub avoid: BTreeMap<String, String>,
    /// Labels that make a node better, and by how much.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prefer: Vec<Prefer>,
    /// Data that is better at hand: nodes with the label `data.NAME`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<String>,
    /// Share of the run time spent in communication, from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub communication: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<Command>,
    /// Of a `[[group]]`, over those of the job.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resize: Option<Later>,
}

/// How far apart the nodes may be.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Topology {
    /// A level of the cluster's fabric, such as `leaf`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
    /// Wait rather than use more domains of that level.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_most: Option<u32>,
    /// Use so few if it can start now, more if not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefer: Option<u32>,
}

/// The nodes in segments of equal size, each inside one domain.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Segments {
    /// Of one segment; the nodes of the gang are a multiple of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<u32>,
    /// A level of the cluster's fabric, such as `nvl72`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
    /// Each segment in a domain of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apart: Option<bool>,
}

/// At most so many nodes in one domain.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Spread {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub over: Option<String>,
    /// In each domain; 1 unless said otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<u32>,
}

/// A label that makes a node better.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Prefer {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Any value will do unless one is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Hard stop of an attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<DurationText>,
    /// For backfill and estimates; never kills.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<DurationText>,
    /// Give up queueing after this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<DurationText>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub infra: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude_failed_node: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Checkpoint {
    /// `USR1`, `USR2`, `TERM`, `INT` or `HUP`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace: Option<DurationText>,
}

/// Exactly one of `range`, `grid`, `lines` and `json`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Array {
    /// `0-99`, or with a step `0-99:10`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<String>,
    /// Every combination; each name becomes a variable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grid: Option<BTreeMap<String, Vec<Scalar>>>,
    /// One element a line, given as the variable `line`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lines: Option<Inline<String>>,
    /// One element an object; each key becomes a variable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub json: Option<Inline<BTreeMap<String, Scalar>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_once: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_after_failures: Option<u32>,
}

/// Per rank and stream, before the oldest part goes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Logs {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_size: Option<SizeText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fence {
    /// How long a silent node keeps its ranks before they count as lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<DurationText>,
}
