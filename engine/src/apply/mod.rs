//! The only way State changes. Total: whatever was committed can be applied, and a command that no
//! longer makes sense is a recorded no-op.

mod admin;
mod cancel;
mod cells;
mod configure;
mod deadline;
mod declare;
mod depend;
mod edit;
mod expire;
mod gang;
mod guarantees;
mod level;
mod money;
mod moves;
mod organisation;
mod part;
mod placement;
mod power;
mod register;
mod reports;
mod silence;
mod submit;
mod taking;
mod token;
mod window;

pub use cells::CELLS_LEVEL;
pub use configure::{FEATURE_LEVEL, POLICIES_LEVEL};
pub use declare::DECLARE_LEVEL;
pub use edit::EDIT_LEVEL;
pub use level::level_of;
pub use moves::MOVE_LEVEL;
pub use organisation::{MONEY_LEVEL, ORGANISATION_LEVEL};
pub use power::{ORDERED_MAX, POWER_LEVEL};
pub use window::{WINDOWS_LEVEL, crossing, window_named};

use crate::command::{Command, Entry, STEP_MS_MAX};
use crate::digest;
use crate::outcome::{Event, Outcome, Refusal, Response};
use crate::state::State;
use crate::state::gang::End;
use crate::state::timer::Timer;
use muster_common::{JobId, Time, Token};

/// Applies one committed entry. Entries come in log order, each once.
pub fn apply(state: &mut State, entry: &Entry) -> Outcome {
    assert!(entry.index > state.applied_index, "entry {} applied after {}", entry.index, state.applied_index);
    state.applied_index = entry.index;
    state.applied_term = entry.term;
    state.now = advanced(state.now, entry);
    if state.usage.is_overdue(state.now) {
        let holdings = state.holdings();
        state.usage.rebase(state.now, &holdings);
    }
    let mut applying = Applying { state, entry, events: Vec::new(), ended: Vec::new() };
    let response = applying.dispatch();
    applying.settle_dependents();
    let events = applying.events;
    for event in &events {
        state.events_hash = digest::chained(&state.events_hash, event);
    }
    Outcome { response, events }
}

/// Rule 14: one wrong clock must not poison the time everybody shares.
fn advanced(now: Time, entry: &Entry) -> Time {
    match entry.command {
        Command::AdvanceTime { to } => now.max(to),
        _ => now.max(entry.at.min(now.plus_ms(STEP_MS_MAX))),
    }
}

/// One entry being applied: State, and the facts found so far.
struct Applying<'a> {
    state: &'a mut State,
    entry: &'a Entry,
    events: Vec<Event>,
    /// Jobs that this entry ended.
    ended: Vec<(JobId, End)>,
}

impl Applying<'_> {
    fn dispatch(&mut self) -> Response {
        let entry = self.entry;
        let result = match &entry.command {
            Command::Nothing | Command::AdvanceTime { .. } => Ok(Response::Done),
            Command::Submit(submit) => self.submit(submit),
            Command::Cancel(cancel) => self.cancel(cancel),
            Command::Hold { job, hold, by } => self.hold(*job, *hold, by),
            Command::RegisterNode(registration) => self.register(registration),
            Command::NodeSeen { node, epoch } => self.node_seen(*node, *epoch),
            Command::Reports { reports } => Ok(self.reports(reports)),
            Command::CommitPlan(plan) => Ok(self.commit_plan(plan)),
            Command::Expire { timers } => Ok(self.expire(timers)),
            Command::NodeSilent { node, epoch, term } => self.node_silent(*node, *epoch, *term),
            Command::NodeFenced { node, epoch, term, waited_ms } => self.node_fenced(*node, *epoch, *term, *waited_ms),
            Command::NodeAdmin { node, action, by } => self.node_admin(*node, action, by),
            Command::IssueToken { hash, node, expires_at, by } => {
                self.issue_token(*hash, node.clone(), *expires_at, by)
            }
            Command::UseToken { hash, node } => self.use_token(*hash, node),
            Command::Configure { change, by } => self.configure(change, by),
            Command::Edit(edit) => self.edit(edit),
            Command::MakeWindow(asked) => self.make_window(asked),
            Command::EndWindow { name, by } => self.end_window(name, by),
            Command::RequestNodes(asked) => self.request_nodes(asked),
            Command::SleepNodes { nodes } => self.sleep_nodes(nodes),
            Command::NodePower { node, epoch, answer } => self.node_power(*node, *epoch, answer),
        };
        result.unwrap_or_else(Response::Refused)
    }

    fn now(&self) -> Time {
        self.state.now
    }

    fn event(&mut self, event: Event) {
        self.events.push(event);
    }

    /// The fencing token of whatever this entry places.
    fn token(&self) -> Token {
        Token { generation: self.state.cluster.generation, index: self.entry.index }
    }

    fn set_timer(&mut self, at: Time, timer: Timer) {
        if at < Time::NEVER {
            self.state.timers.insert((at, timer), ());
        }
    }

    fn drop_timer(&mut self, at: Time, timer: Timer) {
        self.state.timers.remove(&(at, timer));
    }
}

type Result<T = Response, E = Refusal> = std::result::Result<T, E>;
