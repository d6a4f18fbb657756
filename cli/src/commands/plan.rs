//! `muster plan`: where jobs would go and when, and whom they would push back. Nothing is submitted.

use super::{submit, why};
use crate::context::Context;
use crate::error::{CliError, Report};
use crate::jobfile::{self, Loaded};
use crate::output::table::cell;
use crate::output::{Style, human, json};
use clap::{Args, ValueHint};
use muster_common::money::MicroUsd;
use muster_proto::client::{Delay, Job, Part, PlanJob, PlanPrice, PlanRefusal, PlanReply, PlanRequest, PlannedJob};
use muster_proto::convert::error::{ErrorCode, ErrorInfo};
use muster_sim::prices::Prices;
use serde_json::Value;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// What `--exit-code` answers when something would wait.
pub const WOULD_WAIT: u8 = 9;
/// Playing a busy cluster forward takes a while.
const PLAN_MS: u64 = 60_000;
/// Others that are pushed back, named in text.
const DELAYS_SHOWN: usize = 10;
const AWAITED_SHOWN: usize = 5;

#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Job files (TOML or JSON), planned in this order as if submitted together; `-` reads standard input
    #[arg(required = true, value_hint = ValueHint::FilePath)]
    pub files: Vec<String>,
    /// Override a value in every file, such as gang.nodes=8 (may be repeated)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// As if submitted with --hold
    #[arg(long)]
    pub hold: bool,
    /// What GPUs cost, as `muster sim` reads it (`[[price]]` with `model` and `usd_per_gpu_hour`): tells what
    /// each job would cost; left out, the organisation's prices are used
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub prices: Option<PathBuf>,
    /// End with 0 if all would start now, with 9 if any would wait
    #[arg(long)]
    pub exit_code: bool,
}

pub async fn run(context: &Context, args: PlanArgs) -> Result<u8, CliError> {
    let loaded = args.files.iter().map(|file| jobfile::load(file, &args.sets)).collect::<Result<Vec<_>, _>>()?;
    let jobs = loaded.iter().map(|file| PlanJob { spec_json: file.spec_json.clone(), hold: args.hold });
    let prices = args.prices.as_deref().map_or(Ok(Vec::new()), prices)?;
    let request = PlanRequest { jobs: jobs.collect(), prices };
    let client = context.client()?;
    let reply = client.call_within(PLAN_MS, async |mut api| api.plan(request.clone()).await).await?;
    let style = context.style();
    context.printer.answer(|| document(&reply, &args.files), || render(&reply, &args.files, &style))?;
    refusals(&reply, &loaded)?;
    Ok(if args.exit_code && reply.jobs.iter().any(would_wait) { WOULD_WAIT } else { 0 })
}

/// An array starts with its first element; others of it may wait.
pub fn would_wait(planned: &PlannedJob) -> bool {
    let counts = planned.job.as_ref().and_then(|job| job.counts.as_ref());
    planned.verdict != "starts" || counts.is_some_and(|counts| counts.total > planned.gangs_now)
}

/// What a submit of the refused ones would answer, each at its place in its file.
fn refusals(reply: &PlanReply, loaded: &[Loaded]) -> Result<(), CliError> {
    let refused = reply.jobs.iter().zip(loaded).filter_map(|(job, file)| Some((job.refusal.as_ref()?, file)));
    let reports: Vec<Report> = refused
        .flat_map(|(refusal, file)| jobfile::place_server_error(error(refusal).into(), &file.source).into_reports())
        .collect();
    CliError::gather(reports).map_or(Ok(()), Err)
}

fn error(refusal: &PlanRefusal) -> ErrorInfo {
    let known = ErrorCode::ALL.iter().find(|code| code.name() == refusal.code);
    let mut info = ErrorInfo::new(known.copied().unwrap_or(ErrorCode::Internal), refusal.message.clone());
    info.hint = Some(refusal.hint.clone()).filter(|hint| !hint.is_empty());
    info.path = Some(refusal.path.clone()).filter(|path| !path.is_empty());
    info
}

pub fn render(reply: &PlanReply, files: &[String], style: &Style) -> String {
    let mut text = String::new();
    for (job, file) in reply.jobs.iter().zip(files) {
        text.push_str(&planned(job, file, style));
    }
    if !reply.delays.is_empty() {
        let _ = writeln!(text, "Pushes back");
        for delay in reply.delays.iter().take(DELAYS_SHOWN) {
            text.push_str(&delayed(delay));
        }
        let more = reply.delays.len().saturating_sub(DELAYS_SHOWN);
        if more > 0 {
            let _ = writeln!(text, "  and {more} more; --json lists them");
        }
    } else if reply.complete && reply.jobs.iter().any(|job| job.refusal.is_none()) {
        text.push_str("Nothing that waits already starts later for it.\n");
    }
    if !reply.complete {
        text.push_str("Too much is ahead to play it all forward: later starts are coarse, and delays are not known.\n");
    }
    text.push_str("Nothing was submitted.\n");
    text
}

fn planned(planned: &PlannedJob, file: &str, style: &Style) -> String {
    let empty = Job::default();
    let job = planned.job.as_ref().unwrap_or(&empty);
    let mut text = String::new();
    if let Some(refusal) = &planned.refusal {
        let _ = writeln!(
            text,
            "{}  would be {}: {}",
            style.bold(&cell(file)),
            style.paint("31", "refused"),
            cell(&refusal.message)
        );
        return text;
    }
    let total = job.counts.as_ref().map_or(1, |counts| counts.total);
    let verdict = match planned.verdict.as_str() {
        "starts" if total > planned.gangs_now => {
            format!("{} of {} would start now", planned.gangs_now, human::count(total.into(), "element"))
        }
        "starts" => style.paint("32", "would start now"),
        "held" => "would be held".to_owned(),
        _ => style.paint("33", "would wait"),
    };
    let _ = writeln!(text, "{}  {}  {verdict}", style.bold(&cell(&job.name)), submit::asks(job));
    text.push_str(&starts(planned, style));
    for awaited in planned.waits_for.iter().take(AWAITED_SHOWN) {
        let end = awaited.expected_end_at_ms.map_or("without a known end".to_owned(), |end| {
            format!("expected to end {}", human::moment_and_distance(end, style.now_ms))
        });
        let _ = writeln!(
            text,
            "  waits for {} {} ({}), {end}",
            cell(&awaited.gang),
            cell(&awaited.name),
            cell(&awaited.user)
        );
    }
    let more = planned.waits_for.len().saturating_sub(AWAITED_SHOWN);
    if more > 0 {
        let _ = writeln!(text, "  and for {more} more");
    }
    let where_to = if planned.verdict == "starts" { "on" } else { "then on" };
    for line in places(&planned.placement) {
        let _ = writeln!(text, "  {where_to} {line}");
    }
    if let Some(why) = &planned.why {
        for line in why::blockers(&without_estimate(why), style).lines() {
            let _ = writeln!(text, "  {line}");
        }
    }
    text.push_str(&cost(planned));
    for note in &planned.notes {
        let _ = writeln!(text, "  note: {}", cell(note));
    }
    text
}

fn prices(path: &Path) -> Result<Vec<PlanPrice>, CliError> {
    let list = Prices::read_alone(path).map_err(|error| {
        CliError::new(ErrorCode::Usage, error.to_string()).hint("see `[[price]]` in the simulator's reference")
    })?;
    let price = |(model, usd): (Option<muster_common::Name>, MicroUsd)| PlanPrice {
        model: model.map(|model| model.to_string()).unwrap_or_default(),
        micro_usd_per_gpu_hour: usd.0,
    };
    let prices: Vec<PlanPrice> = list.by_model().into_iter().map(price).collect();
    if prices.is_empty() {
        let why = format!("{}: no price holds for all nodes from the start, so no cost can be told", path.display());
        return Err(CliError::new(ErrorCode::Usage, why).hint(
            "give a `[[price]]` without `nodes` and without `from_s`: where and when a job runs is not known yet",
        ));
    }
    Ok(prices)
}

fn cost(planned: &PlannedJob) -> String {
    let Some(cost) = &planned.cost else { return String::new() };
    let usd = |micro: u64| format!("${}", MicroUsd(micro));
    let told = [
        cost.expected_micro_usd.map(|micro| format!("about {}", usd(micro))),
        cost.at_most_micro_usd.map(|micro| format!("at most {} in one attempt", usd(micro))),
        cost.micro_usd_per_hour.map(|micro| format!("{} an hour", usd(micro))),
        Some(cell(&cost.text)).filter(|text| !text.is_empty()),
    ];
    format!("  costs {}\n", told.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

/// The estimate is told better by the plan.
fn without_estimate(why: &muster_proto::client::WhyReply) -> muster_proto::client::WhyReply {
    use muster_proto::client::WhyReply;
    let rangeless =
        WhyReply { range_text: String::new(), start_early_at_ms: None, start_late_at_ms: None, ..why.clone() };
    WhyReply { start_estimate_at_ms: None, estimate_text: String::new(), ..rangeless }
}

fn starts(planned: &PlannedJob, style: &Style) -> String {
    let mut text = String::new();
    if planned.verdict == "starts" {
        return text;
    }
    let at = |at: u64| human::moment_and_distance(at, style.now_ms);
    match (planned.start_estimate_at_ms, planned.start_latest_at_ms) {
        (None, _) => {
            let _ = writeln!(text, "  start unknown: {}", cell(&planned.estimate_text));
        }
        (Some(likely), _) if planned.start_estimate_coarse => {
            let _ = writeln!(text, "  starts about {}, coarse: too much is ahead to play it all forward", at(likely));
        }
        (Some(likely), Some(latest)) if latest == likely => {
            let _ = writeln!(text, "  starts {}, whether jobs end as expected or at their limits", at(likely));
        }
        (Some(likely), latest) => {
            let _ = writeln!(text, "  starts {} if jobs end as expected", at(likely));
            let why = cell(&planned.start_latest_text);
            let _ = match latest {
                Some(latest) => writeln!(text, "         {} if each runs to its time limit", at(latest)),
                None if why.is_empty() => writeln!(text, "         no later bound is known"),
                None => writeln!(text, "         no later bound: {why}"),
            };
        }
    }
    text
}

/// Parts with equal devices in a line each: `n[033-048], each GPU 0-7, ranks 0-127`.
fn places(parts: &[Part]) -> Vec<String> {
    let slots = |part: &Part| part.devices.iter().map(|device| (device.slot, device.milli)).collect::<Vec<_>>();
    let mut groups: Vec<Vec<&Part>> = Vec::new();
    for part in parts {
        match groups.last_mut() {
            Some(group) if slots(group[0]) == slots(part) && group[0].ranks == part.ranks => group.push(part),
            _ => groups.push(vec![part]),
        }
    }
    groups.iter().map(|group| place(group)).collect()
}

fn place(group: &[&Part]) -> String {
    let (first, last) = (group[0], group[group.len() - 1]);
    let names: Vec<String> = group.iter().map(|part| part.node.clone()).collect();
    let numbers: Vec<u32> = first.devices.iter().map(|device| device.slot).collect();
    let model = first.devices.first().map_or(String::new(), |device| format!(" {}", cell(&device.model)));
    let devices = match numbers.is_empty() {
        true => format!("{} CPUs", human::cpus(first.cpu_milli)),
        false => format!("GPU {}{model}", human::numbers(&numbers)),
    };
    let each = if group.len() > 1 { "each " } else { "" };
    let ranks = match last.rank_base + last.ranks - first.rank_base {
        1 => format!("rank {}", first.rank_base),
        count => format!("ranks {}-{}", first.rank_base, first.rank_base + count - 1),
    };
    format!("{}: {each}{devices}, {ranks}", cell(&human::node_set(&names)))
}

fn delayed(delay: &Delay) -> String {
    let by = match delay.start_after_at_ms {
        Some(after) => format!("by {}", human::duration(after.saturating_sub(delay.start_before_at_ms))),
        None => "to a time nobody can foresee".to_owned(),
    };
    format!(
        "  {} {} ({}) {by}, from {}\n",
        cell(&delay.gang),
        cell(&delay.name),
        cell(&delay.user),
        human::moment(delay.start_before_at_ms)
    )
}

pub fn document(reply: &PlanReply, files: &[String]) -> Value {
    let mut document = json::document("muster.plan/1", reply);
    // In the order of `jobs`.
    document["files"] = Value::from(files);
    document
}
