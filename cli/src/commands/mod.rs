//! One file a command. Each turns its arguments into calls, and the answers into text or a document
//! with pure functions.

pub mod agent;
pub mod apply;
pub mod bench;
pub mod cancel;
pub mod cluster;
pub mod completion;
pub mod dev;
pub mod edit;
pub mod events;
pub mod follow;
pub mod hold;
pub mod logs;
pub mod man;
pub mod node;
pub mod plan;
pub mod policy;
pub mod ps;
pub mod queue;
pub mod rank;
pub mod reservation;
pub mod retry;
pub mod run;
pub mod server;
pub mod several;
pub mod shim;
pub mod show;
pub mod sim;
pub mod submit;
pub mod version;
pub mod wait;
pub mod why;

#[cfg(test)]
mod schemas;
#[cfg(test)]
mod snapshots;

use crate::args::Command;
use crate::context::Context;
use crate::error::CliError;
use std::future::Future;
use std::time::Duration;

pub fn dispatch(context: &Context, command: Command) -> Result<u8, CliError> {
    match command {
        Command::Submit(args) => client(submit::run(context, args)),
        Command::Plan(args) => client(plan::run(context, args)),
        Command::Run(args) => client(run::run(context, args)),
        Command::Ps(args) => client(ps::run(context, args)),
        Command::Show(args) => client(show::run(context, args)),
        Command::Why(args) => client(why::run(context, args)),
        Command::Logs(args) => client(logs::run(context, args)),
        Command::Cancel(args) => client(cancel::run(context, args)),
        Command::Wait(args) => client(wait::run(context, args)),
        Command::Retry(args) => client(retry::run(context, args)),
        Command::Edit(args) => client(edit::run(context, args)),
        Command::Hold(args) => client(hold::run(context, args, true)),
        Command::Release(args) => client(hold::run(context, args, false)),
        Command::Queue(command) => client(queue::run(context, command)),
        Command::Node(command) => client(node::run(context, command)),
        Command::Reservation(command) => client(reservation::run(context, command)),
        Command::Apply(args) => client(apply::run(context, args)),
        Command::Events(args) => client(events::run(context, args)),
        Command::Policy(command) => client(policy::run(context, command)),
        Command::Cluster(command) => client(cluster::run(context, command)),
        Command::Version(args) => client(version::run(context, args)),
        Command::Dev(args) => client(dev::run(context, args)),
        Command::Server(args) => daemon(server::run(context, args)),
        Command::Agent(args) => daemon(agent::run(context, args)),
        Command::Sim(command) => sim::run(context, command),
        Command::Bench(command) => client(tokio::task::LocalSet::new().run_until(bench::run(context, command))),
        Command::Completion(args) => completion::run(context, &args),
        Command::Man(args) => man::run(context, &args),
        Command::DevReaper(args) => dev::reaper::run(&args),
        Command::Rank(command) => rank::run(context, command),
        // `main` has taken this one already.
        Command::Shim(_) => Ok(0),
    }
}

/// One thread is enough for somebody who waits for answers.
fn client(work: impl Future<Output = Result<u8, CliError>>) -> Result<u8, CliError> {
    to_its_end(tokio::runtime::Builder::new_current_thread().enable_all().build()?, work)
}

fn daemon(work: impl Future<Output = Result<u8, CliError>>) -> Result<u8, CliError> {
    share_heaps();
    to_its_end(tokio::runtime::Builder::new_multi_thread().enable_all().build()?, work)
}

/// How long calls to the system that still go on are waited for at the end.
const CALLS_END: Duration = Duration::from_secs(2);

/// A call that hangs, as one of a GPU's driver may, would otherwise keep a process that failed: nobody would hear why, and
/// who restarts it would wait for ever.
fn to_its_end<T>(runtime: tokio::runtime::Runtime, work: impl Future<Output = T>) -> T {
    let ended = runtime.block_on(work);
    runtime.shutdown_timeout(CALLS_END);
    ended
}

/// glibc gives up to eight heaps to each core, and what one thread made and another drops leaves holes in all of them:
/// a server of two cores held twice the memory that it used.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn share_heaps() {
    const HEAPS: i32 = 4;
    // SAFETY: sets a number of the allocator, while there is one thread. A refusal costs only memory.
    unsafe { nix::libc::mallopt(nix::libc::M_ARENA_MAX, HEAPS) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn share_heaps() {}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_proto::convert::error::ErrorCode;
    use std::sync::mpsc;
    use std::time::Instant;

    #[test]
    fn what_failed_ends_though_a_call_to_the_system_hangs() {
        let (end, ended) = mpsc::sync_channel::<()>(1);
        let started = Instant::now();
        let failed = daemon(async {
            drop(tokio::task::spawn_blocking(move || ended.recv_timeout(Duration::from_secs(60))));
            Err(CliError::new(ErrorCode::Internal, "it fails"))
        });
        assert!(failed.is_err() && started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
        drop(end);
    }
}
