//! Random steps of a cluster: submits, placements, reports true and false, silence, operators, configuration.

mod whole;

use super::*;
use muster_common::DeviceId;
use muster_common::calendar::Period;
use muster_common::job::ArraySpec;
use muster_common::money::MicroUsd;
use muster_engine::organisation::{Account, Budget, Caps, Organisation, Price, Queue, Quota, User};
use muster_engine::policy::{ElasticPool, Policy};
use muster_engine::state::reservation::{Reservation, ReservationKind};
use muster_engine::state::window::Holders;

/// One step: which kind, and four numbers it draws its details from.
pub type Op = (u8, u32, u32, u32, u32);

/// Kinds of steps; together they make every command there is.
pub const KINDS: u8 = 27;

fn pick<T: Clone>(items: &[T], at: u32) -> Option<T> {
    (!items.is_empty()).then(|| items[at as usize % items.len()].clone())
}

pub fn random_scheduling(a: u32, b: u32, c: u32) -> muster_common::job::Scheduling {
    let mut spec = scheduling(1 + a % 3, b % 3);
    if b % 3 == 1 && c.is_multiple_of(4) {
        spec.groups[0].share = Share(400);
    }
    if c.is_multiple_of(5) {
        spec.array = Some(ArraySpec { count: 1 + c % 7, at_once: Some(1 + a % 2), stop_after_failures: Some(2) });
    }
    spec.limits.time_ms = (a.is_multiple_of(2)).then_some(30_000);
    spec.limits.wait_ms = (b.is_multiple_of(4)).then_some(600_000);
    (spec.retry.app, spec.retry.infra) = (a % 2, b % 3);
    spec.retry.exclude_failed_node = c.is_multiple_of(2);
    spec
}

pub fn step(cluster: &mut Cluster, (kind, a, b, c, d): Op) {
    let jobs: Vec<JobId> = cluster.state.jobs().keys().copied().collect();
    let gangs: Vec<GangId> = cluster.state.gangs().keys().copied().collect();
    let nodes: Vec<NodeId> = cluster.state.nodes().keys().copied().collect();
    match kind % KINDS {
        0 | 1 => {
            let mut spec = random_scheduling(a, b, c);
            spec.account = account(d);
            depend(&mut spec, &cluster.state, &jobs, d);
            let key = format!("key-{}", cluster.state.applied_index());
            cluster.apply(Command::Submit(Box::new(submit(&key, spec))));
        }
        16 => organise(cluster, a, b, c),
        2..=4 => place_some(cluster, &jobs, a, b),
        5 | 6 => prepare(cluster, &gangs, a),
        7 | 8 => report(cluster, &gangs, a, b, c, d),
        9 => {
            if let Some(job) = pick(&jobs, a) {
                let ordinal = (b.is_multiple_of(2)).then_some(c % 3);
                cluster.apply(Command::Cancel(Cancel { job, ordinal, reason: "test".into(), by: principal() }));
            }
        }
        10 => {
            cluster.pass(u64::from(a % 100_000));
            cluster.expire();
        }
        11 => administer(cluster, &nodes, a, b, c),
        12 => observe_silence(cluster, &nodes, a, b),
        13 => register_again(cluster, &nodes, a, b, c),
        14 => stray_report(cluster, &nodes, &gangs, a, b),
        15 => edit(cluster, &jobs, a, b, c, d),
        18 if d.is_multiple_of(3) => consolidate(cluster, &jobs, &gangs, &nodes, (a, b, c)),
        18 => take_back(cluster, &gangs, a, b, c),
        17 => reserve(cluster, &jobs, &nodes, a, b, c),
        20 => put_aside(cluster, &jobs, a, b, c),
        21 => switch(cluster, &jobs, &nodes, a, b, c),
        22 => whole::leap(cluster, a, b),
        23 => whole::invite(cluster, a, b, c),
        24 => whole::set(cluster, a, b, c),
        25 => whole::steer(cluster, a, b, c),
        26 => whole::declare(cluster, &jobs, (a, b, c, d)),
        _ => {
            if let Some(job) = pick(&jobs, a) {
                cluster.apply(Command::Hold { job, hold: b.is_multiple_of(2), by: principal() });
            }
        }
    }
}

/// Orders to sleep and to wake, right and wrong, and answers to them.
fn switch(cluster: &mut Cluster, jobs: &[JobId], nodes: &[NodeId], a: u32, b: u32, c: u32) {
    let Some(node) = pick(nodes, a) else { return };
    let epoch = cluster.state.node(node).map_or(0, |record| record.epoch) + u64::from(c.is_multiple_of(7));
    let why = "test".to_owned();
    let answer = match b % 3 {
        0 => PowerAnswer::Asleep,
        1 => PowerAnswer::NotAsleep { why },
        _ => PowerAnswer::NotWoken { why },
    };
    cluster.apply(match c % 4 {
        3 => {
            let pool = ElasticPool { wake_timeout_ms: 20_000, wake_ms: 1000, ..ElasticPool::default() };
            let elastic = (!a.is_multiple_of(3)).then(|| (Name::literal("all"), pool)).into_iter().collect();
            let policy = Policy { elastic, ..Policy::default() };
            Command::Configure { change: Box::new(ConfigChange::Policy(policy)), by: principal() }
        }
        0 => Command::SleepNodes { nodes: vec![(node, epoch)] },
        1 => Command::NodePower { node, epoch, answer },
        _ => {
            let Some(job) = pick(jobs, b) else { return };
            let witness = (0..b % 3).map(|slot| DeviceId { node, slot: slot as u16 }).collect();
            let nodes = if b.is_multiple_of(4) { Vec::new() } else { vec![node] };
            Command::RequestNodes(Box::new(RequestNodes { gang: GangId::new(job, 0), nodes, witness }))
        }
    });
}

/// Now and then conditions on other jobs, some of them ended or never there, and a deadline.
fn depend(spec: &mut Scheduling, state: &State, jobs: &[JobId], d: u32) {
    let other = pick(jobs, d).unwrap_or(JobId(u64::from(d % 40)));
    match d % 13 {
        0 => spec.after.ok = vec![other],
        1 => (spec.after.any, spec.after.or_cancel) = (vec![other, JobId(other.0 + 1)], true),
        2 => (spec.after.not_ok, spec.after.or_cancel) = (vec![other], true),
        3 => spec.after.started = vec![other],
        4 => spec.after.singleton = true,
        5 => spec.deadline_at_ms = Some(state.now().plus_ms(u64::from(d % 200_000)).0),
        _ => {}
    }
}

/// One of a few accounts, or none of them.
fn account(d: u32) -> Name {
    Name::new(["default", "a0", "a1", "a2", "a3", "a4"][d as usize % 6]).unwrap()
}

/// Another organisation, or back to an earlier one.
fn organise(cluster: &mut Cluster, a: u32, b: u32, c: u32) {
    let change = match a.is_multiple_of(4) {
        true => ConfigChange::RollBackOrganisation { version: b % 8 },
        false => ConfigChange::Organisation(Arc::new(organisation(a, b, c))),
    };
    cluster.apply(Command::Configure { change: Box::new(change), by: principal() });
}

/// A tree of accounts under each other, sometimes one that is refused.
fn organisation(a: u32, b: u32, c: u32) -> Organisation {
    let caps = Caps {
        gpus: (c.is_multiple_of(3)).then_some(1 + b % 5),
        running: (c.is_multiple_of(5)).then_some(1 + b % 3),
        jobs: (c.is_multiple_of(7)).then_some(1 + b % 4),
        array: (c.is_multiple_of(11)).then_some(1 + b % 4),
        time_ms: (c.is_multiple_of(4)).then_some(20_000 + u64::from(b % 50_000)),
    };
    let quota = Quota { nominal: b % 4, borrow_limit: Some(c % 3), lend_limit: None };
    let per = [Period::Day, Period::Week, Period::Year][b as usize % 3];
    let budget = Budget { usd: MicroUsd(u64::from(b % 1000) * 1_000), per };
    let price = |model, usd: u32| Price { model, usd_per_gpu_hour: MicroUsd(u64::from(usd) * 500_000) };
    let one = |n: u32| Account {
        name: account(n),
        parent: (n > 1 && !(b >> n).is_multiple_of(2)).then(|| account(1 + c % n)),
        weight: i64::from(c >> n) % 4,
        priority: c % 5,
        quota: (n == 1).then(|| (Name::literal("H100"), quota)).into_iter().collect(),
        limits: if n == 1 { caps } else { Caps::default() },
        user_limits: if n == 2 { caps } else { Caps::default() },
        users: (n == 3).then(|| ("alice".to_owned(), User { weight: 2, limits: Some(caps) })).into_iter().collect(),
        cells: Vec::new(),
        budget: (n == 2 || c.is_multiple_of(5)).then_some(budget),
        reclaim_within_ms: None,
    };
    let queue = Queue {
        name: Name::literal("default"),
        account: Some(account(1 + a % 5)),
        default_time_ms: (!b.is_multiple_of(9)).then_some(30_000),
        max_time_ms: None,
    };
    let accounts = (1..1 + a % 6).map(one).collect();
    let queues = (c.is_multiple_of(2)).then_some(queue).into_iter().collect();
    let prices = vec![price(Some(Name::literal("H100")), c % 4), price(None, 1)];
    let spot = (Name::literal("disk"), "nvme".to_owned());
    let preemptible_only = (c.is_multiple_of(3)).then_some(spot).into_iter().collect();
    let prices = if a.is_multiple_of(7) { Vec::new() } else { prices };
    Organisation { accounts, queues, prices, preemptible_only }
}

fn put_aside(cluster: &mut Cluster, jobs: &[JobId], a: u32, b: u32, c: u32) {
    let command = match window(cluster, jobs, (a, b, c)) {
        asked if b.is_multiple_of(4) => Command::EndWindow { name: asked.name, by: principal() },
        asked => Command::MakeWindow(Box::new(asked)),
    };
    cluster.apply(command);
}

/// Now or later, for nobody, an account or some jobs; sometimes one that is refused.
fn window(cluster: &Cluster, jobs: &[JobId], (a, b, c): (u32, u32, u32)) -> MakeWindow {
    let start = Time(cluster.state.now().0.saturating_add(u64::from(b)).saturating_sub(20_000));
    MakeWindow {
        name: Name::literal(["w0", "w1", "w2"][a as usize % 3]),
        start,
        end: if c.is_multiple_of(50) { Time::NEVER } else { start.plus_ms(u64::from(c % 70_000)) },
        nodes: match c % 4 {
            0 => Which::All,
            1 => Which::Some { nodes: a % 4, model: Some(Name::literal("H100")), level: None },
            2 => Which::Domain(vec![Name::literal("nowhere")]),
            _ => Which::Nodes(cluster.state.nodes().values().take(1).map(|node| node.name.clone()).collect()),
        },
        holders: match b % 3 {
            0 => Holders::Nobody,
            1 => Holders::Account(account(1 + a % 4)),
            _ => Holders::Jobs(pick(jobs, c).into_iter().collect()),
        },
        reason: "test".into(),
        by: principal(),
        managed: a.is_multiple_of(2),
    }
}

/// Orders to stop, right, late and for attempts that never were.
fn take_back(cluster: &mut Cluster, gangs: &[GangId], a: u32, b: u32, c: u32) {
    let Some(gang) = pick(gangs, a) else { return };
    let attempt = cluster.state.gang(gang).map_or(AttemptNo(1), |record| record.attempt);
    let attempt = if b.is_multiple_of(4) { AttemptNo(attempt.0 + 1) } else { attempt };
    let why = [StopFor::Order, StopFor::Priority, StopFor::Reclaim][c as usize % 3];
    let plan = cluster.plan(vec![PlanStep::Stop { gang, attempt, by: pick(gangs, b), why }]);
    cluster.apply(plan);
}

/// One gang is to move for another, right, late, and to where there is no room.
fn consolidate(cluster: &mut Cluster, jobs: &[JobId], gangs: &[GangId], nodes: &[NodeId], (a, b, c): (u32, u32, u32)) {
    let (Some(gang), Some(job), Some(node)) = (pick(gangs, a), pick(jobs, b), pick(nodes, c)) else { return };
    let Some(record) = cluster.state.gang(gang) else { return };
    let attempt = AttemptNo(record.attempt.0 + u32::from(c.is_multiple_of(9)));
    let parts = record.current().map(|attempt| attempt.parts.clone()).unwrap_or_default();
    let held =
        parts.iter().flat_map(|part| part.devices.iter().map(|(slot, _)| DeviceId { node: part.node, slot: *slot }));
    let (start, end) = (cluster.state.now(), cluster.state.now().plus_ms(u64::from(b % 40_000)));
    let kept = |gang, kind, witness| Reservation { gang, kind, start, end, domain: None, witness };
    let room = kept(GangId::new(job, b % 3), ReservationKind::Victims, held.collect());
    let place = kept(gang, ReservationKind::Moved, vec![DeviceId { node, slot: (b % 3) as u16 }]);
    let plan = cluster.plan(vec![PlanStep::Consolidate(Consolidation { room, moves: vec![Move { attempt, place }] })]);
    cluster.apply(plan);
}

fn reserve(cluster: &mut Cluster, jobs: &[JobId], nodes: &[NodeId], a: u32, b: u32, c: u32) {
    let (Some(job), Some(node)) = (pick(jobs, a), pick(nodes, b)) else { return };
    let gang = GangId::new(job, b % 3);
    use ReservationKind::{Booked, Moved, Victims, Wounded};
    let kind = [Victims, Wounded, Booked, Moved][c as usize % 4];
    let start = cluster.state.now();
    let end = start.plus_ms(u64::from(c));
    let witness = (0..1 + (c % 3) as u16).map(|slot| DeviceId { node, slot }).collect();
    let reservation = Reservation { gang, kind, start, end, domain: None, witness };
    let plan = cluster.plan(vec![PlanStep::Reserve(reservation)]);
    cluster.apply(plan);
}

fn place_some(cluster: &mut Cluster, jobs: &[JobId], a: u32, b: u32) {
    let Some(job) = pick(jobs, a) else { return };
    let record = cluster.state.job(job).unwrap();
    let ordinal = if b.is_multiple_of(3) { b % 5 } else { record.unstarted.first().unwrap_or(b % 5) };
    if let Some(placement) = cluster.naive_placement(GangId::new(job, ordinal)) {
        let plan = cluster.plan(vec![PlanStep::Place(placement.clone()), PlanStep::Place(placement)]);
        cluster.apply(plan);
    }
}

fn prepare(cluster: &mut Cluster, gangs: &[GangId], a: u32) {
    let Some(gang) = pick(gangs, a) else { return };
    for node in cluster.parts(gang) {
        if cluster.state.gang(gang).is_some_and(|record| record.current().is_some()) {
            cluster.report(node, gang, ReportBody::Prepared);
        }
    }
}

fn report(cluster: &mut Cluster, gangs: &[GangId], a: u32, b: u32, c: u32, d: u32) {
    let Some(gang) = pick(gangs, a) else { return };
    let Some(node) = pick(&cluster.parts(gang), b) else {
        return;
    };
    let body = match c % 9 {
        0 => ReportBody::PrepareFailed { infra: d.is_multiple_of(2), why: "test".into() },
        1..=3 => ReportBody::Exited { rank: d % 6, exit: OK, why: String::new() },
        4 => ReportBody::Exited { rank: d % 6, exit: Exit::Code(1), why: String::new() },
        5 => ReportBody::DeviceFault { slot: (d % 3) as u16, xid: 79, why: "test".into(), fatal: d.is_multiple_of(2) },
        8 => ReportBody::Checkpointed,
        6 if d.is_multiple_of(4) => ReportBody::Quarantined { slots: vec![(d % 3) as u16], why: "test".into() },
        _ => ReportBody::Released { lease_expired: d.is_multiple_of(2) },
    };
    cluster.report(node, gang, body);
}

fn administer(cluster: &mut Cluster, nodes: &[NodeId], a: u32, b: u32, c: u32) {
    let Some(node) = pick(nodes, a) else { return };
    let reason = String::from("test");
    let action = match b % 8 {
        0 => NodeAction::Cordon { reason },
        1 | 2 => NodeAction::Uncordon,
        3 => NodeAction::Drain { reason, deadline_ms: (c.is_multiple_of(2)).then_some(u64::from(c % 50_000)) },
        4 => NodeAction::Undrain,
        5 => NodeAction::StateReleased { reason },
        6 => NodeAction::EndQuarantine { slot: (c % 3) as u16, reason },
        _ => NodeAction::Remove { reason },
    };
    cluster.apply(Command::NodeAdmin { node, action, by: principal() });
}

fn observe_silence(cluster: &mut Cluster, nodes: &[NodeId], a: u32, b: u32) {
    let Some(node) = pick(nodes, a) else { return };
    let epoch = cluster.state.node(node).unwrap().epoch;
    let term = if b.is_multiple_of(5) { cluster.term + 1 } else { cluster.term };
    let command = match b % 3 {
        0 => Command::NodeSilent { node, epoch, term },
        1 => Command::NodeFenced { node, epoch, term, waited_ms: u64::from(b % 600_000) },
        _ => Command::NodeSeen { node, epoch },
    };
    cluster.apply(command);
}

fn register_again(cluster: &mut Cluster, nodes: &[NodeId], a: u32, b: u32, c: u32) {
    let name = match pick(nodes, a) {
        Some(node) => cluster.state.node(node).unwrap().name.to_string(),
        None => "n9".into(),
    };
    if c.is_multiple_of(53) {
        cluster.apply(Command::Configure { change: Box::new(ConfigChange::Restore), by: principal() });
    }
    let mut again = registration(&name, 3);
    let mut inventory = (*again.inventory).clone();
    inventory.boot_id = format!("boot-{}", b % 3);
    if b.is_multiple_of(11) {
        inventory.hardware_id = "other".into();
    }
    if b.is_multiple_of(7) {
        inventory.devices.pop();
        inventory.links.pop();
        inventory.links.iter_mut().for_each(|row| {
            row.pop();
        });
    }
    if b.is_multiple_of(13) {
        (inventory.cpu_milli, inventory.memory_bytes) = (1, 1);
    }
    again.inventory = inventory.into();
    again.old_boot_silent = c.is_multiple_of(2);
    again.store_lost = c.is_multiple_of(5);
    if again.store_lost {
        again.store_id = format!("store-{c}");
    }
    if !c.is_multiple_of(3) {
        let held = |gang: &muster_engine::state::gang::GangRecord| {
            let attempt = gang.current()?;
            let slot = (a.wrapping_add(gang.id.ordinal) % 5) as u16;
            let occupied = Occupied { devices: vec![(slot, 500), (slot, 500)], grace_ms: 1, ..Occupied::default() };
            let live = a.is_multiple_of(2).then_some(occupied);
            Some(HeldToken { gang: gang.id, attempt: attempt.number, token: attempt.token, live })
        };
        again.held = cluster.state.gangs().values().filter_map(held).collect();
    }
    cluster.apply(Command::RegisterNode(Box::new(again)));
}

/// Sometimes only what may change while it runs, sometimes everything; sometimes the same request again.
fn edit(cluster: &mut Cluster, jobs: &[JobId], a: u32, b: u32, c: u32, d: u32) {
    let Some(job) = pick(jobs, a) else { return };
    let now = cluster.state.scheduling(cluster.state.job(job).unwrap()).clone();
    let command = cluster.edit_of(job, &format!("r{}", d % 50), |edit| {
        if b.is_multiple_of(2) {
            edit.scheduling = random_scheduling(b, c, d);
            edit.scheduling.array = now.array.clone();
            depend(&mut edit.scheduling, &cluster.state, jobs, d / 7);
        }
        edit.scheduling.limits.time_ms = (!c.is_multiple_of(3)).then_some(u64::from(c % 90_000) + 1);
        edit.scheduling.limits.wait_ms = (c.is_multiple_of(5)).then_some(u64::from(d % 900_000) + 1);
        if let Some(array) = &mut edit.scheduling.array {
            array.at_once = (!d.is_multiple_of(3)).then_some(1 + d % 3);
            array.stop_after_failures = (d.is_multiple_of(2)).then_some(1 + d % 4);
        }
        edit.from_revision += u32::from(d.is_multiple_of(13));
    });
    cluster.apply(command.clone());
    if d.is_multiple_of(3) {
        cluster.apply(command);
    }
}

/// Old, wrong and unknown tokens are no-ops.
fn stray_report(cluster: &mut Cluster, nodes: &[NodeId], gangs: &[GangId], a: u32, b: u32) {
    let Some(node) = pick(nodes, a) else { return };
    let gang = pick(gangs, b).unwrap_or(GangId::new(JobId(u64::from(b)), 0));
    let token = (AttemptNo(b % 4), Token { generation: 1, index: u64::from(a) });
    cluster.report_as(node, gang, token, ReportBody::Released { lease_expired: false });
}
