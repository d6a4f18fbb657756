//! The shim as a program of its own. An agent starts one for each allocation, and `muster`, which holds the servers and the
//! simulator too, takes several times as long to start.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args_os().skip_while(|argument| argument != "--dir").nth(1) {
        Some(dir) => muster_agent::shim_main(&PathBuf::from(dir)),
        None => {
            eprintln!("usage: muster-shim --dir <allocation folder>; it is started by the agent");
            ExitCode::from(2)
        }
    }
}
