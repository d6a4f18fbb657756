//! `muster cluster doctor`: what is wrong, or soon will be. First a look, then pure conclusions from it.

mod cluster;
mod finding;
mod server;

pub use finding::{Finding, Level};

use crate::client::Client;
use crate::context::Context;
use crate::error::CliError;
use crate::output::{Style, json};
use clap::Args;
use muster_proto::client::{ClusterStatusReply, ClusterStatusRequest, ListNodesRequest, Node};
use muster_proto::convert::error::ErrorCode;
use serde_json::{Value, json};

/// One server's patience.
const SERVER_MS: u64 = 3_000;
/// Looks, until all servers were seen at one index.
const ROUNDS: usize = 5;

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// End with 1 for a warning too
    #[arg(long)]
    pub strict: bool,
}

/// What was seen from here.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// This machine's clock, in Unix milliseconds.
    pub now_ms: u64,
    /// Whose certificate was shown, and when it and the CA's end.
    pub caller: String,
    pub caller_expires_at_ms: u64,
    pub ca_expires_at_ms: u64,
    pub seen: Vec<Seen>,
    /// As the leader sees the whole.
    pub whole: Option<ClusterStatusReply>,
    pub nodes: Vec<Node>,
}

/// One address.
#[derive(Debug, Clone)]
pub struct Seen {
    pub address: String,
    pub answer: Result<Answer, String>,
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: ClusterStatusReply,
    /// This machine's clock when it was asked and when it had answered.
    pub asked_ms: u64,
    pub answered_ms: u64,
}

impl Look {
    pub fn answers(&self) -> impl Iterator<Item = &Answer> {
        self.seen.iter().filter_map(|seen| seen.answer.as_ref().ok())
    }
}

pub async fn run(context: &Context, args: DoctorArgs) -> Result<u8, CliError> {
    let look = look(context).await?;
    let findings = findings(&look);
    let style = context.style();
    context.printer.answer(|| document(&findings), || render(&findings, &style))?;
    let limit = if args.strict { Level::Warning } else { Level::Bad };
    let failed = findings.iter().any(|finding| finding.level >= limit);
    Ok(if failed { ErrorCode::CheckFailed.exit_code() } else { 0 })
}

async fn look(context: &Context) -> Result<Look, CliError> {
    let client = context.client()?;
    let identity = client.identity();
    let mut seen = ask_all(context, &client).await?;
    for _ in 1..ROUNDS {
        if at_one_index(&seen) {
            break;
        }
        seen = ask_all(context, &client).await?;
    }
    if seen.iter().all(|seen| seen.answer.is_err()) {
        let each =
            seen.iter().map(|seen| format!("{}: {}", seen.address, seen.answer.as_ref().err().map_or("", |why| why)));
        let message = format!("no server answers: {}", each.collect::<Vec<_>>().join("; "));
        return Err(CliError::new(ErrorCode::Unavailable, message)
            .hint("start the servers, or give the addresses of those that run with --server"));
    }
    let whole = client.call(async |mut api| api.cluster_status(ClusterStatusRequest { local: false }).await).await.ok();
    let nodes = match &whole {
        Some(_) => client.call(async |mut api| api.list_nodes(ListNodesRequest::default()).await).await?.nodes,
        None => Vec::new(),
    };
    Ok(Look {
        now_ms: context.now_ms(),
        caller: identity.name().to_string(),
        caller_expires_at_ms: identity.not_after_ms(),
        ca_expires_at_ms: identity.ca_not_after_ms(),
        seen,
        whole,
        nodes,
    })
}

/// Every address of the settings, and every member that one of those names.
async fn ask_all(context: &Context, client: &Client) -> Result<Vec<Seen>, CliError> {
    let mut addresses = client.addresses();
    let mut seen: Vec<Seen> = Vec::new();
    while let Some(address) = addresses.get(seen.len()).cloned() {
        let one = client.at(&address, SERVER_MS)?;
        let asked_ms = context.now_ms();
        let answer = one
            .call_within(SERVER_MS, async |mut api| api.cluster_status(ClusterStatusRequest { local: true }).await)
            .await;
        let answered_ms = context.now_ms();
        for member in answer.iter().flat_map(|status| &status.members) {
            if !addresses.contains(&member.address) {
                addresses.push(member.address.clone());
            }
        }
        let answer = answer.map(|status| Answer { status, asked_ms, answered_ms });
        seen.push(Seen { address, answer: answer.map_err(|error| error.info().message.clone()) });
    }
    Ok(seen)
}

fn at_one_index(seen: &[Seen]) -> bool {
    let mut indexes =
        seen.iter().filter_map(|seen| seen.answer.as_ref().ok()).map(|answer| answer.status.applied_index);
    let first = indexes.next();
    indexes.all(|index| Some(index) == first)
}

/// What follows from a look, the worst first.
pub fn findings(look: &Look) -> Vec<Finding> {
    let mut all = server::findings(look);
    all.extend(cluster::findings(look));
    all.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    all
}

pub fn render(findings: &[Finding], style: &Style) -> String {
    let mut text = String::new();
    for finding in findings {
        text.push_str(&finding.text(style));
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let (bad, warnings) = (count(Level::Bad), count(Level::Warning));
    text.push_str(&format!("{bad} wrong, {warnings} to look at, {} as they should be\n", count(Level::Ok)));
    text
}

pub fn document(findings: &[Finding]) -> Value {
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    json!({
        "schema": "muster.doctor/1", "bad": count(Level::Bad), "warnings": count(Level::Warning),
        "findings": json::plain(&findings),
    })
}
