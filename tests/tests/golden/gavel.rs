//! Gavel (Narayanan et al., OSDI'20): 100 jobs at once on eight GPUs of each of three models, first come, first
//! served, each on the fastest model that is free.
//!
//! The rules of its simulator at commit c4fa40097339, found by computing its numbers again to the last digit
//! (61,207.488 s and 139,037.923 s): it plays rounds of 360 s, a little less where only whole steps fit; jobs that
//! end leave their GPUs idle until devices are given out anew, which is at the first round that begins at least
//! 1,920 s after the last time (six rounds); then all jobs are placed from nothing in the order of their arrival, so
//! that whoever ran on a slower model moves up; moving costs nothing: the 20 s that the paper speaks of are no part
//! of this simulator. The run time of a job follows from the table of throughputs.
//!
//! The same rules are a world with a tick of 360 s and six of them between decisions, and the policy `fifo-upgrade`. What
//! is left of a difference: we notice an end when its round is over, they give the job the moment within the round, and
//! their rounds are shorter by up to one step.

use super::{data, example, reader, run};
use std::collections::BTreeMap;

/// In percent of what was printed.
const WITHIN_PERCENT: f64 = 1.0;

#[test]
fn fifo_over_three_models_takes_as_long_as_printed() {
    let throughputs = data("simulation_throughputs.json.gz");
    let more = ["--throughputs", throughputs.to_str().unwrap()];
    let run = run(
        &example("policies", "fifo-upgrade"),
        &example("worlds", "gavel-8-8-8"),
        &data("static_100jobs.trace"),
        &more,
    );
    assert_eq!(run.jobs.len(), 100);
    let mut rows = reader(&data("gavel_static100_8_8_8.csv"));
    let mut rows = rows.deserialize::<BTreeMap<String, String>>().map(Result::unwrap);
    let printed = rows.find(|row| row["policy"] == "fifo_perf").unwrap();
    for (pointer, column) in [("/turnaround_s/mean", "avg_jct_s"), ("/makespan_s", "makespan_s")] {
        let ours = run.document["summary"].pointer(pointer).and_then(serde_json::Value::as_f64).unwrap();
        let theirs: f64 = printed[column].parse().unwrap();
        let percent = 100.0 * (ours - theirs) / theirs;
        println!("{column}: {ours:.3}, printed {theirs:.3}, {percent:+.2} %");
        assert!(percent.abs() <= WITHIN_PERCENT, "{column}: {ours:.3}, printed {theirs:.3}, {percent:+.2} %");
    }
}
