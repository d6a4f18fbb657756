//! Configuration as code on a live cluster: a diff, a question, all or nothing, and the way back.

use muster_tests::cluster::{Options, TestCluster};
use serde_json::{Value, json};
use std::path::Path;

const TEAMS: &str = "\
[[account]]\nname = \"research\"\nquota.H100 = { nominal = 8 }\n
[[account]]\nname = \"nlp\"\nparent = \"research\"\nweight = 3\n
[[queue]]\nname = \"batch\"\naccount = \"nlp\"\ndefault_time_ms = 60000\n";

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).expect("written");
}

fn paths(document: &Value) -> Vec<&str> {
    let changes = document["changes"].as_array().into_iter().flatten();
    changes.filter_map(|change| change["path"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_folder_is_put_in_force_as_a_whole_and_one_can_go_back() {
    let cluster = TestCluster::start(3, 2, Options::default()).await;
    let (user, admin) = (cluster.user.clone(), cluster.admin.clone());
    let folder = cluster.folder().join("declared");
    std::fs::create_dir(&folder).expect("a folder");
    let dir = folder.to_str().expect("a plain path");
    write(&folder, "teams.toml", TEAMS);
    write(&folder, "policy.toml", "[policy]\norder = \"fifo\"\n");
    let maintenance = "[[reservation]]\nname = \"firmware\"\nstart = \"2099-01-01T00:00:00Z\"\nduration = \"4h\"\n";
    write(&folder, "maintenance.toml", &format!("{maintenance}nodes = [\"n0\"]\n"));

    let refused = user.run(&["apply", "-f", dir, "--yes"]).await;
    assert_eq!(refused.status.code(), Some(4), "{}", String::from_utf8_lossy(&refused.stderr));
    // 2099 is too far ahead, and the file and line are told.
    let far = admin.run(&["apply", "-f", dir, "--dry-run"]).await;
    let said = String::from_utf8_lossy(&far.stderr).into_owned();
    assert!(said.contains("maintenance.toml:3") && said.contains("days ahead"), "{said}");
    let start_ms = muster_tests::cluster::people::wall_ms() + 3_600_000;
    let start = muster_common::job::file::MomentText::of_ms(start_ms / 1000 * 1000).to_string();
    let near = maintenance.replace("2099-01-01T00:00:00Z", &start);
    write(&folder, "maintenance.toml", &format!("{near}nodes = [\"n0\"]\n"));
    let dry = admin.run(&["apply", "-f", dir, "--dry-run"]).await;
    assert_eq!(dry.status.code(), Some(9), "{}", String::from_utf8_lossy(&dry.stderr));
    let asked = admin.run(&["apply", "-f", dir]).await;
    assert_eq!(asked.status.code(), Some(2), "no terminal, no question");
    let applied = admin.json(&["apply", "-f", dir, "--yes"]).await;
    assert_eq!(applied["changed"], json!(true), "{applied:#}");
    let changed = paths(&applied);
    for path in
        ["account.nlp.weight", "account.research.quota.H100.nominal", "policy.order", "reservation.firmware.nodes"]
    {
        assert!(changed.contains(&path), "{path}: {applied:#}");
    }
    let again = admin.run(&["apply", "-f", dir, "--dry-run"]).await;
    assert_eq!(again.status.code(), Some(0), "{}", String::from_utf8_lossy(&again.stdout));
    assert_eq!(user.json(&["reservation", "show", "firmware"]).await["nodes"], json!(["n0"]));

    // More is owed than there is: nothing of it comes in force.
    write(&folder, "teams.toml", &TEAMS.replace("nominal = 8", "nominal = 800"));
    write(&folder, "policy.toml", "[policy]\norder = \"sjf\"\n");
    let over = admin.run(&["apply", "-f", dir, "--yes"]).await;
    let said = String::from_utf8_lossy(&over.stderr).into_owned();
    assert_eq!(over.status.code(), Some(2), "{said}");
    assert!(said.contains("teams.toml:3") && said.contains("800 H100 are owed"), "{said}");
    write(&folder, "teams.toml", TEAMS);
    let second = admin.json(&["apply", "-f", dir, "--yes"]).await;
    assert_eq!(paths(&second), ["policy.order"], "{second:#}");

    // And back, whoever leads.
    let first = applied["version"].to_string();
    let leader = cluster.leader().await;
    let mut cluster = cluster;
    cluster.servers[leader].kill_9();
    let back = admin.json(&["apply", "--rollback", &first, "--yes"]).await;
    assert_eq!(paths(&back), ["policy.order"], "{back:#}");
    cluster.servers[leader].start();
    let history = admin.json(&["apply", "--history"]).await;
    let sources: Vec<&str> =
        history["history"].as_array().into_iter().flatten().filter_map(|row| row["source"].as_str()).collect();
    assert_eq!(sources, [format!("back to {first}").as_str(), dir, dir], "{history:#}");
}
