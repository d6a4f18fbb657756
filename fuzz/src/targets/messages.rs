//! What comes over the network as protobuf.

use super::{Target, choice, chosen};
use muster_common::{NodeId, Time};
use muster_engine::{Command, Entry, State, apply};
use muster_proto::convert::error;
use muster_proto::{agent as wire, peer};
use muster_scheduler::{fuzz, translate};
use prost::Message;

pub const AGENT_UP: Target = Target {
    name: "agent_up",
    what: "an agent's hello and reports, applied to a State",
    run: run_up,
    seeds: seeds_up,
    words: WORDS,
    length_max: 8 << 10,
};

pub const AGENT_DOWN: Target = Target {
    name: "agent_down",
    what: "what a server tells an agent to do, and launch parts",
    run: run_down,
    seeds: seeds_down,
    words: WORDS,
    length_max: 8 << 10,
};

pub const PEER: Target = Target {
    name: "peer",
    what: "what servers say to each other",
    run: |input| {
        if let Some((kind, bytes)) = choice(input) {
            fuzz::peer_message(kind, bytes);
        }
    },
    seeds: seeds_peer,
    words: &[],
    length_max: 4 << 10,
};

pub const ERROR_INFO: Target = Target {
    name: "error_info",
    what: "the details of an error, as a client reads them",
    run: run_error,
    seeds: || {
        vec![br#"{"code":"NEVER_FITS","message":"m","hint":"h","retryable":false,"exit_code":6,"path":"p"}"#.into()]
    },
    words: &[b"\"code\"", b"\"leader\"", b"INTERNAL", b"null", b"\\u001b", b"true"],
    length_max: 4 << 10,
};

const WORDS: &[&[u8]] = &[b"same", b"nv18", b"sys", b"H100", b"USR1", b"TERM"];

fn inventory() -> wire::Inventory {
    let device = |slot: u32| wire::Device {
        uuid: format!("GPU-{slot}"),
        model: "H100".into(),
        parent: (slot == 1).then_some(0),
        numa: Some(slot),
        ..Default::default()
    };
    wire::Inventory {
        cpu_milli: 8000,
        memory_bytes: 1 << 30,
        devices: vec![device(0), device(1)],
        links: ["same", "nv18", "nv18", "same"].map(str::to_owned).to_vec(),
        place: vec![wire::Tree { name: "network".into(), domains: vec!["leaf".into()] }],
        boot_id: "b".into(),
        hardware_id: "h".into(),
        port_base: 20_000,
        port_count: 10,
        ..Default::default()
    }
}

fn seeds_up() -> Vec<Vec<u8>> {
    use wire::agent_message::Body;
    let hello = wire::Hello {
        protocol_version: 1,
        node_name: "n1".into(),
        inventory: Some(inventory()),
        store_id: "s".into(),
        instance: "i".into(),
        held: vec![wire::Held {
            gang: Some(wire::Gang::default()),
            token: Some(wire::Token::default()),
            ..Default::default()
        }],
        ..Default::default()
    };
    let report = |body| wire::Report {
        number: 1,
        gang: Some(wire::Gang { job: 1, ordinal: 0 }),
        attempt: 1,
        token: Some(wire::Token { generation: 1, index: 2 }),
        body: Some(body),
    };
    use wire::report::Body as Report;
    let reports = vec![
        report(Report::Prepared(wire::Prepared {})),
        report(Report::Exited(wire::Exited { rank: 1, code: 1, ..Default::default() })),
        report(Report::Quarantined(wire::Quarantined { slots: vec![0, 1], why: "w".into() })),
        report(Report::DeviceFault(wire::DeviceFault {
            slot: 1,
            xid: 79,
            why: "w".into(),
            fatal: true,
            uuid: "GPU-1".into(),
        })),
        report(Report::Released(wire::Released { lease_expired: false })),
    ];
    let bodies = [Body::Hello(hello), Body::Reports(wire::Reports { reports })];
    bodies.into_iter().map(|body| wire::AgentMessage { body: Some(body) }.encode_to_vec()).collect()
}

fn run_up(input: &[u8]) {
    use wire::agent_message::Body;
    let Some(wire::AgentMessage { body: Some(body) }) = fuzz::agent_message(input) else { return };
    let mut state = State::new("test");
    let mut commit = |index: u64, command| {
        apply(&mut state, &Entry { index, term: 1, at: Time(index), command });
        if let Err(broken) = state.check() {
            panic!("invariant: an agent's word broke it: {broken}");
        }
    };
    match body {
        Body::Hello(hello) => {
            let Ok((registration, _)) = translate::registration(hello) else { return };
            commit(1, Command::RegisterNode(Box::new(registration.clone())));
            commit(2, Command::RegisterNode(Box::new(registration)));
        }
        Body::Reports(reports) => {
            let read = |report| translate::report(NodeId(1), 1, report).ok();
            let reports = reports.reports.into_iter().filter_map(read).collect();
            commit(1, Command::Reports { reports });
        }
        Body::Renewal(_) | Body::Log(_) | Body::Telemetry(_) => {}
    }
    super::commands::survive_reads(&state);
}

fn seeds_down() -> Vec<Vec<u8>> {
    let allocation = wire::Allocation {
        gang: Some(wire::Gang { job: 7, ordinal: 0 }),
        attempt: 1,
        token: Some(wire::Token { generation: 1, index: 9 }),
        phase: wire::Phase::Run.into(),
        devices: vec![wire::DeviceShare { slot: 0, uuid: "GPU-0".into(), milli: 1000 }],
        ranks: 1,
        world_size: 1,
        peers: vec![wire::Peer { node_name: "n1".into(), address: "10.0.0.1".into(), devices: 1, ranks: 1, group: 0 }],
        master_port: 20_000,
        launch_hash: vec![7; 32].into(),
        stop_signal: "TERM".into(),
        lease_ms: 1000,
        in_array: true,
        user: "alice".into(),
        ..Default::default()
    };
    let position = wire::Position { generation: 1, term: 1, applied_index: 9 };
    let desired =
        wire::Desired { cluster_id: "c".into(), position: Some(position), epoch: 3, allocations: vec![allocation] };
    let launch = muster_common::job::Launch {
        name: muster_common::Name::literal("job"),
        run: muster_common::job::Run::Script("true".into()),
        env: [("A".to_owned(), "b".to_owned())].into(),
        groups: Vec::new(),
        workdir: Some("/".into()),
        logs: muster_common::job::LogLimits::default(),
        elements: vec![[("X".to_owned(), "1".to_owned())].into()],
    };
    let launch = [vec![1], postcard::to_stdvec(&launch).expect("plain data encodes")].concat();
    vec![chosen(0, &desired.encode_to_vec()), chosen(1, &launch)]
}

fn run_down(input: &[u8]) {
    match choice(input) {
        Some((kind, bytes)) if kind % 2 == 0 => {
            let Some(desired) = muster_agent::fuzz::desired(bytes) else { return };
            for assignment in &desired.assignments {
                let part = assignment.run.as_ref();
                assert!(part.is_none_or(|part| part.same_content(part)), "work differs from itself");
                desired.position.covers(assignment.key.token);
            }
            desired.floor();
        }
        Some((_, bytes)) => drop(muster_agent::fuzz::launch_part(bytes)),
        None => {}
    }
}

fn seeds_peer() -> Vec<Vec<u8>> {
    let id = |index| Some(peer::LogId { term: 2, index });
    let vote = Some(peer::Vote { term: 2, server_id: 1, committed: true });
    let entry = peer::Entry { id: id(4), body: [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1].to_vec().into() };
    let append = peer::AppendRequest {
        envelope: Some(peer::Envelope::default()),
        vote,
        previous: id(3),
        entries: vec![entry],
        leader_commit: id(3),
    };
    let asked = peer::VoteRequest { vote, last: id(3), ..Default::default() };
    let answered = peer::VoteReply { vote, last: id(3), granted: true, disk_id: "d".into() };
    let conflict = peer::AppendReply {
        outcome: Some(peer::append_reply::Outcome::Conflict(peer::LogId::default())),
        ..Default::default()
    };
    let transfer =
        peer::TransferLeaderRequest { from_leader: vote, to_server_id: 2, last: id(3), ..Default::default() };
    let record = peer::HistoryRecord { index: 1, kind: 1, job: Some(1), bytes: b"x".to_vec().into(), ordinal: 0 };
    vec![
        chosen(0, &append.encode_to_vec()),
        chosen(1, &asked.encode_to_vec()),
        chosen(2, &answered.encode_to_vec()),
        chosen(3, &conflict.encode_to_vec()),
        chosen(4, &transfer.encode_to_vec()),
        chosen(5, &record.encode_to_vec()),
        chosen(6, &peer::SnapshotPart::default().encode_to_vec()),
    ]
}

fn run_error(input: &[u8]) {
    let mut status = tonic::Status::internal("x");
    status.metadata_mut().insert_bin(error::METADATA_KEY, tonic::metadata::MetadataValue::from_bytes(input));
    if let Some(info) = error::decode(&status) {
        assert_eq!(error::decode(&error::encode(&info)), Some(info), "an error changed between two readings");
    }
}
