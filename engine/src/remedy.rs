//! What would help a waiting gang: small changes that its user or an operator could make, each made
//! on a view and played forward, and told only when the gang then starts sooner.

mod ground;
mod operators;
mod raise;
mod size;
mod trial;
mod wishes;

use crate::command::Command;
use crate::cycle::Memo;
use crate::state::State;
use crate::state::gang::GangState;
use ground::Ground;
use muster_common::time::MINUTE_MS;
use muster_common::{GangId, Time};
use std::collections::{BTreeMap, BTreeSet};
use trial::{Played, Trial};

/// Most changes that are tried for one gang.
pub const TRIED_MAX: usize = 16;
/// Steps of work of all plays together; see [`trial`].
const WORK_MAX: u64 = 400_000;
/// A start that is sooner by less helps nobody, unless it is at once; a later one delays nobody.
const NOTICED_MS: u64 = MINUTE_MS;

/// Kinds of changes, the smallest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Release,
    Begin,
    AtOnce,
    TimeLimit,
    CpuMemory,
    Topology,
    Exclude,
    Labels,
    Exclusive,
    Model,
    Class,
    Account,
    Size,
    /// From here on an operator's.
    Uncordon,
    Raise,
}

impl Kind {
    pub const fn word(self) -> &'static str {
        match self {
            Kind::Release => "release",
            Kind::Begin => "begin",
            Kind::AtOnce => "at-once",
            Kind::TimeLimit => "time-limit",
            Kind::CpuMemory => "cpu-memory",
            Kind::Topology => "topology",
            Kind::Exclude => "exclude",
            Kind::Labels => "labels",
            Kind::Exclusive => "exclusive",
            Kind::Model => "gpu-model",
            Kind::Class => "class",
            Kind::Account => "account",
            Kind::Size => "size",
            Kind::Uncordon => "uncordon",
            Kind::Raise => "raise",
        }
    }

    /// Can only an operator make it?
    pub const fn is_operators(self) -> bool {
        matches!(self, Kind::Uncordon | Kind::Raise)
    }
}

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub kind: Kind,
    /// What would be otherwise, for a person.
    pub text: String,
    /// What to type.
    pub command: String,
    /// What it appends to the log.
    pub entries: Vec<Command>,
}

/// Gangs that would start later by more than a minute for a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delays {
    pub gangs: u32,
    /// The one that loses most: its start without the change and with it.
    pub worst: Option<(GangId, Time, Time)>,
}

/// A change that was tried, and helps.
#[derive(Debug, Clone, PartialEq)]
pub struct Remedy {
    pub change: Change,
    /// When the gang would start.
    pub start: Time,
    /// `None`: too much is ahead to say.
    pub delays: Option<Delays>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Remedies {
    /// When the gang starts as things stand, as far as can be foreseen.
    pub start: Option<Time>,
    /// The smallest change first.
    pub found: Vec<Remedy>,
    pub tried: u32,
    /// Changes beyond [`TRIED_MAX`], or whose play ran out of work before it told anything.
    pub untried: u32,
    /// Steps of work of all plays.
    pub work: u64,
}

/// Tries what may help a waiting gang. `None` for a gang that does not wait.
pub fn remedies(state: &State, gang: GangId, now: Time) -> Option<Remedies> {
    remedies_within(state, gang, now, WORK_MAX)
}

/// As [`remedies`], with so much work for all plays together.
pub fn remedies_within(state: &State, gang: GangId, now: Time, work_max: u64) -> Option<Remedies> {
    let job = state.job(gang.job).filter(|job| !job.cancelled)?;
    let waits = match state.gang(gang) {
        Some(record) => matches!(record.state, GangState::Queued { .. }),
        None => job.unstarted.contains(gang.ordinal),
    };
    if !waits {
        return None;
    }
    let mut memo = Memo::default();
    // Every play asks that too.
    memo.known(state, now).ever.emptied(state);
    let mut base = trial::play(state, &memo, now, &[], Trial::to_the_end(work_max / 2))?;
    let mut remedies = Remedies { start: base.start_of(gang), work: base.work, ..Remedies::default() };
    if remedies.start == Some(now) {
        return Some(remedies);
    }
    let (decided, ledger) = base.decided.take()?;
    let ground = Ground::new(state, (&decided, ledger), gang, now)?;
    let mut changes = candidates(&ground);
    remedies.untried = changes.len().saturating_sub(TRIED_MAX) as u32;
    changes.truncate(TRIED_MAX);
    let mut left = changes.len() as u64;
    for change in changes {
        let most = work_max.saturating_sub(remedies.work) / left.max(1);
        left -= 1;
        // The longest that helps is tried before those that are shorter.
        let limited = change.kind == Kind::TimeLimit;
        if limited && remedies.found.iter().any(|remedy| remedy.change.kind == Kind::TimeLimit) {
            continue;
        }
        let Some(played) = trial::play(state, &memo, now, &change.entries, Trial::of(gang, &base, most)) else {
            continue;
        };
        remedies.work += played.work;
        remedies.tried += 1;
        match played.start_of(gang) {
            Some(start) if helps(start, &base, gang, now) => {
                let delays = played.is_told.then(|| delays(&base, &played, gang));
                remedies.found.push(Remedy { change, start, delays });
            }
            None if played.is_cut => {
                remedies.tried -= 1;
                remedies.untried += 1;
            }
            _ => {}
        }
    }
    remedies.found.sort_by_key(|remedy| remedy.change.kind);
    drop_outdone(&mut remedies.found);
    remedies.found.sort_by_key(|remedy| (remedy.change.kind, remedy.start));
    Some(remedies)
}

/// Candidates in the order in which they are tried: the first of every kind, then the second.
fn candidates(ground: &Ground) -> Vec<Change> {
    let mut all: Vec<Change> = wishes::of_its_user(ground);
    all.extend(size::smaller(ground));
    all.extend(operators::of_operators(ground));
    let mut seen: Vec<Kind> = Vec::new();
    let mut ranked: Vec<(usize, Change)> = Vec::new();
    for change in all {
        let before = seen.iter().filter(|kind| **kind == change.kind).count();
        seen.push(change.kind);
        ranked.push((before, change));
    }
    ranked.sort_by_key(|(before, change)| (*before, change.kind));
    let mut known: BTreeSet<String> = BTreeSet::new();
    ranked.into_iter().map(|(_, change)| change).filter(|change| known.insert(change.text.clone())).collect()
}

fn helps(start: Time, base: &Played, gang: GangId, now: Time) -> bool {
    let before = base.bound_of(gang);
    start < before && (start == now || before.since_ms(start) >= NOTICED_MS)
}

/// Of one kind, a larger change is told only when it helps more than the smaller ones before it.
/// Another model is no larger a change than the one before.
fn drop_outdone(found: &mut Vec<Remedy>) {
    let mut soonest: BTreeMap<Kind, Time> = BTreeMap::new();
    found.retain(|remedy| {
        let known = soonest.entry(remedy.change.kind).or_insert(Time::NEVER);
        let more = remedy.start < *known || remedy.change.kind == Kind::Model;
        *known = remedy.start.min(*known);
        more
    });
}

fn delays(base: &Played, played: &Played, gang: GangId) -> Delays {
    let mut delays = Delays::default();
    let mut most_ms = 0;
    for (other, before) in base.starts.iter().filter(|(other, _)| other.job != gang.job) {
        let after = played.starts.get(other).copied().unwrap_or(Time::NEVER);
        let more_ms = after.since_ms(*before);
        if more_ms <= NOTICED_MS {
            continue;
        }
        delays.gangs += 1;
        if more_ms > most_ms {
            (most_ms, delays.worst) = (more_ms, Some((*other, *before, after)));
        }
    }
    delays
}
