//! Folders of a cluster: the CA, one folder a server, one a node, one a user. `cluster init` and
//! `dev` make the same ones. Paths inside settings files are relative to the file, so that a folder
//! can be carried to its machine as it is.

use crate::error::CliError;
use muster_runtime::durable::{create_folder, write_atomic};
use muster_runtime::identity::{Authority, Identity, LEAF_VALID_MS, Name, Role, Sans};
use serde::Serialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Beside a settings file.
pub const IDENTITY: &str = "identity";
pub const SERVER_FILE: &str = "server.toml";
pub const AGENT_FILE: &str = "agent.toml";
pub const CLIENT_FILE: &str = "config.toml";

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Member {
    pub id: u64,
    pub name: String,
    /// `host:port`, as everybody reaches it.
    pub address: String,
}

/// `server.toml`, as the scheduler reads it.
#[derive(Debug, Serialize)]
struct ServerFile<'a> {
    id: u64,
    name: &'a str,
    cluster_id: &'a str,
    dir: PathBuf,
    identity: PathBuf,
    listen: SocketAddr,
    members: &'a [Member],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    join: bool,
}

/// `config.toml` of a user.
#[derive(Debug, Serialize)]
struct ClientFile<'a> {
    server: Vec<&'a str>,
    identity: &'a str,
}

pub struct Layout<'a> {
    pub authority: &'a Authority,
    pub members: &'a [Member],
    pub now_ms: u64,
}

impl Layout<'_> {
    /// The folder of one server: identity, CA (it signs the certificates of joining nodes) and
    /// `server.toml`. The file names `home` as the place of data and identity, which then have to be
    /// brought there; without it, the folder itself.
    pub fn server(
        &self,
        folder: &Path,
        member: &Member,
        listen: SocketAddr,
        home: Option<&Path>,
    ) -> Result<(), CliError> {
        self.any_server(folder, member, listen, home, false)
    }

    /// The same of a server that is to be added to a cluster that is there.
    pub fn joining(
        &self,
        folder: &Path,
        member: &Member,
        listen: SocketAddr,
        home: Option<&Path>,
    ) -> Result<(), CliError> {
        self.any_server(folder, member, listen, home, true)
    }

    fn any_server(
        &self,
        folder: &Path,
        member: &Member,
        listen: SocketAddr,
        home: Option<&Path>,
        join: bool,
    ) -> Result<(), CliError> {
        let identity = folder.join(IDENTITY);
        create_folder(&identity)?;
        let name = Name::new(self.authority.cluster(), Role::Server, &member.name)?;
        let sans = reached_at(&member.address);
        self.authority.issue(&name, &sans, self.now_ms, LEAF_VALID_MS)?.save(&identity)?;
        self.authority.save(&identity)?;
        let file = ServerFile {
            id: member.id,
            name: &member.name,
            cluster_id: self.authority.cluster(),
            dir: home.unwrap_or(Path::new("")).join("data"),
            identity: home.unwrap_or(Path::new("")).join(IDENTITY),
            listen,
            members: self.members,
            join,
        };
        write_toml(
            &folder.join(SERVER_FILE),
            "A server of a Muster cluster. Run: muster server --config server.toml",
            &file,
        )
    }

    /// The folder of somebody who calls: identity and `config.toml`.
    pub fn client(&self, folder: &Path, role: Role, name: &str) -> Result<(), CliError> {
        let identity = folder.join(IDENTITY);
        create_folder(&identity)?;
        self.issue(role, name)?.save(&identity)?;
        let servers = self.members.iter().map(|member| member.address.as_str()).collect();
        let file = ClientFile { server: servers, identity: IDENTITY };
        write_toml(
            &folder.join(CLIENT_FILE),
            "How to reach a Muster cluster. Use: export MUSTER_CONFIG=<this file>",
            &file,
        )
    }

    pub fn issue(&self, role: Role, name: &str) -> Result<Identity, CliError> {
        let name = Name::new(self.authority.cluster(), role, name)?;
        Ok(self.authority.issue(&name, &Sans::default(), self.now_ms, LEAF_VALID_MS)?)
    }
}

/// The host of `host:port` in a server's certificate, for browsers and `curl`, which compare it. Our own clients compare
/// the server's name.
fn reached_at(address: &str) -> Sans {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    match host.parse() {
        Ok(ip) => Sans { ip: vec![ip], dns: Vec::new() },
        Err(_) => Sans { ip: Vec::new(), dns: vec![host.to_owned()] },
    }
}

pub fn write_toml(path: &Path, about: &str, value: &impl Serialize) -> Result<(), CliError> {
    let text = toml::to_string_pretty(value).expect("settings have string keys and no null");
    Ok(write_atomic(path, format!("# {about}\n{text}").as_bytes())?)
}

/// A path from a settings file, which may be relative to it.
pub fn beside(file: &Path, path: &Path) -> Result<PathBuf, CliError> {
    let folder = file.parent().unwrap_or(Path::new(""));
    Ok(std::path::absolute(folder.join(path))?)
}
