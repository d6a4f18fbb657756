//! A shim alone, for the tests of this package: `muster shim` does the same in the real binary.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args_os().skip_while(|argument| argument != "--dir").nth(1) {
        Some(dir) => muster_agent::shim_main(&PathBuf::from(dir)),
        None => {
            eprintln!("usage: muster-shim --dir <allocation folder>");
            ExitCode::from(2)
        }
    }
}
