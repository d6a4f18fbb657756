//! Nodes that are put to sleep and woken by a hook of the leader's; machines are agents, which the hook kills and the
//! test starts.

use super::job;
use muster_proto::client::{ConfigureRequest, Node};
use muster_tests::cluster::wait::until;
use muster_tests::cluster::{Options, TestCluster};
use serde_json::json;

/// `sleep` ends the agent whose number stands in `NODE.pid`; `wake` leaves word for whoever starts it.
const HOOK: &str = r#"
order=$1; shift
for node in "$@"; do
    if [ -e "broken.$node" ]; then echo "$node: no answer" >&2; exit 3; fi
    case $order in
        sleep) [ ! -e "$node.pid" ] || kill -9 "$(cat "$node.pid")"; echo "$node" >> slept;;
        wake) touch "$node.wanted";;
    esac
done
"#;

struct Machines {
    cluster: TestCluster,
}

impl Machines {
    async fn start() -> Self {
        let cluster = TestCluster::start(3, 3, Options { hook: Some(HOOK.to_owned()), ..Options::default() }).await;
        Self { cluster }
    }

    /// The last of the nodes sleeps for want of work, the others never.
    async fn set_policy(&self, retry_ms: u64) {
        let pool = json!({"except": ["n0", "n1"], "idle_ms": 1000, "retry_ms": retry_ms});
        let request = ConfigureRequest {
            request_id: format!("retry-{retry_ms}"),
            kind: "policy".to_owned(),
            json: json!({"elastic": {"rest": pool}}).to_string(),
            ..ConfigureRequest::default()
        };
        self.cluster.admin.call("configure", async |mut api| api.configure(request.clone()).await).await;
    }

    /// The hook may kill that one, and no other.
    fn may_be_ended(&self) {
        let pid = self.cluster.agents[2].pid().expect("it runs");
        std::fs::write(self.cluster.folder().join("n2.pid"), pid.to_string()).expect("it can be written");
    }

    async fn until_state(&self, state: &str) -> Node {
        until(&format!("n2 {state}"), async || {
            let node = self.cluster.user.node("n2").await;
            (node.state == state).then_some(node)
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_switched_off_for_want_of_work_and_on_again_for_a_gang_that_waits() {
    let mut machines = Machines::start().await;
    machines.may_be_ended();
    machines.set_policy(600_000).await;
    let asleep = machines.until_state("ASLEEP").await;
    assert_eq!((asleep.schedulable, asleep.reason.as_str()), (false, "it had nothing to do"));
    machines.cluster.agents[2].kill_9();

    // Whoever leads next asks for nothing again that was answered.
    let leader = machines.cluster.leader().await;
    machines.cluster.servers[leader].kill_9();
    let user = machines.cluster.user.clone();
    let id = user.submit_job(&job("wide", 3, 8, "true")).await;
    machines.until_state("WAKING").await;
    let wanted = machines.cluster.folder().join("n2.wanted");
    until("the hook", async || wanted.exists().then_some(())).await;
    let slept = std::fs::read_to_string(machines.cluster.folder().join("slept")).expect("the hook wrote it");
    assert_eq!(slept, "n2\n");
    let why = user.json(&["why", &id.to_string()]).await;
    assert!(why.to_string().contains("\"waking\""), "{why}");
    machines.cluster.agents[2].start();
    let ended = user.ended(id).await;
    assert_eq!(ended.state, "SUCCEEDED", "{ended:?}");
    machines.cluster.servers[leader].start();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_cannot_be_switched_off_stays_and_says_why() {
    let machines = Machines::start().await;
    std::fs::write(machines.cluster.folder().join("broken.n2"), "").expect("it can be written");
    machines.set_policy(600_000).await;
    let user = machines.cluster.user.clone();
    let told = until("the reason", async || {
        let events = user.run(&["events", "--kind", "node_power_failed"]).await;
        let told = String::from_utf8_lossy(&events.stdout).into_owned();
        told.contains("no answer").then_some(told)
    })
    .await;
    assert!(told.contains("n2 could not be put to sleep"), "{told}");
    assert!(machines.until_state("UP").await.schedulable);
    let doctor = machines.cluster.admin.run(&["cluster", "doctor"]).await;
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert_eq!(doctor.matches("its hook is ").count(), 3, "{doctor}");
}
