//! `muster dev`: the README's first command, and its clean end.

use muster_tests::binary::muster;
use muster_tests::cluster::process::Daemon;
use muster_tests::cluster::wait::until;
use muster_tests::cluster::{alone, ranks};
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::time::Duration;

const STOPS_WITHIN: Duration = Duration::from_secs(30);

/// `muster dev` with its folder in `folder`, which marks every process it starts.
fn dev(folder: &Path, more: &[&str]) -> Daemon {
    let dir = folder.join("dev");
    let arguments = [&["dev", "--dir", dir.to_str().expect("a plain path")], more].concat();
    let mut dev = Daemon::new("dev", muster(), &arguments, folder.join("said"));
    dev.start();
    dev
}

fn example(name: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
    path.canonicalize().expect("the example is there").display().to_string()
}

fn said(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("said")).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_runs_a_job_through_streams_its_logs_and_ends_with_its_exit_code_and_no_process_left() {
    let _machine = alone().await;
    for (more, exit_code) in [(&[] as &[&str], 0), (&["--set", "gang.run=echo $RANK sum ok; exit 3"][..], 3)] {
        let folder = tempfile::tempdir().expect("a temp folder");
        let file = example("allreduce.toml");
        let arguments: Vec<&str> = ["--run", file.as_str()].iter().chain(more).copied().collect();
        let mut dev = dev(folder.path(), &arguments);
        let status = dev.ended_within(Duration::from_secs(60));
        let text = said(folder.path());
        assert_eq!(status.and_then(|status| status.code()), Some(exit_code), "{text}");
        if exit_code == 0 {
            assert_eq!(text.matches(" sum ok").count(), 8, "{text}");
        }
        assert_eq!(ranks::all_of(folder.path()), [0_u32; 0], "nothing is left:\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_stops_cleanly_when_it_is_interrupted() {
    let _machine = alone().await;
    let folder = tempfile::tempdir().expect("a temp folder");
    let mut dev = dev(folder.path(), &[]);
    until("the words of a cluster that is ready", async || said(folder.path()).contains("MUSTER_CONFIG").then_some(()))
        .await;
    assert!(ranks::all_of(folder.path()).len() > 7, "three servers and four agents");
    dev.signal(Signal::SIGINT);
    let status = dev.ended_within(STOPS_WITHIN);
    assert_eq!(status.and_then(|status| status.code()), Some(0), "{}", said(folder.path()));
    assert_eq!(ranks::all_of(folder.path()), [0_u32; 0], "nothing is left");
}

/// One server and two agents, ready.
pub(super) async fn small(folder: &Path) -> Daemon {
    let dev = dev(folder, &["--servers", "1", "--agents", "2"]);
    until("the words of a cluster that is ready", async || said(folder).contains("MUSTER_CONFIG").then_some(())).await;
    dev
}

/// Shims outlive their agents by design, and here nobody is left to renew or to end their leases.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_dev_leaves_no_rank_behind() {
    let _machine = alone().await;
    let folder = tempfile::tempdir().expect("a temp folder");
    let mut dev = small(folder.path()).await;
    let config = folder.path().join("dev/client/config.toml");
    let run = std::process::Command::new(muster())
        .args(["submit", &example("allreduce.toml"), "--set", "gang.run=sleep 600"])
        .args(["--set", "gang.nodes=2"])
        .env("MUSTER_CONFIG", &config)
        .output()
        .expect("the program starts");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    until("ranks that run", async || (!ranks::live_ranks(folder.path()).is_empty()).then_some(())).await;
    dev.kill_9();
    until("the end of everything", async || ranks::all_of(folder.path()).is_empty().then_some(())).await;
}
