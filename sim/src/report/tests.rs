//! What a page has in it, looked at as a browser would find it.

use super::calibrated;
use crate::calibration::Calibration;
use crate::given::files_in;
use crate::metrics::JobResult;
use crate::trace::TraceJob;
use crate::{Going, RunArgs, SceneArgs, run};
use muster_common::Time;
use std::path::Path;

const WORLD: &str = "[[nodes]]\nname = \"own\"\ncount = 2\ndevices = 8\n\
    [[elastic]]\nnodes = \"own\"\nwake_s = 120\nsleep_s = 60\n";
const POLICY: &str = "[elastic.own]\nidle_ms = 600000\nwake_ms = 120000\nwake_timeout_ms = 900000\n";
const PRICES: &str = "[[power]]\nidle_w = 100\nbusy_w = 700\nasleep_w = 10\n";

/// With all that a page may show; machines sleep for hours between jobs that have to wait for each other.
fn page(folder: &Path, policy: &str, prices: Option<&str>) -> String {
    let file = files_in(folder);
    let jobs: String = (0..12).map(|at| format!("{at},{},{},1800\n", 1 + at * 5 % 16, at / 3 * 14_400)).collect();
    let trace = file("t.csv", &format!("job_id,num_gpu,submit_time,duration\n{jobs}"));
    let prices = prices.map(|text| file("prices.toml", text));
    let args = RunArgs {
        policy: file("policy.toml", policy),
        scene: SceneArgs { check: true, prices, ..SceneArgs::of(file("world.toml", WORLD), trace) },
        seed: 0,
        output: folder.join("out"),
        events: false,
        estimates: 12,
    };
    run(&args, &mut |_| Going::On).unwrap();
    std::fs::read_to_string(folder.join("out/report.html")).unwrap()
}

#[test]
fn a_page_has_every_picture_both_colour_schemes_and_fetches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let page = page(folder.path(), POLICY, Some(PRICES));
    let sections = [
        "Where the GPU-time went",
        "Use over time",
        "Power over time",
        "Queue over time",
        "Waiting and completion",
        "Wait by size",
        "Fragmentation",
        "Start estimates",
        "Fairness",
        "Nodes over time",
        "How far to trust this",
    ];
    for title in sections {
        assert!(page.contains(&format!("<h2>{title}</h2>")), "no section `{title}`");
    }
    let pictures = [
        "Where the time went",
        "GPUs over time",
        "Power",
        "GPUs asked for by what waits",
        "wait",
        "completion",
        "Wait by size",
        "Expected fragments",
        "Told against real wait",
        "Nodes over time",
    ];
    for title in pictures {
        assert!(page.contains(&format!("role=img aria-label='{title}'>")), "no picture `{title}`");
    }
    for layer in ["asleep", "falling asleep or waking"] {
        assert!(page.contains(&format!("</i>{layer}</span>")), "no layer `{layer}`");
    }
    assert!(page.contains(":root{color-scheme:light dark;") && page.contains("@media(prefers-color-scheme:dark)"));
    for outside in ["http://", "https://", "src=", "href=", "url(", "@import", "<script", "<link"] {
        assert!(!page.contains(outside), "`{outside}` is in it");
    }
}

/// Where nothing can be compared, nothing is said to be trusted.
#[test]
fn a_page_says_how_far_to_trust_only_where_starts_were_compared() {
    let job = TraceJob { recorded_start_ms: Some(1_000), ..TraceJob::default() };
    let told = |first_start: Option<Time>| {
        let result = JobResult { first_start, ..JobResult::new(job.clone()) };
        calibrated(&serde_json::json!({ "calibration": Calibration::of(&[result]) }))
    };
    assert!(told(Some(Time(2_000))).contains("can be trusted"));
    assert_eq!(told(None), "It is not calibrated: none of 1 recorded starts came in the run.");
}

#[test]
fn a_cluster_that_never_sleeps_and_knows_no_power_has_no_pictures_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let page = page(folder.path(), "", None);
    assert!(page.contains("</i>free</span>") && !page.contains("</i>asleep</span>"));
    assert!(!page.contains("Power over time"));
}
