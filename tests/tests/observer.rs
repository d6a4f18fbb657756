//! The observer is an instrument: it must see what it is to prove absent.

use muster_tests::cluster::observer::{Observer, Sightings};
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

/// A process that looks like a rank.
fn pretend(folder: &Path, attempt: u32) -> Child {
    let mut command = Command::new("sleep");
    command.arg("60").env_clear();
    command.env("MUSTER_OUTPUT_DIR", folder).env("MUSTER_SHIM", "n0@0123/1_0@1").env("MUSTER_JOB_ID", "1");
    command.env("MUSTER_ATTEMPT", attempt.to_string()).env("RANK", "0").env("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b");
    command.spawn().expect("sleep is there")
}

fn end(mut child: Child) {
    child.kill().expect("it is our child");
    child.wait().expect("it is our child");
}

/// Gives the observer some looks.
fn pause() {
    std::thread::sleep(Duration::from_millis(300));
}

fn observed(act: impl FnOnce(&Path)) -> Sightings {
    let folder = tempfile::tempdir().expect("a temp folder");
    let observer = Observer::start(env!("CARGO_BIN_EXE_muster-observer"), folder.path());
    act(folder.path());
    pause();
    observer.finish()
}

fn panics(check: impl FnOnce()) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).is_err()
}

#[test]
fn attempts_one_after_the_other_are_seen_apart() {
    let seen = observed(|folder| {
        for attempt in [1, 2] {
            let rank = pretend(folder, attempt);
            pause();
            end(rank);
            pause();
        }
        let other = tempfile::tempdir().expect("a temp folder");
        let foreign = pretend(other.path(), 3);
        pause();
        end(foreign);
    });
    assert_eq!(seen.all.len(), 2, "a process of another folder is none of ours");
    assert_eq!((seen.all[0].node.as_str(), seen.all[0].devices.len()), ("n0", 2));
    seen.assert_attempts_apart(1, 1);
    seen.assert_devices_never_shared();
}

#[test]
fn attempts_that_overlap_are_caught() {
    let seen = observed(|folder| {
        let first = pretend(folder, 1);
        pause();
        let second = pretend(folder, 2);
        pause();
        end(first);
        end(second);
    });
    assert!(panics(|| seen.assert_attempts_apart(1, 1)));
    assert!(panics(|| seen.assert_devices_never_shared()));
}

#[test]
fn a_process_that_becomes_a_rank_late_is_seen() {
    let seen = observed(|folder| {
        let script = format!(
            "sleep 1; exec env MUSTER_OUTPUT_DIR={} MUSTER_JOB_ID=1 MUSTER_ATTEMPT=1 RANK=0 sleep 60",
            folder.display()
        );
        let late = Command::new("sh")
            .args(["-c", &script])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .spawn()
            .expect("sh is there");
        std::thread::sleep(Duration::from_millis(1_600));
        end(late);
    });
    assert_eq!(seen.of(1, 1).count(), 1);
}
