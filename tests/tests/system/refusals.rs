//! Bad input through the command line: typed errors, documented exit codes, nothing half-done.

use super::job;
use muster_proto::client::ListJobsRequest;
use muster_tests::cluster::{Options, TestCluster};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_meant_or_can_never_run_is_refused_and_leaves_nothing_behind() {
    let cluster = TestCluster::start(1, 1, Options::default()).await;
    let good = job("good", 1, 1, "true");
    let with = |path: &str, value: Value| {
        let mut job = good.clone();
        *job.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = value;
        job.to_string()
    };
    let mut unknown = good.clone();
    unknown["gang"]["gpus_per_nod"] = json!(1);
    let mut model = good.clone();
    model["gang"]["gpu"] = json!("X9000");
    let mut level = good.clone();
    level["gang"]["topology"] = json!({"within": "galaxy", "at_most": 1});
    let mut later = good.clone();
    later["replicas"] = json!({"count": 2});
    let big = with("/gang/run", json!("x".repeat(300 * 1024)));
    let cases: [(&str, String, i32, &str); 9] = [
        ("unknown key", unknown.to_string(), 2, "SPEC_UNKNOWN_KEY"),
        ("wrong type", with("/gang/nodes", json!("many")), 2, "SPEC_TYPE"),
        ("64 GPUs on a node of 8", with("/gang/gpus_per_node", json!(64)), 6, "NEVER_FITS"),
        ("more nodes than there are", with("/gang/nodes", json!(64)), 6, "NEVER_FITS"),
        ("a model nobody has", model.to_string(), 6, "MODEL_UNKNOWN"),
        ("an unknown level", level.to_string(), 6, "TOPOLOGY_UNKNOWN"),
        ("too big", big, 2, "SPEC_TOO_BIG"),
        ("control characters in the name", with("/name", json!("a\u{1b}[2Jb")), 2, "SPEC_VALUE"),
        ("not there yet", later.to_string(), 2, "NOT_THERE_YET"),
    ];
    let file = cluster.folder().join("job.json");
    for (what, text, exit_code, code) in cases {
        std::fs::write(&file, text).unwrap();
        refused(&cluster, what, &["submit", file.to_str().unwrap()], exit_code, code).await;
    }
    refused(&cluster, "a missing file", &["submit", "/nonexistent/job.toml"], 3, "FILE_NOT_FOUND").await;
    refused(&cluster, "a missing job", &["show", "999999"], 3, "JOB_NOT_FOUND").await;
    refused(&cluster, "a missing node", &["node", "show", "nowhere"], 3, "NODE_NOT_FOUND").await;

    // What only State can tell has its line in the file too.
    let toml = cluster.folder().join("job.toml");
    std::fs::write(&toml, "[gang]\nrun = 'true'\n\n[after]\nok = [4711]\n").unwrap();
    let submit = ["submit", toml.to_str().unwrap()];
    let error = refused(&cluster, "a job to wait for that nobody knows", &submit, 2, "SPEC_VALUE").await;
    assert_eq!((&error["line"], &error["path"]), (&json!(5), &json!("after.ok")), "{error}");
    assert!(error["hint"].as_str().is_some_and(|hint| hint.contains("`muster ps`")), "{error}");

    let request = ListJobsRequest { ended: true, ..ListJobsRequest::default() };
    let jobs = cluster.user.call("ps", async |mut api| api.list_jobs(request.clone()).await).await.jobs;
    assert_eq!(jobs, [], "nothing was submitted");

    // One key, two bodies.
    std::fs::write(&file, good.to_string()).unwrap();
    let submit = ["submit", "--key", "k", file.to_str().unwrap()];
    assert_eq!(cluster.user.run(&submit).await.status.code(), Some(0));
    assert_eq!(cluster.user.run(&submit).await.status.code(), Some(0), "the same again is the same job");
    std::fs::write(&file, with("/gang/run", json!("false"))).unwrap();
    refused(&cluster, "another body under a used key", &submit, 5, "KEY_REUSED").await;
}

async fn refused(cluster: &TestCluster, what: &str, arguments: &[&str], exit_code: i32, code: &str) -> Value {
    let output = cluster.user.run(&[arguments, &["--json"]].concat()).await;
    let talk = String::from_utf8_lossy(&output.stderr);
    let mut error: Value = serde_json::from_str(talk.lines().last().unwrap_or_default())
        .unwrap_or_else(|error| panic!("{what}: {error}: {talk}"));
    let seen = (output.status.code(), error["error"]["code"].as_str().unwrap_or_default());
    assert_eq!(seen, (Some(exit_code), code), "{what}: {talk}");
    assert_eq!(error["exit_code"], exit_code, "{what}");
    assert!(output.stdout.is_empty(), "{what}: nothing but talk");
    error["error"].take()
}
