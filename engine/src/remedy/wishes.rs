//! What a user can change of a job of their own, besides its size.

use super::ground::{Ground, largest_below};
use super::{Change, Kind};
use crate::command::Command;
use crate::plan::runtime::{Quality, run_time};
use crate::state::reservation::ReservationKind;
use muster_common::job::file::MomentText;
use muster_common::job::{Count, GroupRequest, Scheduling};
use muster_common::time::{HOUR_MS, MINUTE_MS};
use muster_common::topology::{TopologyMode, TopologyRequest};
use muster_common::{Name, Time};
use std::collections::BTreeSet;

/// Other models, classes and accounts that are tried.
const OTHERS_MAX: usize = 2;
/// Time limits that are tried, until one of them helps.
const LIMITS_MAX: usize = 4;
const GIB: u64 = 1 << 30;

pub(super) fn of_its_user(ground: &Ground) -> Vec<Change> {
    let mut changes = of_the_job(ground);
    // What fits as it is waits for its turn, not for other wishes.
    if !ground.fits(&ground.scheduling) {
        for (at, group) in ground.scheduling.groups.iter().enumerate() {
            changes.extend(amounts(ground, at, group));
            changes.extend(places(ground, at, group));
            changes.extend(loosened(ground, at, group));
            changes.extend(models(ground, at, group));
        }
        changes.extend(together(ground));
    }
    changes.extend(classes(ground));
    changes.extend(accounts(ground));
    changes
}

fn of_the_job(ground: &Ground) -> Vec<Change> {
    let (id, scheduling) = (ground.job.id, &ground.scheduling);
    let mut changes = Vec::new();
    if ground.job.held {
        let entries = vec![Command::Hold { job: id, hold: false, by: ground.job.principal.clone() }];
        let (text, command) = ("no longer held".to_owned(), format!("muster release {id}"));
        changes.push(Change { kind: Kind::Release, text, command, entries });
    }
    if scheduling.begin_at_ms.is_some_and(|at| at > ground.now.0) {
        let mut other = (**scheduling).clone();
        other.begin_at_ms = Some(ground.now.0);
        let value = format!("\"{}\"", MomentText::of_ms(ground.now.0));
        changes.extend(ground.set(Kind::Begin, "begin now".into(), ("begin", &value), other));
    }
    let at_once = scheduling.array.as_ref().and_then(|array| array.at_once);
    if let Some(most) = at_once.filter(|most| ground.decided.job(id).is_some_and(|job| job.gangs_active >= *most)) {
        let mut other = (**scheduling).clone();
        other.array.iter_mut().for_each(|array| array.at_once = Some(most + 1));
        let text = format!("{} of the array at once instead of {most}", most + 1);
        changes.extend(ground.set(Kind::AtOnce, text, ("array.at_once", &(most + 1).to_string()), other));
    }
    changes.extend(time_limits(ground));
    changes
}

/// Limits that end before one of the starts that are booked for others, in whole minutes, the longest first. Never less
/// than the job is known to run.
fn time_limits(ground: &Ground) -> Vec<Change> {
    let limits = &ground.scheduling.limits;
    let known = run_time(ground.state.policy(), ground.job, limits);
    if known.is_some_and(|known| !matches!(known.quality, Quality::Limit | Quality::Learned)) {
        return Vec::new();
    }
    let of_others = ground.decided.reservations().values().filter(|known| {
        let booked = matches!(known.kind, ReservationKind::Booked | ReservationKind::Head);
        known.gang != ground.gang && booked && known.start < Time::NEVER
    });
    let account = &ground.scheduling.account;
    let windows = ground.decided.windows().iter().filter(|window| {
        window.start > ground.now && !window.holders.admit(ground.decided.accounts(), ground.job.id, account)
    });
    let before_booked = of_others.map(|known| known.start.since_ms(ground.now).saturating_sub(1));
    // What runs may hold its nodes for its grace beyond the limit, and windows keep that out as well.
    let grace_ms = ground.scheduling.checkpoint.grace_ms;
    let before_windows = windows.map(|window| window.start.since_ms(ground.now).saturating_sub(grace_ms));
    let least_ms = limits.expected_ms.max(ground.job.learned_ms).unwrap_or(0).max(MINUTE_MS);
    let helps = |limit_ms: &u64| *limit_ms >= least_ms && limits.time_ms.is_none_or(|now_ms| *limit_ms < now_ms);
    let whole = |ms: u64| ms / MINUTE_MS * MINUTE_MS;
    let all: BTreeSet<u64> = before_booked.chain(before_windows).map(whole).filter(helps).collect();
    // The shortest is before all that may be in the way, so it helps where any does.
    let longest = all.iter().rev().take(LIMITS_MAX - 1);
    let shortest = all.iter().take(all.len().saturating_sub(LIMITS_MAX - 1).min(1));
    longest.chain(shortest).filter_map(|limit_ms| time_limit(ground, *limit_ms)).collect()
}

fn time_limit(ground: &Ground, limit_ms: u64) -> Option<Change> {
    let mut other = (*ground.scheduling).clone();
    let before = other.limits.time_ms.replace(limit_ms).map_or("none".to_owned(), duration);
    let limit = duration(limit_ms);
    let text = format!("a time limit of {limit} instead of {before}");
    ground.edit(Kind::TimeLimit, text, format!("muster edit {} --time-limit {limit}", ground.job.id), other)
}

/// `1h50m`; rounded down to minutes where there are any.
fn duration(ms: u64) -> String {
    match (ms / HOUR_MS, ms % HOUR_MS / MINUTE_MS) {
        (0, 0) => format!("{}s", ms / 1000),
        (0, minutes) => format!("{minutes}m"),
        (hours, 0) => format!("{hours}h"),
        (hours, minutes) => format!("{hours}h{minutes}m"),
    }
}

/// Less CPU, or less memory, where all that is asked for is too much.
fn amounts(ground: &Ground, at: usize, group: &GroupRequest) -> Vec<Change> {
    let with = |change: &dyn Fn(&mut GroupRequest)| {
        let mut scheduling = (*ground.scheduling).clone();
        change(&mut scheduling.groups[at]);
        scheduling
    };
    let mut changes = Vec::new();
    let cpus = ground.decided.nodes().values().map(|node| node.inventory.cpu_milli / 1000).max().unwrap_or(0) + 1;
    let cpus = group.cpu_milli_per_node.map_or(cpus, |milli| milli.div_ceil(1000));
    let fewer = |cpus: u64| with(&|group| group.cpu_milli_per_node = Some(cpus * 1000));
    if let Some(cpus) = largest_below(cpus, |cpus| ground.fits(&fewer(cpus))) {
        let before = group.cpu_milli_per_node.map_or("its share".to_owned(), |milli| (milli / 1000).to_string());
        let text = format!("{cpus} CPUs on each node instead of {before}");
        let smaller = fewer(cpus).groups.swap_remove(at);
        let value = cpus.to_string();
        changes.extend(ground.set_group(Kind::CpuMemory, text, (at, "cpus_per_node", &value), smaller));
    }
    let Some(bytes) = group.memory_bytes_per_node else { return changes };
    let less = |gib: u64| with(&|group| group.memory_bytes_per_node = Some(gib * GIB));
    if let Some(gib) = largest_below(bytes.div_ceil(GIB), |gib| ground.fits(&less(gib))) {
        let text = format!("{gib} GiB of memory on each node instead of {}", bytes / GIB);
        let smaller = less(gib).groups.swap_remove(at);
        let value = format!("\"{gib}GiB\"");
        changes.extend(ground.set_group(Kind::CpuMemory, text, (at, "memory_per_node", &value), smaller));
    }
    changes
}

/// A required level: one more domain of it, the next wider one, or only preferred.
fn places(ground: &Ground, at: usize, group: &GroupRequest) -> Vec<Change> {
    let mut changes = Vec::new();
    let nodes = match &group.count {
        Count::Nodes { nodes, .. } => *nodes,
        Count::Total(total) => total.devices,
    };
    for (number, request) in group.topology.iter().enumerate() {
        if request.mode != TopologyMode::Required {
            continue;
        }
        let (level, most) = (&request.level, request.at_most);
        let mut offer = |text: String, other: TopologyRequest| {
            let mut group = group.clone();
            group.topology[number] = other;
            // Two lines about one level that ask for the same are one.
            let mut seen: BTreeSet<TopologyRequest> = BTreeSet::new();
            group.topology.retain(|request| seen.insert(request.clone()));
            let value = topology_value(&group.topology);
            changes.extend(ground.set_group(Kind::Topology, text, (at, "topology", &value), group));
        };
        if level.as_str() != "node" && most < nodes {
            let more = format!("at most {} of level {level} instead of {most}", most + 1);
            offer(more, TopologyRequest { at_most: most + 1, ..request.clone() });
        }
        if let Some(wider) = wider(ground, level) {
            let text = format!("at most {most} of level {wider} instead of {level}");
            offer(text, TopologyRequest { level: wider, ..request.clone() });
        }
        let text = format!("level {level} preferred instead of required");
        offer(text, TopologyRequest { mode: TopologyMode::Preferred, ..request.clone() });
    }
    if let Some(spread) = &group.spread {
        let mut other = group.clone();
        let more = spread.nodes + 1;
        other.spread.iter_mut().for_each(|spread| spread.nodes = more);
        let text = format!("at most {more} nodes in one domain of level {} instead of {}", spread.level, spread.nodes);
        changes.extend(ground.set_group(Kind::Topology, text, (at, "spread.nodes", &more.to_string()), other));
    }
    changes.extend(smaller_segments(ground, at, group));
    if group.segment.as_ref().is_some_and(|segment| segment.apart) {
        let mut other = group.clone();
        other.segment.iter_mut().for_each(|segment| segment.apart = false);
        let text = "segments may share a domain".to_owned();
        changes.extend(ground.set_group(Kind::Topology, text, (at, "segments.apart", "false"), other));
    }
    changes
}

/// The largest segments that divide those asked for and fit.
fn smaller_segments(ground: &Ground, at: usize, group: &GroupRequest) -> Option<Change> {
    let nodes = group.segment.as_ref()?.nodes;
    let with = |nodes: u32| {
        let mut group = group.clone();
        group.segment.iter_mut().for_each(|segment| segment.nodes = nodes);
        group
    };
    let fits = |nodes: u32| {
        let mut scheduling = (*ground.scheduling).clone();
        scheduling.groups[at] = with(nodes);
        ground.fits(&scheduling)
    };
    let smaller = (1..nodes).rev().filter(|smaller| nodes % smaller == 0).find(|smaller| fits(*smaller))?;
    let text = format!("segments of {smaller} nodes instead of {nodes}");
    ground.set_group(Kind::Topology, text, (at, "segments.nodes", &smaller.to_string()), with(smaller))
}

fn wider(ground: &Ground, level: &Name) -> Option<Name> {
    let fabric = ground.state.fabric();
    let (tree, depth) = fabric.find_level(level.as_str())?;
    fabric.trees[tree].levels.get(depth.checked_sub(2)?).cloned()
}

/// As the job file has it: a table for each level.
fn topology_value(requests: &[TopologyRequest]) -> String {
    let mut tables: Vec<(&Name, Vec<String>)> = Vec::new();
    for request in requests {
        let key = if request.mode == TopologyMode::Required { "at_most" } else { "prefer" };
        let value = format!("{key} = {}", request.at_most);
        match tables.iter_mut().find(|(level, _)| **level == request.level) {
            Some((_, values)) => values.push(value),
            None => tables.push((&request.level, vec![value])),
        }
    }
    let table = |(level, values): &(&Name, Vec<String>)| format!("{{ within = \"{level}\", {} }}", values.join(", "));
    format!("[{}]", tables.iter().map(table).collect::<Vec<_>>().join(", "))
}

/// What holds for all groups together, one level up.
fn together(ground: &Ground) -> Option<Change> {
    let request = ground.scheduling.together.first()?;
    let wider = wider(ground, &request.level)?;
    let text = format!("all groups in one domain of level {wider} instead of {}", request.level);
    let mut other = (*ground.scheduling).clone();
    other.together[0].level = wider;
    let value = topology_value(&other.together);
    ground.set(Kind::Topology, text, ("gang.topology", &value), other)
}

fn loosened(ground: &Ground, at: usize, group: &GroupRequest) -> Vec<Change> {
    let mut changes = Vec::new();
    if !group.exclude.is_empty() {
        let other = GroupRequest { exclude: Vec::new(), ..group.clone() };
        let text = "no node excluded by name".to_owned();
        changes.extend(ground.set_group(Kind::Exclude, text, (at, "exclude", "[]"), other));
    }
    for (key, value) in &group.labels {
        let mut other = group.clone();
        other.labels.remove(key);
        let text = format!("without the label {key}={value}");
        changes.extend(ground.set_group(Kind::Labels, text, (at, "labels", &labels_value(&other)), other));
    }
    if group.labels.len() > 1 {
        let mut other = group.clone();
        other.labels.clear();
        let text = "without any label".to_owned();
        changes.extend(ground.set_group(Kind::Labels, text, (at, "labels", "{}"), other));
    }
    if group.exclusive {
        let other = GroupRequest { exclusive: false, ..group.clone() };
        let text = "nodes shared with others".to_owned();
        changes.extend(ground.set_group(Kind::Exclusive, text, (at, "exclusive", "false"), other));
    }
    changes
}

fn labels_value(group: &GroupRequest) -> String {
    let pairs = group.labels.iter().map(|(key, value)| format!("\"{key}\" = {value:?}"));
    format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
}

/// Models that are free, and not among those the group takes.
fn models(ground: &Ground, at: usize, group: &GroupRequest) -> Vec<Change> {
    if group.models.is_empty() || group.devices() == 0 {
        return Vec::new();
    }
    let devices = ground.decided.nodes().values().flat_map(|node| &node.inventory.devices);
    let whole = devices.filter(|device| device.parent.is_none()).map(|device| &device.model);
    let others: BTreeSet<&Name> = whole.filter(|model| !group.models.contains(model)).collect();
    let value = |models: &[Name]| {
        let names: Vec<&str> = models.iter().map(Name::as_str).collect();
        format!("\"{}\"", names.join(" | "))
    };
    let mut changes = Vec::new();
    for model in others {
        let mut other = group.clone();
        other.models.push(model.clone());
        let mut scheduling = (*ground.scheduling).clone();
        scheduling.groups[at] = other.clone();
        if changes.len() < OTHERS_MAX && ground.fits(&scheduling) {
            let text = format!("also on {model}");
            changes.extend(ground.set_group(Kind::Model, text, (at, "gpu", &value(&other.models)), other));
        }
    }
    if group.models.len() > 1 && !group.mixed_models {
        let other = GroupRequest { mixed_models: true, ..group.clone() };
        let text = "on several of its models at once".to_owned();
        changes.extend(ground.set_group(Kind::Model, text, (at, "mixed_gpus", "true"), other));
    }
    changes
}

/// The next higher class, and the highest.
fn classes(ground: &Ground) -> Vec<Change> {
    let policy = ground.state.policy();
    let own = policy.class_rank(&ground.scheduling.class).unwrap_or(0);
    let usual = ["low", "normal", "high"].map(Name::literal);
    let known: BTreeSet<&Name> = policy.classes.keys().chain(&usual).collect();
    let rank = |class: &Name| policy.class_rank(class).unwrap_or(0);
    let mut higher: Vec<&Name> = known.into_iter().filter(|class| rank(class) > own).collect();
    higher.sort_by_key(|class| rank(class));
    let ends: Vec<&Name> = higher.first().into_iter().chain(higher.last()).copied().collect();
    let change = |class: &Name| {
        let other = Scheduling { class: class.clone(), ..(*ground.scheduling).clone() };
        let text = format!("class {class} instead of {}", ground.scheduling.class);
        ground.edit(Kind::Class, text, format!("muster edit {} --priority {class}", ground.job.id), other)
    };
    ends.into_iter().filter_map(change).collect()
}

/// Accounts that the user is known in, with room left.
fn accounts(ground: &Ground) -> Vec<Change> {
    let (user, own) = (&ground.job.principal, &ground.scheduling.account);
    let document = ground.state.accounts().document();
    let named = document.accounts.iter().filter(|account| account.users.contains_key(&*user.0));
    let of_jobs = ground.state.jobs().values().filter(|job| job.principal == *user);
    let charged = of_jobs.map(|job| &ground.state.scheduling(job).account);
    let known: BTreeSet<&Name> =
        named.map(|account| &account.name).chain(charged).filter(|name| *name != own).collect();
    let change = |account: &Name| {
        let other = Scheduling { account: account.clone(), ..(*ground.scheduling).clone() };
        if !ground.fits(&other) || ground.state.accounts().get(account).is_none() {
            return None;
        }
        let text = format!("charged to account {account} instead of {own}");
        ground.edit(Kind::Account, text, format!("muster edit {} --account {account}", ground.job.id), other)
    };
    known.into_iter().filter_map(change).take(OTHERS_MAX).collect()
}
