//! `muster ps`: the queue and what runs.

use crate::context::Context;
use crate::error::CliError;
use crate::output::human::{self, NONE};
use crate::output::table::{Align, Table, cell};
use crate::output::{Style, json};
use clap::Args;
use muster_proto::client::{Job, ListJobsReply, ListJobsRequest};
use serde_json::Value;

/// Most jobs that one call answers with.
const PAGE_MAX: u32 = 1000;

#[derive(Debug, Args)]
pub struct PsArgs {
    /// Only these jobs
    pub jobs: Vec<String>,
    /// Of every user
    #[arg(short = 'A', long)]
    pub all: bool,
    /// Of another user
    #[arg(long, conflicts_with_all = ["all", "jobs"])]
    pub user: Option<String>,
    /// Only in these states, such as RUNNING,QUEUED
    #[arg(long, value_delimiter = ',')]
    pub state: Vec<String>,
    /// Ended jobs too, the newest first
    #[arg(short, long)]
    pub ended: bool,
    /// At most so many
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    /// Go on where a list was cut off, as the end of it says
    #[arg(long, value_name = "PAGE", conflicts_with = "jobs")]
    pub page: Option<String>,
}

pub async fn run(context: &Context, args: PsArgs) -> Result<u8, CliError> {
    let jobs = args.jobs.iter().map(|job| context.job(job)).collect::<Result<Vec<_>, _>>()?;
    let mut request = ListJobsRequest {
        states: args.state.iter().map(|state| state.to_uppercase()).collect(),
        user: args.user.unwrap_or_default(),
        all_users: args.all || !jobs.is_empty(),
        ended: args.ended,
        limit: args.limit.min(PAGE_MAX),
        page: args.page.unwrap_or_default(),
        jobs,
    };
    let client = context.client()?;
    let mut reply = client.call(async |mut api| api.list_jobs(request.clone()).await).await?;
    // A page may be cut off before it is full: where it is long, or where history was searched for long.
    while !reply.next_page.is_empty() && (reply.jobs.len() as u32) < args.limit {
        request.page = std::mem::take(&mut reply.next_page);
        request.limit = (args.limit - reply.jobs.len() as u32).min(PAGE_MAX);
        let more = client.call(async |mut api| api.list_jobs(request.clone()).await).await?;
        reply.jobs.extend(more.jobs);
        reply.next_page = more.next_page;
    }
    let style = context.style();
    context.printer.answer(|| document(&reply), || render(&reply, &style))?;
    if reply.jobs.is_empty() {
        context.printer.say(nothing(&request));
    }
    if !reply.next_page.is_empty() {
        context.printer.say(&format!("there are more: --limit, or --page {}", reply.next_page));
    }
    Ok(0)
}

fn nothing(request: &ListJobsRequest) -> &'static str {
    match (request.all_users || !request.user.is_empty(), request.states.is_empty()) {
        (true, true) => "no jobs",
        (true, false) => "no jobs in such a state",
        (false, true) => "no jobs of yours; -A shows everybody's",
        (false, false) => "no jobs of yours in such a state; -A shows everybody's",
    }
}

pub fn render(reply: &ListJobsReply, style: &Style) -> String {
    if reply.jobs.is_empty() {
        return String::new();
    }
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("JOB", Right),
        ("NAME", Left),
        ("USER", Left),
        ("STATE", Left),
        ("GPUS", Right),
        ("WAIT", Left),
        ("RUN", Left),
        ("LEFT", Left),
        ("WHERE / WHY", Left),
    ]);
    for job in &reply.jobs {
        table.row(row(job, style));
    }
    table.text()
}

fn row(job: &Job, style: &Style) -> [String; 9] {
    let id = if job.array { format!("{}_*", job.id) } else { job.id.to_string() };
    let state = if job.held && job.state == "QUEUED" { "HELD".to_owned() } else { style.state(&cell(&job.state)) };
    let end = job.ended_at_ms.unwrap_or(style.now_ms);
    let started = job.started_at_ms.filter(|_| job.state != "QUEUED");
    let wait = started.unwrap_or(end).saturating_sub(job.submitted_at_ms);
    let run = started.map(|started| end.saturating_sub(started));
    let left = match (started, job.time_limit_ms, job.ended_at_ms) {
        (Some(started), Some(limit), None) => Some((started + limit).saturating_sub(style.now_ms)),
        _ => None,
    };
    [
        id,
        cell(&job.name),
        cell(&job.user),
        state,
        gpus(job),
        human::duration(wait),
        human::maybe_duration(run),
        human::maybe_duration(left),
        place(job, style),
    ]
}

fn gpus(job: &Job) -> String {
    match &job.counts {
        Some(counts) if job.array => {
            let active = u64::from(counts.starting + counts.running + counts.stopping);
            format!("{}/{}", active * u64::from(job.gpus), u64::from(counts.total) * u64::from(job.gpus))
        }
        _ => job.gpus.to_string(),
    }
}

/// Where it runs, or why it does not.
fn place(job: &Job, style: &Style) -> String {
    if job.ended_at_ms.is_some() {
        return cell(if job.cause_text.is_empty() { &job.cause } else { &job.cause_text });
    }
    if !job.node_names.is_empty() {
        return cell(&human::node_set(&job.node_names));
    }
    let mut parts = Vec::new();
    if let Some(start) = job.start_estimate_at_ms {
        let (about, coarse) = if job.start_estimate_coarse { ("about ", " (coarse)") } else { ("", "") };
        parts.push(format!("starts in {about}{}{coarse}", human::duration(start.saturating_sub(style.now_ms))));
    }
    let reason = if job.reason_text.is_empty() { &job.reason } else { &job.reason_text };
    if !reason.is_empty() {
        parts.push(cell(reason));
    }
    if parts.is_empty() { NONE.to_owned() } else { parts.join("  ") }
}

pub fn document(reply: &ListJobsReply) -> Value {
    json::document("muster.jobs/1", reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_is_said_to_be_of_who_was_asked_for() {
        let bob = ListJobsRequest { user: "bob".into(), ..ListJobsRequest::default() };
        assert_eq!(nothing(&bob), "no jobs");
        let failed = ListJobsRequest { states: vec!["FAILED".into()], ..ListJobsRequest::default() };
        assert!(nothing(&failed).starts_with("no jobs of yours in such a state"));
        assert!(nothing(&ListJobsRequest::default()).contains("-A"));
    }
}
