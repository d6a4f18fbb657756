//! Each tutorial does what it says: its commands are run in order, and its outputs compared.

use muster_tests::binary::muster;
use muster_tests::cluster::{alone, free_addresses};
use muster_tests::terminal::Desk;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a package lies in the workspace").to_owned()
}

/// A new home, in which the reader has nothing but Rust.
fn env(home: &Path) -> Vec<(String, String)> {
    let path = std::env::var("PATH").expect("there is a PATH");
    let real_home = std::env::var("HOME").unwrap_or_default();
    let rust = |name: &str, folder: &str| {
        (name.to_owned(), std::env::var(name).unwrap_or_else(|_| format!("{real_home}/{folder}")))
    };
    let plain = [
        ("HOME".to_owned(), home.display().to_string()),
        ("PATH".to_owned(), path),
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
        rust("CARGO_HOME", ".cargo"),
        rust("RUSTUP_HOME", ".rustup"),
    ];
    plain.into()
}

/// A tutorial builds for speed, and all there is; here the program under test, built before, stands in its place.
fn words() -> Vec<(String, String)> {
    let built = muster();
    let profile = built.parent().expect("a program lies in a folder").display();
    vec![
        ("cargo build --release".to_owned(), format!("ls {}", built.display())),
        ("$PWD/target/release".to_owned(), profile.to_string()),
    ]
}

async fn follow(page: &str, works_in: &str, more_words: Vec<(String, String)>) {
    let _machine = alone().await;
    let kept = tempfile::tempdir().expect("a temp folder");
    let home = kept.path().canonicalize().expect("the folder is there");
    let words = [words(), more_words].concat();
    let saves_in = home.join(works_in);
    let followed = tokio::task::spawn_blocking({
        let page = root().join(page);
        move || Desk::new(&home, &root(), &saves_in).with_env(env(&home)).with_words(words).follow(&page)
    });
    followed.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_gang_job_runs_as_written() {
    follow("docs/tutorials/first-gang-job.md", "first", Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_run_as_written() {
    let said = ["10.0.0.1:7070", "10.0.0.2:7070", "10.0.0.3:7070"].map(str::to_owned);
    let words = said.into_iter().zip(free_addresses(3)).collect();
    follow("docs/tutorials/three-servers.md", "muster", words).await;
}
