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
    let (wait, run) = waited_and_ran(job, style.now_ms);
    let left = match (present_start(job), job.time_limit_ms, job.ended_at_ms) {
        (Some(started), Some(limit), None) => Some((started + limit).saturating_sub(style.now_ms)),
        _ => None,
    };
    [
        id,
        cell(&job.name),
        cell(&job.user),
        state,
        gpus(job),
        human::maybe_duration(wait),
        human::maybe_duration(run),
        human::maybe_duration(left),
        place(job, style),
    ]
}

/// When the latest attempt started, of a job that does not wait for another.
fn present_start(job: &Job) -> Option<u64> {
    job.started_at_ms.filter(|_| job.state != "QUEUED")
}

/// For how long a job that has ended ran, over all its attempts. `None` when it never did, or that is not known.
pub fn ran(job: &Job) -> Option<u64> {
    // Older servers tell of the last attempt only, with what was waited behind it.
    let last = job.started_at_ms.zip(job.ended_at_ms).map(|(started, ended)| ended.saturating_sub(started));
    job.ran_ms.filter(|ran| *ran > 0).or(last)
}

/// For how long it waited and for how long it ran, over all its attempts: between them a job waits again. `None` where that
/// is not known, or it never ran.
fn waited_and_ran(job: &Job, now_ms: u64) -> (Option<u64>, Option<u64>) {
    let started = present_start(job);
    let lived = |until: u64| until.saturating_sub(job.submitted_at_ms);
    if let Some(ended) = job.ended_at_ms {
        let ran = ran(job);
        let is_known = ran.is_some() || !job.partial;
        return (is_known.then(|| lived(ended).saturating_sub(ran.unwrap_or(0))), ran);
    }
    let before = job.ran_ms.unwrap_or(0);
    let wait = lived(started.unwrap_or(now_ms)).saturating_sub(before);
    let runs = started.map(|started| now_ms.saturating_sub(started).saturating_add(before));
    (Some(wait), runs.or((before > 0).then_some(before)))
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

    const HOUR: u64 = 3_600_000;

    /// Ran for an hour after an hour's wait, was preempted, and waits since.
    fn preempted(state: &str) -> Job {
        Job { state: state.into(), submitted_at_ms: 0, ran_ms: Some(HOUR), attempt: 1, ..Job::default() }
    }

    #[test]
    fn what_a_job_waited_between_its_attempts_is_told_as_waiting() {
        let cancelled = Job { started_at_ms: Some(HOUR), ended_at_ms: Some(12 * HOUR), ..preempted("CANCELLED") };
        assert_eq!(waited_and_ran(&cancelled, 50 * HOUR), (Some(11 * HOUR), Some(HOUR)));
        // Its second attempt was placed and never started.
        let cancelled = Job { ended_at_ms: Some(12 * HOUR), attempt: 2, ..preempted("CANCELLED") };
        assert_eq!(waited_and_ran(&cancelled, 50 * HOUR), (Some(11 * HOUR), Some(HOUR)));
        let waits = preempted("QUEUED");
        assert_eq!(waited_and_ran(&waits, 12 * HOUR), (Some(11 * HOUR), Some(HOUR)));
        let runs_again = Job { started_at_ms: Some(12 * HOUR), attempt: 2, ..preempted("RUNNING") };
        assert_eq!(waited_and_ran(&runs_again, 15 * HOUR), (Some(11 * HOUR), Some(4 * HOUR)));
    }

    #[test]
    fn a_job_that_ran_once_waited_until_it_started() {
        let ended = Job { started_at_ms: Some(HOUR), ended_at_ms: Some(3 * HOUR), ..Job::default() };
        // From an older server and from one that tells how long it ran.
        for ran_ms in [None, Some(2 * HOUR)] {
            let job = Job { ran_ms, ..ended.clone() };
            assert_eq!(waited_and_ran(&job, 50 * HOUR), (Some(HOUR), Some(2 * HOUR)), "{ran_ms:?}");
        }
        let runs = Job { ended_at_ms: None, ran_ms: Some(0), ..ended };
        assert_eq!(waited_and_ran(&runs, 5 * HOUR), (Some(HOUR), Some(4 * HOUR)));
        assert_eq!(waited_and_ran(&Job { ran_ms: Some(0), ..Job::default() }, HOUR), (Some(HOUR), None));
    }

    #[test]
    fn nothing_is_made_up_of_an_ended_array_whose_elements_were_not_looked_up() {
        let array = Job { ended_at_ms: Some(HOUR), array: true, partial: true, ..Job::default() };
        assert_eq!(waited_and_ran(&array, 2 * HOUR), (None, None));
    }

    #[test]
    fn an_empty_list_is_said_to_be_of_who_was_asked_for() {
        let bob = ListJobsRequest { user: "bob".into(), ..ListJobsRequest::default() };
        assert_eq!(nothing(&bob), "no jobs");
        let failed = ListJobsRequest { states: vec!["FAILED".into()], ..ListJobsRequest::default() };
        assert!(nothing(&failed).starts_with("no jobs of yours in such a state"));
        assert!(nothing(&ListJobsRequest::default()).contains("-A"));
    }
}
