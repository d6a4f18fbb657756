//! Launch parts by content hash: fetched from a server once, kept in a folder, never believed unread.

use muster_common::job::{Hash, Launch};
use muster_proto::agent::FetchLaunchRequest;
use muster_proto::agent::agents_client::AgentsClient;
use muster_runtime::durable::{self, DurableError};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;
use tonic::transport::Channel;

/// The first byte of a launch part.
const VERSION: u8 = 1;
/// A job file is at most 256 KiB; its launch part cannot be much larger.
const BYTES_MAX: u64 = 4 * 1024 * 1024;
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no launch part.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error("no server can be asked for launch part {hash} now")]
    NoServer { hash: Hash },
    #[error("a server did not give launch part {hash}: {why}")]
    Refused { hash: Hash, why: String },
    #[error("launch part {hash} is not what its name says; the content has hash {have}")]
    Tampered { hash: Hash, have: Hash },
    #[error("launch part {hash} cannot be read by this version of the agent: {why}")]
    Format { hash: Hash, why: String },
    #[error(transparent)]
    Durable(#[from] DurableError),
}

impl LaunchError {
    /// Whether asking again may help.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::NoServer { .. } | Self::Refused { .. } | Self::Tampered { .. })
    }
}

/// Where launch parts come from. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Launches {
    folder: PathBuf,
    /// The connection to the leader, while there is one.
    server: watch::Receiver<Option<AgentsClient<Channel>>>,
}

impl Launches {
    /// `folder` keeps what was fetched.
    pub fn new(folder: PathBuf, server: watch::Receiver<Option<AgentsClient<Channel>>>) -> Self {
        Self { folder, server }
    }

    /// The launch part named `hash`, from the folder or from a server.
    pub async fn get(&self, hash: Hash) -> Result<Launch, LaunchError> {
        let path = self.folder.join(hash.to_string());
        match durable::read_limited(&path, BYTES_MAX) {
            Ok(bytes) => match decode(hash, &bytes) {
                // A damaged copy is fetched again.
                Err(LaunchError::Tampered { .. }) => {}
                decoded => return decoded,
            },
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(error.into()),
        }
        let bytes = self.fetch(hash).await?;
        let launch = decode(hash, &bytes)?;
        keep(&self.folder, &path, &bytes)?;
        Ok(launch)
    }

    async fn fetch(&self, hash: Hash) -> Result<Vec<u8>, LaunchError> {
        let client = self.server.borrow().clone();
        let mut client = client.ok_or(LaunchError::NoServer { hash })?;
        let mut request = tonic::Request::new(FetchLaunchRequest { hash: hash.0.to_vec().into() });
        request.set_timeout(FETCH_TIMEOUT);
        let refused = |status: tonic::Status| LaunchError::Refused { hash, why: status.message().to_owned() };
        let answer = tokio::time::timeout(FETCH_TIMEOUT, client.fetch_launch(request)).await;
        let late = |_| LaunchError::Refused { hash, why: "no answer in time".to_owned() };
        Ok(answer.map_err(late)?.map_err(refused)?.into_inner().launch.to_vec())
    }
}

/// Not synced: a copy that a power cut damaged is fetched again.
fn keep(folder: &Path, path: &Path, bytes: &[u8]) -> Result<(), DurableError> {
    durable::make_folder(folder)?;
    durable::write_for_boot(path, bytes)
}

pub(crate) fn decode(hash: Hash, bytes: &[u8]) -> Result<Launch, LaunchError> {
    let have = Hash(Sha256::digest(bytes).into());
    if have != hash {
        return Err(LaunchError::Tampered { hash, have });
    }
    let format = |why: String| LaunchError::Format { hash, why };
    match bytes.split_first() {
        Some((&VERSION, body)) => postcard::from_bytes(body).map_err(|error| format(error.to_string())),
        Some((version, _)) => Err(format(format!("it is of version {version}"))),
        None => Err(format("it is empty".to_owned())),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use muster_common::Name;
    use muster_common::job::{LogLimits, Run};
    use std::collections::BTreeMap;

    /// A script's launch part, put where [`Launches`] of `folder` finds it.
    pub fn put(folder: &Path, script: &str, workdir: Option<&str>) -> Hash {
        let launch = Launch {
            name: Name::literal("test"),
            run: Run::Script(script.to_owned()),
            env: BTreeMap::new(),
            groups: Vec::new(),
            workdir: workdir.map(str::to_owned),
            logs: LogLimits::default(),
            elements: Vec::new(),
        };
        let mut bytes = vec![VERSION];
        bytes.extend(postcard::to_stdvec(&launch).expect("plain data"));
        let hash = Hash(Sha256::digest(&bytes).into());
        keep(folder, &folder.join(hash.to_string()), &bytes).expect("written");
        hash
    }

    #[tokio::test]
    async fn a_kept_part_is_used_and_a_damaged_one_is_not() {
        let folder = tempfile::tempdir().expect("a temp folder");
        let hash = put(folder.path(), "true", None);
        let launches = Launches::new(folder.path().to_owned(), watch::channel(None).1);
        assert_eq!(launches.get(hash).await.expect("kept").run, Run::Script("true".to_owned()));
        std::fs::write(folder.path().join(hash.to_string()), b"other").expect("damaged");
        assert!(matches!(launches.get(hash).await, Err(LaunchError::NoServer { .. })), "it asks a server instead");
        assert!(matches!(decode(hash, b"\x02"), Err(LaunchError::Tampered { .. })));
    }
}
