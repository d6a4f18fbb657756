//! `muster submit`: a job file to the cluster.

use super::follow::{self, Streams};
use super::{ps, why};
use crate::client::{Client, MaybeDone};
use crate::context::{Context, request_id};
use crate::error::CliError;
use crate::jobfile::{self, Loaded};
use crate::output::table::cell;
use crate::output::{Style, human};
use clap::Args;
use muster_proto::client::{Job, JobRef, SubmitReply, SubmitRequest};
use serde_json::Value;

#[derive(Debug, Args)]
pub struct SubmitArgs {
    /// Job file (TOML or JSON); `-` reads standard input
    pub file: String,
    /// Override a value, such as gang.nodes=8 (may be repeated)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Idempotency key: the same key with the same job gives the same job
    #[arg(long)]
    pub key: Option<String>,
    /// Do not start it before `muster release`
    #[arg(long)]
    pub hold: bool,
    /// Wait until it has ended; exit 8 if it did not succeed
    #[arg(long)]
    pub wait: bool,
    /// Stream its logs until it has ended; exit 8 if it did not succeed
    #[arg(long)]
    pub follow: bool,
    /// Only check it, and tell what would happen
    #[arg(long, conflicts_with_all = ["wait", "follow"])]
    pub dry_run: bool,
}

pub async fn run(context: &Context, args: SubmitArgs) -> Result<u8, CliError> {
    let loaded = jobfile::load(&args.file, &args.sets)?;
    let client = context.client()?;
    let options = Options { key: args.key, hold: args.hold, dry_run: args.dry_run };
    let reply = send(context, &client, &loaded, options).await?;
    let style = context.style();
    context.printer.answer(|| document(&reply, args.dry_run), || render(&reply, args.dry_run, &style))?;
    for note in &reply.notes {
        context.printer.warn(note);
    }
    let Some(job) = reply.job.as_ref().filter(|_| !args.dry_run && (args.wait || args.follow)) else { return Ok(0) };
    let reference = JobRef { id: job.id, ..JobRef::default() };
    let ended = if args.follow && !job.array {
        follow::logs_to_end(context, &client, &reference, Streams::Apart).await?
    } else {
        follow::to_end(&client, &reference, None).await?
    };
    Ok(conclude(context, &ended))
}

#[derive(Debug, Default)]
pub struct Options {
    pub key: Option<String>,
    pub hold: bool,
    pub dry_run: bool,
}

/// Sends a checked job file. A lost answer is asked for again under the same key.
pub async fn send(
    context: &Context,
    client: &Client,
    loaded: &Loaded,
    options: Options,
) -> Result<SubmitReply, CliError> {
    let (key, key_made_at_ms) = match options.key {
        Some(key) => (key, None),
        None => (request_id(), Some(context.now_ms())),
    };
    let request = SubmitRequest {
        spec_json: loaded.spec_json.clone(),
        key,
        key_made_at_ms,
        hold: options.hold,
        retry_of: None,
        dry_run: options.dry_run,
    };
    let taken = MaybeDone::default();
    let sent = client.call(async |mut api| taken.watch(api.submit(request.clone())).await).await;
    let reply = sent.map_err(|error| {
        let untold = taken.get() && key_made_at_ms.is_some() && !options.dry_run && error.code().is_retryable();
        let key = loaded.source.is_text().then_some(request.key.as_str());
        let error = if untold { unsure(error, key) } else { error };
        jobfile::place_server_error(error, &loaded.source)
    })?;
    if let Some(job) = reply.job.as_ref().filter(|job| job.id != 0) {
        context.last_job().set(job.id);
    }
    Ok(reply)
}

/// Typed again, the command would make another key, and with it another job. `muster run` takes none.
fn unsure(error: CliError, key: Option<&str>) -> CliError {
    let look = "it may have taken effect: look with `muster ps` before you repeat it";
    error.hint(match key {
        Some(key) => format!("{look}, or have one job of both: muster submit FILE --key {key}"),
        None => look.to_owned(),
    })
}

/// Says how a waited job ended; 0 or 8.
pub fn conclude(context: &Context, job: &Job) -> u8 {
    context.printer.say(&ending(job));
    if job.state == "SUCCEEDED" { 0 } else { 8 }
}

pub fn ending(job: &Job) -> String {
    let why = if job.cause_text.is_empty() { String::new() } else { format!(": {}", job.cause_text) };
    let took = ps::ran(job).filter(|_| job.ended_at_ms.is_some());
    let took = took.map(|ms| format!(" after {}", human::duration(ms))).unwrap_or_default();
    format!("{} {} {}{took}{why}", job.id, job.name, job.state)
}

pub fn render(reply: &SubmitReply, dry_run: bool, style: &Style) -> String {
    let empty = Job::default();
    let job = reply.job.as_ref().unwrap_or(&empty);
    let asks = asks(job);
    if !dry_run {
        let again = if reply.existing { " (submitted before with this key)" } else { "" };
        return format!("Submitted job {}  {}  {asks}{again}\n", style.bold(&job.id.to_string()), cell(&job.name));
    }
    let mut text = format!("{}  {asks}\n", style.bold(&cell(&job.name)));
    match &reply.why {
        Some(why) if !why.starts_now || !why.blockers.is_empty() => text.push_str(&why::blockers(why, style)),
        _ => text.push_str("It would start now.\n"),
    }
    text.push_str("Nothing was submitted.\n");
    text
}

/// `16 nodes × 8 H100 = 128 GPUs`.
pub fn asks(job: &Job) -> String {
    let models = match (job.models.is_empty(), job.gpus_per_node) {
        (true, 1) => "GPU".to_owned(),
        (true, _) => "GPUs".to_owned(),
        (false, _) => cell(&job.models.join(" or ")),
    };
    let one = match (job.nodes, job.gpus_per_node) {
        (0, _) => format!("{} {models}", job.gpus),
        (nodes, 0) if job.gpus > 0 => {
            // Several groups, not all with as many.
            format!("{}, {} {models} in all", human::count(nodes.into(), "node"), job.gpus)
        }
        (nodes, 0) => format!("{}, no GPUs", human::count(nodes.into(), "node")),
        (nodes, per_node) => {
            format!(
                "{} × {per_node} {models} = {}",
                human::count(nodes.into(), "node"),
                human::count(job.gpus.into(), "GPU")
            )
        }
    };
    match &job.counts {
        Some(counts) if job.array => format!("{} of {one}", human::count(counts.total.into(), "element")),
        _ => one,
    }
}

pub fn document(reply: &SubmitReply, dry_run: bool) -> Value {
    muster_proto::document::submitted(reply, dry_run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_job_tells_for_how_long_it_ran_and_not_for_how_long_it_waited_then() {
        let hour = 3_600_000;
        let job = Job { id: 7, name: "train".into(), state: "CANCELLED".into(), ..Job::default() };
        let ran = Job { started_at_ms: Some(hour), ended_at_ms: Some(12 * hour), ran_ms: Some(hour), ..job.clone() };
        assert_eq!(ending(&ran), "7 train CANCELLED after 1h");
        assert_eq!(ending(&Job { ran_ms: None, ..ran }), "7 train CANCELLED after 11h");
        assert_eq!(ending(&Job { ended_at_ms: Some(hour), ran_ms: Some(0), ..job }), "7 train CANCELLED");
    }
}
