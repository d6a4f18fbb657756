//! What came out of a search: a verdict, a table, and the head of the policy's file.

use super::{Trial, Tuned};
use crate::figures::position;

/// What was won, or why nothing was.
pub(super) fn verdict(tuned: &Tuned) -> String {
    let of = |number: usize| tuned.trials.iter().find(|trial| trial.number == number);
    let figure = |trial: &Trial| tuned.goal.value(&trial.figures);
    match (tuned.chosen.and_then(of), of(0), tuned.trials.first()) {
        (Some(best), Some(base), _) if best.number != 0 => {
            let (own, before) = (figure(best), figure(base));
            let percent = if before == 0.0 {
                String::new()
            } else {
                format!(" ({:+.1} %)", 100.0 * (own - before) / before.abs())
            };
            format!("{} {own:.4} instead of {before:.4}{percent}, with {}", tuned.goal.figure, pairs(tuned, best))
        }
        (Some(base), ..) => format!(
            "nothing that was tried is better than the policy as it is: {} {:.4}",
            tuned.goal.figure,
            figure(base)
        ),
        (None, _, Some(nearest)) => format!(
            "nothing that was tried keeps to {}; the nearest, {}, misses it, or ends fewer jobs, by {:.1} %",
            limits(tuned),
            if nearest.number == 0 { "the policy as it is".to_owned() } else { pairs(tuned, nearest) },
            100.0 * nearest.shortfall
        ),
        (None, _, None) => "nothing was tried".to_owned(),
    }
}

fn pairs(tuned: &Tuned, trial: &Trial) -> String {
    let pair = |(key, value): (&String, &String)| format!("{key}={value}");
    tuned.keys.iter().zip(&trial.values).map(pair).collect::<Vec<_>>().join(" ")
}

fn limits(tuned: &Tuned) -> String {
    tuned.constraints.iter().map(super::Constraint::text).collect::<Vec<_>>().join(" and ")
}

/// With where it comes from as a comment. No line of it can be anything but a comment.
pub(super) fn policy_file(tuned: &Tuned, policy: &str) -> String {
    let under = if tuned.constraints.is_empty() { String::new() } else { format!(", subject to {}", limits(tuned)) };
    let mut head = format!(
        "From {}, by `muster sim tune`: {}{under}.\n{}\nEvery setting that was tried is in tune.json.",
        tuned.base.name,
        tuned.goal.text(),
        tuned.verdict
    );
    if !tuned.complete {
        head.push_str("\nThe search was stopped before its end.");
    }
    let plain = |line: &str| line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
    let comment: String = head.lines().map(|line| format!("# {}\n", plain(line))).collect();
    format!("{comment}\n{policy}")
}

pub(super) fn csv(tuned: &Tuned) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let keys = tuned.keys.iter().map(String::as_str);
    let head = ["number"].into_iter().chain(keys).chain(["stage", "runs", "meets", "shortfall", "chosen", "failed"]);
    writer.write_record(head.chain(tuned.figures.iter().copied())).expect("memory takes every record");
    for trial in &tuned.trials {
        // The policy as it is has no values; what never was judged has no figures.
        let values = (0..tuned.keys.len()).map(|at| trial.values.get(at).cloned().unwrap_or_default());
        let told = [
            trial.stage.to_string(),
            trial.runs.to_string(),
            trial.meets.to_string(),
            trial.shortfall.to_string(),
            (tuned.chosen == Some(trial.number)).to_string(),
            trial.failed.clone().unwrap_or_default(),
        ];
        let figures =
            (0..tuned.figures.len()).map(|at| trial.figures.get(at).map(ToString::to_string).unwrap_or_default());
        let row = [trial.number.to_string()].into_iter().chain(values).chain(told).chain(figures);
        writer.write_record(row).expect("memory takes every record");
    }
    writer.into_inner().expect("memory takes every record")
}

impl Tuned {
    /// One figure of a trial by its name; `None` where it never was judged.
    pub fn figure(&self, trial: &Trial, name: &str) -> Option<f64> {
        position(name).and_then(|at| trial.figures.get(at)).copied()
    }
}
