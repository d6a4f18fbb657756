//! Every file of `examples/` is what it says it is.

use muster_tests::cluster::{Options, TestCluster};
use std::path::{Path, PathBuf};

/// Refused, and says so itself.
const NEVER_FITS: &str = "wont-fit.toml";
const EXIT_USAGE: i32 = 2;
const EXIT_REFUSED: i32 = 6;

fn toml_files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(folder);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.expect("it can be read").path().canonicalize().expect("it is there"));
    let mut files: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    files.sort();
    assert!(files.len() > 2, "{}", folder.display());
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_example_job_would_run_on_a_small_cluster_but_the_one_that_says_it_would_not() {
    let cluster = TestCluster::start(1, 4, Options::default()).await;
    for file in toml_files("") {
        let output = cluster.user.run(&["submit", "--dry-run", file.to_str().expect("a plain path")]).await;
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        if file.ends_with(NEVER_FITS) {
            assert_eq!(output.status.code(), Some(EXIT_REFUSED), "{}: {said}", file.display());
        } else {
            assert_eq!(output.status.code(), Some(0), "{}: {said}", file.display());
            assert!(said.contains("It would start now."), "{}: {said}", file.display());
        }
    }
    for file in toml_files("policies") {
        // This server has no hook that switches machines.
        let needs_hook = std::fs::read_to_string(&file).expect("it can be read").contains("[elastic.");
        let file = file.to_str().expect("a plain path");
        let output = cluster.admin.run(&["cluster", "set", "policy", file]).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(if needs_hook { EXIT_USAGE } else { 0 }), "{file}: {said}");
        assert_eq!(said.contains("no hook that switches machines"), needs_hook, "{file}: {said}");
    }
}
