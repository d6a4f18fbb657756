//! What follows for each server.

use super::{Answer, Finding, Look, Seen};
use crate::output::human;
use muster_proto::client::ServerCondition;

const DAY_MS: u64 = 86_400_000;
/// A certificate that ends within this is to be renewed.
const CERTIFICATE_MS: u64 = 14 * DAY_MS;
const CA_MS: u64 = 60 * DAY_MS;
/// Whose certificate a server's own is.
const OWN: &str = "its certificate";
/// Clocks apart by more than this are not kept by anything.
const CLOCK_MS: u64 = 500;
const CLOCK_BAD_MS: u64 = 5_000;
const DISK_LOW_BYTES: u64 = 4 << 30;
const DISK_BAD_BYTES: u64 = 512 << 20;
/// A sync is part of every submit.
const SYNC_MEDIAN_US: u64 = 20_000;
/// Longer than the others wait before they elect another leader.
const SYNC_MAX_US: u64 = 150_000;

pub fn findings(look: &Look) -> Vec<Finding> {
    let mut all = vec![
        certificate("here", &look.caller, look.caller_expires_at_ms, CERTIFICATE_MS, look.now_ms),
        certificate("cluster", "the CA", look.ca_expires_at_ms, CA_MS, look.now_ms),
    ];
    for seen in &look.seen {
        match &seen.answer {
            Ok(answer) => all.extend(of_answer(look, seen, answer)),
            Err(why) => all.push(
                Finding::bad("reach", name_of(look, seen), format!("{} does not answer: {why}", seen.address)).because(
                    "one server less may be lost before the cluster stands still",
                    "start it, or let it be reached from here; if its disk is lost: muster cluster members replace",
                ),
            ),
        }
    }
    all
}

/// Whoever leads needs the program that switches machines, or nodes are asked for in vain.
fn hook(name: &str, leads: bool, condition: &ServerCondition) -> Option<Finding> {
    let what = match (condition.hook.is_empty(), condition.hook_problem.is_empty()) {
        (true, _) if condition.elastic_pools == 0 => return None,
        (true, _) => "it has no hook that switches machines, and the policy has elastic pools".to_owned(),
        (false, true) => return Some(Finding::ok("elastic", name, format!("its hook is {}", condition.hook))),
        (false, false) => format!("its hook {} cannot be run: {}", condition.hook, condition.hook_problem),
    };
    let finding = match leads && condition.elastic_pools > 0 {
        true => Finding::bad("elastic", name, what),
        false => Finding::warning("elastic", name, what),
    };
    Some(finding.because(
        "while it leads, no node is put to sleep, and nodes that are asked for do not come",
        "name a program that it can run as `hook` under [elastic] in its server.toml, and start it again",
    ))
}

fn name_of(look: &Look, seen: &Seen) -> String {
    let mut members = look.answers().flat_map(|answer| &answer.status.members);
    let member = members.find(|member| member.address == seen.address && !member.name.is_empty());
    member.map_or_else(|| seen.address.clone(), |member| member.name.clone())
}

fn of_answer(look: &Look, seen: &Seen, answer: &Answer) -> Vec<Finding> {
    let status = &answer.status;
    let name = if status.server_name.is_empty() { seen.address.clone() } else { status.server_name.clone() };
    let own = status.members.iter().find(|member| member.id == status.server_id);
    let role = match own {
        _ if status.leader_id == status.server_id => "leads",
        Some(member) if member.voter => "follows",
        Some(_) => "receives the log without a vote",
        None => "is no member",
    };
    let took_ms = answer.answered_ms.saturating_sub(answer.asked_ms);
    let mut all = vec![Finding::ok("reach", &name, format!("{} answers in {took_ms} ms and {role}", seen.address))];
    if own.is_none() {
        all.push(Finding::warning("reach", &name, "it is not a member of the cluster").because(
            "whoever asks it may get old answers",
            "stop it, and take its address out of the settings; or add it: muster cluster members add",
        ));
    }
    if let Some(condition) = &status.condition {
        let expires = condition.certificate_expires_at_ms;
        all.push(certificate(&name, OWN, expires, CERTIFICATE_MS, look.now_ms));
        all.push(clock(&name, answer, condition));
        all.push(disk(&name, condition));
        all.extend(syncs(&name, condition));
        all.extend(hook(&name, role == "leads", condition));
        if condition.history_gaps > 0 {
            let what = format!("{} of its history is missing", human::count(condition.history_gaps, "stretch"));
            all.push(Finding::warning("history", &name, what).because(
                "it cannot show those jobs, nor write a backup, until the others have sent them",
                "wait a few seconds and look again; its log says why, if it stays so",
            ));
        }
    }
    all
}

fn certificate(place: &str, whose: &str, expires_at_ms: u64, soon_ms: u64, now_ms: u64) -> Finding {
    let at = human::moment_and_distance(expires_at_ms, now_ms);
    let why = "nobody it speaks to will believe it any more";
    let by_hand = |who: &str| {
        format!(
            "muster cluster issue {who} DIR --ca CA --renew, where DIR is its identity folder and CA the folder `ca`"
        )
    };
    let next = match whose {
        "the CA" => "make a new cluster CA in time; every certificate ends with it".to_owned(),
        OWN => format!(
            "its log says why it did not renew it a month before; by hand, and then start it again: {}",
            by_hand(&format!("server/{place}"))
        ),
        _ => format!("issue a new one: {}", by_hand("ROLE/NAME")),
    };
    if expires_at_ms <= now_ms {
        return Finding::bad("certificate", place, format!("{whose} ended at {at}")).because(why, next);
    }
    if expires_at_ms - now_ms < soon_ms {
        return Finding::warning("certificate", place, format!("{whose} ends at {at}")).because(why, next);
    }
    Finding::ok("certificate", place, format!("{whose} is good until {at}"))
}

fn clock(name: &str, answer: &Answer, condition: &ServerCondition) -> Finding {
    let half_ms = answer.answered_ms.saturating_sub(answer.asked_ms) / 2;
    let here_ms = answer.asked_ms + half_ms;
    let (apart_ms, word) = match condition.wall_ms.checked_sub(here_ms) {
        Some(ahead) => (ahead, "ahead of"),
        None => (here_ms - condition.wall_ms, "behind"),
    };
    let sure_ms = apart_ms.saturating_sub(half_ms);
    let what = format!("its clock is {apart_ms} ms {word} this machine's, to within {half_ms} ms");
    let finding = match sure_ms {
        ms if ms > CLOCK_BAD_MS => Finding::bad("clock", name, what),
        ms if ms > CLOCK_MS => Finding::warning("clock", name, what),
        _ => return Finding::ok("clock", name, what),
    };
    finding.because(
        "the cluster's time is the median of its servers' clocks; certificates and keys are judged by it",
        "look whether chrony or another time service runs, there and here",
    )
}

fn disk(name: &str, condition: &ServerCondition) -> Finding {
    let (free, all) = (condition.disk_free_bytes, condition.disk_bytes);
    let what = format!("{} of {} are free", human::bytes(free), human::bytes(all));
    let finding = if all == 0 {
        Finding::warning("disk", name, "the room on its disk is not known")
    } else if free < DISK_BAD_BYTES || free < all / 50 {
        Finding::bad("disk", name, what)
    } else if free < DISK_LOW_BYTES || free < all / 10 {
        Finding::warning("disk", name, what)
    } else {
        return Finding::ok("disk", name, what);
    };
    finding.because("a server that cannot write its log stops", "make room, or move its data folder to a larger disk")
}

fn syncs(name: &str, condition: &ServerCondition) -> Option<Finding> {
    let (median, most) = (condition.sync_median_us?, condition.sync_max_us?);
    let ms = |us: u64| format!("{:.1} ms", us as f64 / 1e3);
    let what = format!("a sync of its log takes {} in the median, {} at most of late", ms(median), ms(most));
    if median <= SYNC_MEDIAN_US && most <= SYNC_MAX_US {
        return Some(Finding::ok("fsync", name, what));
    }
    Some(Finding::warning("fsync", name, what).because(
        "every submit waits for a majority's syncs, and a leader that syncs too long is replaced",
        "give the data folder a disk of its own with power-loss protection, or longer times in [timing]",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_ends_is_told_with_the_command_that_issues_another() {
        for (whose, command) in
            [(OWN, "muster cluster issue server/s1 "), ("user bob", "muster cluster issue ROLE/NAME ")]
        {
            for expires_at_ms in [20 * DAY_MS, 30 * DAY_MS] {
                let finding = certificate("s1", whose, expires_at_ms, CERTIFICATE_MS, 25 * DAY_MS);
                assert!(finding.next.contains(command), "{finding:?}");
            }
        }
    }
}
