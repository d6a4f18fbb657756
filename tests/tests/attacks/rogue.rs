//! A rogue agent with a good certificate, and join tokens that were used before.

use super::raw::{call, framed};
use super::server::{PATIENCE, Server};
use muster_proto::agent as wire;
use muster_proto::agent::agents_client::AgentsClient;
use muster_proto::client::{NodeTokenRequest, ShowNodeRequest, SubmitRequest};
use muster_runtime::identity::{KeyRequest, Role};
use std::time::Instant;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use wire::agent_message::Body as Up;
use wire::server_message::Body as Down;

/// An agent played by hand.
pub struct Agent {
    up: mpsc::Sender<wire::AgentMessage>,
    pub down: Streaming<wire::ServerMessage>,
    next_report: u64,
}

pub fn inventory(devices: u32) -> wire::Inventory {
    let device = |slot| wire::Device { uuid: format!("GPU-{slot}"), model: "H100".into(), ..wire::Device::default() };
    let link = |at: u32| if at / devices == at % devices { "same" } else { "sys" }.to_owned();
    wire::Inventory {
        cpu_milli: 64_000,
        memory_bytes: 1 << 40,
        devices: (0..devices).map(device).collect(),
        links: (0..devices * devices).map(link).collect(),
        hardware_id: "hw".into(),
        boot_id: "boot".into(),
        address: "127.0.0.1".into(),
        port_base: 20_000,
        port_count: 10,
        ..wire::Inventory::default()
    }
}

pub fn hello(node: &str, devices: u32) -> wire::Hello {
    wire::Hello {
        protocol_version: 1,
        node_name: node.into(),
        inventory: Some(inventory(devices)),
        store_id: format!("store-{node}"),
        instance: format!("instance-{node}"),
        ..wire::Hello::default()
    }
}

impl Agent {
    /// Opens a control stream under a certificate for `name` and says hello.
    pub async fn connect(server: &Server, name: &str, hello: wire::Hello) -> Result<Self, Status> {
        let mut client = AgentsClient::new(server.channel(server.identity(Role::Agent, name)));
        let (up, messages) = mpsc::channel(256);
        up.send(wire::AgentMessage { body: Some(Up::Hello(hello)) }).await.expect("room");
        let down = client.control(ReceiverStream::new(messages)).await?.into_inner();
        Ok(Self { up, down, next_report: 1 })
    }

    pub async fn send(&self, body: Up) {
        self.up.send(wire::AgentMessage { body: Some(body) }).await.expect("the stream is open");
    }

    pub async fn until<T>(&mut self, what: &str, mut wanted: impl FnMut(Down) -> Option<T>) -> T {
        let search = async {
            loop {
                let message = self.down.message().await.unwrap_or_else(|status| panic!("{what}: {status}"));
                let message = message.unwrap_or_else(|| panic!("{what}: the stream ended"));
                if let Some(found) = message.body.and_then(&mut wanted) {
                    return found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("{what}: never"))
    }

    pub async fn welcome(&mut self) -> wire::Welcome {
        self.until("a welcome", |down| if let Down::Welcome(welcome) = down { Some(welcome) } else { None }).await
    }

    /// The next allocation in a phase.
    async fn allocation(&mut self, phase: wire::Phase) -> wire::Allocation {
        self.until("an allocation", |down| match down {
            Down::Desired(desired) => desired.allocations.into_iter().find(|allocation| allocation.phase() == phase),
            _ => None,
        })
        .await
    }

    /// Reports, and waits until a server has it in its log.
    async fn report(&mut self, about: &wire::Allocation, body: wire::report::Body) {
        let number = self.next_report;
        self.next_report += 1;
        let report =
            wire::Report { number, gang: about.gang, attempt: about.attempt, token: about.token, body: Some(body) };
        self.send(Up::Reports(wire::Reports { reports: vec![report] })).await;
        self.until("an acknowledgement", |down| match down {
            Down::Acknowledged(acknowledged) => (acknowledged.number >= number).then_some(()),
            _ => None,
        })
        .await;
    }

    /// How the server ends the stream.
    async fn ended(&mut self) -> Code {
        let search = async {
            loop {
                match self.down.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return Code::Ok,
                    Err(status) => return status.code(),
                }
            }
        };
        tokio::time::timeout(PATIENCE, search).await.expect("the server keeps the stream")
    }
}

async fn state_of(server: &Server, job: u64) -> String {
    let request = muster_proto::client::ShowJobRequest {
        job: Some(muster_proto::client::JobRef { id: job, ..Default::default() }),
    };
    server.user("alice").show_job(request).await.expect("the job is there").into_inner().state
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rogue_agent_speaks_for_its_own_node_only() {
    use wire::report::Body as Report;
    let server = Server::start().await;
    let mut honest = Agent::connect(&server, "n1", hello("n1", 2)).await.expect("admitted");
    let epoch = honest.welcome().await.epoch;
    let spec = serde_json::json!({"name": "mine", "gang": {"nodes": 1, "gpus_per_node": 2, "run": "true"}});
    let submit = SubmitRequest { spec_json: spec.to_string(), key: "k".into(), ..SubmitRequest::default() };
    let job = server.user("alice").submit(submit).await.expect("taken").into_inner().job.expect("a job").id;
    let mine = honest.allocation(wire::Phase::Prepare).await;
    honest.report(&mine, Report::Prepared(wire::Prepared {})).await;
    honest.allocation(wire::Phase::Run).await;
    assert_eq!(state_of(&server, job).await, "RUNNING");

    // Another node's name under one's own certificate.
    let mut thief = Agent::connect(&server, "n2", hello("n1", 2)).await.expect("a stream");
    assert_eq!(thief.ended().await, Code::PermissionDenied);

    // Another node's allocation, with its true token: its end, its release, its devices' quarantine.
    let mut rogue = Agent::connect(&server, "n2", hello("n2", 1)).await.expect("admitted");
    rogue.welcome().await;
    for lie in [
        Report::Exited(wire::Exited { rank: 0, code: 0, ..wire::Exited::default() }),
        Report::Exited(wire::Exited { rank: 7, code: 1, ..wire::Exited::default() }),
        Report::Released(wire::Released { lease_expired: false }),
        Report::Failed(wire::Failed { infra: true, why: "x".into() }),
    ] {
        rogue.report(&mine, lie).await;
        assert_eq!(state_of(&server, job).await, "RUNNING", "another node's word ended it");
    }
    // Devices it does not have: a slot out of range is nobody's.
    rogue.report(&mine, Report::Quarantined(wire::Quarantined { slots: vec![0, 1, 65_535], why: "x".into() })).await;
    for (slot, uuid) in [(1, ""), (0, "GPU-1")] {
        let fault = wire::DeviceFault { slot, xid: 79, why: "x".into(), fatal: true, uuid: uuid.into() };
        rogue.report(&mine, Report::DeviceFault(fault)).await;
    }
    let node = |name: &str| ShowNodeRequest { name: name.to_owned() };
    let n1 = server.user("alice").show_node(node("n1")).await.expect("known").into_inner();
    assert!(n1.devices.iter().all(|device| !device.state.contains("QUARANTINE")), "{:?}", n1.devices);
    assert_eq!(state_of(&server, job).await, "RUNNING");

    // What it may not read: a launch part that does not run on its node.
    let mut client = AgentsClient::new(server.channel(server.identity(Role::Agent, "n2")));
    let fetched = client.fetch_launch(wire::FetchLaunchRequest { hash: mine.launch_hash.clone() }).await;
    assert_eq!(fetched.expect_err("another node's launch part").code(), Code::NotFound);

    // More devices, or the same device twice, under the same running node.
    let mut twice = hello("n2", 2);
    twice.instance = "again".into();
    twice.inventory.as_mut().expect("it has one").devices[1].uuid = "GPU-0".into();
    let mut twice = Agent::connect(&server, "n2", twice).await.expect("a stream");
    assert_eq!(twice.ended().await, Code::FailedPrecondition);
    // The honest one still holds its node.
    honest.report(&mine, Report::Started(wire::Started {})).await;
    assert!(epoch > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rogue_agent_signs_for_no_other_name() {
    let server = Server::start().await;
    let mut client = AgentsClient::new(server.channel(server.identity(Role::Agent, "n2")));
    let key = KeyRequest::new().expect("a key");
    let request = wire::RenewRequest { csr_pem: key.csr_pem().to_owned() };
    let reply = client.renew(request).await.expect("its own certificate").into_inner();
    let identity = key.finish(&reply.certificate_pem, &reply.ca_pem, super::server::now_ms()).expect("good");
    assert_eq!(identity.name().uri(), "muster://testing/agent/n2", "whatever a request says");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_token_is_good_once_for_its_node_and_for_its_time() {
    let server = Server::start().await;
    let token = async |node: &str, ttl_ms: u64, id: &str| {
        let request = NodeTokenRequest { node: node.to_owned(), ttl_ms, request_id: id.to_owned() };
        server.admin().node_token(request).await.expect("issued").into_inner().secret
    };
    let join = async |secret: &str, node: &str| {
        let key = KeyRequest::new().expect("a key");
        let request = wire::JoinRequest {
            token: secret.to_owned(),
            node_name: node.to_owned(),
            csr_pem: key.csr_pem().to_owned(),
        };
        AgentsClient::new(server.nobody()).join(request).await.map(|_| ()).map_err(|status| status.code())
    };
    let refused = Err(Code::PermissionDenied);
    let first = token("n1", 0, "a").await;
    assert_eq!(join(&first, "n2").await, refused, "another node's token");
    assert_eq!(join(&first, "n1").await, Ok(()));
    for again in ["n1", "n2"] {
        assert_eq!(join(&first, again).await, refused, "a replayed token");
    }
    assert_eq!(join("", "n1").await, refused);
    assert_eq!(join(&first[..first.len() - 1], "n1").await, refused, "a part of a token");
    let brief = token("n3", 200, "b").await;
    let begun = Instant::now();
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    assert_eq!(join(&brief, "n3").await, refused, "a token {:?} old", begun.elapsed());
    // Two at once with one token: one of them.
    let shared = token("", 0, "c").await;
    let (one, two) = tokio::join!(join(&shared, "n4"), join(&shared, "n5"));
    assert_eq!([one, two].iter().filter(|joined| joined.is_ok()).count(), 1, "{one:?} {two:?}");
    // A bad request does not cost the token.
    let kept = token("n6", 0, "d").await;
    let message = wire::JoinRequest { token: kept.clone(), node_name: "n6".into(), csr_pem: "no request".into() };
    let body = framed(&prost::Message::encode_to_vec(&message));
    let code = call(&server.nobody(), "/muster.agent.v1.Agents/Join", body).await;
    assert_eq!(code, Code::InvalidArgument);
    assert_eq!(join(&kept, "n6").await, Ok(()));
}
