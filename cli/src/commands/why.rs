//! `muster why`: what keeps a job from running, when it will, and what would help.

use crate::context::Context;
use crate::error::CliError;
use crate::output::table::cell;
use crate::output::{Style, human, json};
use clap::Args;
use muster_proto::client::{Job, WhyReply, WhyRequest};
use serde_json::Value;
use std::fmt::Write as _;

#[derive(Debug, Args)]
pub struct WhyArgs {
    /// Job: 4711, 4711_3, a name, or `-`
    pub job: String,
}

pub async fn run(context: &Context, args: WhyArgs) -> Result<u8, CliError> {
    let request = WhyRequest { job: Some(context.job(&args.job)?) };
    let client = context.client()?;
    let reply = client.call(async |mut api| api.why(request.clone()).await).await?;
    let style = context.style();
    context.printer.answer(|| document(&reply), || render(&reply, &style))?;
    Ok(0)
}

pub fn render(reply: &WhyReply, style: &Style) -> String {
    let empty = Job::default();
    let job = reply.job.as_ref().unwrap_or(&empty);
    let mut text =
        format!("{} {} is {}", style.bold(&job.id.to_string()), cell(&job.name), style.state(&cell(&job.state)));
    if job.state != "QUEUED" {
        let why = if job.cause_text.is_empty() { &job.cause } else { &job.cause_text };
        let _ = match why.is_empty() {
            true => writeln!(text, "; nothing keeps it from running"),
            false => writeln!(text, ": {}", cell(why)),
        };
        return text;
    }
    let _ = write!(text, " for {}", human::duration(reply.queued_for_ms));
    if let Some(position) = reply.position {
        let _ = write!(text, " · position {position} of {} in `{}`", reply.queue_length, cell(&job.queue));
    }
    text.push('\n');
    text.push_str(&blockers(reply, style));
    if !reply.would_help.is_empty() {
        text.push_str("Would help\n");
        for remedy in &reply.would_help {
            let _ = writeln!(text, "  {:<40} {}", cell(&remedy.change), cell(&remedy.effect));
        }
    }
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

/// Also for a dry run.
pub fn blockers(reply: &WhyReply, style: &Style) -> String {
    let mut text = String::new();
    if reply.blockers.is_empty() {
        text.push_str("Nothing blocks it: it starts in the next cycle\n");
    } else {
        text.push_str("Blocked by\n");
    }
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
    if let Some(start) = reply.start_estimate_at_ms {
        let basis =
            if reply.estimate_text.is_empty() { String::new() } else { format!("   {}", cell(&reply.estimate_text)) };
        let _ = writeln!(text, "Starts  {}{basis}", human::moment_and_distance(start, style.now_ms));
    }
    text
}

pub fn document(reply: &WhyReply) -> Value {
    json::document("muster.why/1", reply)
}
