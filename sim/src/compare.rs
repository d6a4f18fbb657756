//! Policies against each other on the same work and the same failures: paired by seed, with
//! bootstrap intervals, and a verdict in words.

use crate::draw::Draw;
use crate::figures::{Better, FIGURES, figures};
use crate::metrics::Summary;
use crate::output::{self, Input};
use crate::replay::counterfactual::Past;
use crate::run::{Going, Scene, SceneArgs, read_policy};
use crate::{SimError, batch};
use muster_engine::policy::Policy;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug, Clone)]
pub struct CompareArgs {
    /// The first one is what the others are measured against.
    pub policies: Vec<PathBuf>,
    pub scene: SceneArgs,
    /// So many seeds from 0; `None` = as many as a verdict needs, and one where nothing is drawn.
    pub seeds: Option<u64>,
    pub threads: usize,
    pub output: PathBuf,
    /// Where it is a cluster's own past that is played.
    pub past: Option<Past>,
}

/// Most runs of one comparison or sweep.
pub const RUNS_MAX: usize = 10_000;
const RESAMPLES: usize = 2_000;
/// Fewer draws all fall on one side by chance more often than once in twenty times.
pub(crate) const SEEDS_MIN: usize = 6;

/// How many seeds to play: as many as a verdict needs, unless somebody said. Where nothing is drawn all are the same run.
pub(crate) fn seeds(wanted: Option<u64>, scene: &Scene) -> u64 {
    wanted.unwrap_or(if scene.is_random() { SEEDS_MIN as u64 } else { 1 })
}

/// One policy against the first, in one figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    pub figure: &'static str,
    pub better: Better,
    pub base_mean: f64,
    pub mean: f64,
    /// Mean over the seeds of this policy's figure less the first one's.
    pub difference: f64,
    /// 95 % of resampled means lie between. `None` where nothing differs between seeds, and of one seed.
    pub interval: Option<(f64, f64)>,
    /// Of the base's mean; `None` where that is 0.
    pub percent: Option<f64>,
    pub verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Better,
    Worse,
    /// The interval holds 0, or there are too few draws to tell.
    NoClearDifference,
    Equal,
}

/// Who gains and who loses: mean wait of an account, over the seeds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AccountChange {
    pub account: String,
    pub base_wait_s: f64,
    pub wait_s: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Against {
    pub policy: String,
    pub differences: Vec<Difference>,
    /// Of all accounts, the worst hit first.
    pub accounts: Vec<AccountChange>,
    pub verdict: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    pub schema: &'static str,
    /// False when it was stopped: only seeds that every policy has run are compared.
    pub complete: bool,
    pub base: String,
    pub seeds: Vec<u64>,
    /// May anything differ between seeds?
    pub random: bool,
    /// What keeps it from telling more, and how far the first policy is from what was recorded.
    pub notes: Vec<String>,
    #[serde(flatten)]
    pub past: Option<Past>,
    pub against: Vec<Against>,
    pub policies: Vec<Input>,
    pub world: Input,
    pub trace: Input,
    pub engine_version: u32,
    /// The policies themselves, in the order of their files.
    pub policy_values: Vec<Policy>,
}

/// Runs everything and writes `compare.json`, `runs.csv` and `report.html`.
///
/// # Errors
/// Whatever is wrong with an input, before anything is run; a run that breaks off.
pub fn compare(args: &CompareArgs, stop: &AtomicBool, told: impl FnMut(usize, usize)) -> Result<Comparison, SimError> {
    let [_, _, ..] = args.policies.as_slice() else {
        return Err(SimError::Arguments("a comparison needs at least two policies".into()));
    };
    output::check_output(&args.output)?;
    let read = |path: &PathBuf| {
        let (policy, text) = read_policy(path)?;
        Ok((policy, output::input(path, text.as_bytes())))
    };
    let policies: Vec<(Policy, Input)> = args.policies.iter().map(read).collect::<Result<_, SimError>>()?;
    let scene = Scene::read(&args.scene)?;
    let seeds = seeds(args.seeds, &scene);
    let runs = policies.len().saturating_mul(seeds as usize);
    if seeds == 0 || runs > RUNS_MAX {
        return Err(SimError::Arguments(format!("{runs} runs; there must be from 1 to {RUNS_MAX}")));
    }
    let summaries = play_all(&scene, &policies, (seeds, args.threads), stop, told)?;
    let concluded = conclude(&scene, &policies, &summaries, !stop.load(Ordering::Relaxed));
    let comparison = Comparison { past: args.past.clone(), ..concluded };
    write(&args.output, &policies, &summaries, &comparison)?;
    Ok(comparison)
}

/// What runs of all policies come to, by the seeds that every one of them has finished.
pub(crate) fn conclude(scene: &Scene, policies: &[(Policy, Input)], summaries: &BySeed, complete: bool) -> Comparison {
    let random = scene.is_random();
    let against =
        |which: usize| against(which, &policies[which].1.name, summaries, (policies[0].0 == policies[which].0, random));
    Comparison {
        schema: "muster.sim.compare/1",
        complete,
        base: policies[0].1.name.clone(),
        seeds: summaries.iter().map(|(seed, _)| *seed).collect(),
        random,
        notes: notes(random, summaries),
        past: None,
        against: (1..policies.len()).map(against).collect(),
        policies: policies.iter().map(|(_, input)| input.clone()).collect(),
        world: scene.world_file.clone(),
        trace: scene.trace_file.clone(),
        engine_version: muster_engine::ENGINE_VERSION,
        policy_values: policies.iter().map(|(policy, _)| policy.clone()).collect(),
    }
}

pub(crate) fn write(
    folder: &Path,
    policies: &[(Policy, Input)],
    summaries: &BySeed,
    comparison: &Comparison,
) -> Result<(), SimError> {
    output::create(folder)?;
    output::write_file(folder.join("runs.csv"), &runs_csv(policies, summaries))?;
    output::write_file(folder.join("report.html"), crate::report::comparison(comparison).as_bytes())?;
    output::write_file(folder.join("compare.json"), &output::json(comparison))
}

/// Summaries of all policies.
pub(crate) type BySeed = Vec<(u64, Vec<Summary>)>;

/// Summaries of all policies, by seed; only seeds that all have finished.
fn play_all(
    scene: &Scene,
    policies: &[(Policy, Input)],
    (seeds, threads): (u64, usize),
    stop: &AtomicBool,
    mut told: impl FnMut(usize, usize),
) -> Result<BySeed, SimError> {
    let count = policies.len() * seeds as usize;
    let going = || if stop.load(Ordering::Relaxed) { Going::Stop } else { Going::On };
    let work = |number: usize| {
        let (seed, which) = (number / policies.len(), number % policies.len());
        scene.play(&policies[which].0, seed as u64, None, &mut |_| going()).map(|(_, summary)| summary)
    };
    let results = batch::all(count, threads, stop, work, |done| told(done, count));
    let mut by_seed: BySeed = Vec::new();
    for (seed, of_seed) in results.chunks(policies.len()).enumerate() {
        let mut summaries = Vec::new();
        for result in of_seed.iter().flatten() {
            match result {
                Ok(summary) if summary.complete => summaries.push(summary.clone()),
                Ok(_) => {}
                Err(error) => return Err(SimError::Play(error.to_string())),
            }
        }
        if summaries.len() == policies.len() {
            by_seed.push((seed as u64, summaries));
        }
    }
    if by_seed.is_empty() {
        return Err(SimError::Arguments("it was stopped before one seed was through with every policy".into()));
    }
    Ok(by_seed)
}

/// Why seeds tell nothing more than one of them would, and how far the first policy is from what was.
fn notes(random: bool, summaries: &BySeed) -> Vec<String> {
    let alike = |at: usize| summaries.windows(2).all(|pair| figures(&pair[0].1[at]) == figures(&pair[1].1[at]));
    let policies = summaries.first().map_or(0, |(_, of)| of.len());
    let mut notes = Vec::new();
    if !random {
        notes.push("nothing is drawn at random in this world, so every seed is the same run".to_owned());
    } else if summaries.len() > 1 && (0..policies).all(alike) {
        notes.push(format!(
            "nothing that this world draws touched a run: its {} seeds are the same run, and there is no spread to judge by; \
             play a longer stretch, or more that can fail",
            summaries.len()
        ));
    } else if summaries.len() < SEEDS_MIN {
        let seeds = if summaries.len() == 1 { "seed" } else { "seeds" };
        notes.push(format!(
            "{} {seeds} only: what differs between so few draws may be chance, and is no clear difference; ask for at least \
             {SEEDS_MIN} seeds",
            summaries.len()
        ));
    }
    let ended = |at: usize| summaries.iter().map(|(_, of)| of[at].ended()).sum::<u64>();
    if (1..policies).any(|at| ended(at) != ended(0)) {
        let told: Vec<String> = (0..policies).map(|at| ended(at).to_string()).collect();
        notes.push(format!(
            "the policies do not bring as many jobs to an end, over all seeds and in their order: {}; waits and turnarounds are \
             means over those that ended, so whoever leaves more of them out may look better for it",
            told.join(", ")
        ));
    }
    let recorded = summaries.first().and_then(|(_, of)| of.first()?.calibration.as_ref());
    notes.extend(recorded.map(|known| format!("the first policy, held against {}", known.words())));
    notes
}

fn against(which: usize, name: &str, summaries: &BySeed, (same_policy, random): (bool, bool)) -> Against {
    let differs = |of: usize| summaries.windows(2).any(|pair| figures(&pair[0].1[of]) != figures(&pair[1].1[of]));
    // Several seeds that are the same run in both: nothing that was drawn touched them.
    let by_chance = summaries.len() == 1 || differs(0) || differs(which);
    let too_few = random && summaries.len() < SEEDS_MIN && by_chance;
    let differences: Vec<Difference> = (0..FIGURES.len()).map(|at| difference(at, which, summaries, too_few)).collect();
    let accounts = accounts(which, summaries);
    let verdict = match nothing_to_compare(&differences, same_policy) {
        Some(why) => format!("nothing to compare: {why}"),
        None => in_words(&differences, &accounts),
    };
    Against { policy: name.to_owned(), differences, accounts, verdict }
}

/// Where no figure differs, why that is.
fn nothing_to_compare(differences: &[Difference], same_policy: bool) -> Option<String> {
    if differences.iter().any(|difference| difference.verdict != Verdict::Equal) {
        return None;
    }
    let is_zero = |figure: &str| {
        let known = differences.iter().find(|difference| difference.figure == figure);
        known.is_some_and(|known| (known.base_mean, known.mean) == (0.0, 0.0))
    };
    Some(if same_policy {
        "both files hold the same policy".to_owned()
    } else if is_zero("turnaround_mean_s") {
        "no job of the trace ended".to_owned()
    } else if is_zero("wait_max_s") {
        "no job waited, so there was nothing to decide; play more work, or fewer machines".to_owned()
    } else {
        format!("both decided alike here, and all {} figures are the same", differences.len())
    })
}

fn difference(at: usize, which: usize, summaries: &BySeed, too_few: bool) -> Difference {
    let figure = &FIGURES[at];
    let pairs: Vec<(f64, f64)> =
        summaries.iter().map(|(_, of)| ((figure.of)(&of[0]), (figure.of)(&of[which]))).collect();
    let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / pairs.len() as f64;
    let (base_mean, own_mean) =
        (mean(&mut pairs.iter().map(|pair| pair.0)), mean(&mut pairs.iter().map(|pair| pair.1)));
    let differences: Vec<f64> = pairs.iter().map(|pair| pair.1 - pair.0).collect();
    let difference = differences.iter().sum::<f64>() / differences.len() as f64;
    let interval = interval(&differences, at as u64);
    let good = |difference: f64| (difference < 0.0) == (figure.better == Better::Lower);
    let verdict = match interval {
        _ if too_few && difference != 0.0 => Verdict::NoClearDifference,
        Some((low, high)) if low <= 0.0 && high >= 0.0 && (low, high) != (0.0, 0.0) => Verdict::NoClearDifference,
        _ if difference == 0.0 => Verdict::Equal,
        _ if good(difference) => Verdict::Better,
        _ => Verdict::Worse,
    };
    Difference {
        figure: figure.name,
        better: figure.better,
        base_mean,
        mean: own_mean,
        difference,
        interval,
        percent: (base_mean != 0.0).then(|| 100.0 * difference / base_mean.abs()),
        verdict,
    }
}

/// Percentile bootstrap of the mean; `None` for one value, or where all are equal.
fn interval(differences: &[f64], stream: u64) -> Option<(f64, f64)> {
    if differences.len() < 2 || differences.windows(2).all(|pair| pair[0] == pair[1]) {
        return None;
    }
    let mut draw = Draw::of(0, "bootstrap", stream);
    let count = differences.len();
    let mut resampled = |_| {
        let sum: f64 = (0..count).map(|_| differences[draw.below(count as u64) as usize]).sum();
        sum / count as f64
    };
    let mut means: Vec<f64> = (0..RESAMPLES).map(&mut resampled).collect();
    means.sort_by(f64::total_cmp);
    Some((means[RESAMPLES * 25 / 1000], means[RESAMPLES * 975 / 1000 - 1]))
}

fn accounts(which: usize, summaries: &BySeed) -> Vec<AccountChange> {
    let mut sums: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for (_, of) in summaries {
        for group in &of[0].by_account {
            sums.entry(&group.name).or_default().0 += group.wait_s.mean;
        }
        for group in &of[which].by_account {
            sums.entry(&group.name).or_default().1 += group.wait_s.mean;
        }
    }
    let count = summaries.len() as f64;
    let change = |(account, (base, own)): (&str, (f64, f64))| AccountChange {
        account: account.to_owned(),
        base_wait_s: base / count,
        wait_s: own / count,
    };
    let mut changes: Vec<AccountChange> = sums.into_iter().map(change).collect();
    changes.sort_by(|a, b| (b.wait_s - b.base_wait_s).total_cmp(&(a.wait_s - a.base_wait_s)));
    changes
}

fn in_words(differences: &[Difference], accounts: &[AccountChange]) -> String {
    let told = |figure: &str| {
        let known = differences.iter().find(|difference| difference.figure == figure)?;
        // Without prices nothing costs anything, which is nothing to compare.
        if figure == "cost_usd" && (known.base_mean, known.mean) == (0.0, 0.0) {
            return None;
        }
        let name = figure.trim_end_matches("_s").replace('_', " ");
        Some(match (known.verdict, known.percent, known.interval) {
            (Verdict::Equal, ..) => format!("{name} equal"),
            (Verdict::NoClearDifference, ..) => format!("{name} no clear difference"),
            (_, Some(percent), Some((low, high))) => {
                let of = |value: f64| 100.0 * value / known.base_mean.abs();
                format!("{name} {percent:+.1} % [{:+.1}, {:+.1}]", of(low), of(high))
            }
            (_, Some(percent), None) => format!("{name} {percent:+.1} %"),
            (_, None, _) => format!("{name} {:+.3}", known.difference),
        })
    };
    let mut parts: Vec<String> = ["wait_mean_s", "wait_p95_s", "wait_max_s", "utilisation", "goodput", "cost_usd"]
        .into_iter()
        .filter_map(told)
        .collect();
    if let Some(hit) = accounts.first().filter(|hit| accounts.len() > 1 && hit.wait_s > hit.base_wait_s) {
        let more = crate::report::svg::span(hit.wait_s - hit.base_wait_s);
        parts.push(format!("worst hit: {}, +{more} of mean wait", hit.account));
    }
    parts.join("; ")
}

fn runs_csv(policies: &[(Policy, Input)], summaries: &BySeed) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let head = ["policy", "seed"].into_iter().chain(FIGURES.iter().map(|figure| figure.name));
    writer.write_record(head).expect("memory takes every record");
    for (seed, of) in summaries {
        for ((_, input), summary) in policies.iter().zip(of) {
            let row = [input.name.clone(), seed.to_string()];
            let row = row.into_iter().chain(figures(summary).into_iter().map(|value| value.to_string()));
            writer.write_record(row).expect("memory takes every record");
        }
    }
    writer.into_inner().expect("memory takes every record")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::given::files_in;

    #[test]
    fn intervals_hold_the_mean_and_shrink_with_more_seeds() {
        let mut draw = Draw::of(5, "test", 0);
        let values: Vec<f64> = (0..200).map(|_| 3.0 + draw.normal()).collect();
        let (low, high) = interval(&values, 0).unwrap();
        let (few_low, few_high) = interval(&values[..10], 0).unwrap();
        assert!(low < 3.2 && high > 2.8 && high - low < 0.4, "{low} {high}");
        assert!(few_high - few_low > high - low);
        assert_eq!(interval(&[1.0, 1.0, 1.0], 0), None);
        assert_eq!(interval(&[1.0], 0), None);
    }

    const STRICT: &str = "order = \"fifo\"\nadmission = { head_of_line = { sticky = false } }\n";
    const CALM: &str = "[[nodes]]\ncount = 2\ndevices = 8\n";

    fn compared(policies: [&str; 2], world: &str, jobs: &str, seeds: Option<u64>) -> Comparison {
        let folder = tempfile::tempdir().unwrap();
        let file = files_in(folder.path());
        let args = CompareArgs {
            policies: vec![file("one.toml", policies[0]), file("two.toml", policies[1])],
            scene: SceneArgs {
                check: true,
                ..SceneArgs::of(
                    file("world.toml", world),
                    file("t.csv", &format!("job_id,num_gpu,submit_time,duration\n{jobs}")),
                )
            },
            seeds,
            threads: 1,
            output: folder.path().join("out"),
            past: None,
        };
        let compared = compare(&args, &AtomicBool::new(false), |_, _| ()).unwrap();
        let (page, document) = files(&args);
        assert!(document.get("mode").is_none() && !page.contains("counterfactual"), "{page}");
        assert!(compared.notes.iter().all(|note| page.contains(&crate::report::svg::escape(note))), "{page}");
        compared
    }

    fn files(args: &CompareArgs) -> (String, serde_json::Value) {
        let text = |name: &str| std::fs::read_to_string(args.output.join(name)).unwrap();
        (text("report.html"), serde_json::from_str(&text("compare.json")).unwrap())
    }

    /// The page and the document are often all that somebody is sent.
    #[test]
    fn of_a_past_page_and_document_tell_the_mode_and_what_is_not_played() {
        let folder = tempfile::tempdir().unwrap();
        let file = files_in(folder.path());
        let past = Past {
            mode: "counterfactual",
            says: crate::replay::counterfactual::SAYS,
            not_modelled: vec!["2 devices were put into quarantine".into()],
            assumed: vec!["3 jobs: had several attempts".into()],
        };
        let job = "{\"job_id\":\"a\",\"submit_ms\":0,\"run_ms\":5000,\"devices\":8,\"recorded_start_ms\":2000}\n";
        let args = CompareArgs {
            policies: vec![file("one.toml", STRICT), file("two.toml", "order = \"sjf\"\n")],
            scene: SceneArgs::of(
                file("world.toml", CALM),
                file("t.jsonl", &format!("{{\"schema\":\"muster.trace/1\"}}\n{job}")),
            ),
            seeds: Some(1),
            threads: 1,
            output: folder.path().join("out"),
            past: Some(past),
        };
        compare(&args, &AtomicBool::new(false), |_, _| ()).unwrap();
        let (page, document) = files(&args);
        for part in
            ["This is a counterfactual", "Not played: 2 devices", "Assumed of 3 jobs", "held against 1 recorded starts"]
        {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert_eq!(document["schema"], "muster.sim.compare/1");
        assert_eq!(document["mode"], "counterfactual");
        assert_eq!(document["not_modelled"][0], "2 devices were put into quarantine");
        assert!(document["notes"].to_string().contains("2 s at the 90th percentile"), "{document}");
    }

    #[test]
    fn where_nothing_differs_the_verdict_says_why_instead_of_equal() {
        let verdict =
            |policies: [&str; 2], jobs: &str| compared(policies, CALM, jobs, Some(1)).against[0].verdict.clone();
        let full = "0,16,0,60\n1,16,10,30\n2,4,20,5\n";
        assert!(verdict([STRICT, STRICT], full).ends_with("both files hold the same policy"));
        let idle = verdict([STRICT, "order = \"smallest\"\n"], "0,4,0,60\n1,4,10,60\n");
        assert!(idle.starts_with("nothing to compare: no job waited"), "{idle}");
        let alike = verdict([STRICT, "order = \"sjf\"\n"], "0,16,0,60\n1,16,10,30\n");
        assert!(alike.contains("both decided alike"), "{alike}");
        let never = verdict([STRICT, "order = \"sjf\"\n"], "0,17,0,60\n");
        assert!(never.ends_with("no job of the trace ended"), "{never}");
        let differ = verdict([STRICT, "order = \"smallest\"\n"], full);
        assert!(!differ.contains("nothing to compare"), "{differ}");
    }

    #[test]
    fn seeds_that_are_one_run_are_said_to_be() {
        let jobs = "0,16,0,60\n1,16,10,30\n2,4,20,5\n";
        let policies = [STRICT, "order = \"smallest\"\n"];
        let notes = |rate: &str| {
            let world = format!("{CALM}\n[failures.software]\nper_1000_days = {rate}\n");
            compared(policies, &world, jobs, Some(3)).notes
        };
        assert!(compared(policies, CALM, jobs, Some(3)).notes[0].starts_with("nothing is drawn at random"));
        assert!(notes("0.001")[0].starts_with("nothing that this world draws touched a run"));
        assert!(notes("1000000.0")[0].starts_with("3 seeds only"));
        let world = format!("{CALM}\n[failures.software]\nper_1000_days = 1000000.0\n");
        assert_eq!(compared(policies, &world, jobs, Some(6)).notes, [""; 0]);
    }

    /// As `muster sim compare` does it unless told otherwise.
    #[test]
    fn there_are_as_many_draws_as_a_verdict_needs_and_one_where_nothing_is_drawn() {
        let jobs = "0,16,0,60\n1,16,10,30\n2,4,20,5\n";
        let seeds = |world: &str| compared([STRICT, "order = \"smallest\"\n"], world, jobs, None).seeds.len();
        assert_eq!(seeds(CALM), 1);
        assert_eq!(seeds(&format!("{CALM}\n[failures.software]\nper_1000_days = 1000000.0\n")), SEEDS_MIN);
    }

    #[test]
    fn one_draw_is_no_verdict() {
        let jobs = "0,16,0,60\n1,16,10,30\n2,4,20,5\n";
        let of = |world: &str| {
            let compared = compared([STRICT, "order = \"smallest\"\n"], world, jobs, Some(1));
            (compared.against[0].differences[0].verdict, compared.notes[0].clone())
        };
        assert_eq!(of(CALM).0, Verdict::Better);
        let (verdict, note) = of(&format!("{CALM}\n[failures.software]\nper_1000_days = 0.001\n"));
        assert_eq!(verdict, Verdict::NoClearDifference);
        assert!(note.starts_with("1 seed only"), "{note}");
    }
}
