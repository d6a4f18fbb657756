//! A process that outlives `muster dev` by a moment, however that ends: shims outlive their agent by
//! design, and nobody else would end them before their lease does.

use super::leftovers;
use crate::error::CliError;
use clap::Args;
use muster_proto::convert::error::ErrorCode;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

/// What `dev` writes when it has ended everything itself.
const DISMISSED: u8 = b'd';
/// Agents are given so long to end by themselves, so that no new shim is started meanwhile.
const DAEMONS_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub struct ReaperArgs {
    /// Folder of the development cluster
    #[arg(long)]
    pub dir: PathBuf,
}

/// The reaper, as `dev` holds it: its standard input is open as long as `dev` lives.
#[derive(Debug)]
pub struct Reaper(Child);

impl Reaper {
    pub fn start(dir: &Path) -> Result<Self, CliError> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("dev-reaper").arg("--dir").arg(dir);
        // A group of its own: what is sent to the terminal's or to dev's is not for it.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let child = command.spawn().map_err(|error| {
            CliError::new(ErrorCode::Internal, format!("cannot start the reaper of the development cluster: {error}"))
        })?;
        Ok(Self(child))
    }

    /// Everything has ended in order.
    pub async fn dismiss(mut self) {
        if let Some(mut stdin) = self.0.stdin.take() {
            let _ = stdin.write_all(&[DISMISSED]).await;
        }
        let _ = self.0.wait().await;
    }
}

/// Waits for the end of `dev`.
pub fn run(args: &ReaperArgs) -> Result<u8, CliError> {
    let mut word = [0];
    let dismissed = std::io::stdin().lock().read(&mut word).is_ok_and(|read| read == 1 && word[0] == DISMISSED);
    if dismissed {
        return Ok(0);
    }
    let deadline = Instant::now() + DAEMONS_WITHIN;
    while leftovers::has_daemons(&args.dir) && Instant::now() < deadline {
        std::thread::sleep(LOOK_EVERY);
    }
    leftovers::end_all(&args.dir);
    Ok(0)
}
