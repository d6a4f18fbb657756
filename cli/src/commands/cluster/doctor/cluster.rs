//! What follows for the cluster as a whole.

use super::{Finding, Look};
use crate::output::human;
use muster_proto::client::{ClusterStatusReply, Member};
use std::collections::{BTreeMap, BTreeSet};

/// Entries a follower may lack while submits pour in.
const LAG: u64 = 5_000;
/// Names shown before "and more".
const NAMES: usize = 5;

pub fn findings(look: &Look) -> Vec<Finding> {
    let Some(newest) =
        look.answers().map(|answer| &answer.status).max_by_key(|status| (status.term, status.applied_index))
    else {
        return Vec::new();
    };
    let mut all = vec![leader(look, newest), quorum(look, newest)];
    all.extend(lags(look));
    all.push(versions(look));
    all.push(states(look));
    all.extend(nodes(look));
    all.extend(devices(look));
    all.extend(udp(look));
    all
}

fn leader(look: &Look, newest: &ClusterStatusReply) -> Finding {
    let next =
        "look who answers below; a majority must reach each other. muster cluster status --local shows each one's view";
    let claimed: BTreeSet<u64> = look
        .answers()
        .map(|answer| &answer.status)
        .filter(|status| status.term == newest.term && status.leader_id == status.server_id)
        .map(|status| status.server_id)
        .collect();
    if look.whole.is_none() || newest.leader_id == 0 {
        return Finding::bad("leader", "cluster", "nobody leads")
            .because("nothing is decided; what runs, runs on", next);
    }
    if claimed.len() > 1 {
        let what = format!("{} servers lead in term {}", claimed.len(), newest.term);
        return Finding::bad("leader", "cluster", what)
            .because("that cannot be: their logs differ", "stop all but one of them and ask for help");
    }
    let name = newest.members.iter().find(|member| member.id == newest.leader_id).map_or("?", |member| &member.name);
    Finding::ok("leader", "cluster", format!("{name} leads in term {}", newest.term))
}

fn quorum(look: &Look, newest: &ClusterStatusReply) -> Finding {
    let voters: Vec<&Member> = newest.members.iter().filter(|member| member.voter).collect();
    let answer = |member: &&&Member| look.answers().any(|answer| answer.status.server_id == member.id);
    let (there, needed) = (voters.iter().filter(answer).count(), voters.len() / 2 + 1);
    let what = format!("{there} of {} servers with a vote answer; {needed} are needed", voters.len());
    if there < needed {
        return Finding::bad("quorum", "cluster", what).because(
            "nothing can be decided, and leases are not renewed: after fence_after work is stopped",
            "bring servers back; if a majority of disks is lost, restore a backup",
        );
    }
    if there == needed && voters.len() > 1 {
        return Finding::warning("quorum", "cluster", what)
            .because("the next loss stops the cluster", "bring the missing server back, or replace it");
    }
    if voters.len().is_multiple_of(2) {
        return Finding::warning("quorum", "cluster", what).because(
            "an even number of votes survives no more losses than one less",
            "add a server or remove one: muster cluster members",
        );
    }
    if voters.len() == 1 {
        return Finding::warning("quorum", "cluster", "there is one server")
            .because("its disk is all there is", "add two more, and make backups: muster cluster backup");
    }
    Finding::ok("quorum", "cluster", what)
}

fn lags(look: &Look) -> Vec<Finding> {
    let Some(whole) = &look.whole else { return Vec::new() };
    let known = whole.members.iter().filter_map(|member| Some((member, member.lag?)));
    known
        .map(|(member, lag)| {
            let what = format!("it lacks {} of the log", human::count(lag, "entry").replace("entrys", "entries"));
            if lag <= LAG {
                return Finding::ok("log", &member.name, what);
            }
            Finding::warning("log", &member.name, what).because(
                "it cannot take over, and reads there wait",
                "look at its disk and its network; it catches up by itself",
            )
        })
        .collect()
}

fn versions(look: &Look) -> Finding {
    let mut by_version: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for status in look.answers().map(|answer| &answer.status) {
        let own = status.members.iter().find(|member| member.id == status.server_id);
        by_version.entry(own.map_or("", |own| &own.version)).or_default().push(&status.server_name);
    }
    let conditions = look.answers().filter_map(|answer| answer.status.condition.as_ref());
    let able = conditions.map(|condition| condition.feature_level_max).min().unwrap_or(0);
    let level = look.answers().map(|answer| answer.status.feature_level).max().unwrap_or(0);
    let texts: Vec<String> =
        by_version.iter().map(|(version, names)| format!("{version} on {}", names.join(", "))).collect();
    let what = format!("{}; feature level {level} of {able}", texts.join("; "));
    if by_version.len() > 1 {
        return Finding::warning("version", "cluster", what)
            .because("an upgrade is half done", "upgrade the rest, one server after the other");
    }
    if level < able {
        return Finding::warning("version", "cluster", what).because(
            "every server can do more than the cluster does",
            "once no server will go back to the version before: muster cluster upgrade",
        );
    }
    Finding::ok("version", "cluster", what)
}

/// Servers at one index must have one state, and with it one history: State holds the rolling hash of all events.
fn states(look: &Look) -> Finding {
    let mut by_index: BTreeMap<u64, BTreeMap<&str, Vec<&str>>> = BTreeMap::new();
    for status in look.answers().map(|answer| &answer.status) {
        let hashes = by_index.entry(status.applied_index).or_default();
        hashes.entry(&status.state_hash).or_default().push(&status.server_name);
    }
    for (index, hashes) in &by_index {
        if hashes.len() > 1 {
            let sides: Vec<String> = hashes.values().map(|names| names.join(" and ")).collect();
            let what = format!("at entry {index} {} have different states", sides.join(" against "));
            return Finding::bad("state", "cluster", what).because(
                "one of them computes wrongly or its disk lies: what it answers cannot be trusted",
                "keep their data folders and logs for a report; replace the one that differs from the majority",
            );
        }
    }
    let most = by_index.values().flat_map(|hashes| hashes.values()).map(Vec::len).max().unwrap_or(0);
    let what = if most > 1 {
        format!("{most} servers seen at one entry have one state and one history")
    } else {
        "no two servers were seen at one entry; look again when less goes on".to_owned()
    };
    Finding::ok("state", "cluster", what)
}

fn nodes(look: &Look) -> Vec<Finding> {
    let named = |state: &str| -> Vec<&str> {
        look.nodes.iter().filter(|node| node.state == state).map(|node| node.name.as_str()).collect()
    };
    let (silent, fenced) = (named("SILENT"), named("FENCED"));
    let next = "look at the agent there: systemctl status muster-agent, and its way to the servers";
    let mut all = Vec::new();
    if !fenced.is_empty() {
        let what = format!("{}: fenced", some(&fenced));
        all.push(Finding::bad("agents", "cluster", what).because(
            "their work was moved, and their GPUs are unknown until the agents answer",
            format!("{next}. If a machine is gone for good: muster node state-released, then muster node remove"),
        ));
    }
    if !silent.is_empty() {
        let what = format!("{}: silent", some(&silent));
        all.push(
            Finding::warning("agents", "cluster", what)
                .because("nothing new is placed there, and after fence_after work moves away", next),
        );
    }
    if all.is_empty() && look.whole.is_some() {
        let count = human::count(look.nodes.len() as u64, "agent");
        all.push(Finding::ok("agents", "cluster", format!("{count}, none silent")));
    }
    all
}

fn some(names: &[&str]) -> String {
    let shown = names[..names.len().min(NAMES)].join(", ");
    match names.len().saturating_sub(NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn devices(look: &Look) -> Option<Finding> {
    let counts = look.whole.as_ref()?.devices.as_ref()?;
    let what = format!("{} GPUs: {} unknown, {} in quarantine", counts.total, counts.unknown, counts.quarantined);
    if counts.unknown + counts.quarantined == 0 {
        return Some(Finding::ok("gpus", "cluster", what));
    }
    Some(Finding::warning("gpus", "cluster", what).because(
        "nothing is placed on them",
        "muster node ls shows the nodes, muster node show NODE says why and since when",
    ))
}

fn udp(look: &Look) -> Option<Finding> {
    let ways = look.whole.as_ref()?.heartbeats.as_ref()?;
    let what = format!("{} renew over UDP, {} over the stream", human::count(ways.quic.into(), "agent"), ways.stream);
    if ways.udp_lost == 0 {
        return Some(Finding::ok("udp", "cluster", what));
    }
    let lost = human::count(ways.udp_lost.into(), "agent");
    Some(Finding::warning("udp", "cluster", format!("{what}; nothing comes through from {lost}")).because(
        "renewals still arrive, but a stalled stream looks like a dead node sooner",
        "open UDP to the servers' port, or say `heartbeat = \"grpc\"` on purpose",
    ))
}
