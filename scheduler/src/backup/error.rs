//! Why a backup cannot be written, read or restored.

use std::io;
use std::path::PathBuf;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum BackupError {
    #[error("{}: {cause}", path.display())]
    Io { path: PathBuf, cause: io::Error },
    #[error("{} is not a backup of a Muster cluster", path.display())]
    NotABackup { path: PathBuf },
    #[error("{} is a backup of version {found}; this program reads 1 to {known}", path.display())]
    Version { path: PathBuf, found: u16, known: u16 },
    #[error("{} ends after {bytes} bytes, in the middle: it was cut off", path.display())]
    Cut { path: PathBuf, bytes: u64 },
    #[error("{} is damaged near byte {at}: {why}", path.display())]
    Damaged { path: PathBuf, at: u64, why: String },
    #[error("{} is not empty", path.display())]
    NotEmpty { path: PathBuf },
    #[error("{0}")]
    Folder(String),
}

impl BackupError {
    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            BackupError::Io { .. } => "check the path, its rights and the room on the disk, then try again",
            BackupError::NotABackup { .. } => "give a file that `muster cluster backup` wrote",
            BackupError::Version { .. } => "use the version of muster that wrote it",
            BackupError::Cut { .. } | BackupError::Damaged { .. } => {
                "nothing was written; copy the file again from where it is kept, or use another backup"
            }
            BackupError::NotEmpty { .. } => {
                "nothing was written; name a folder that does not exist yet: a restore never replaces what is there"
            }
            BackupError::Folder(_) => "nothing was left behind; cure that, then try again",
        }
    }
}
