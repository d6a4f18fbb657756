//! What a test gives the simulator to read.

use std::path::{Path, PathBuf};

/// Writes files into a folder: of each a name and a text, and back comes where it is.
pub fn files_in(folder: &Path) -> impl Fn(&str, &str) -> PathBuf {
    move |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}
