//! The loop of one real server with a scripted hook; the test plays the machines.

use crate::config::ElasticConfig;
use crate::gateway::tests::fixture::{principal, registration, spec};
use crate::gateway::tests::server::{Server, within};
use muster_common::job::Hash;
use muster_common::{Name, NodeId};
use muster_engine::command::{ConfigChange, Submit};
use muster_engine::policy::{ElasticPool, Policy};
use muster_engine::state::node::Power;
use muster_engine::{Command, Response, State};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

struct Played {
    folder: tempfile::TempDir,
    server: Server,
}

impl Played {
    /// Two nodes that go to sleep after a second; the first stays awake. The hook notes what it is told.
    async fn start(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hook = folder.path().join("hook");
        let text = format!("#!/bin/sh\ncd {}\necho \"$@\" >> told\n{script}\n", folder.path().display());
        std::fs::write(&hook, text).unwrap();
        std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
        let server = Server::start_with(3, ElasticConfig { hook, timeout_ms: 10_000 }).await;
        let pool = ElasticPool {
            idle_ms: 1_000,
            retry_ms: 600_000,
            except: [Name::literal("n1")].into(),
            ..ElasticPool::default()
        };
        let policy = Policy { elastic: [(Name::literal("all"), pool)].into(), ..Policy::default() };
        let change = Box::new(ConfigChange::Policy(policy));
        let set = server.propose(Command::Configure { change, by: principal("root") }).await;
        assert_eq!(set, Response::Done);
        Self { folder, server }
    }

    async fn until(&self, what: &str, is: impl Fn(&State) -> bool) {
        let mut views = self.server.ctx.consensus.views();
        within(what, views.wait_for(|viewed| is(&viewed.view))).await.unwrap();
    }

    async fn until_all(&self, what: &str, is: impl Fn(Power) -> bool) {
        self.until(what, |state| ["n2", "n3"].iter().all(|name| is(power(state, name)))).await;
    }

    fn told(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.path().join("told")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    async fn until_told(&self, line: &str) {
        let told = async {
            while !self.told().iter().any(|told| told == line) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within(line, told).await;
    }

    async fn submit(&self, nodes: u32) {
        let json = format!(
            r#"{{"name":"train","gang":{{"nodes":{nodes},"gpus_per_node":2,"ranks_per_node":"gpu","run":"x"}},"limits":{{"time":"1h"}}}}"#
        );
        let (scheduling, launch) = spec(&json);
        let submit = Submit {
            key: "k".into(),
            key_made_at: None,
            principal: principal("alice"),
            name: launch.name.clone(),
            scheduling,
            launch: Arc::new(launch),
            body_hash: Hash::default(),
            hold: false,
            retry_of: None,
        };
        let submitted = self.server.propose(Command::Submit(Box::new(submit))).await;
        assert!(matches!(submitted, Response::Submitted { .. }), "{submitted:?}");
    }
}

fn node(state: &State, name: &str) -> NodeId {
    state.node_named(&Name::new(name).unwrap()).unwrap().id
}

fn power(state: &State, name: &str) -> Power {
    state.node(node(state, name)).unwrap().power
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_switched_by_the_hook_and_awake_when_their_agents_say_so() {
    let played = Played::start("").await;
    played.until_all("sleeping nodes", |power| matches!(power, Power::Asleep { .. })).await;
    assert_eq!(played.told(), ["sleep n2 n3"]);
    played.submit(3).await;
    played.until_told("wake n2 n3").await;
    played.until_all("waking nodes", |power| matches!(power, Power::Waking { .. })).await;
    for name in ["n2", "n3"] {
        let mut back = registration(name, 2);
        Arc::make_mut(&mut back.inventory).boot_id = "another".into();
        played.server.propose(Command::RegisterNode(Box::new(back))).await;
    }
    played.until("a placement", |state| state.gangs().values().any(|gang| gang.current().is_some())).await;
    assert!(power(&played.server.ctx.view(), "n3").is_awake());
    assert_eq!(played.told(), ["sleep n2 n3", "wake n2 n3"], "each order is asked once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_that_fails_for_one_node_keeps_the_others_from_nothing_and_says_why() {
    let played = Played::start("case \"$*\" in *n3*) echo 'n3: no answer' >&2; exit 4;; esac").await;
    let settled = |state: &State| {
        let stays = matches!(power(state, "n3"), Power::Awake { stays_until } if stays_until > state.now());
        stays && matches!(power(state, "n2"), Power::Asleep { .. })
    };
    played.until("an answer for each", settled).await;
    let mut told = played.told();
    told.sort();
    assert_eq!(told, ["sleep n2", "sleep n2 n3", "sleep n3"]);
    let ctx = &played.server.ctx;
    let view = ctx.view();
    let shown = crate::gateway::render::node::summary(&view, view.node(node(&view, "n2")).unwrap());
    assert_eq!((shown.state.as_str(), shown.reason.as_str()), ("ASLEEP", "it had nothing to do"));
    assert!(shown.reason_at_ms.is_some());
}
