use super::{Metrics, listen};
use crate::gateway::tests::server::{Server, within};
use crate::health::Health;
use muster_common::{GangId, JobId};
use muster_proto::client as pb;
use muster_proto::client::muster_server::Muster;
use muster_runtime::identity::Role;
use muster_runtime::shutdown::Shutdown;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic_health::server::HealthReporter;

const JOB: &str = r#"{"name":"secret-name","gang":{"nodes":1,"gpus_per_node":2,"ranks_per_node":"gpu","run":"x"},"limits":{"time":"1h"}}"#;

struct Scraped {
    server: Server,
    metrics: Metrics,
    shutdown: Shutdown,
}

impl Scraped {
    async fn start(nodes: usize) -> Self {
        let server = Server::start(nodes).await;
        let shutdown = Shutdown::new();
        let (health, mut ready) = Health::new(server.ctx.clone(), HealthReporter::new());
        tokio::spawn(health.run(shutdown.clone()));
        within("ready", ready.wait_for(|ready| *ready)).await.unwrap();
        let metrics = Metrics::new(server.ctx.clone(), server.gateway.clone(), ready);
        Self { server, metrics, shutdown }
    }

    async fn submit(&self, key: &str) -> JobId {
        let request = pb::SubmitRequest { key: key.into(), spec_json: JOB.into(), ..Default::default() };
        let reply = within("a submit", self.server.gateway.submit(Server::call(Role::User, request))).await;
        JobId(reply.unwrap().into_inner().job.unwrap().id)
    }
}

/// A metric as its scrape describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Described {
    kind: String,
    help: String,
    labels: BTreeSet<String>,
}

/// By name, as it is in the samples.
fn described(text: &str) -> BTreeMap<String, Described> {
    let mut all: BTreeMap<String, Described> = BTreeMap::new();
    let mut help = BTreeMap::new();
    let mut families = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, words)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            help.insert(name.to_owned(), words.to_owned());
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            families.insert(name.to_owned(), kind.to_owned());
        }
    }
    for (family, kind) in &families {
        let name = match kind.as_str() {
            "counter" => format!("{family}_total"),
            "info" => format!("{family}_info"),
            _ => family.clone(),
        };
        let labels = samples(text)
            .filter(|(sample, _, _)| *sample == name || kind == "histogram" && sample.starts_with(family.as_str()))
            .flat_map(|(_, labels, _)| {
                labels.split(',').filter_map(|label| label.split_once('=')).map(|(name, _)| name)
            })
            .filter(|label| *label != "le")
            .map(str::to_owned)
            .collect();
        all.insert(name, Described { kind: kind.clone(), help: help[family].clone(), labels });
    }
    all
}

/// Name, labels and value.
fn samples(text: &str) -> impl Iterator<Item = (&str, &str, f64)> {
    text.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        (name, labels.trim_end_matches('}'), value.parse().expect("a number"))
    })
}

fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
}

fn house() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// With something counted wherever nothing is told before it happened.
async fn whole_output() -> String {
    let scraped = Scraped::start(1).await;
    scraped.server.gateway.instruments().refused(muster_proto::convert::error::ErrorCode::Usage);
    scraped.server.gateway.instruments().answered(http::StatusCode::OK);
    scraped.submit("a").await;
    let text = scraped.metrics.text().await;
    scraped.shutdown.trigger();
    text.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reference_names_every_metric_and_no_other() {
    let file = house().join("docs/reference/metrics.md");
    let kept = std::fs::read_to_string(&file).unwrap();
    let (before, after) = kept.split_once("<!-- table -->\n").expect("the place of the table");
    let (_, after) = after.split_once("<!-- end -->").expect("the end of the table");
    let row = |(name, metric): (&String, &Described)| {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        format!("| `{name}` | {} | {} | {} |\n", metric.kind, labels.join(", "), metric.help.trim_end_matches('.'))
    };
    let rows: String = described(&whole_output().await).iter().map(row).collect();
    let table = format!("\n| name | kind | labels | what |\n|---|---|---|---|\n{rows}\n");
    let made = format!("{before}<!-- table -->\n{table}<!-- end -->{after}");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &made).unwrap();
        return;
    }
    assert!(made == kept, "run `UPDATE=1 cargo test -p muster-scheduler --lib metrics`, and look at what changes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_and_boards_use_only_metrics_that_exist() {
    let known = described(&whole_output().await);
    let exists = |name: &str| {
        let base = ["_bucket", "_count", "_sum"].iter().find_map(|suffix| name.strip_suffix(suffix));
        known.contains_key(name) || base.is_some_and(|base| known.get(base).is_some_and(|of| of.kind == "histogram"))
    };
    for file in ["deploy/prometheus/muster.rules.yml", "deploy/grafana/muster.json"] {
        let text = std::fs::read_to_string(house().join(file)).unwrap();
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let used: BTreeSet<&str> = words.filter(|word| word.starts_with("muster_")).collect();
        assert!(used.len() > 10, "{file} uses {used:?}");
        let unknown: Vec<&&str> = used.iter().filter(|name| !exists(name)).collect();
        assert!(unknown.is_empty(), "{file} uses {unknown:?}, which no server tells");
    }
    let board = std::fs::read_to_string(house().join("deploy/grafana/muster.json")).unwrap();
    serde_json::from_str::<serde_json::Value>(&board).expect("Grafana reads it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scrape_tells_what_is_so_and_names_nobody() {
    let scraped = Scraped::start(2).await;
    let running = scraped.submit("a").await;
    let starting = GangId::new(scraped.submit("b").await, 0);
    scraped.server.prepare(GangId::new(running, 0)).await;
    scraped.server.until(starting, "a placement", |state| state.is_some()).await;
    scraped.submit("c").await;
    let text = scraped.metrics.text().await;
    for (series, expected) in [
        ("muster_ready", 1.0),
        ("muster_raft_is_leader", 1.0),
        ("muster_raft_members", 1.0),
        ("muster_nodes{state=\"up\"}", 2.0),
        ("muster_jobs{state=\"running\"}", 1.0),
        ("muster_queue_gangs{reason=\"nodes\"}", 1.0),
        ("muster_fencing_held", 0.0),
        ("muster_mailbox_messages{actor=\"leases\"}", 0.0),
        ("muster_gateway_open{kind=\"streams\"}", 0.0),
    ] {
        assert_eq!(value(&text, series), expected, "{series}");
    }
    let applied = value(&text, "muster_raft_applied_index");
    assert!(applied > 5.0 && value(&text, "muster_raft_committed_index") >= applied);
    for series in [
        "muster_cycle_seconds_count",
        "muster_cycle_steps_total",
        "muster_proposals_total{outcome=\"committed\"}",
        "muster_log_append_seconds_count",
        "muster_events_total",
        "muster_process_resident_memory_bytes",
        "muster_certificate_not_after_timestamp_seconds",
    ] {
        assert!(value(&text, series) > 0.0, "{series}");
    }
    assert!(text.ends_with("# EOF\n"));
    for name in ["secret-name", "the-user", "n1", &format!("\"{}\"", running.0)] {
        assert!(!text.contains(name), "{name} is in the scrape");
    }
    // The same moment is not worked out twice.
    scraped.submit("d").await;
    assert_eq!(scraped.metrics.text().await, text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_port_serves_scrapes_and_health_and_nothing_else() {
    let scraped = Scraped::start(0).await;
    let listening = listen("127.0.0.1:0".parse().unwrap(), scraped.metrics.clone(), scraped.shutdown.clone());
    let (address, work) = listening.await.unwrap();
    let served = tokio::spawn(work);
    let get = async |path: &str| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        within("an answer", stream.read_to_string(&mut text)).await.unwrap();
        text
    };
    let scrape = get("/metrics").await;
    assert!(scrape.starts_with("HTTP/1.1 200") && scrape.contains("openmetrics-text"), "{scrape}");
    assert!(scrape.contains("muster_raft_is_leader 1"));
    assert!(get("/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(get("/v1/jobs").await.starts_with("HTTP/1.1 404"));
    scraped.shutdown.trigger();
    within("the end", served).await.unwrap().unwrap();
}
