//! What a report is made from: the tables of a run's folder.

use crate::SimError;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::Path;

#[derive(Debug, Clone, Deserialize)]
pub struct Job {
    pub job_id: String,
    pub submit_s: f64,
    #[serde(default)]
    pub start_s: Option<f64>,
    #[serde(default)]
    pub estimated_start_s: Option<f64>,
    pub end_s: Option<f64>,
    pub wait_s: Option<f64>,
    pub devices: u32,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Sample {
    pub from_s: f64,
    pub to_s: f64,
    pub gpus_allocated: f64,
    pub gpus_running: f64,
    pub gpus_free: f64,
    pub gpus_fragmented: f64,
    pub gpus_down: f64,
    #[serde(default)]
    pub gpus_asleep: f64,
    #[serde(default)]
    pub gpus_switching: f64,
    #[serde(default)]
    pub power_kw: Option<f64>,
    pub waiting_gpus: f64,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Placed {
    pub job_id: String,
    pub attempt: u32,
    pub node: String,
    pub devices: u32,
    pub from_s: f64,
    pub to_s: f64,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Node {
    pub node: String,
    pub devices: u32,
    pub held_gpu_h: f64,
}

/// One run, as its folder tells it.
#[derive(Debug)]
pub struct Run {
    pub summary: serde_json::Value,
    pub manifest: serde_json::Value,
    pub jobs: Vec<Job>,
    pub samples: Vec<Sample>,
    pub placed: Vec<Placed>,
    pub nodes: Vec<Node>,
}

impl Run {
    pub fn read(folder: &Path) -> Result<Self, SimError> {
        Ok(Self {
            manifest: document(&folder.join("manifest.json"))?,
            summary: document(&folder.join("summary.json"))?,
            jobs: rows(&folder.join("jobs.csv"))?,
            samples: rows(&folder.join("samples.csv"))?,
            placed: rows(&folder.join("placements.csv"))?,
            nodes: rows(&folder.join("nodes.csv"))?,
        })
    }

    pub fn number(&self, pointer: &str) -> f64 {
        self.summary.pointer(pointer).and_then(serde_json::Value::as_f64).unwrap_or(0.0)
    }

    pub fn told(&self, pointer: &str) -> &str {
        self.manifest.pointer(pointer).and_then(serde_json::Value::as_str).unwrap_or("")
    }

    pub fn of_manifest(&self, pointer: &str) -> f64 {
        self.manifest.pointer(pointer).and_then(serde_json::Value::as_f64).unwrap_or(0.0)
    }
}

fn document(path: &Path) -> Result<serde_json::Value, SimError> {
    let text = std::fs::read_to_string(path).map_err(|source| SimError::Read { path: path.to_path_buf(), source })?;
    serde_json::from_str(&text).map_err(|error| SimError::Report { path: path.to_path_buf(), why: error.to_string() })
}

fn rows<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, SimError> {
    let report_error = |why: String| SimError::Report { path: path.to_path_buf(), why };
    let mut reader = csv::Reader::from_path(path).map_err(|error| report_error(error.to_string()))?;
    reader.deserialize().collect::<Result<_, _>>().map_err(|error| report_error(error.to_string()))
}
