//! How every command's answer looks, as text and as JSON, from made-up messages: no server needed.
//! A changed snapshot is a changed promise.

mod operate;
mod policies;
mod replay;
mod simulator;
mod surface;

use super::*;
use crate::output::Style;
use clap::CommandFactory;
use muster_proto::client::*;
use serde_json::Value;

const NOW: u64 = 1_772_391_600_000;
const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const STYLE: Style = Style { color: false, now_ms: NOW };

/// Text and document of one answer.
fn check(name: &str, text: String, document: Value) {
    insta::assert_snapshot!(format!("{name}.text"), text);
    let json = serde_json::to_string_pretty(&document).expect("a document");
    assert!(document["schema"].as_str().is_some_and(|schema| schema.starts_with("muster.")), "{json}");
    insta::assert_snapshot!(format!("{name}.json"), json);
}

fn counts(queued: u32, running: u32, succeeded: u32, failed: u32) -> GangCounts {
    let total = queued + running + succeeded + failed;
    GangCounts { total, queued, running, succeeded, failed, ..GangCounts::default() }
}

fn queued() -> Job {
    Job {
        id: 4711,
        name: "llama-sft".into(),
        user: "me".into(),
        queue: "research".into(),
        account: "nlp".into(),
        priority: "normal".into(),
        state: "QUEUED".into(),
        submitted_at_ms: NOW - 72 * MINUTE,
        nodes: 16,
        gpus_per_node: 8,
        gpus: 128,
        models: vec!["H100".into()],
        ranks: 16,
        counts: Some(counts(1, 0, 0, 0)),
        time_limit_ms: Some(36 * HOUR),
        expected_ms: Some(20 * HOUR),
        reason: "topology".into(),
        reason_text: "needs 16 free nodes under at most 2 leaves; the best pair has 9".into(),
        start_estimate_at_ms: Some(NOW + 95 * MINUTE),
        key: "k-1".into(),
        ..Job::default()
    }
}

fn running() -> Job {
    Job {
        id: 4655,
        name: "pretrain-b".into(),
        user: "alice".into(),
        state: "RUNNING".into(),
        submitted_at_ms: NOW - 31 * HOUR - 4 * MINUTE,
        started_at_ms: Some(NOW - 31 * HOUR),
        node_names: (33..=48).map(|number| format!("n{number:03}")).collect(),
        counts: Some(counts(0, 1, 0, 0)),
        device_ms: 128 * 31 * HOUR,
        attempt: 2,
        reason: String::new(),
        reason_text: String::new(),
        start_estimate_at_ms: None,
        ..queued()
    }
}

fn sweep() -> Job {
    Job {
        id: 4713,
        name: "sweep".into(),
        state: "RUNNING".into(),
        array: true,
        nodes: 1,
        gpus_per_node: 1,
        gpus: 1,
        started_at_ms: Some(NOW - 12 * MINUTE),
        submitted_at_ms: NOW - 13 * MINUTE,
        counts: Some(counts(50, 8, 5, 1)),
        time_limit_ms: None,
        ..running()
    }
}

fn failed() -> Job {
    Job {
        state: "FAILED".into(),
        ended_at_ms: Some(NOW - MINUTE),
        ran_ms: Some(31 * HOUR - MINUTE),
        cause: "rank_failed".into(),
        cause_text: "rank 9 on n034 was ended by signal 9".into(),
        exit_code: Some(137),
        node_names: vec![],
        ..running()
    }
}

fn attempts() -> Vec<Attempt> {
    let device = |slot| PartDevice { slot, uuid: format!("GPU-{slot}"), model: "H100".into(), milli: 1000 };
    let part = |node: &str, rank_base, state: &str, exits| Part {
        node: node.into(),
        state: state.into(),
        devices: vec![device(0), device(1)],
        cpu_milli: 28_000,
        memory_bytes: 64 << 30,
        rank_base,
        ranks: 2,
        exits,
    };
    let exits =
        vec![RankExit { rank: 0, code: Some(0), signal: None }, RankExit { rank: 1, code: None, signal: Some(9) }];
    let first = Attempt {
        number: 1,
        state: "ENDED".into(),
        cause: "rank_failed".into(),
        cause_text: "rank 1 on n033 was ended by signal 9".into(),
        placed_at_ms: NOW - 32 * HOUR,
        started_at_ms: Some(NOW - 32 * HOUR + 2000),
        ended_at_ms: Some(NOW - 31 * HOUR),
        token: "1.900".into(),
        world_size: 4,
        device_ms: 4 * HOUR,
        parts: vec![part("n033", 0, "RELEASED", exits), part("n034", 2, "RELEASED", vec![])],
        ..Attempt::default()
    };
    let second = Attempt {
        number: 2,
        state: "RUNNING".into(),
        placed_at_ms: NOW - 31 * HOUR,
        started_at_ms: Some(NOW - 31 * HOUR + 1500),
        token: "1.960".into(),
        world_size: 4,
        parts: vec![part("n035", 0, "PREPARED", vec![]), part("n036", 2, "PREPARED", vec![])],
        ..Attempt::default()
    };
    vec![first, second]
}

fn node() -> Node {
    Node {
        id: 12,
        name: "n037".into(),
        state: "DRAINING".into(),
        reason: "xid 79 gpu3".into(),
        reason_by: "root".into(),
        reason_at_ms: Some(NOW - 5 * MINUTE),
        drain_deadline_at_ms: Some(NOW + 2 * HOUR),
        registered_at_ms: NOW - 48 * HOUR,
        epoch: 88,
        address: "10.0.0.37".into(),
        agent_version: "0.1.0".into(),
        boot_id: "b1".into(),
        cpu_milli: 224_000,
        cpu_milli_used: 56_000,
        memory_bytes: 2 << 40,
        memory_bytes_used: 64 << 30,
        counts: Some(DeviceCounts { total: 8, free: 5, held: 2, unknown: 0, quarantined: 1 }),
        models: vec!["H100".into()],
        gangs: vec!["4655".into(), "4713_3".into()],
        labels: [("disk".to_owned(), "nvme".to_owned())].into(),
        place: vec!["network: pod-1 / leaf-a".into()],
        ..Node::default()
    }
}

fn whole_node() -> Node {
    let device = |slot: u32, state: &str| NodeDevice {
        slot,
        uuid: format!("GPU-{slot}"),
        model: "H100".into(),
        product: "NVIDIA H100 80GB HBM3".into(),
        memory_bytes: 80 << 30,
        pci_address: format!("0000:{slot:02x}:00.0"),
        numa: Some(slot / 4),
        state: state.into(),
        ..NodeDevice::default()
    };
    let holder = DeviceHolder { gang: "4655".into(), attempt: 2, milli: 1000, token: "1.960".into() };
    let held = NodeDevice {
        holders: vec![holder],
        sampled_at_ms: Some(NOW - 4_000),
        busy_percent: Some(97),
        memory_used_bytes: Some(71 << 30),
        temperature_c: Some(68),
        power_mw: Some(655_400),
        ..device(0, "HELD")
    };
    let bad = NodeDevice { why: "xid 79".into(), since_at_ms: Some(NOW - 5 * MINUTE), ..device(3, "QUARANTINED") };
    Node {
        devices: vec![held, device(1, "FREE"), bad],
        nics: vec![NodeNic {
            name: "mlx5_0".into(),
            rate_gbps: 400,
            rail: Some(0),
            compute: true,
            ..NodeNic::default()
        }],
        numa: vec![NodeNuma { id: 0, cpus: "0-55".into(), memory_bytes: 1 << 40 }],
        weak_fencing: true,
        heartbeat: "stream".into(),
        udp_lost_at_ms: Some(NOW - 12_000),
        gangs_total: 5,
        ..node()
    }
}

fn why_reply() -> WhyReply {
    let blocker = |reason: &str, text: &str, who: &[&str]| Blocker {
        reason: reason.into(),
        text: text.into(),
        who: who.iter().map(|who| (*who).to_owned()).collect(),
    };
    WhyReply {
        job: Some(queued()),
        queued_for_ms: 72 * MINUTE,
        position: Some(3),
        queue_length: 41,
        blockers: vec![
            blocker("topology", "needs 16 free nodes under at most 2 leaves; the best pair has 9", &[]),
            blocker("priority", "2 jobs go first: older, same class", &["4690 (alice)", "4702 (bob)"]),
        ],
        not_a_problem: vec!["hold".into(), "time limit".into()],
        start_estimate_at_ms: Some(NOW + 95 * MINUTE),
        estimate_text: "when 4655 ends as expected".into(),
        would_help: vec![
            Remedy {
                change: "at most 3 of level leaf instead of 2".into(),
                effect: "starts in 20m; pushes back 4690 by 5m".into(),
                kind: "topology".into(),
                command: "muster edit 4711 --set 'gang.topology=[{ within = \"leaf\", at_most = 3 }]'".into(),
                start_at_ms: Some(NOW + 20 * MINUTE),
                admins_only: false,
                delayed: Some(1),
                worst: Some(Delay {
                    gang: "4690".into(),
                    name: "eval".into(),
                    user: "bob".into(),
                    start_before_at_ms: NOW + HOUR,
                    start_after_at_ms: Some(NOW + 65 * MINUTE),
                }),
            },
            Remedy {
                change: "node n7 takes new work again (closed: fan)".into(),
                effect: "starts now".into(),
                kind: "uncordon".into(),
                command: "muster node uncordon n7".into(),
                start_at_ms: Some(NOW),
                admins_only: true,
                delayed: Some(0),
                worst: None,
            },
            Remedy { change: "wait".into(), effect: "a hint that nobody tried".into(), ..Remedy::default() },
        ],
        start_early_at_ms: Some(NOW + 80 * MINUTE),
        start_late_at_ms: Some(NOW + 3 * HOUR),
        range_text: "four of five of 21 plays".into(),
        not_tried: 2,
        applied_index: 88_412,
        looked_at_ms: NOW - 2000,
        policy: "default".into(),
        ..WhyReply::default()
    }
}

#[test]
fn submit_and_retry() {
    let job = Job { reason: String::new(), ..queued() };
    let reply = SubmitReply { job: Some(job), notes: vec!["a note".into()], ..SubmitReply::default() };
    check("submit", submit::render(&reply, false, &STYLE), submit::document(&reply, false));
    let again = SubmitReply { existing: true, ..reply.clone() };
    check("submit_again", submit::render(&again, false, &STYLE), submit::document(&again, false));
    let dry = SubmitReply { why: Some(why_reply()), job: Some(Job { id: 0, ..queued() }), ..SubmitReply::default() };
    check("submit_dry_run", submit::render(&dry, true, &STYLE), submit::document(&dry, true));
}

#[test]
fn ps() {
    let at_ms = Some(NOW + 120 * HOUR);
    let far = Job { id: 4799, start_estimate_at_ms: at_ms, start_estimate_coarse: true, ..queued() };
    let reply = ListJobsReply {
        jobs: vec![running(), queued(), sweep(), failed(), Job { held: true, ..queued() }, far],
        next_page: "p2".into(),
    };
    check("ps", ps::render(&reply, &STYLE), ps::document(&reply));
    let none = ListJobsReply::default();
    check("ps_empty", ps::render(&none, &STYLE), ps::document(&none));
}

#[test]
fn show() {
    let gang = Gang {
        state: "RUNNING".into(),
        attempt: 2,
        queued_at_ms: NOW - 31 * HOUR,
        app_retries_used: 1,
        excluded_nodes: vec!["n033".into()],
        attempts: attempts(),
        ..Gang::default()
    };
    let job =
        Job { gangs: vec![gang.clone()], spec_json: r#"{"scheduling": {"queue": "research"}}"#.into(), ..running() };
    check("show", show::render(&job, &STYLE), show::document(&job));
    let waiting = Gang {
        ordinal: 3,
        state: "QUEUED".into(),
        not_before_ms: Some(NOW + 4000),
        attempts: attempts()[..1].to_vec(),
        ..Gang::default()
    };
    let array = Job { gangs: vec![waiting], ..sweep() };
    check("show_array", show::render(&array, &STYLE), show::document(&array));
    check("show_failed", show::render(&failed(), &STYLE), show::document(&failed()));
}

#[test]
fn why() {
    check("why", why::render(&why_reply(), &STYLE), why::document(&why_reply()));
    let group = |reason: &str, what: &str, gangs: u64| WaitingGroup {
        reason: reason.into(),
        what: what.into(),
        gangs,
        gpus: 8 * gangs,
        jobs: 1,
        oldest_wait_since_at_ms: NOW - HOUR,
        example: "4711".into(),
        example_name: "llama-sft".into(),
        example_user: "me".into(),
        text: "why it waits".into(),
    };
    let all = WhyAllReply {
        groups: vec![group("quota", "nlp of H100", 120), group("topology", "leaf", 16), group("", "", 1)],
        gangs: 137,
        gpus: 1096,
        applied_index: 88_412,
        looked_at_ms: NOW - 2000,
        policy: "default".into(),
    };
    check("why_all", why::render_all(&all, &STYLE), why::document_all(&all));
    let nothing_found = WhyReply { would_help: Vec::new(), ..why_reply() };
    let told = why::render(&nothing_found, &STYLE);
    assert!(told.contains("nothing that was tried\n  2 changes that might help were not tried"), "{told}");
    let told = why::render(&WhyReply { start_estimate_coarse: true, ..why_reply() }, &STYLE);
    assert!(told.contains("Starts  about 2026-03-01 20:35:00 (in 1h 35m)"), "{told}");
    let running = WhyReply { job: Some(running()), ..WhyReply::default() };
    check("why_running", why::render(&running, &STYLE), why::document(&running));
}

#[test]
fn logs() {
    let line = logs::Line { rank: 3, stderr: true, bytes: b"step 7 \xff\n".to_vec() };
    let text = String::from_utf8_lossy(&logs::labelled(&line, 12, |_, label| label.to_owned())).into_owned();
    check("logs", text, logs::document(&line, 2));
}

#[test]
fn cancel_wait_and_hold() {
    let replies = [
        CancelReply { job: Some(Job { state: "STOPPING".into(), ..running() }), gangs: 1 },
        CancelReply { job: Some(sweep()), gangs: 58 },
        CancelReply { job: Some(failed()), gangs: 0 },
    ];
    check("cancel", cancel::render(&replies, &STYLE), cancel::document(&replies));
    let ended =
        [failed(), Job { state: "SUCCEEDED".into(), cause_text: String::new(), exit_code: Some(0), ..failed() }];
    check("wait", wait::render(&ended, &STYLE), wait::document(&ended));
    let held = [HoldReply { job: Some(Job { held: true, ..queued() }) }, HoldReply { job: Some(queued()) }];
    check("hold", hold::render(&held, &STYLE), hold::document(&held));
}

#[test]
fn node_commands() {
    let up = Node { name: "n001".into(), state: "UP".into(), reason: String::new(), gangs: vec![], ..node() };
    let cpu = Node { name: "login".into(), state: "SILENT".into(), counts: None, models: vec![], ..up.clone() };
    let reply = ListNodesReply { nodes: vec![up, node(), cpu] };
    check("node_ls", node::ls::render(&reply, &STYLE), node::ls::document(&reply));
    check("node_show", node::show::render(&whole_node(), &STYLE), node::show::document(&whole_node()));
    let affected = Affected {
        gang: "4655".into(),
        name: "pretrain-b".into(),
        user: "alice".into(),
        nodes: 16,
        expected_end_at_ms: Some(NOW + 4 * HOUR),
        text: "at the deadline it is stopped and queued again".into(),
    };
    let reply = NodeAdminReply { node: Some(node()), affected: vec![affected], changed: true };
    let text = node::admin::plan_text(&reply, &STYLE) + &node::admin::render(&reply, "drain", &STYLE);
    check("node_drain", text, node::admin::document(&reply));
    let reply = NodeAdminReply {
        node: Some(Node { state: "UP".into(), ..node() }),
        changed: false,
        ..NodeAdminReply::default()
    };
    check("node_undrain", node::admin::render(&reply, "undrain", &STYLE), node::admin::document(&reply));
    let reply = NodeTokenReply {
        secret: "s3cret".into(),
        expires_at_ms: NOW + HOUR,
        ca_fingerprint: "sha256:00".into(),
        servers: vec!["10.0.0.1:7070".into()],
        cluster_id: "c1".into(),
    };
    check("node_token", node::token::render(&reply), node::token::document(&reply));
}

#[test]
fn events() {
    let event = Event {
        index: 88_412,
        ordinal: 1,
        at_ms: NOW,
        kind: "gang_placed".into(),
        job: Some(4711),
        gang: Some(0),
        attempt: Some(1),
        text: "4711 attempt 1 on n001,n002 (16 GPUs)\x1b[2J".into(),
        json: r#"{"GangPlaced": {"devices": 16}}"#.into(),
        ..Event::default()
    };
    check("events", events::render(&event, &STYLE), events::document(&event));
}

#[test]
fn cluster_commands() {
    let member = |id: u64, state: &str| Member {
        id,
        name: format!("s{id}"),
        address: format!("10.0.0.{id}:7070"),
        state: state.into(),
        matched_index: Some(88_412),
        lag: (state != "unreachable").then_some(0),
        version: "0.1.0".into(),
        voter: true,
    };
    let reply = ClusterStatusReply {
        cluster_id: "c1".into(),
        server_id: 1,
        server_name: "s1".into(),
        leader_id: 2,
        leader_address: "10.0.0.2:7070".into(),
        term: 7,
        applied_index: 88_412,
        committed_index: 88_412,
        generation: 1,
        feature_level: 1,
        state_hash: "ab12".into(),
        now_ms: NOW,
        members: vec![member(1, "follower"), member(2, "leader"), member(3, "unreachable")],
        jobs: Some(JobCounts { queued: 41, running: 12, starting: 1, stopping: 0, held: 2 }),
        nodes: Some(NodeCounts { total: 120, up: 117, silent: 1, fenced: 0, closed: 2 }),
        devices: Some(DeviceCounts { total: 960, free: 72, held: 880, unknown: 0, quarantined: 8 }),
        config_version: 4,
        policy: "default".into(),
        snapshot_index: 80_000,
        heartbeats: Some(HeartbeatCounts { quic: 115, stream: 2, udp_lost: 1 }),
        next_server_id: 4,
        condition: None,
    };
    check("cluster_status", cluster::status::render(&reply, &STYLE), cluster::status::document(&reply));
    let made = cluster::init::Made {
        cluster: "c1".into(),
        dir: "/srv/c1".into(),
        fingerprint: "sha256:00".into(),
        members: vec![crate::layout::Member { id: 1, name: "s1".into(), address: "10.0.0.1:7070".into() }],
        admin: "root".into(),
        users: vec!["alice".into()],
        server_dir: None,
    };
    let packaged = cluster::init::Made { server_dir: Some("/var/lib/muster/server".into()), ..made.clone() };
    let text = cluster::init::render(&made) + &cluster::init::render(&packaged);
    check("cluster_init", text, cluster::init::document(&made));
    let reply =
        ConfigureReply { version: 5, json: r#"{"order": "sjf", "budget": {"depth": 10}}"#.into(), changed: true };
    use cluster::configure::Kind::Policy;
    let text = cluster::configure::render(Policy, &reply, true) + &cluster::configure::render(Policy, &reply, false);
    check("cluster_set", text, cluster::configure::document(Policy, &reply));
    let raised = ConfigureReply { version: 6, json: "5".into(), changed: true };
    let same = ConfigureReply { changed: false, ..raised.clone() };
    let text = [(&raised, "4", false), (&raised, "4", true), (&same, "5", false)]
        .map(|(reply, before, dry_run)| cluster::upgrade::render(reply, before, 5, dry_run));
    check("cluster_upgrade", text.concat(), cluster::upgrade::document(&raised));
}

#[test]
fn version_with_and_without_a_server() {
    let server = VersionReply { version: "0.1.0".into(), api: 1, feature_level: 1, server_name: "s1".into() };
    check("version", version::render(Some(&server)), version::document(Some(&server)));
    check("version_alone", version::render(None), version::document(None));
}

#[test]
fn bench_tells_rates_and_times() {
    let measured = |load: &str, count, each: &[f64]| bench::Measured {
        load: load.into(),
        count,
        seconds: 0.5,
        each_ms: bench::Distribution::new(each.to_vec()),
    };
    let all =
        [measured("submit, 8 connections x 1 in flight", 4, &[2.5, 1.0, 4.0, 3.25]), measured("drain", 1000, &[])];
    check("bench", bench::render(&all), bench::document(&all));
}

#[test]
fn dev_says_how_to_talk_to_it() {
    let (dir, config) = (std::path::Path::new("/tmp/dev"), std::path::Path::new("/tmp/dev/client/config.toml"));
    let pids = [("s1".to_owned(), 101), ("n1".to_owned(), 104)];
    let status = ClusterStatusReply { cluster_id: "dev".into(), leader_id: 1, ..ClusterStatusReply::default() };
    let servers = serde_json::json!([{"id": 1, "name": "s1", "address": "127.0.0.1:7070"}]);
    let document = dev::document(dir, config, servers, &status, &pids);
    check("dev", dev::render(dir, config, &pids), document);
}

#[test]
fn an_agent_that_joined_is_told_what_to_run() {
    use muster_runtime::identity::{Authority, LEAF_VALID_MS, Name, Role, Sans};
    let authority = Authority::create("prod", NOW).expect("a CA");
    let name = Name::new("prod", Role::Agent, "n037").expect("a name");
    let identity = authority.issue(&name, &Sans::default(), NOW, LEAF_VALID_MS).expect("an identity");
    let file = std::path::Path::new("/etc/muster/agent.toml");
    check("agent_join", agent::join::render(file, &identity), agent::join::document(file, &identity));
}

/// Digests change with every change of State's format; that is not what is fixed here.
fn without_digests(text: &str) -> String {
    let hex = |word: &str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let words = text.split_inclusive(|c: char| !c.is_ascii_alphanumeric());
    let mask = |word: &str| match word.char_indices().nth(64) {
        Some((at, _)) if hex(&word[..at]) => format!("[digest]{}", &word[at..]),
        _ => word.to_owned(),
    };
    words.map(mask).collect()
}

#[test]
fn help_of_every_command() {
    fn walk(command: &mut clap::Command, path: &str, all: &mut String) {
        all.push_str(&format!("=== {path}\n{}\n", command.render_help()));
        // `help` holds every command once more.
        for sub in command.get_subcommands_mut().filter(|sub| sub.get_name() != "help") {
            let path = format!("{path} {}", sub.get_name());
            walk(sub, &path, all);
        }
    }
    let mut command = crate::args::Cli::command().term_width(100);
    command.build();
    let mut all = String::new();
    walk(&mut command, "muster", &mut all);
    insta::assert_snapshot!("help", all.replace(env!("CARGO_PKG_VERSION"), "VERSION"));
}

#[test]
fn the_command_line_is_sound() {
    crate::args::Cli::command().debug_assert();
}
