use super::*;
use crate::given::files_in;

const NODES: &str = "[[nodes]]\nname = \"own\"\ncount = 2\ndevices = 8\n";
const JOBS: &str = "job_id,num_gpu,submit_time,duration\nprobe-1,1,10,60\nprobe-2,1,20,60\n";

fn scene(world: &str, window: (usize, Option<usize>)) -> Result<Scene, SimError> {
    let folder = tempfile::tempdir().unwrap();
    let file = files_in(folder.path());
    let args = SceneArgs::of(file("world.toml", &format!("{NODES}{world}")), file("t.csv", JOBS));
    Scene::read(&SceneArgs { start_job: window.0, jobs: window.1, ..args })
}

#[test]
fn a_world_that_names_a_job_of_no_trace_is_refused_with_the_nearest() {
    let told = |text: &str| scene(text, (0, None)).unwrap_err().to_string();
    let cancelled = told("[[cancellations]]\njob = \"prbe-2\"\nat_s = 30\n");
    for part in ["world.toml", "cancellations", "no job `prbe-2`", "did you mean `probe-2`?"] {
        assert!(cancelled.contains(part), "{cancelled}");
    }
    let failing = told("[[user_failures]]\njob = \"other\"\nafter_s = 3\n");
    assert!(failing.contains("user_failures: the trace has no job `other`") && !failing.contains("mean"), "{failing}");
    let early = told("[[cancellations]]\njob = \"probe-2\"\nat_s = 19\n");
    assert!(early.contains("cancelled at 19 s and comes at 20 s"), "{early}");
}

#[test]
fn a_world_may_name_jobs_outside_the_window() {
    let text = "[[cancellations]]\njob = \"probe-1\"\nat_s = 10\n[[user_failures]]\njob = \"probe-2\"\nafter_s = 3\n";
    let base = scene(text, (1, Some(1))).unwrap();
    assert_eq!(base.trace.jobs.len(), 1);
    let changed = |text: &str| base.changed(World::parse(&format!("{NODES}{text}")).unwrap(), Truth::default());
    assert!(changed(text).is_ok());
    assert!(changed("[[user_failures]]\njob = \"probe-9\"\nafter_s = 3\n").unwrap_err().contains("`probe-9`"));
}

#[test]
fn whatever_is_drawn_depends_on_the_seed() {
    let is_random = |text: &str| scene(text, (0, None)).unwrap().is_random();
    let elastic = |percent: &str| format!("[[elastic]]\nnodes = \"own\"\nwake_s = 60\nfail_percent = {percent}\n");
    assert!(is_random(&elastic("5.0")));
    // All orders bring something, or none does: nothing is left to chance.
    assert!(!is_random(&elastic("0.0")) && !is_random(&elastic("100.0")) && !is_random(""));
    assert!(is_random("[failures.node]\nper_1000_days = 1.0\n"));
    assert!(is_random("[[spot]]\nnodes = \"own\"\nevictions_per_1000_days = 1.0\n"));
    let truth = Truth { run_time_sigma_percent: 10, ..Truth::default() };
    let base = scene("", (0, None)).unwrap();
    assert!(base.changed(base.world.clone(), truth).unwrap().is_random());
}
