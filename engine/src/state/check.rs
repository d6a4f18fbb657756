//! Every invariant of State. Runs after every entry in tests, and never in production's hot path.

use super::State;
use super::gang::{Attempt, GangRecord, GangState, PartState};
use super::node::{DeviceState, NodeRecord, Power};
use super::timer::Timer;
use muster_common::job::{Hash, Scheduling};
use muster_common::resources::{Amount, Share};
use muster_common::{GangId, JobId, NodeId, Time, Token};
use std::collections::{BTreeMap, BTreeSet};

type Broken = Result<(), String>;

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Broken {
    if holds { Ok(()) } else { Err(what()) }
}

/// What the gangs and orphans say a node should be holding.
#[derive(Default)]
struct Expected {
    holders: BTreeMap<u16, Vec<(GangId, Token, u16)>>,
    amount: Amount,
    gangs: BTreeSet<GangId>,
    ports: BTreeMap<u16, GangId>,
}

impl State {
    /// The first broken invariant, in words.
    pub fn check(&self) -> Broken {
        let mut expected = self.expected_of_gangs()?;
        for node in self.nodes.values() {
            let expected = expected.remove(&node.id).unwrap_or_default();
            self.check_node(node, expected)?;
        }
        ensure(expected.is_empty(), || format!("gangs hold parts of unknown nodes: {:?}", expected.keys()))?;
        // First, because the jobs' check follows what these hold together.
        self.check_counts()?;
        self.check_jobs()?;
        self.check_timers()?;
        self.check_waiting_records()?;
        self.check_dependencies()?;
        self.accounts.check()?;
        self.policies.check()?;
        self.windows.check()?;
        self.declarations.check()?;
        self.check_usage()?;
        self.run_times.check()?;
        self.check_keys()
    }

    fn expected_of_gangs(&self) -> Result<BTreeMap<NodeId, Expected>, String> {
        let mut expected: BTreeMap<NodeId, Expected> = BTreeMap::new();
        for gang in self.gangs.values() {
            let Some(attempt) = gang.current() else { continue };
            ensure(attempt.number == gang.attempt, || format!("gang {} runs another attempt than its own", gang.id))?;
            check_attempt(gang.id, attempt, &gang.state)?;
            for (at, part) in attempt.parts.iter().enumerate() {
                if part.state.is_settled() {
                    continue;
                }
                let node = expected.entry(part.node).or_default();
                node.gangs.insert(gang.id);
                node.amount = node.amount.plus(&part.amount);
                for (slot, milli) in &part.devices {
                    node.holders.entry(*slot).or_default().push((gang.id, attempt.token, *milli));
                }
                if at == 0 {
                    node.ports.insert(attempt.master_port, gang.id);
                }
            }
        }
        Ok(expected)
    }

    fn check_node(&self, node: &NodeRecord, mut expected: Expected) -> Broken {
        let id = node.id;
        ensure(self.node_names.get(&node.name) == Some(&id), || format!("node {id} is not under its name"))?;
        let known = node.inventory.devices.len();
        ensure(node.devices.len() == known, || format!("node {id}: {} device states for {known}", node.devices.len()))?;
        for orphan in &node.orphans {
            expected.amount = expected.amount.plus(&orphan.amount);
            if let Some(port) = orphan.port {
                expected.ports.insert(port, orphan.gang);
            }
            for (slot, milli) in &orphan.devices {
                expected.holders.entry(*slot).or_default().push((orphan.gang, orphan.token, *milli));
                let state = node.devices.get(usize::from(*slot));
                ensure(!matches!(state, Some(DeviceState::Ok(_)) | None), || {
                    format!("node {id}: device {slot} counts as free while {} may still be on it", orphan.gang)
                })?;
            }
        }
        ensure(node.gangs == expected.gangs, || {
            format!("node {id}: gangs {:?}, expected {:?}", node.gangs, expected.gangs)
        })?;
        ensure(node.used == expected.amount, || {
            format!("node {id}: used {:?}, expected {:?}", node.used, expected.amount)
        })?;
        ensure(node.ports == expected.ports, || {
            format!("node {id}: ports {:?}, expected {:?}", node.ports, expected.ports)
        })?;
        // What has no work can be switched off; what is unproven cannot.
        let works = !node.gangs.is_empty() || !node.orphans.is_empty();
        ensure(node.power.is_awake() || !works, || format!("node {id} is {} with work", node.power.word()))?;
        ensure(node.inventory.amount().covers(&node.used), || {
            format!("node {id}: more CPU or memory used than there is")
        })?;
        for (slot, device) in node.devices.iter().enumerate() {
            check_device(id, slot as u16, device, expected.holders.remove(&(slot as u16)).unwrap_or_default())?;
        }
        ensure(expected.holders.is_empty(), || {
            format!("node {id}: held slots that do not exist: {:?}", expected.holders.keys())
        })
    }

    fn check_jobs(&self) -> Broken {
        let mut live: BTreeMap<JobId, (u32, u32)> = BTreeMap::new();
        for gang in self.gangs.values() {
            let job = self.jobs.get(&gang.id.job).ok_or_else(|| format!("gang {} has no job", gang.id))?;
            ensure(!job.unstarted.contains(gang.id.ordinal), || format!("gang {} is started and unstarted", gang.id))?;
            ensure(job.revisions.iter().any(|revision| revision.number == gang.revision), || {
                format!("gang {} points to revision {} that its job has not", gang.id, gang.revision)
            })?;
            let counts = live.entry(gang.id.job).or_default();
            counts.0 += 1;
            counts.1 += u32::from(gang.current().is_some());
        }
        for job in self.jobs.values() {
            let (gangs, active) = live.get(&job.id).copied().unwrap_or_default();
            ensure((job.gangs_live, job.gangs_active) == (gangs, active), || {
                format!("job {}: counts ({}, {}), found ({gangs}, {active})", job.id, job.gangs_live, job.gangs_active)
            })?;
            ensure(!job.is_over(), || format!("job {} is over and still in State", job.id))?;
            let accounted = gangs + job.unstarted.len() + job.tally.total();
            let declared = self.scheduling(job).gangs();
            ensure(accounted == declared, || format!("job {}: {accounted} of {declared} gangs accounted for", job.id))?;
            let most = self.scheduling(job).array.as_ref().and_then(|array| array.at_once);
            ensure(most.is_none_or(|most| active <= most), || {
                format!("job {} runs {active} elements at once", job.id)
            })?;
        }
        Ok(())
    }

    fn check_counts(&self) -> Broken {
        for job in self.jobs.values() {
            ensure(!job.revisions.is_empty(), || format!("job {} has no revision", job.id))?;
        }
        let mut schedulings: BTreeMap<Hash, u64> = BTreeMap::new();
        let mut launches: BTreeMap<Hash, u64> = BTreeMap::new();
        for revision in self.jobs.values().flat_map(|job| &job.revisions) {
            *schedulings.entry(revision.scheduling).or_default() += 1;
            *launches.entry(revision.launch).or_default() += 1;
        }
        let kept: BTreeMap<Hash, u64> = self.schedulings.iter().map(|(key, record)| (*key, record.count)).collect();
        ensure(kept == schedulings, || "interned scheduling parts are miscounted".into())?;
        let kept: BTreeMap<Hash, u64> = self.launches.iter().map(|(key, record)| (*key, record.count)).collect();
        ensure(kept == launches, || "launch parts are miscounted".into())
    }

    /// Every deadline that must exist does, and every timer belongs to something.
    fn check_timers(&self) -> Broken {
        let timers: BTreeSet<(Time, Timer)> = self.timers.keys().copied().collect();
        for gang in self.gangs.values() {
            let id = gang.id;
            let wanted = match &gang.state {
                GangState::Starting(attempt) => {
                    let at = attempt.placed_at.plus_ms(self.settings.start_within_ms);
                    // One beyond the end of time never comes.
                    (at < Time::NEVER).then_some((at, Timer::StartDeadline { gang: id, attempt: attempt.number }))
                }
                GangState::Running(attempt) => {
                    let limit_ms = self.revision_of(gang).and_then(|scheduling| scheduling.limits.time_ms);
                    let end = attempt.started_at.zip(limit_ms).map(|(at, ms)| at.plus_ms(ms));
                    end.map(|at| (at, Timer::TimeLimit { gang: id, attempt: attempt.number }))
                }
                _ => None,
            };
            let missing = wanted.filter(|(at, _)| *at < Time::NEVER).filter(|timer| !timers.contains(timer));
            ensure(missing.is_none(), || format!("gang {id} has no timer {missing:?}"))?;
        }
        for node in self.nodes.values() {
            let (by, timer) = match node.power {
                Power::Waking { by, .. } => (by, Timer::Wake { node: node.id }),
                Power::FallingAsleep { by, .. } => (by, Timer::FallAsleep { node: node.id }),
                _ => continue,
            };
            let bounded = by == Time::NEVER || timers.contains(&(by, timer));
            ensure(bounded, || format!("node {} may be {} for ever", node.id, node.power.word()))?;
        }
        for known in self.reservations.values().filter(|known| known.end < Time::NEVER) {
            let timer = (known.end, Timer::Reservation { gang: known.gang });
            ensure(timers.contains(&timer), || format!("the reservation of {} never ends", known.gang))?;
        }
        for (_, timer) in &timers {
            let belongs = match timer {
                Timer::StartDeadline { gang, attempt } => matches!(
                    self.gangs.get(gang).map(|record| &record.state),
                    Some(GangState::Starting(current)) if current.number == *attempt
                ),
                Timer::TimeLimit { gang, attempt } => matches!(
                    self.gangs.get(gang).map(|record| &record.state),
                    Some(GangState::Running(current)) if current.number == *attempt
                ),
                Timer::WaitLimit { job } | Timer::Deadline { job } => self.jobs.contains(job),
                Timer::NotBefore { gang } => self.jobs.contains(&gang.job),
                Timer::DrainDeadline { node } => self.nodes.get(node).is_some_and(|node| node.closed.is_some()),
                Timer::JoinToken { hash } => self.tokens.contains_key(hash),
                Timer::Reservation { gang } => self.reservations.contains_key(gang),
                Timer::Keys => true,
                Timer::Window { number } => self.windows.get(*number).is_some(),
                Timer::Wake { node } => {
                    self.nodes.get(node).is_some_and(|node| matches!(node.power, Power::Waking { .. }))
                }
                Timer::FallAsleep { node } => {
                    self.nodes.get(node).is_some_and(|node| matches!(node.power, Power::FallingAsleep { .. }))
                }
            };
            ensure(belongs, || format!("{timer:?} belongs to nothing"))?;
        }
        Ok(())
    }

    /// The scheduling part a gang runs.
    fn revision_of(&self, gang: &GangRecord) -> Option<&Scheduling> {
        let job = self.jobs.get(&gang.id.job)?;
        let revision = job.revisions.iter().find(|revision| revision.number == gang.revision)?;
        self.schedulings.get(&revision.scheduling).map(|interned| &*interned.scheduling)
    }

    fn check_waiting_records(&self) -> Broken {
        for gang in self.reservations.keys().chain(self.parked.keys()) {
            let known = self.reservations.get(gang);
            ensure(known.is_none_or(|known| known.gang == *gang), || format!("a reservation of another than {gang}"))?;
            let outlasts = known.is_some_and(|known| known.kind.outlasts_attempt());
            let waiting = match self.gangs.get(gang) {
                // A gang that lost a node keeps the others from the moment on which it is stopped, one that is moved its
                // new place.
                Some(record) if outlasts => {
                    matches!(record.state, GangState::Queued { .. } | GangState::Stopping(..))
                }
                Some(record) => matches!(record.state, GangState::Queued { .. }),
                None => self.jobs.get(&gang.job).is_some_and(|job| job.unstarted.contains(gang.ordinal)),
            };
            ensure(waiting, || format!("gang {gang} has a reservation or parking note and does not wait"))?;
        }
        Ok(())
    }

    fn check_usage(&self) -> Broken {
        ensure(self.usage.half_life_ms() == self.settings.usage_half_life_ms, || {
            "usage fades with another half-life than the settings say".into()
        })?;
        let jobs = self.jobs.values().map(|job| self.payer(job));
        self.usage.check(&self.accounts, &self.holdings(), jobs)
    }

    fn check_keys(&self) -> Broken {
        ensure(self.keys.len() == self.key_ages.len(), || "idempotency keys and their ages differ".into())?;
        for (at, key) in self.key_ages.keys() {
            ensure(self.keys.get(key).is_some_and(|record| record.at == *at), || format!("key {key} has another age"))?;
        }
        Ok(())
    }
}

fn check_attempt(gang: GangId, attempt: &Attempt, state: &GangState) -> Broken {
    ensure(!attempt.parts.is_empty(), || format!("gang {gang} has an attempt without parts"))?;
    let mut nodes = BTreeSet::new();
    let mut base = 0;
    for part in &attempt.parts {
        ensure(nodes.insert(part.node), || format!("gang {gang} has two parts on node {}", part.node))?;
        ensure(part.rank_base == base && part.exits.len() == part.ranks as usize, || {
            format!("gang {gang}: ranks on node {} are misnumbered", part.node)
        })?;
        base += part.ranks;
    }
    ensure(base == attempt.world_size, || format!("gang {gang}: world size {} of {base} ranks", attempt.world_size))?;
    let parts = || attempt.parts.iter().map(|part| part.state);
    match state {
        GangState::Starting(_) => {
            let starting = parts().all(|part| matches!(part, PartState::Placed | PartState::Prepared));
            ensure(starting && !parts().all(|part| part == PartState::Prepared), || {
                format!("gang {gang} is starting with parts {:?}", parts().collect::<Vec<_>>())
            })
        }
        GangState::Running(_) => ensure(parts().all(|part| part == PartState::Prepared), || {
            format!("gang {gang} runs with parts {:?}", parts().collect::<Vec<_>>())
        }),
        GangState::Stopping(..) => {
            ensure(!parts().all(PartState::is_settled), || format!("gang {gang} is stopping with every part settled"))
        }
        GangState::Queued { .. } => Err(format!("gang {gang} is queued with an attempt")),
    }
}

fn check_device(node: NodeId, slot: u16, device: &DeviceState, mut expected: Vec<(GangId, Token, u16)>) -> Broken {
    let mut found: Vec<(GangId, Token, u16)> =
        device.holders().iter().map(|holder| (holder.gang, holder.token, holder.milli)).collect();
    let sum: u32 = found.iter().map(|holder| u32::from(holder.2)).sum();
    let whole = found.iter().any(|holder| Share(holder.2).is_whole());
    ensure(sum <= u32::from(Share::WHOLE.0) && !(whole && found.len() > 1), || {
        format!("device {node}:{slot} is shared beyond itself: {found:?}")
    })?;
    found.sort();
    expected.sort();
    ensure(found == expected, || format!("device {node}:{slot} is held by {found:?}, expected {expected:?}"))
}
