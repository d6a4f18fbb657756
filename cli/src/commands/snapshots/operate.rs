//! Answers of the commands with which operators look after the servers.

use super::*;
use crate::layout;
use std::path::Path;

fn server(id: u64, state: &str, lag: Option<u64>) -> Member {
    Member {
        id,
        name: format!("s{id}"),
        address: format!("10.0.0.{id}:7070"),
        state: state.into(),
        matched_index: lag.map(|lag| 88_412 - lag),
        lag,
        version: if state == "unreachable" { String::new() } else { "0.1.0".into() },
        voter: id < 4,
    }
}

#[test]
fn members() {
    let servers = vec![
        server(1, "leader", Some(0)),
        server(2, "follower", Some(3)),
        server(3, "unreachable", Some(9_120)),
        server(4, "learner", Some(61_004)),
    ];
    let reply = ClusterStatusReply {
        cluster_id: "prod".into(),
        leader_id: 1,
        term: 7,
        members: servers.clone(),
        next_server_id: 5,
        ..ClusterStatusReply::default()
    };
    check("members", cluster::members::render(&reply, &STYLE), cluster::members::document(&reply));
    let change = ChangeMembersReply { members: servers, changed: true };
    check("members_changed", cluster::members::change::render(&change, &STYLE), {
        cluster::members::change::document(&change)
    });
    let four = (1..=2).map(|id| server(id, if id == 1 { "leader" } else { "follower" }, Some(0))).collect();
    let even = ChangeMembersReply { members: four, changed: false };
    check("members_even", cluster::members::change::render(&even, &STYLE), {
        cluster::members::change::document(&even)
    });
}

#[test]
fn a_server_that_is_prepared_is_told_what_to_run() {
    use cluster::members::prepare::{document, render};
    let member = layout::Member { id: 5, name: "s5".into(), address: "10.0.0.5:7070".into() };
    let dir = Path::new("/srv/s5");
    check("members_prepare", render(dir, &member), document(dir, &member));
}

#[test]
fn an_identity_that_was_issued_is_told_with_its_end_and_its_use() {
    use cluster::issue::{Issued, document, render};
    use muster_runtime::identity::{Name, Role};
    let issued = |role, name: &str, renewed| Issued {
        name: Name::new("c1", role, name).expect("a name"),
        dir: format!("/srv/{name}").into(),
        expires_at_ms: NOW + 90 * 24 * HOUR,
        renewed,
    };
    let (user, server) = (issued(Role::User, "bob", false), issued(Role::Server, "s1", true));
    check("cluster_issue", render(&user) + &render(&server), document(&user));
}

#[test]
fn transfer() {
    use cluster::transfer::{document, render};
    let reply = TransferLeaderReply {
        leader_id: 2,
        leader_name: "s2".into(),
        leader_address: "10.0.0.2:7070".into(),
        changed: true,
    };
    check("transfer", render(&reply), document(&reply));
    let same = TransferLeaderReply { changed: false, ..reply };
    check("transfer_same", render(&same), document(&same));
}

fn head() -> muster_scheduler::backup::Head {
    let member =
        |id: u64| muster_scheduler::backup::Member { id, name: format!("s{id}"), address: format!("10.0.0.{id}:7070") };
    muster_scheduler::backup::Head {
        cluster_id: "prod".into(),
        index: 88_412,
        term: 7,
        generation: 1,
        feature_level: 2,
        state_hash: "9f2c".into(),
        state_bytes: 70_000,
        history_from: 0,
        members: (1..=3).map(member).collect(),
        made_at_ms: NOW,
        made_by: "s2".into(),
        version: "0.1.0".into(),
    }
}

fn inspected() -> muster_scheduler::backup::Inspected {
    let state = muster_engine::State::new("prod");
    muster_scheduler::backup::Inspected {
        head: head(),
        state,
        records: 12_345,
        decision_bytes: 1 << 20,
        file_bytes: 3 << 20,
    }
}

#[test]
fn backup() {
    use cluster::backup::{document, render};
    let file = Path::new("/backup/muster.backup");
    check("backup", render(file, &inspected()), document(file, &inspected()));
}

#[test]
fn restore() {
    use cluster::restore::{document, render};
    let servers: muster_scheduler::backup::Servers =
        head().members.into_iter().map(|member| (member.id, member)).collect();
    let dir = Path::new("/srv/restored");
    let restored = muster_scheduler::backup::Restored {
        folders: servers.values().map(|server| (server.id, dir.join(&server.name))).collect(),
        index: 100_088_413,
        generation: 2,
        state_hash: "77aa".into(),
        backup: inspected(),
    };
    check("restore", render(dir, &restored, &servers), document(&restored, &servers));
}

/// Three servers that are well, as each says of itself.
fn healthy() -> cluster::doctor::Look {
    use cluster::doctor::{Answer, Look, Seen};
    let condition = ServerCondition {
        wall_ms: NOW + 3,
        certificate_expires_at_ms: NOW + 300 * 24 * HOUR,
        disk_free_bytes: 800 << 30,
        disk_bytes: 1 << 40,
        sync_median_us: Some(900),
        sync_max_us: Some(4_100),
        history_gaps: 0,
        feature_level_max: 2,
        hook: "/etc/muster/elastic-hook".into(),
        hook_problem: String::new(),
        elastic_pools: 1,
    };
    let members: Vec<Member> =
        (1..=3).map(|id| server(id, if id == 1 { "leader" } else { "follower" }, Some(0))).collect();
    let status = |id: u64| ClusterStatusReply {
        cluster_id: "prod".into(),
        server_id: id,
        server_name: format!("s{id}"),
        leader_id: 1,
        term: 7,
        applied_index: 88_412,
        feature_level: 2,
        state_hash: "9f2c".into(),
        members: members.clone(),
        condition: Some(condition.clone()),
        ..ClusterStatusReply::default()
    };
    let seen = |id: u64| Seen {
        address: format!("10.0.0.{id}:7070"),
        answer: Ok(Answer { status: status(id), asked_ms: NOW, answered_ms: NOW + 4 }),
    };
    let whole = ClusterStatusReply {
        condition: None,
        devices: Some(DeviceCounts { total: 512, free: 500, held: 12, ..DeviceCounts::default() }),
        heartbeats: Some(HeartbeatCounts { quic: 64, ..HeartbeatCounts::default() }),
        ..status(1)
    };
    Look {
        now_ms: NOW,
        caller: "admin root of cluster prod".into(),
        caller_expires_at_ms: NOW + 200 * 24 * HOUR,
        ca_expires_at_ms: NOW + 9 * 365 * 24 * HOUR,
        seen: (1..=3).map(seen).collect(),
        whole: Some(whole),
        nodes: vec![Node { name: "n001".into(), state: "UP".into(), ..Node::default() }],
    }
}

#[test]
fn doctor() {
    use cluster::doctor::{Level, document, findings, render};
    let well = findings(&healthy());
    assert!(well.iter().all(|finding| finding.level == Level::Ok), "{well:#?}");
    check("doctor_well", render(&well, &STYLE), document(&well));

    let mut ill = healthy();
    ill.caller_expires_at_ms = NOW + 3 * 24 * HOUR;
    ill.seen[2].answer = Err("connection refused".into());
    if let Ok(answer) = &mut ill.seen[1].answer {
        answer.status.state_hash = "0bad".into();
        answer.status.members[1].version = "0.2.0".into();
        let condition = answer.status.condition.as_mut().expect("it was asked");
        (condition.wall_ms, condition.disk_free_bytes) = (NOW + 9_000, 100 << 20);
        (condition.sync_median_us, condition.sync_max_us) = (Some(48_000), Some(210_000));
        condition.history_gaps = 1;
        condition.hook.clear();
    }
    let whole = ill.whole.as_mut().expect("somebody leads");
    whole.members[1].lag = Some(70_000);
    whole.devices = Some(DeviceCounts { total: 512, unknown: 8, quarantined: 1, ..DeviceCounts::default() });
    whole.heartbeats = Some(HeartbeatCounts { quic: 60, stream: 4, udp_lost: 4 });
    let node = |name: &str, state: &str| Node { name: name.into(), state: state.into(), ..Node::default() };
    ill.nodes = (1..=7).map(|number| node(&format!("n{number:03}"), "SILENT")).collect();
    ill.nodes.push(node("n100", "FENCED"));
    let found = findings(&ill);
    for finding in found.iter().filter(|finding| finding.level > Level::Ok) {
        assert!(!finding.why.is_empty() && !finding.next.is_empty(), "{finding:?}");
    }
    check("doctor_ill", render(&found, &STYLE), document(&found));

    let mut alone = healthy();
    alone.whole = None;
    alone.seen[1].answer = Err("no answer".into());
    alone.seen[2].answer = Err("no answer".into());
    let found = findings(&alone);
    let bad: Vec<&str> =
        found.iter().filter(|finding| finding.level == Level::Bad).map(|finding| finding.check).collect();
    assert_eq!(bad, ["reach", "reach", "leader", "quorum"]);
}
