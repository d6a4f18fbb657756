//! `report.html`: one self-contained page about a run, made from its folder alone.

mod charts;
pub(crate) mod data;
pub(crate) mod page;
pub(crate) mod svg;

use crate::SimError;
use crate::calibration::Calibration;
use crate::compare::{AccountChange, Comparison, Difference, Verdict};
use crate::output;
use crate::replay::counterfactual::Past;
use crate::sweep::{Point, Sweep};
use data::Run;
use page::{Page, list, table};
use serde_json::Value;
use std::path::{Path, PathBuf};
use svg::{short, span};

/// Accounts in the table; the largest are shown.
const ACCOUNTS_MAX: usize = 30;

/// Writes `report.html` into a run's folder.
///
/// # Errors
/// A folder that is not a run's, or cannot be written.
pub fn report(folder: &Path) -> Result<PathBuf, SimError> {
    let run = Run::read(folder)?;
    let path = folder.join("report.html");
    output::write_file(path.clone(), page_of(&run).as_bytes())?;
    Ok(path)
}

fn page_of(run: &Run) -> String {
    let under = format!(
        "{} in {} on {}, seed {}",
        run.told("/policy_file/name"),
        run.told("/world_file/name"),
        run.told("/trace_file/name"),
        run.of_manifest("/seed"),
    );
    let mut page = Page::new("Simulated run", &under);
    page.tiles(&tiles(run));
    page.section(
        "Where the GPU-time went",
        "Every GPU-hour of every device is in exactly one row; the rows sum to 100 %.",
        &charts::waterfall(run),
    );
    page.section("Use over time", "Means over equal steps of time.", &charts::utilisation(run));
    if let Some(power) = charts::power(run) {
        page.section("Power over time", "What GPUs draw, with what the building adds.", &power);
    }
    page.section("Queue over time", "GPUs that waiting jobs ask for.", &charts::queue(run));
    let waits = charts::cumulative(run, "wait", |job| job.wait_s);
    let turnarounds = charts::cumulative(run, "completion", |job| job.end_s.map(|end_s| end_s - job.submit_s));
    page.section(
        "Waiting and completion",
        "Share of the jobs that waited, or took from submit to end, at most so long; by size.",
        &format!("<div class=pair><div>{waits}</div><div>{turnarounds}</div></div>"),
    );
    page.section("Wait by size", "One dot a job.", &charts::wait_by_size(run));
    page.section(
        "Fragmentation",
        "Free GPUs that a typical job of this trace could not use where they are (FGD, USENIX ATC 2023).",
        &charts::fragmentation(run),
    );
    if run.summary["start_estimates"].is_object() {
        let content =
            format!("<div class=pair><div>{}</div><div>{}</div></div>", charts::estimates(run), estimates(run));
        page.section("Start estimates", &estimates_told(run), &content);
    }
    page.section("Fairness", &fairness(run), &accounts(run));
    let (gantt, about) = charts::gantt(run);
    page.section("Nodes over time", &about, &gantt);
    page.section("How far to trust this", "What went in, and what is not in it.", &list(&honesty(run)));
    page.finish()
}

fn tiles(run: &Run) -> Vec<(&'static str, String, String)> {
    let percent = |pointer: &str| format!("{:.1} %", 100.0 * run.number(pointer));
    let mut tiles = vec![
        ("jobs that succeeded", short(run.number("/succeeded")), format!("of {}", short(run.number("/jobs")))),
        ("mean wait", span(run.number("/wait_s/mean")), format!("p95 {}", span(run.number("/wait_s/p95")))),
        ("longest wait", span(run.number("/wait_s/max")), format!("median {}", span(run.number("/wait_s/median")))),
        ("kept work", percent("/usage/goodput"), "of all GPU-time".to_owned()),
        (
            "allocated",
            percent("/usage/allocated"),
            format!("running {} of healthy", percent("/usage/utilisation_of_healthy")),
        ),
        ("bounded slowdown", short(run.number("/bsld/mean")), format!("p95 {}", short(run.number("/bsld/p95")))),
        ("makespan", span(run.number("/makespan_s")), format!("load {:.2}", run.of_manifest("/load"))),
    ];
    if run.summary["cost"].is_object() {
        let per = format!("${:.2} a GPU-hour of kept work", run.number("/cost/usd_per_kept_gpu_h"));
        tiles.push(("cost", format!("${}", short(run.number("/cost/total_usd"))), per));
    }
    tiles
}

fn estimates_told(run: &Run) -> String {
    let of = |key: &str| run.number(&format!("/start_estimates/{key}"));
    let which = if of("every") > 1.0 { format!("One job in {}", of("every")) } else { "Every job".to_owned() };
    format!(
        "{which} was told a start at its submit by the engine's own forecast: {} asked, {} started at once, {} could be \
         told none, {} never started. On the line, a job starts when it was told.",
        of("asked"),
        of("at_once"),
        of("not_told"),
        of("never_started"),
    )
}

/// By size, all at last.
fn estimates(run: &Run) -> String {
    let of = |row: &Value, key: &str| row[key].as_f64().unwrap_or(0.0);
    let row = |name: String, errors: &Value| {
        let bias_s = of(errors, "bias_s");
        let direction = if bias_s > 0.0 { "later" } else { "earlier" };
        vec![
            name,
            short(of(errors, "jobs")),
            span(of(errors, "abs_median_s")),
            span(of(errors, "abs_p90_s")),
            if bias_s == 0.0 { "none".to_owned() } else { format!("{} {direction}", span(bias_s.abs())) },
            format!("{:.0} %", of(errors, "late_percent")),
        ]
    };
    let told = &run.summary["start_estimates"];
    let sizes = told["by_size"].as_array().into_iter().flatten();
    let mut rows: Vec<Vec<String>> =
        sizes.map(|size| row(size["size"].as_str().unwrap_or("").to_owned(), size)).collect();
    rows.push(row("all".to_owned(), &told["all"]));
    table(&["GPUs", "starts", "median off", "p90 off", "mean", "late"], &rows)
}

fn fairness(run: &Run) -> String {
    format!(
        "Jain's index of accounts {:.3}, of users {:.3}. Finish-time fairness: mean {:.2}, p95 {:.2}; {:.1} % of jobs \
         were worse off than on their own share.",
        run.number("/fairness/jain_accounts"),
        run.number("/fairness/jain_users"),
        run.number("/fairness/rho_mean"),
        run.number("/fairness/rho_p95"),
        run.number("/fairness/rho_above_1_percent"),
    )
}

fn accounts(run: &Run) -> String {
    let mut accounts = run.summary["by_account"].as_array().cloned().unwrap_or_default();
    let of = |account: &Value, pointer: &str| account.pointer(pointer).and_then(Value::as_f64).unwrap_or(0.0);
    accounts.sort_by(|a, b| of(b, "/served_gpu_h").total_cmp(&of(a, "/served_gpu_h")));
    let row = |account: &Value| {
        vec![
            account["name"].as_str().unwrap_or("").to_owned(),
            short(of(account, "/jobs")),
            short(of(account, "/served_gpu_h")),
            span(of(account, "/wait_s/mean")),
            span(of(account, "/wait_s/p95")),
            span(of(account, "/wait_s/max")),
            short(of(account, "/bsld/mean")),
            short(of(account, "/preemptions")),
        ]
    };
    let rows: Vec<Vec<String>> = accounts.iter().take(ACCOUNTS_MAX).map(row).collect();
    table(&["account", "jobs", "GPU-hours", "mean wait", "p95 wait", "longest wait", "slowdown", "preemptions"], &rows)
}

/// What a reader must know before believing a figure.
fn honesty(run: &Run) -> Vec<String> {
    let card = |key: &str| run.of_manifest(&format!("/card/{key}"));
    let dropped = run.manifest["card"]["dropped"].as_array().into_iter().flatten();
    let dropped: u64 = dropped.filter_map(|row| row["rows"].as_u64()).sum();
    let mut told = vec![
        format!(
            "The trace ({}) has {} rows; {} jobs took part, {} rows were left out by rule and {} could not be read.",
            run.told("/card/format"),
            short(card("rows")),
            short(card("jobs")),
            short(dropped as f64),
            short(card("bad_rows"))
        ),
        format!(
            "The offered load is {:.2} of the cluster, over {}. The cluster is empty at the first submit and nothing is \
             cut for warming up.",
            run.of_manifest("/load"),
            span(card("span_s"))
        ),
        "Run times do not depend on who else shares a node's network or host, and users submit the same work at the \
         same times however long they wait."
            .to_owned(),
    ];
    told.extend(broken(run));
    told.extend(rented(run));
    if run.number("/unfinished") + run.number("/unplaceable") > 0.0 {
        told.push(format!(
            "{} jobs did not end and {} could never fit; means are over the jobs that ended.",
            run.number("/unfinished"),
            run.number("/unplaceable")
        ));
    }
    if run.manifest["complete"] == Value::Bool(false) {
        told.push("The run was stopped before its end: every figure is of a part.".to_owned());
    }
    if run.of_manifest("/truncated") > 0.0 {
        told.push(format!(
            "{} times a gang was beyond the policy's budget of one cycle.",
            run.of_manifest("/truncated")
        ));
    }
    told.push(calibrated(&run.summary));
    told
}

/// What breaks in the world: at random, at given times, or nothing.
fn broken(run: &Run) -> Vec<String> {
    let failures = &run.manifest["world"]["failures"];
    let at_random = ["profile", "gpu", "node", "software", "leaf"].iter().any(|kind| !failures[*kind].is_null());
    let planned = run.manifest["world"]["outages"].as_array().map_or(0, Vec::len);
    let mut told = Vec::new();
    if at_random {
        told.push(format!(
            "Failures are Poisson processes of given rates: {} of GPUs, {} of nodes, {} of software, {} of leaves in this run.",
            run.number("/failures/gpu"),
            run.number("/failures/node"),
            run.number("/failures/software"),
            run.number("/failures/leaf")
        ));
    }
    if planned > 0 {
        told.push(format!(
            "{planned} outages of nodes come at given times, whatever the policy; what ran there has only what its last \
             checkpoint held."
        ));
    }
    if told.is_empty() {
        told.push("Nothing breaks in this world: no failures were asked for.".to_owned());
    }
    told
}

/// How far the run is from what was recorded, where anything was.
fn calibrated(summary: &Value) -> String {
    match serde_json::from_value::<Calibration>(summary["calibration"].clone()) {
        Ok(known) if known.jobs == 0 => format!("It is not calibrated: {}.", known.words()),
        Ok(known) => format!(
            "Held against {}. That is how far the figures can be trusted where the policy is the one that was in force; under \
             another, it is the difference between the two as well.",
            known.words()
        ),
        Err(_) => "It is not calibrated: the trace does not tell when its jobs really started.".to_owned(),
    }
}

/// Of machines that their owner may take back.
fn rented(run: &Run) -> Option<String> {
    if run.manifest["world"]["spot"].as_array().is_some_and(|rules| !rules.is_empty()) {
        return Some(format!(
            "Owners of spot machines took them away {} times, as Poisson processes of given rates, for {} GPU-hours that are \
             not paid for. Prices do not move with it.",
            run.number("/failures/evictions"),
            short(run.number("/usage/away_gpu_h"))
        ));
    }
    let prices = run.manifest["prices"]["price"].as_array().into_iter().flatten();
    let spot = prices.filter(|price| price["contract"] == "spot").count();
    (spot > 0).then(|| "Machines are paid at spot prices and never taken away: the world has no [[spot]].".to_owned())
}

/// The page of a comparison.
pub(crate) fn comparison(comparison: &Comparison) -> String {
    let mut page = Page::new(
        &format!("Policies against {}", comparison.base),
        &format!(
            "{} in {}, {} seeds{}{}",
            comparison.trace.name,
            comparison.world.name,
            comparison.seeds.len(),
            comparison.past.as_ref().map_or_else(String::new, |past| format!(", {}", past.mode)),
            if comparison.complete { "" } else { "; stopped before all were run" }
        ),
    );
    for against in &comparison.against {
        page.section(
            &format!("{} against {}", against.policy, comparison.base),
            &against.verdict,
            &(charts::differences(&against.differences) + &differences(&against.differences)),
        );
        let wins_and_losses: Vec<Vec<String>> =
            against.accounts.iter().take(ACCOUNTS_MAX).map(account_change).collect();
        page.section(
            "Who waits longer, who shorter",
            "Mean wait of each account, the worst hit first.",
            &table(&["account", "before", "after", "change"], &wins_and_losses),
        );
    }
    let told = if comparison.random {
        "Both policies meet the same draws of failures and run times at each seed; intervals hold 95 % of resampled means \
         of the paired differences."
    } else {
        "Nothing is drawn at random in this world, so that every seed is the same run and there are no intervals."
    };
    let past = comparison.past.iter().flat_map(Past::lines);
    let told_more: Vec<String> = past.chain(comparison.notes.iter().cloned()).collect();
    page.section("How far to trust this", told, &list(&told_more));
    page.finish()
}

fn differences(differences: &[Difference]) -> String {
    let row = |difference: &Difference| {
        let interval = difference.interval.map(|(low, high)| format!("{} to {}", short(low), short(high)));
        vec![
            difference.figure.to_owned(),
            short(difference.base_mean),
            short(difference.mean),
            short(difference.difference),
            difference.percent.map_or_else(String::new, |percent| format!("{percent:+.1} %")),
            interval.unwrap_or_default(),
            match difference.verdict {
                Verdict::Better => "better",
                Verdict::Worse => "worse",
                Verdict::NoClearDifference => "no clear difference",
                Verdict::Equal => "equal",
            }
            .to_owned(),
        ]
    };
    let rows: Vec<Vec<String>> = differences.iter().map(row).collect();
    table(&["figure", "before", "after", "difference", "in percent", "95 % interval", "verdict"], &rows)
}

fn account_change(change: &AccountChange) -> Vec<String> {
    let more = change.wait_s - change.base_wait_s;
    let sign = if more > 0.0 { "+" } else { "" };
    vec![change.account.clone(), span(change.base_wait_s), span(change.wait_s), format!("{sign}{}", span(more))]
}

/// The page of a sweep.
pub(crate) fn sweep(sweep: &Sweep) -> String {
    let mut page = Page::new(
        "Sweep",
        &format!(
            "{} combinations of {}{}",
            sweep.points.len(),
            sweep.keys.join(", "),
            if sweep.complete { "" } else { "; stopped before all were run" }
        ),
    );
    page.section(
        "Waiting against kept work",
        "One dot a combination; on the line, nothing is better in both.",
        &charts::pareto(sweep),
    );
    let shown = ["wait_mean_s", "wait_p95_s", "wait_max_s", "utilisation", "goodput", "jain_accounts"];
    let at: Vec<usize> = shown.iter().filter_map(|name| crate::figures::position(name)).collect();
    let row = |point: &Point| {
        let name = if point.pareto { "* " } else { "" }.to_owned() + &point.values.join(", ");
        std::iter::once(name).chain(at.iter().map(|at| short(point.figures[*at]))).collect()
    };
    let rows: Vec<Vec<String>> = sweep.points.iter().map(row).collect();
    let keys = sweep.keys.join(", ");
    let head: Vec<&str> = std::iter::once(keys.as_str()).chain(shown).collect();
    page.section("All combinations", "Means over the seeds; * = on the line.", &table(&head, &rows));
    page.finish()
}

#[cfg(test)]
mod tests;
