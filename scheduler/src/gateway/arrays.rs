//! Which jobs are arrays, for texts about jobs that State has forgotten.

use super::{Inner, errors};
use crate::history::HistoryStore;
use crate::records::{self, Recorded, job_of};
use muster_common::JobId;
use muster_engine::{Event, State};
use muster_proto::convert::error::ErrorInfo;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// Jobs remembered; beyond them everything is forgotten and asked again.
const JOBS_MAX: usize = 10_000;

#[derive(Default)]
pub struct Arrays(BTreeMap<JobId, bool>);

impl Arrays {
    /// Is the event's job an array? `false` of those never met.
    pub fn has(&self, event: &Event) -> bool {
        job_of(event).and_then(|job| self.0.get(&job)).copied().unwrap_or(false)
    }

    /// Takes in what State and the events themselves tell. Returns the jobs that neither knows.
    pub fn learn(&mut self, state: &State, events: &[Recorded]) -> Vec<JobId> {
        if self.0.len() > JOBS_MAX {
            self.0.clear();
        }
        let mut unknown = Vec::new();
        for recorded in events {
            let Some(job) = job_of(&recorded.event) else { continue };
            let told =
                told(&recorded.event).or_else(|| state.job(job).map(|record| state.scheduling(record).array.is_some()));
            match told {
                Some(array) => drop(self.0.insert(job, array)),
                None if self.0.contains_key(&job) || unknown.contains(&job) => {}
                None => unknown.push(job),
            }
        }
        unknown.retain(|job| !self.0.contains_key(job));
        unknown
    }

    /// As [`Arrays::learn`], and asks history about the rest.
    pub async fn meet(&mut self, inner: &Arc<Inner>, state: &State, events: &[Recorded]) -> Result<(), ErrorInfo> {
        let unknown = self.learn(state, events);
        if unknown.is_empty() {
            return Ok(());
        }
        let found = inner.blocking(move |inner| {
            let ask = |job| Ok((job, recall(&inner.ctx.history, job).map_err(errors::history)?));
            unknown.into_iter().map(ask).collect::<Result<Vec<(JobId, bool)>, ErrorInfo>>()
        });
        self.0.extend(found.await?);
        Ok(())
    }
}

/// What one event says of it.
fn told(event: &Event) -> Option<bool> {
    match event {
        Event::JobEnded { scheduling, .. } => Some(scheduling.array.is_some()),
        Event::JobSubmitted { gangs, .. } if *gangs > 1 => Some(true),
        _ => None,
    }
}

fn recall(history: &HistoryStore, job: JobId) -> io::Result<bool> {
    let mut array = false;
    records::visit_job(history, job, |recorded| array = told(&recorded.event).unwrap_or(array))?;
    Ok(array)
}
