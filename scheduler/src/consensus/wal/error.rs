//! Why a log could not be opened.

use std::io;
use std::path::PathBuf;

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the log in {} is in use by another process; stop that server first", dir.display())]
    InUse {
        /// The folder of the log.
        dir: PathBuf,
    },
    /// Bytes that were once durable cannot be read back.
    #[error(
        "the log in {} is damaged: {what}; nothing was changed. This server's promises are lost with it: \
         remove it from the cluster and add it again under a new id, with an empty folder", dir.display()
    )]
    Damaged {
        /// The folder of the log.
        dir: PathBuf,
        /// Which file, and what is wrong with it.
        what: String,
    },
    /// A later build of muster wrote it in a format that this one does not know.
    #[error(
        "the log in {} is of a newer format: {what}; run the version of muster that wrote it; nothing was changed", dir.display()
    )]
    Newer {
        /// The folder of the log.
        dir: PathBuf,
        /// Which file, and what in it is newer.
        what: String,
    },
    /// The folder itself cannot be used.
    #[error("the log in {} cannot be opened: {cause}", dir.display())]
    Io {
        /// The folder of the log.
        dir: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}
