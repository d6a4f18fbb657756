//! `muster why`: what keeps a job from running, when it will, and what would help; or what all that waits
//! waits for.

use crate::context::Context;
use crate::error::CliError;
use crate::output::table::{Align, Table, cell};
use crate::output::{Style, human, json};
use clap::Args;
use muster_proto::client::{Job, WhyAllReply, WhyAllRequest, WhyReply, WhyRequest};
use serde_json::Value;
use std::fmt::Write as _;

#[derive(Debug, Args)]
pub struct WhyArgs {
    /// Job: 4711, 4711_3, a name, or `-`
    #[arg(required_unless_present = "all")]
    pub job: Option<String>,
    /// All that waits, grouped by what decides
    #[arg(long, conflicts_with = "job")]
    pub all: bool,
}

/// Trying what would help plays the cluster forward many times.
const WHY_MS: u64 = 60_000;
/// Changes that are told in text.
const SHOWN_MAX: usize = 5;

pub async fn run(context: &Context, args: WhyArgs) -> Result<u8, CliError> {
    let client = context.client()?;
    let style = context.style();
    let Some(job) = args.job.filter(|_| !args.all) else {
        let reply = client.call(async |mut api| api.why_all(WhyAllRequest {}).await).await?;
        context.printer.answer(|| document_all(&reply), || render_all(&reply, &style))?;
        return Ok(0);
    };
    let request = WhyRequest { job: Some(context.job(&job)?) };
    let reply = client.call_within(WHY_MS, async |mut api| api.why(request.clone()).await).await?;
    context.printer.answer(|| document(&reply), || render(&reply, &style))?;
    Ok(0)
}

pub fn render(reply: &WhyReply, style: &Style) -> String {
    let empty = Job::default();
    let job = reply.job.as_ref().unwrap_or(&empty);
    let mut text =
        format!("{} {} is {}", style.bold(&job.id.to_string()), cell(&job.name), style.state(&cell(&job.state)));
    let waits = reply.start_estimate_at_ms.is_some() || !reply.estimate_text.is_empty();
    if job.state == "QUEUED" {
        let _ = write!(text, " for {}", human::duration(reply.queued_for_ms));
    } else {
        text.push_str(&stands(job, reply, waits));
        if !waits && reply.blockers.is_empty() {
            text.push('\n');
            return text;
        }
    }
    if let Some(position) = reply.position {
        let _ = write!(text, " · position {position} of {} in `{}`", reply.queue_length, cell(&job.queue));
    }
    text.push('\n');
    text.push_str(&blockers(reply, style));
    text.push_str(&would_help(reply));
    let age = style.now_ms.saturating_sub(reply.looked_at_ms);
    let _ = writeln!(
        text,
        "Answered from log index {}, {} old, policy {}",
        reply.applied_index,
        human::duration(age),
        cell(&reply.policy)
    );
    text
}

/// What is said of a job that as a whole does not wait; of an array, elements still may.
fn stands(job: &Job, reply: &WhyReply, waits: bool) -> String {
    let why = if job.cause_text.is_empty() { &job.cause } else { &job.cause_text };
    let mut text = match why.is_empty() {
        true if !waits && reply.blockers.is_empty() => "; nothing keeps it from running".to_owned(),
        true => String::new(),
        false => format!(": {}", cell(why)),
    };
    if waits {
        let (queued, total) = job.counts.as_ref().map_or((1, 1), |counts| (counts.queued, counts.total));
        let verb = if queued == 1 { "waits" } else { "wait" };
        let of = human::count(total.into(), "element");
        let _ = write!(text, "; {queued} of {of} {verb}, the first for {}", human::duration(reply.queued_for_ms));
    }
    text
}

/// Also for a dry run.
pub fn blockers(reply: &WhyReply, style: &Style) -> String {
    let mut text = String::new();
    text.push_str(match reply.blockers.is_empty() {
        true if reply.starts_now => "Nothing blocks it: it starts in the next cycle\n",
        true => "Nothing was seen in its way; ask again in a moment\n",
        false => "Blocked by\n",
    });
    for (number, blocker) in reply.blockers.iter().enumerate() {
        let decides = if number == 0 { "  ← decides the start" } else { "" };
        let _ = writeln!(
            text,
            "  {}  {:<14} {}{decides}",
            number + 1,
            style.bold(&cell(&blocker.reason)),
            cell(&blocker.text)
        );
        if !blocker.who.is_empty() {
            let _ = writeln!(text, "     {:<14} {}", "", cell(&blocker.who.join(", ")));
        }
    }
    if !reply.not_a_problem.is_empty() {
        let _ = writeln!(text, "  not a problem: {}", cell(&reply.not_a_problem.join(", ")));
    }
    text.push_str(&start(reply, style));
    text.push_str(&range(reply));
    text
}

fn start(reply: &WhyReply, style: &Style) -> String {
    let basis = cell(&reply.estimate_text);
    let about = if reply.start_estimate_coarse { "about " } else { "" };
    match reply.start_estimate_at_ms.map(|start| human::moment_and_distance(start, style.now_ms)) {
        None if basis.is_empty() => String::new(),
        None => format!("Start unknown: {basis}\n"),
        Some(start) if basis.is_empty() => format!("Starts  {about}{start}\n"),
        Some(start) => format!("Starts  {about}{start}   {basis}\n"),
    }
}

/// Between which moments it most likely starts, or why nobody can tell.
fn range(reply: &WhyReply) -> String {
    let basis = cell(&reply.range_text);
    match (reply.start_early_at_ms, reply.start_late_at_ms) {
        (None, _) if basis.is_empty() => String::new(),
        (None, _) => format!("        {basis}\n"),
        (Some(early), None) => format!("        not before {}, maybe never   {basis}\n", human::moment(early)),
        (Some(early), Some(late)) => {
            format!("        between {} and {}   {basis}\n", human::moment(early), human::moment(late))
        }
    }
}

/// The smallest changes that help, each with what to type.
fn would_help(reply: &WhyReply) -> String {
    let mut text = String::new();
    if reply.would_help.is_empty() && reply.not_tried == 0 {
        return text;
    }
    text.push_str("Would help\n");
    if reply.would_help.is_empty() {
        text.push_str("  nothing that was tried\n");
    }
    let shown = &reply.would_help[..reply.would_help.len().min(SHOWN_MAX)];
    let width = shown.iter().map(|remedy| cell(&remedy.change).chars().count()).max().unwrap_or(0);
    for remedy in shown {
        let admins = if remedy.admins_only { "  (an admin)" } else { "" };
        let _ = writeln!(text, "  {:<width$}  {}{admins}", cell(&remedy.change), cell(&remedy.effect));
        if !remedy.command.is_empty() {
            let _ = writeln!(text, "      {}", cell(&remedy.command));
        }
    }
    let more = reply.would_help.len() - shown.len();
    if more > 0 {
        let _ = writeln!(text, "  and {more} more; --json lists them");
    }
    if reply.not_tried > 0 {
        let _ = writeln!(text, "  {} that might help were not tried", human::count(reply.not_tried.into(), "change"));
    }
    text
}

pub fn document(reply: &WhyReply) -> Value {
    json::document("muster.why/1", reply)
}

pub fn render_all(reply: &WhyAllReply, style: &Style) -> String {
    if reply.groups.is_empty() {
        return "nothing waits\n".to_owned();
    }
    let (gangs, gpus) = (human::count(reply.gangs, "gang"), human::count(reply.gpus, "GPU"));
    let verb = if reply.gangs == 1 { "waits" } else { "wait" };
    let mut text = format!("{gangs} {verb} for {gpus}; policy {}\n", cell(&reply.policy));
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("WHY", Left),
        ("OF", Left),
        ("GANGS", Right),
        ("GPUS", Right),
        ("JOBS", Right),
        ("OLDEST", Right),
        ("EXAMPLE", Left),
        ("SAYS", Left),
    ]);
    for group in &reply.groups {
        let why = if group.reason.is_empty() { "starts now".to_owned() } else { cell(&group.reason) };
        let example = format!("{} {} ({})", group.example, group.example_name, group.example_user);
        table.row([
            why,
            cell(&group.what),
            group.gangs.to_string(),
            group.gpus.to_string(),
            group.jobs.to_string(),
            human::duration(style.now_ms.saturating_sub(group.oldest_wait_since_at_ms)),
            cell(&example),
            cell(&group.text),
        ]);
    }
    text.push_str(&table.text());
    text
}

pub fn document_all(reply: &WhyAllReply) -> Value {
    json::document("muster.why_all/1", reply)
}
