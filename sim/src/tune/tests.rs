use super::*;
use crate::given::files_in;
use muster_engine::policy::Policy;
use std::path::Path;

/// A queue in which short jobs suffer behind long ones, and software that fails now and then.
fn args(folder: &Path, ranges: &[&str]) -> TuneArgs {
    let file = files_in(folder);
    let jobs: String = (0..80)
        .map(|at| {
            format!("{at},{},{},{}\n", 1 + at * 5 % 8, at * 40, if at % 4 == 0 { 1800 } else { 60 + at * 7 % 90 })
        })
        .collect();
    TuneArgs {
        policy: file("base.toml", "# What we have.\norder = \"fifo\"\n"),
        scene: SceneArgs::of(
            file("world.toml", "[[nodes]]\ncount = 2\ndevices = 8\n\n[failures.software]\nper_1000_days = 5000.0\n"),
            file("t.csv", &format!("job_id,num_gpu,submit_time,duration\n{jobs}")),
        ),
        ranges: ranges.iter().map(|text| Range::parse(text).unwrap()).collect(),
        goal: Goal::minimize("wait_mean_s").unwrap(),
        constraints: Vec::new(),
        budget: 60,
        seeds: Some(2),
        parts: 3,
        threads: 2,
        output: folder.join("out"),
    }
}

const RANGES: [&str; 2] =
    ["policy.order=fifo,sjf,{ priority = { hours_per_class = 24 } }", "policy.backfill.reserve_depth=0..3"];

fn quietly(args: &TuneArgs) -> Result<Tuned, SimError> {
    tune(args, &AtomicBool::new(false), |_, _| ())
}

#[test]
fn the_best_setting_is_found_and_its_file_and_evidence_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let args = args(folder.path(), &RANGES);
    let tuned = quietly(&args).unwrap();
    let chosen = tuned.chosen.unwrap();
    assert_eq!(tuned.trials[0].number, chosen);
    assert_eq!(tuned.trials[0].values[0], "sjf", "{}", tuned.verdict);
    assert!(tuned.verdict.contains("policy.order=sjf"), "{}", tuned.verdict);
    assert!(tuned.stages.last().is_some_and(|stage| stage.whole_trace && stage.runs_each == 2));
    assert!(tuned.stages.windows(2).all(|pair| pair[1].settings < pair[0].settings));
    assert!(tuned.runs <= args.budget, "{} runs", tuned.runs);
    let text = std::fs::read_to_string(args.output.join(TUNED_FILE)).unwrap();
    let written: Policy = toml::from_str(&text).unwrap();
    assert_eq!(written.order, muster_engine::policy::Order::Sjf);
    assert!(text.starts_with("# From base.toml, by `muster sim tune`: minimize wait_mean_s.\n"), "{text}");
    let evidence = crate::evidence::read(&args.output.join(COMPARED_FOLDER), None).unwrap();
    assert_eq!(evidence.policy, written);
    assert!(std::fs::read_to_string(args.output.join("tune.csv")).unwrap().lines().count() == 1 + tuned.trials.len());
}

#[test]
fn there_are_as_many_draws_as_a_verdict_needs_and_one_where_nothing_is_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let random = TuneArgs { seeds: None, parts: 1, ..args(folder.path(), &["policy.order=sjf"]) };
    assert_eq!(quietly(&random).unwrap().seeds, compare::SEEDS_MIN as u64);
    let world = files_in(folder.path())("calm.toml", "[[nodes]]\ncount = 2\ndevices = 8\n");
    let scene = SceneArgs { world, ..random.scene.clone() };
    let calm = TuneArgs { scene, output: folder.path().join("calm"), ..random };
    assert_eq!(quietly(&calm).unwrap().seeds, 1);
}

#[test]
fn a_search_is_the_same_on_one_thread_and_on_four() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = |threads: usize| {
        let args =
            TuneArgs { threads, output: folder.path().join(format!("on-{threads}")), ..args(folder.path(), &RANGES) };
        quietly(&args).unwrap();
        ["tune.json", "tune.csv", "tuned.toml", "compared/compare.json"]
            .map(|name| std::fs::read(args.output.join(name)).unwrap())
    };
    assert!(bytes(1) == bytes(4));
}

#[test]
fn what_was_done_before_a_stop_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let args = TuneArgs { threads: 1, ..args(folder.path(), &RANGES) };
    let stopped_after = |runs: usize, output: &str| {
        let stop = AtomicBool::new(false);
        let args = TuneArgs { output: folder.path().join(output), ..args.clone() };
        let told = |done: usize, all: usize| {
            assert!(done <= all);
            if done == runs {
                stop.store(true, Ordering::Relaxed);
            }
        };
        tune(&args, &stop, told)
    };
    // Within the second stage: the first one counts.
    let whole = quietly(&TuneArgs { output: folder.path().join("whole"), ..args.clone() }).unwrap();
    let first = whole.stages[0].settings * whole.stages[0].runs_each;
    let late = stopped_after(first + 2, "late").unwrap();
    assert!(!late.complete && late.chosen.is_some() && late.compared.is_none());
    assert_eq!(late.stages, whole.stages[..1]);
    let text = std::fs::read_to_string(folder.path().join("late").join(TUNED_FILE)).unwrap();
    assert!(text.contains("# The search was stopped before its end."), "{text}");
    // Within the first stage: those that are through it.
    let early = stopped_after(whole.stages[0].runs_each * 3, "early").unwrap();
    assert!(early.stages[0].settings >= 2 && early.stages[0].settings < whole.stages[0].settings);
    let none = TuneArgs { output: folder.path().join("none"), ..args.clone() };
    let none = tune(&none, &AtomicBool::new(true), |_, _| ()).unwrap_err().to_string();
    assert!(none.contains("stopped before the policy as it is"), "{none}");
}

#[test]
fn where_nothing_keeps_to_the_limits_no_policy_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let constraints = vec![Constraint::parse("utilisation>=1.5").unwrap()];
    let args = TuneArgs { constraints, ..args(folder.path(), &RANGES) };
    let tuned = quietly(&args).unwrap();
    assert_eq!((tuned.chosen, tuned.policy_file, tuned.compared), (None, None, None));
    assert!(
        tuned.verdict.starts_with("nothing that was tried keeps to utilisation>=1.5; the nearest"),
        "{}",
        tuned.verdict
    );
    assert!(!args.output.join(TUNED_FILE).exists());
}

/// Means are over the jobs that ended, and without the pool the large one never does.
#[test]
fn a_setting_that_leaves_a_job_out_is_no_better_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = files_in(folder.path());
    let pool = "order = \"fifo\"\n[elastic.rented]\nlabels = { pool = \"burst\" }\nidle_ms = 600000\nwake_ms = 120000\n\
                wake_timeout_ms = 900000\n";
    let world = "[[nodes]]\nname = \"own\"\ncount = 1\ndevices = 8\n\
                 [[nodes]]\nname = \"rented\"\ncount = 1\ndevices = 8\nlabels = { pool = \"burst\" }\n\
                 [[elastic]]\nnodes = \"rented\"\nwake_s = 60\nstarts_asleep = true\n";
    let jobs = "job_id,num_gpu,submit_time,duration\n0,16,0,60\n1,8,2000,60\n";
    let args = TuneArgs {
        policy: file("pool.toml", pool),
        scene: SceneArgs::of(file("burst.toml", world), file("two.csv", jobs)),
        seeds: Some(1),
        parts: 1,
        ..args(folder.path(), &["policy.elastic={}"])
    };
    let tuned = quietly(&args).unwrap();
    assert_eq!((tuned.trials.len(), tuned.chosen), (2, Some(0)), "{}", tuned.verdict);
}

#[test]
fn settings_that_are_no_policy_are_counted_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let tuned = quietly(&args(folder.path(), &["policy.order={ priority = { hours_per_class = 0 } },sjf"])).unwrap();
    assert_eq!((tuned.trials.len(), tuned.refused), (2, 1));
    assert!(
        tuned.refused_first.as_deref().is_some_and(|why| why.starts_with("with policy.order=")),
        "{:?}",
        tuned.refused_first
    );
    let all = quietly(&TuneArgs { output: folder.path().join("b"), ..args(folder.path(), &["policy.oder=sjf"]) });
    assert!(all.unwrap_err().to_string().contains("hold no other policy to try"));
}

#[test]
fn bad_arguments_are_refused_before_anything_is_run() {
    let folder = tempfile::tempdir().unwrap();
    let args = args(folder.path(), &RANGES);
    let refused = |args: &TuneArgs| quietly(args).unwrap_err().to_string();
    let poor = TuneArgs { budget: 10, ..args.clone() };
    assert!(refused(&poor).contains("is too small"), "{}", refused(&poor));
    assert!(refused(&TuneArgs { parts: 81, budget: 10_000, ..args.clone() }).contains("81 parts of 80 jobs"));
    assert!(refused(&TuneArgs { seeds: Some(0), ..args.clone() }).contains("at least 1"));
    let twice = [RANGES[1], RANGES[1]].map(|text| Range::parse(text).unwrap()).to_vec();
    assert!(refused(&TuneArgs { ranges: twice, ..args.clone() }).contains("two ranges"));
    assert!(refused(&TuneArgs { ranges: Vec::new(), ..args.clone() }).contains("no range"));
    assert!(!args.output.exists());
}
