//! The figures by which runs are compared.

use crate::metrics::Summary;
use serde::Serialize;

/// One figure of a run.
#[derive(Clone, Copy)]
pub struct Figure {
    pub name: &'static str,
    pub better: Better,
    pub of: fn(&Summary) -> f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    Lower,
    Higher,
}

const fn lower(name: &'static str, of: fn(&Summary) -> f64) -> Figure {
    Figure { name, better: Better::Lower, of }
}

const fn higher(name: &'static str, of: fn(&Summary) -> f64) -> Figure {
    Figure { name, better: Better::Higher, of }
}

/// In the order in which they are shown.
pub const FIGURES: [Figure; 18] = [
    lower("wait_mean_s", |summary| summary.wait_s.mean),
    lower("wait_median_s", |summary| summary.wait_s.median),
    lower("wait_p95_s", |summary| summary.wait_s.p95),
    lower("wait_max_s", |summary| summary.wait_s.max),
    lower("turnaround_mean_s", |summary| summary.turnaround_s.mean),
    lower("bsld_mean", |summary| summary.bsld.mean),
    lower("makespan_s", |summary| summary.makespan_s),
    higher("utilisation", |summary| summary.utilisation.full_span),
    higher("goodput", |summary| summary.usage.goodput),
    higher("ettr", |summary| summary.usage.ettr),
    lower("fragmented_of_capacity", |summary| summary.usage.fragmented_of_capacity),
    lower("lost_gpu_h", |summary| summary.usage.parts.get(4).map_or(0.0, |part| part.gpu_h)),
    lower("preemptions", |summary| summary.preemptions as f64),
    higher("succeeded", |summary| summary.succeeded as f64),
    higher("jain_accounts", |summary| summary.fairness.jain_accounts),
    lower("rho_mean", |summary| summary.fairness.rho_mean),
    lower("cost_usd", |summary| summary.cost.as_ref().map_or(0.0, |cost| cost.total_usd)),
    lower("usd_per_kept_gpu_h", |summary| summary.cost.as_ref().map_or(0.0, |cost| cost.usd_per_kept_gpu_h)),
];

pub(crate) fn figures(summary: &Summary) -> Vec<f64> {
    FIGURES.iter().map(|figure| (figure.of)(summary)).collect()
}

pub fn position(name: &str) -> Option<usize> {
    FIGURES.iter().position(|figure| figure.name == name)
}
