//! The recorder's library, built when it is missing or older than its sources.

use crate::binary::build;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

const FAIL_SYNC: &str = "MUSTER_CRASH_FAIL_SYNC";

/// Path of `libcrash_recorder.so`.
pub fn library() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build(&["--package", "muster-crash-recorder"]).join("libcrash_recorder.so"))
}

/// The environment that has a program's writes below `folder` recorded.
pub fn recorded(folder: &Path, record: &Path) -> Vec<(String, OsString)> {
    let variable = |name: &str, value: &Path| (name.to_owned(), value.as_os_str().to_owned());
    vec![
        variable("LD_PRELOAD", library()),
        variable("MUSTER_CRASH_DIR", folder),
        variable("MUSTER_CRASH_RECORD", record),
    ]
}

/// What is added to [`recorded`] so that the next sync fails once while `wish` is there.
pub fn failing_once(wish: &Path) -> (String, OsString) {
    (FAIL_SYNC.to_owned(), wish.as_os_str().to_owned())
}

/// Wishes that the next sync of this process fails, if it was started with [`failing_once`]; does nothing elsewhere.
pub fn fail_next_sync() -> io::Result<()> {
    std::env::var_os(FAIL_SYNC).map_or(Ok(()), |wish| std::fs::write(wish, ""))
}
