//! From an accepted allocation to a shim at its work: the launch part, the folders, the environment.

use super::{Runner, Witness};
use crate::assignment::{Key, RunPart};
use crate::env::{Surroundings, common_env, rank_env};
use crate::launches::Launches;
use crate::paths::Paths;
use crate::shim::machine::Failure;
use crate::shim::wire::{RankSpec, Spec, VERSION};
use muster_common::job::{Launch, Run};
use muster_runtime::{aside, durable};
use std::path::PathBuf;

/// First and longest wait before a launch part is asked for again.
const ASK_AGAIN_MS: u64 = 100;
const ASK_AGAIN_MAX_MS: u64 = 2_000;

/// What all runners of an agent share.
#[derive(Debug, Clone)]
pub struct Workplace {
    pub paths: Paths,
    pub launches: Launches,
    pub boot_id: String,
    pub pid_namespace: bool,
    pub around: Surroundings,
}

impl Workplace {
    pub fn allocation(&self, key: &Key) -> PathBuf {
        self.paths.allocation(key)
    }

    pub fn mark(&self, key: &Key) -> String {
        self.paths.mark(key)
    }

    /// All a shim needs to know.
    pub fn spec(&self, key: Key, run: &RunPart, launch: &Launch, deadline_ms: u64) -> Spec {
        let output = self.paths.output(&key);
        let argv = match launch.run_of(run.group()) {
            Run::Script(script) => vec!["/bin/sh".to_owned(), "-c".to_owned(), script.clone()],
            Run::Argv(argv) => argv.clone(),
        };
        let ranks = (0..run.ranks).map(|local| RankSpec { rank: run.rank_base + local, env: rank_env(run, local) });
        Spec {
            version: VERSION,
            marker: self.mark(&key),
            boot_id: self.boot_id.clone(),
            deadline_ms,
            log_dir: self.paths.logs(&key),
            logs: launch.logs,
            make_workdir: launch.workdir.is_none(),
            workdir: launch.workdir.as_ref().map_or_else(|| output.clone(), PathBuf::from),
            argv,
            env: common_env(key, run, launch, &output, &self.around),
            ranks: ranks.collect(),
            pid_namespace: self.pid_namespace,
        }
    }
}

impl<W: Witness> Runner<W> {
    /// Starts a shim that will stop at the barrier. `Err(None)` = told to stop first.
    pub(super) async fn prepare(&mut self, deadline_ms: u64) -> Result<(), Option<Failure>> {
        let launch = self.launch_part(deadline_ms).await?;
        let infra = |why: String| Some(Failure { infra: true, why });
        let output = self.workplace.paths.output(&self.key);
        let made = tokio::select! {
            made = make_output(output) => made,
            told = async { self.orders.wait_for(|orders| orders.stop.is_some()).await.is_ok() } => {
                if told {
                    return Err(None);
                }
                // The agent is ending; ranks are not.
                return std::future::pending().await;
            }
        };
        made.map_err(infra)?;
        // It may have been extended meanwhile.
        let deadline_ms = deadline_ms.max(self.orders.borrow().deadline_ms);
        let spec = self.workplace.spec(self.key, &self.run, &launch, deadline_ms);
        let started = self.launcher.start(&self.dir(), &spec).await;
        started.map_err(|error| infra(error.to_string()))
    }

    async fn launch_part(&mut self, deadline_ms: u64) -> Result<Launch, Option<Failure>> {
        let mut wait_ms = ASK_AGAIN_MS;
        loop {
            if self.orders.borrow().stop.is_some() {
                return Err(None);
            }
            let error = match self.workplace.launches.get(self.run.launch).await {
                Ok(launch) => return Ok(launch),
                Err(error) => error,
            };
            let late = self.clock.boottime_ms() >= self.orders.borrow().deadline_ms.max(deadline_ms);
            if !error.is_passing() || late {
                return Err(Some(Failure { infra: true, why: error.to_string() }));
            }
            tracing::info!(allocation = %self.key, %error, "asking for the launch part again");
            tokio::select! {
                () = self.clock.sleep_ms(wait_ms) => {}
                changed = self.orders.changed() => if changed.is_err() {
                    return std::future::pending().await;
                },
            }
            wait_ms = (wait_ms * 2).min(ASK_AGAIN_MAX_MS);
        }
    }
}

/// Beside the tasks: a file server that does not answer must not hold up leases. Not synced: nothing is in it yet, and a
/// file that a rank syncs takes its new parents to the disk with it.
async fn make_output(folder: PathBuf) -> Result<(), String> {
    let made = aside::run(move || durable::make_folder(&folder)).await;
    made.map_err(|error| format!("the output folder was not made: {error}"))?.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_go_on_while_the_file_system_of_the_output_folder_does_not_answer() {
        let folder = tempfile::tempdir().expect("a temp folder");
        let output = folder.path().join("attempt/output");
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build();
        runtime.expect("a runtime").block_on(async {
            // The one thread for work that blocks hangs, as in a call that is not answered.
            let (answer, question) = std::sync::mpsc::sync_channel::<()>(1);
            let hanging = tokio::task::spawn_blocking(move || question.recv());
            let mut making = Box::pin(make_output(output.clone()));
            tokio::select! {
                biased;
                made = &mut making => panic!("a task did the work itself: {made:?}"),
                () = std::future::ready(()) => assert!(!output.exists()),
            }
            answer.send(()).expect("it waits");
            hanging.await.expect("no panic").expect("an answer");
            making.await.expect("made");
            assert!(output.is_dir());
        });
    }
}
