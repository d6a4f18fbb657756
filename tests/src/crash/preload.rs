//! The recorder's library, built when it is missing or older than its sources.

use crate::binary::build;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Path of `libcrash_recorder.so`.
pub fn library() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build(&["--package", "muster-crash-recorder"]).join("libcrash_recorder.so"))
}

/// Has a program's writes below `folder` recorded.
pub fn recorded(command: &mut Command, folder: &Path, record: &Path) {
    command.env("LD_PRELOAD", library()).env("MUSTER_CRASH_DIR", folder).env("MUSTER_CRASH_RECORD", record);
}
