//! `muster show`: everything about one job.

use super::{edit, submit};
use crate::context::Context;
use crate::error::CliError;
use crate::output::human::{self, NONE};
use crate::output::table::cell;
use crate::output::{Style, json};
use clap::Args;
use muster_proto::client::{Attempt, Gang, Job, Part, RankExit, Revision, ShowJobRequest};
use serde_json::Value;
use std::fmt::Write as _;

/// Elements of an array that are shown in full.
const GANGS_SHOWN: usize = 20;

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Job: 4711, 4711_3, 4711@2, a name, or `-`
    pub job: String,
}

pub async fn run(context: &Context, args: ShowArgs) -> Result<u8, CliError> {
    let request = ShowJobRequest { job: Some(context.job(&args.job)?) };
    let client = context.client()?;
    let job = client.call(async |mut api| api.show_job(request.clone()).await).await?;
    let style = context.style();
    context.printer.answer(|| document(&job), || render(&job, &style))?;
    Ok(0)
}

pub fn render(job: &Job, style: &Style) -> String {
    let mut text = String::new();
    let held = if job.held { ", held" } else { "" };
    let _ = writeln!(
        text,
        "{} {}  {}{held}",
        style.bold(&job.id.to_string()),
        cell(&job.name),
        style.state(&cell(&job.state))
    );
    let mut line = |label: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(text, "  {label:<10} {value}");
        }
    };
    line("asks", submit::asks(job));
    line(
        "user",
        format!(
            "{} · queue {} · account {} · priority {}",
            cell(&job.user),
            cell(&job.queue),
            cell(&job.account),
            cell(&job.priority)
        ),
    );
    line("limit", limits(job));
    line("submitted", human::moment_and_distance(job.submitted_at_ms, style.now_ms));
    line("started", job.started_at_ms.map(|at| human::moment_and_distance(at, style.now_ms)).unwrap_or_default());
    line("ended", job.ended_at_ms.map(|at| human::moment_and_distance(at, style.now_ms)).unwrap_or_default());
    line("cause", cell(if job.cause_text.is_empty() { &job.cause } else { &job.cause_text }));
    line("exit code", job.exit_code.map(|code| code.to_string()).unwrap_or_default());
    line("waits for", cell(if job.reason_text.is_empty() { &job.reason } else { &job.reason_text }));
    line("elements", elements(job));
    line("used", format!("{} GPU-hours", human::gpu_hours(job.device_ms)));
    line("revision", if job.revision > 1 { job.revision.to_string() } else { String::new() });
    line("retry of", job.retry_of.map(|id| id.to_string()).unwrap_or_default());
    for revision in &job.revisions {
        render_revision(revision, style, &mut text);
    }
    for gang in job.gangs.iter().take(GANGS_SHOWN) {
        render_gang(gang, job.array, style, &mut text);
    }
    if job.gangs.len() > GANGS_SHOWN {
        let _ = writeln!(
            text,
            "{} more elements; name one, such as {}_{}",
            job.gangs.len() - GANGS_SHOWN,
            job.id,
            job.gangs[GANGS_SHOWN].ordinal
        );
    }
    text
}

fn limits(job: &Job) -> String {
    match (job.time_limit_ms, job.expected_ms) {
        (None, None) => String::new(),
        (Some(limit), None) => human::duration(limit),
        (None, Some(expected)) => format!("none, expected {}", human::duration(expected)),
        (Some(limit), Some(expected)) => format!("{}, expected {}", human::duration(limit), human::duration(expected)),
    }
}

fn elements(job: &Job) -> String {
    let Some(counts) = job.counts.as_ref().filter(|_| job.array) else { return String::new() };
    let all = [
        (counts.queued, "queued"),
        (counts.starting, "starting"),
        (counts.running, "running"),
        (counts.stopping, "stopping"),
        (counts.succeeded, "succeeded"),
        (counts.failed, "failed"),
        (counts.cancelled, "cancelled"),
        (counts.timed_out, "timed out"),
    ];
    let some: Vec<String> =
        all.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
    format!("{} of {}", some.join(", "), counts.total)
}

fn render_gang(gang: &Gang, array: bool, style: &Style, text: &mut String) {
    let indent = if array {
        let _ = writeln!(text, "element {}  {}", gang.ordinal, style.state(&cell(&gang.state)));
        "  "
    } else {
        ""
    };
    if let Some(not_before) = gang.not_before_ms.filter(|at| *at > style.now_ms) {
        let _ = writeln!(text, "{indent}tried again in {}", human::duration(not_before - style.now_ms));
    }
    if !gang.excluded_nodes.is_empty() {
        let _ = writeln!(text, "{indent}keeps off {}", cell(&human::node_set(&gang.excluded_nodes)));
    }
    for attempt in &gang.attempts {
        render_attempt(attempt, indent, style, text);
    }
}

fn render_attempt(attempt: &Attempt, indent: &str, style: &Style, text: &mut String) {
    let took = attempt.started_at_ms.map(|started| attempt.ended_at_ms.unwrap_or(style.now_ms).saturating_sub(started));
    let why = if attempt.cause_text.is_empty() { &attempt.cause } else { &attempt.cause_text };
    let why = if why.is_empty() { String::new() } else { format!("  {}", cell(why)) };
    let _ = writeln!(
        text,
        "{indent}attempt {}  {}  placed {}  ran {}{why}",
        attempt.number,
        style.state(&cell(&attempt.state)),
        human::moment(attempt.placed_at_ms),
        human::maybe_duration(took),
    );
    for part in &attempt.parts {
        render_part(part, indent, text);
    }
}

fn render_revision(revision: &Revision, style: &Style, text: &mut String) {
    let when = human::moment_and_distance(revision.at_ms, style.now_ms);
    let _ = writeln!(text, "  edited to revision {} by {}, {when}", revision.number, cell(&revision.by));
    revision.changes.iter().for_each(|change| text.push_str(&edit::changed(change, "    ")));
}

fn render_part(part: &Part, indent: &str, text: &mut String) {
    let slots: Vec<String> = part
        .devices
        .iter()
        .map(|device| match device.milli {
            0 | 1000 => device.slot.to_string(),
            milli => format!("{}({milli}/1000)", device.slot),
        })
        .collect();
    let model = part.devices.first().map_or(String::new(), |device| format!(" {}", cell(&device.model)));
    let devices = if slots.is_empty() { "no GPUs".to_owned() } else { format!("GPU {}{model}", slots.join(",")) };
    let ranks = match part.ranks {
        0 | 1 => format!("rank {}", part.rank_base),
        ranks => format!("ranks {}-{}", part.rank_base, part.rank_base + ranks - 1),
    };
    let exits: Vec<String> = part.exits.iter().map(exit).collect();
    let exits = if exits.is_empty() { String::new() } else { format!("  exits {}", exits.join(" ")) };
    let _ = writeln!(text, "{indent}  {}  {ranks}  {devices}  {}{exits}", cell(&part.node), cell(&part.state));
}

/// `3:0`, `3:SIG9`, `3:?`.
fn exit(exit: &RankExit) -> String {
    match (exit.code, exit.signal) {
        (Some(code), _) => format!("{}:{code}", exit.rank),
        (None, Some(signal)) => format!("{}:SIG{signal}", exit.rank),
        (None, None) => format!("{}:{NONE}", exit.rank),
    }
}

pub fn document(job: &Job) -> Value {
    json::document("muster.job/1", job)
}
