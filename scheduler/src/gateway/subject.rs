//! A job to be shown, live or ended, with what is needed to show it.

use super::ended::end_of;
use super::errors;
use super::list::GANGS_MAX;
use super::past::Past;
use crate::history::HistoryStore;
use muster_common::job::{Launch, Scheduling};
use muster_common::{GangId, JobId, Time};
use muster_engine::State;
use muster_engine::state::gang::{AttemptRecord, End};
use muster_engine::state::job::{JobRecord, Tally};
use muster_proto::convert::error::{ErrorCode, ErrorInfo};
use std::sync::Arc;

#[derive(Debug, Clone)]
pub struct Subject {
    pub state: Arc<State>,
    pub record: Arc<JobRecord>,
    pub scheduling: Arc<Scheduling>,
    pub launch: Arc<Launch>,
    pub past: Past,
    /// Set once the job has left State.
    pub end: Option<(End, Time)>,
    /// State time as this server counts it.
    pub now: Time,
}

impl Subject {
    /// A live job; `past` may be empty when the ended gangs do not matter.
    pub fn live(state: &Arc<State>, id: JobId, past: Past, now: Time) -> Option<Self> {
        let record = state.job(id)?;
        Some(Self {
            state: state.clone(),
            scheduling: state.scheduling(record).clone(),
            launch: state.launch(&record.revision().launch)?.clone(),
            record: Arc::new(record.clone()),
            // History may be a moment ahead of this view.
            past: Past { ended: None, ..past },
            end: None,
            now: now.max(state.now()),
        })
    }

    /// A job that has ended, by its past; `None` when that does not tell of the end.
    pub fn ended(state: &Arc<State>, past: Past) -> Option<Self> {
        let ended = past.ended.clone()?;
        Some(Self {
            state: state.clone(),
            record: ended.record,
            scheduling: ended.scheduling,
            launch: ended.launch,
            end: Some((ended.end, ended.at)),
            past,
            now: state.now(),
        })
    }

    /// With everything history tells of it.
    ///
    /// # Errors
    /// [`ErrorCode::JobNotFound`] for an id nobody has had; [`ErrorCode::Unavailable`] when history lacks where it may be.
    pub fn load(state: &Arc<State>, history: &HistoryStore, id: JobId, now: Time) -> Result<Self, ErrorInfo> {
        Self::with_past(state, history, id, now, || Past::of(history, id).map_err(errors::history))
    }

    /// With what one line of a list tells. Of a job of many gangs that is only what the job itself does: an array may have
    /// a hundred thousand.
    ///
    /// # Errors
    /// As of [`Subject::load`].
    pub fn for_list(state: &Arc<State>, history: &HistoryStore, id: JobId, now: Time) -> Result<Self, ErrorInfo> {
        let past = || match state.job(id) {
            Some(record) if state.scheduling(record).gangs() > GANGS_MAX => Ok(Past::default()),
            Some(_) => Past::of(history, id).map_err(errors::history),
            None => match end_of(history, id)? {
                Some(past) if past.ended.as_ref().is_some_and(|end| end.tally.total() > GANGS_MAX) => Ok(past),
                _ => Past::of(history, id).map_err(errors::history),
            },
        };
        Self::with_past(state, history, id, now, past)
    }

    fn with_past(
        state: &Arc<State>,
        history: &HistoryStore,
        id: JobId,
        now: Time,
        past: impl FnOnce() -> Result<Past, ErrorInfo>,
    ) -> Result<Self, ErrorInfo> {
        // A job ends behind the entry that made it, which is its id. Before history is read: what is lacking may come in
        // between.
        let lacking = errors::check_history(history, id.0, state.applied_index()).err();
        let past = past()?;
        let found = match state.job(id) {
            Some(_) => Self::live(state, id, past, now),
            None => Self::ended(state, past),
        };
        found.ok_or_else(|| lacking.unwrap_or_else(|| not_found(&format!("there is no job {id}"))))
    }

    pub fn id(&self) -> JobId {
        self.record.id
    }

    pub fn is_array(&self) -> bool {
        self.scheduling.array.is_some()
    }

    /// How gangs ended so far.
    pub fn tally(&self) -> Tally {
        self.past.ended.as_ref().map_or(self.record.tally, |ended| ended.tally)
    }

    pub fn gang_id(&self, ordinal: u32) -> GangId {
        GangId::new(self.id(), ordinal)
    }

    /// The gang asked for; a job that is no array has only one.
    ///
    /// # Errors
    /// [`ErrorCode::JobNotFound`] when there is no such element.
    pub fn check_ordinal(&self, ordinal: u32) -> Result<(), ErrorInfo> {
        let gangs = self.scheduling.gangs();
        if ordinal < gangs {
            return Ok(());
        }
        let message = match self.is_array() {
            true => format!("job {} has no element {ordinal}; its last is {}", self.id(), gangs - 1),
            false => format!("job {} is no array; it has no element {ordinal}", self.id()),
        };
        Err(not_found(&message))
    }

    /// Ended attempts of a gang, the oldest first.
    pub fn ended_attempts(&self, ordinal: u32) -> Vec<Arc<AttemptRecord>> {
        let told = self.past.gangs.get(&ordinal).map_or(&[][..], |gang| &gang.attempts);
        let kept = self.state.gang(self.gang_id(ordinal)).map_or(&[][..], |gang| &gang.past);
        // State keeps only the latest; history read a moment earlier may lack the very last.
        let last = told.last().map_or(0, |record| record.attempt.number.0);
        told.iter().chain(kept.iter().filter(|record| record.attempt.number.0 > last)).cloned().collect()
    }
}

fn not_found(message: &str) -> ErrorInfo {
    ErrorInfo::new(ErrorCode::JobNotFound, message).hint("`muster ps -Ae` lists the jobs")
}
