//! `muster sim replay`: a cluster's own log once more, in one of three modes that each say what they tell.

use super::cluster::{self, Source, Stretch, gather, local, usage};
use super::{Teller, failed, import, interrupts, threads};
use crate::commands::cluster::backup::refused;
use crate::commands::policy;
use crate::context::Context;
use crate::error::CliError;
use crate::output::human;
use crate::output::table::cell;
use clap::{ArgGroup, Args};
use muster_proto::convert::error::ErrorCode;
use muster_scheduler::backup::decisions;
use muster_scheduler::decisions::Chapter;
use muster_sim::SceneArgs;
use muster_sim::cluster::{POLICY_FILE, TRACE_FILE, WORLD_FILE, organisation_in};
use muster_sim::compare::{CompareArgs, Comparison};
use muster_sim::replay::counterfactual::{Past, SAYS};
use muster_sim::replay::shadow::{Shadow, Shadowed};
use muster_sim::replay::verify::{Verified, Verifier};
use muster_sim::replay::{Account, Judge, Replay};
use serde_json::Value;
use std::path::{Path, PathBuf};

const SHOWN_MAX: usize = 10;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("mode").required(true).args(["verify", "shadow", "counterfactual"]))]
pub struct SimReplayArgs {
    /// `live`, to ask the servers, or a file of `muster cluster backup`
    #[arg(value_name = "live|FILE", value_parser = parsed)]
    pub source: Source,
    /// Make every recorded decision again from its State, and compare it bit for bit
    #[arg(long)]
    pub verify: bool,
    /// Run a policy on each recorded State: whom it would have started there, and nothing of what would have followed
    #[arg(long, requires = "policy")]
    pub shadow: bool,
    /// Play the recorded work in a simulated copy of the cluster, under the policy in force and under another
    #[arg(long, requires_all = ["policy", "output"])]
    pub counterfactual: bool,
    /// TOML file with the other policy
    #[arg(long, value_name = "FILE", conflicts_with = "verify")]
    pub policy: Option<PathBuf>,
    /// With --counterfactual: no more than so long before the end, such as 7d
    #[arg(long, value_name = "TIME", requires = "counterfactual")]
    pub last: Option<String>,
    /// With --counterfactual: TOML file with prices and power
    #[arg(long, value_name = "FILE", requires = "counterfactual")]
    pub prices: Option<PathBuf>,
    /// With --counterfactual: folder for what is imported and compared; empty, or not there yet
    #[arg(short, long, value_name = "DIR", requires = "counterfactual")]
    pub output: Option<PathBuf>,
}

fn parsed(text: &str) -> Result<Source, String> {
    Ok(cluster::source(text))
}

pub fn run(context: &Context, args: SimReplayArgs) -> Result<u8, CliError> {
    if args.verify {
        let verified = verify(context, &args.source)?;
        context.printer.answer(|| document(&verified), || render_verified(&verified))?;
        return complaint(&verified).map_or(Ok(0), Err);
    }
    let policy = args.policy.as_deref().ok_or_else(|| usage("name a policy with --policy"))?;
    if args.shadow {
        let known = policy::read(policy)?;
        let (shadow, account) = replayed(context, &args.source, Shadow::new(known))?;
        let shadowed = shadow.report(account);
        context.printer.answer(|| document(&shadowed), || render_shadowed(&shadowed))?;
        return Ok(0);
    }
    let output = args.output.as_deref().ok_or_else(|| usage("name a folder with -o"))?;
    counterfactual(context, &args, policy, output)
}

fn verify(context: &Context, source: &Source) -> Result<Verified, CliError> {
    let (verifier, account) = replayed(context, source, Verifier::default())?;
    Ok(verifier.report(account))
}

/// The whole decision log of a backup, before one judge.
fn replayed<J: Judge>(context: &Context, source: &Source, judge: J) -> Result<(J, Account), CliError> {
    let local = local(context, source, true)?;
    let mut replay = Replay::new(judge);
    let read = decisions(local.path(), |chapter| match chapter {
        Chapter::State(state) => replay.begin(*state),
        Chapter::Entry(entry) => replay.entry(entry),
        Chapter::Unreadable(why) => replay.unreadable(why),
    });
    if read.map_err(refused)?.decision_bytes == 0 {
        let why = "the backup holds no decision log, so no decision can be made again";
        return Err(CliError::new(ErrorCode::FileUnusable, why)
            .hint("make one without --no-decisions, on servers whose decision_log_mib is above 0"));
    }
    Ok(replay.finish())
}

/// Scripts see by the exit code that something differs, and that nothing was compared.
fn complaint(verified: &Verified) -> Option<CliError> {
    let account = &verified.account;
    let states = account.states_differ.len();
    if verified.differ > 0 || states > 0 {
        let what = format!(
            "{} and {} differ",
            human::count(verified.differ, "decision"),
            human::count(states as u64, "State")
        );
        return Some(
            CliError::new(ErrorCode::Conflict, what).hint(
                "the log was changed, or this program decides otherwise under the same engine version: report it",
            ),
        );
    }
    if !verified.is_clean() {
        let parts = human::count(account.unreadable_count, "part");
        return Some(
            CliError::new(ErrorCode::FileUnusable, format!("{parts} of the decision log cannot be read")).hint(
                "what could be read came out the same; the log of another server is another copy: ask it with --server",
            ),
        );
    }
    if verified.same == 0 && account.decisions > 0 {
        let decisions = human::count(account.decisions, "decision");
        return Some(CliError::new(ErrorCode::FileUnusable, format!("none of {decisions} could be compared")).hint(
            "decisions of another engine version need the program of that version; those out of reach need an older log",
        ));
    }
    None
}

fn counterfactual(context: &Context, args: &SimReplayArgs, policy: &Path, output: &Path) -> Result<u8, CliError> {
    policy::read(policy)?;
    let stretch = Stretch { source: args.source.clone(), last_ms: None };
    let imported = gather(context, &import::within(&stretch, args.last.as_deref())?)?;
    let folder = output.join("imported");
    imported.write(&folder).map_err(failed)?;
    context.printer.say(cluster::render(&imported.card).trim_end());
    let stop = interrupts()?;
    let args = CompareArgs {
        policies: vec![folder.join(POLICY_FILE), policy.to_owned()],
        scene: SceneArgs {
            prices: args.prices.clone(),
            organisation: organisation_in(&folder),
            ..SceneArgs::of(folder.join(WORLD_FILE), folder.join(TRACE_FILE))
        },
        seeds: Some(1),
        threads: threads(None),
        output: output.join("compared"),
        past: Some(Past::of(&imported.card)),
    };
    let mut teller = Teller::new(context);
    let told = |done: usize, all: usize| teller.tell(done as u64, all as u64, "runs");
    let comparison = muster_sim::compare::compare(&args, &stop, told).map_err(failed)?;
    context.printer.answer(|| document_counterfactual(&comparison), || render_counterfactual(&comparison))?;
    context.printer.say(&format!("report in {}", args.output.join("report.html").display()));
    Ok(if comparison.complete { 0 } else { super::INTERRUPTED })
}

pub fn render_counterfactual(comparison: &Comparison) -> String {
    format!("{SAYS}\n{}", super::compare::render(comparison))
}

/// A comparison's document, and which of the three replays it is of.
pub fn document_counterfactual(comparison: &Comparison) -> Value {
    let mut document = super::compare::document(comparison);
    document["schema"] = "muster.replay_counterfactual/1".into();
    document
}

fn reach(account: &Account) -> String {
    let mut text = match account.from_index {
        None => "no State is in the log, so nothing could be rebuilt\n".to_owned(),
        Some(from) => format!(
            "  log          entries {from} to {}, {} to {}\n",
            account.to_index,
            // State time begins at zero, until the first leader sets it.
            if account.from_ms == 0 { "the beginning".to_owned() } else { human::moment(account.from_ms) },
            human::moment(account.to_ms)
        ),
    };
    if account.out_of_reach > 0 {
        let decisions = human::count(account.out_of_reach, "decision");
        text.push_str(&format!("  out of reach {decisions}: the State before them is not in the log\n"));
    }
    for (from, to) in &account.gaps {
        text.push_str(&format!("  gap          entries {from} to {to} are missing\n"));
    }
    for why in &account.unreadable {
        text.push_str(&format!("  unreadable   {}\n", cell(why)));
    }
    let unnamed = account.unreadable_count.saturating_sub(account.unreadable.len() as u64);
    if unnamed > 0 {
        text.push_str(&format!("  unreadable   and {}\n", human::count(unnamed, "more part")));
    }
    let unnamed = account.gaps_count.saturating_sub(account.gaps.len() as u64);
    if unnamed > 0 {
        text.push_str(&format!("  gap          and {}\n", human::count(unnamed, "more gap")));
    }
    text
}

pub fn render_verified(verified: &Verified) -> String {
    let account = &verified.account;
    let mut text = format!(
        "verify: {}\n{}  decisions    {} the same, {} differ, of {}\n  states       {} recorded ones compared, {} differ\n",
        verified.says,
        reach(account),
        verified.same,
        verified.differ,
        account.decisions,
        account.states_compared,
        account.states_differ.len()
    );
    for (version, count) in &verified.other_engines {
        let own = verified.engine_version;
        text.push_str(&format!("  not compared {count}: made by engine version {version}, this is {own}\n"));
    }
    for different in verified.different.iter().take(SHOWN_MAX) {
        text.push_str(&format!(
            "entry {} on State {}: {}\n  recorded: {}\n  here:     {}\n",
            different.index,
            different.made_at,
            different.note.unwrap_or("another plan"),
            steps(&different.recorded),
            steps(&different.decided_here)
        ));
    }
    text
}

/// Names in them are others'.
fn steps(steps: &[String]) -> String {
    if steps.is_empty() { "nothing".to_owned() } else { cell(&steps.join("; ")) }
}

pub fn render_shadowed(shadowed: &Shadowed) -> String {
    let mut text = format!(
        "shadow: {}\n{}  agreement    {} of {} decisions are the same in all\n",
        shadowed.says,
        reach(&shadowed.account),
        shadowed.agree,
        shadowed.compared
    );
    for count in shadowed.by_kind.iter() {
        text.push_str(&format!("  {:>12} {}\n", count.decisions, count.text));
    }
    text.push_str(&format!(
        "  starts       {}: {} wanted at that moment too, {} earlier (median {}), {} not by then\n",
        shadowed.starts,
        shadowed.at_once_too,
        shadowed.earlier,
        human::duration(shadowed.earlier_median_ms),
        shadowed.not_by_then
    ));
    if shadowed.truncated > 0 {
        text.push_str(&format!("  cut short    {} cycles by the policy's budget\n", shadowed.truncated));
    }
    for gang in shadowed.earliest.iter().take(SHOWN_MAX) {
        text.push_str(&format!("  {} wanted {} before it started\n", gang.gang, human::duration(gang.earlier_ms)));
    }
    text
}

pub fn document(report: &impl serde::Serialize) -> Value {
    serde_json::to_value(report).unwrap_or_default()
}
