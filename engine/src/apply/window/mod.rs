//! Advance reservations: making one, ending one, and who is kept out.

mod nodes;

use super::edit::runs_alike;
use super::{Applying, Result};
use crate::command::{MakeWindow, Principal, Which};
use crate::outcome::{Crossing, Event, Refusal, Response};
use crate::state::State;
use crate::state::change::Key;
use crate::state::gang::GangRecord;
use crate::state::node::NodeRecord;
use crate::state::timer::Timer;
use crate::state::window::{AHEAD_MS_MAX, Holders, WINDOW_MS_MAX, WINDOW_NODES_MAX, WINDOWS_MAX, Window, longest_ms};
use muster_common::job::Scheduling;
use muster_common::time::{DAY_MS, MINUTE_MS};
use muster_common::{GangId, JobId, Name, Time};
use std::collections::BTreeSet;
use std::sync::Arc;

/// From this feature level on, all servers know advance reservations.
pub const WINDOWS_LEVEL: u32 = 5;

/// Most gangs that the answer names.
const CROSSING_MAX: usize = 100;

impl Applying<'_> {
    pub(super) fn make_window(&mut self, asked: &MakeWindow) -> Result {
        self.needs_level(WINDOWS_LEVEL)?;
        let (start, end) = self.window_times(asked)?;
        if let Some(known) = self.state.windows.named(&asked.name).cloned() {
            return self.made_before(&known, asked);
        }
        check_holders(self.state, &asked.holders)?;
        let nodes = self.window_nodes(asked, (start, end))?;
        let windows = &self.state.windows;
        let all = nodes.len() + windows.iter().map(|window| window.nodes.len()).sum::<usize>();
        if windows.len() >= WINDOWS_MAX {
            return Err(Refusal::Full { what: "reservations".into(), limit: WINDOWS_MAX as u64 });
        }
        if all > WINDOW_NODES_MAX {
            return Err(Refusal::Full { what: "nodes in reservations".into(), limit: WINDOW_NODES_MAX as u64 });
        }
        let number = windows
            .next_number()
            .ok_or(Refusal::Full { what: "reservations ever made".into(), limit: u64::from(u32::MAX) })?;
        let MakeWindow { name, holders, reason, by, managed, .. } = asked.clone();
        let made_at = self.now();
        self.event(Event::WindowMade { name: name.clone(), start, end, nodes: nodes.len() as u32, by: by.clone() });
        self.set_timer(end, Timer::Window { number });
        let window = Window { name, number, start, end, nodes, holders, reason, by, made_at, managed };
        let response = self.window_answer(&window, false);
        Arc::make_mut(&mut self.state.windows).insert(window);
        self.state.touch(Key::Config);
        Ok(response)
    }

    /// The same request again is answered as it was; another under its name is refused.
    fn made_before(&self, known: &Window, asked: &MakeWindow) -> Result {
        if known.managed == asked.managed && self.is_as_asked(known, asked) {
            return Ok(self.window_answer(known, true));
        }
        Err(Refusal::NameTaken(asked.name.clone()))
    }

    /// The same nodes at the same time for the same holders.
    pub(super) fn is_as_asked(&self, known: &Window, asked: &MakeWindow) -> bool {
        let (start, end) = (asked.start, asked.end);
        let begun = known.start <= self.now() && start <= self.now();
        let same_time = known.end == end && (known.start == start || begun);
        let same_nodes = match &asked.nodes {
            Which::Nodes(names) => {
                let names: BTreeSet<&Name> = names.iter().collect();
                known.nodes.iter().eq(names)
            }
            Which::Domain(path) => nodes::in_domain(self.state, path).is_ok_and(|nodes| nodes == known.nodes),
            Which::All => self.state.node_names.keys().eq(&known.nodes),
            Which::Some { nodes, model, level } => {
                known.nodes.len() == *nodes as usize
                    && nodes::are_such(self.state, &known.nodes, model.as_ref(), level.as_ref())
            }
        };
        same_time && same_nodes && known.holders == asked.holders && known.reason == asked.reason
    }

    fn window_answer(&self, window: &Window, existing: bool) -> Response {
        let crossing = crossing(self.state, window, self.now());
        Response::WindowMade {
            number: window.number,
            nodes: window.nodes.len() as u32,
            existing,
            crossing_total: crossing.len() as u32,
            crossing: crossing.into_iter().take(CROSSING_MAX).collect(),
        }
    }

    /// What has begun begins now.
    fn window_times(&self, asked: &MakeWindow) -> Result<(Time, Time)> {
        let now = self.now();
        let (start, end) = (asked.start.max(now), asked.end);
        let refused = |why: String| Err(Refusal::Invalid(why));
        if end <= asked.start {
            return refused("end: the reservation would end before it starts; give a later end, or a duration".into());
        }
        if end <= now {
            return refused("end: that moment is over; give a later one".into());
        }
        if end.since_ms(start) > WINDOW_MS_MAX {
            let most = WINDOW_MS_MAX / DAY_MS;
            return refused(format!("end: a reservation lasts at most {most} days; make several, one after the other"));
        }
        if start.since_ms(now) > AHEAD_MS_MAX {
            return refused(format!("start: a reservation begins at most {} days ahead", AHEAD_MS_MAX / DAY_MS));
        }
        Ok((start, end))
    }

    pub(super) fn end_window(&mut self, name: &Name, by: &Principal) -> Result {
        let window = window_named(self.state, name)?.clone();
        self.drop_timer(window.end, Timer::Window { number: window.number });
        self.forget_window(window.number, Some(by));
        Ok(Response::Done)
    }

    /// Its end has come, or somebody's wish.
    pub(super) fn forget_window(&mut self, number: u32, by: Option<&Principal>) {
        if let Some(window) = Arc::make_mut(&mut self.state.windows).remove(number) {
            self.event(Event::WindowEnded { name: window.name.clone(), by: by.cloned() });
            self.state.touch(Key::Config);
        }
    }

    /// Whether whatever of a job runs could take another limit: it started where it would not run on into a window of
    /// others, and that is a promise to them.
    pub(super) fn check_longer_runs(&self, job: JobId, after: &Scheduling) -> Result<()> {
        for gang in self.gangs_of(job).into_iter().filter(|_| !self.state.windows.is_empty()) {
            let own = self.scheduling_of(gang);
            let Some(attempt) = self.state.gang(gang).and_then(GangRecord::current) else { continue };
            if attempt.stopping_at.is_some() || longest_ms(after) <= longest_ms(&own) || !runs_alike(&own, after) {
                continue;
            }
            let since = attempt.started_at.unwrap_or(attempt.placed_at);
            let nodes: Vec<&Name> =
                attempt.parts.iter().filter_map(|part| Some(&self.state.node(part.node)?.name)).collect();
            let enters = |window: &Window| {
                let reaches = |of: &Scheduling| window.start < since.plus_ms(longest_ms(of));
                window.end > self.now() && reaches(after) && !reaches(&own)
            };
            let admits = |window: &Window| window.holders.admit(&self.state.accounts, job, &after.account);
            let entered = self.state.windows.iter().filter(|window| enters(window) && !admits(window));
            let met = entered.filter(|window| nodes.iter().any(|node| window.has(node)));
            if let Some(Window { name, start, .. }) = met.min_by_key(|window| window.start).map(|window| &**window) {
                let most_ms = start.since_ms(since).saturating_sub(after.checkpoint.grace_ms);
                return Err(Refusal::NotNow(format!(
                    "{gang} runs on nodes of reservation `{name}` and would then run on into it; give a time limit of \
                     at most {} min, counted from its start",
                    most_ms / MINUTE_MS
                )));
            }
        }
        Ok(())
    }

    /// The window on a node that a run from now on would reach into, though it is others'.
    pub(super) fn kept_out_by(
        &self,
        node: &NodeRecord,
        gang: GangId,
        scheduling: &Scheduling,
        now: Time,
    ) -> Option<Name> {
        let until = now.plus_ms(longest_ms(scheduling));
        let mut met = self.state.windows.iter().filter(|window| window.meets(now, until) && window.has(&node.name));
        let admits = |window: &Window| window.holders.admit(&self.state.accounts, gang.job, &scheduling.account);
        met.find(|window| !admits(window)).map(|window| window.name.clone())
    }
}

/// The one of that name, or what it may have been called.
pub fn window_named<'s>(state: &'s State, name: &Name) -> Result<&'s Arc<Window>> {
    state.windows.named(name).ok_or_else(|| {
        let known: Vec<&str> = state.windows.iter().map(|window| window.name.as_str()).collect();
        Refusal::UnknownWindow { name: name.clone(), help: nodes::help(name.as_str(), &known) }
    })
}

fn check_holders(state: &State, holders: &Holders) -> Result<()> {
    match holders {
        Holders::Nobody => Ok(()),
        Holders::Account(account) => {
            let accounts = &state.accounts;
            if !accounts.are_configured() || accounts.get(account).is_some() {
                return Ok(());
            }
            let known: Vec<&str> = accounts.names().map(|name| name.as_str()).collect();
            let help = nodes::help(account.as_str(), &known);
            Err(Refusal::Invalid(format!("account: there is no account `{account}`; {help}")))
        }
        Holders::Jobs(jobs) if jobs.is_empty() => Err(Refusal::Invalid("jobs: name at least one".into())),
        Holders::Jobs(jobs) => match jobs.iter().find(|job| state.job(**job).is_none()) {
            Some(job) => Err(Refusal::UnknownJob(*job)),
            None => Ok(()),
        },
    }
}

/// When a gang that holds devices ends at the latest, if that is after a moment and the window is not its own.
fn crosses(state: &State, gang: GangId, start: Time, now: Time, holders: &Holders) -> Option<Crossing> {
    let attempt = state.gang(gang)?.current()?;
    let scheduling = state.scheduling_of(gang)?;
    if holders.admit(&state.accounts, gang.job, &scheduling.account) {
        return None;
    }
    let ends = match attempt.stopping_at {
        Some(since) => since.plus_ms(scheduling.checkpoint.grace_ms),
        None => attempt.started_at.unwrap_or(now).plus_ms(longest_ms(scheduling)),
    };
    (ends > start).then_some(Crossing { gang, ends: Some(ends).filter(|ends| *ends < Time::NEVER) })
}

/// Who holds devices there and may hold them beyond the start. Nobody is stopped for it.
pub fn crossing(state: &State, window: &Window, now: Time) -> Vec<Crossing> {
    let nodes = window.nodes.iter().filter_map(|name| state.node_named(name));
    let gangs: BTreeSet<GangId> = nodes.flat_map(|node| node.gangs.iter().copied()).collect();
    gangs.into_iter().filter_map(|gang| crosses(state, gang, window.start, now, &window.holders)).collect()
}
