//! `muster agent join`: a one-time token and a fresh key for a certificate.

use crate::context::Context;
use crate::error::CliError;
use crate::layout::{AGENT_FILE, IDENTITY, write_toml};
use clap::Args;
use muster_proto::agent::JoinRequest;
use muster_proto::agent::agents_client::AgentsClient;
use muster_proto::convert::error::ErrorCode;
use muster_proto::join_token::JoinToken;
use muster_runtime::durable::create_folder;
use muster_runtime::identity::{
    Expect, Fingerprint, Identity, KeyRequest, check_word, connect_pinned, explain_transport,
};
use serde::Serialize;
use serde_json::{Value, json};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tonic::{Code, Status};

const TRY_FOR: Duration = Duration::from_secs(30);
const ATTEMPT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(300);
const TOKEN_BYTES_MAX: u64 = 32 * 1024;
/// Where a server that does not lead says who does.
const LEADER_KEY: &str = "muster-leader";
/// Of all agents of a machine; a reboot empties it.
const RUNTIME_DIR: &str = "/run/muster/agent";

#[derive(Debug, Args)]
pub struct JoinArgs {
    /// From `muster node token`; `-` reads standard input, which keeps it out of the process list
    #[arg(long)]
    pub token: String,
    /// Folder for the identity, the settings and the agent's state
    #[arg(long, default_value = "/var/lib/muster")]
    pub dir: PathBuf,
    /// Folder for agent.toml, if not in --dir, such as /etc/muster
    #[arg(long, value_name = "DIR")]
    pub settings: Option<PathBuf>,
    /// This node's name; its host name unless given
    #[arg(long)]
    pub name: Option<String>,
    /// GPUs: auto, none, nvml:PATH or simulated:FIXTURE
    #[arg(long, default_value = "auto")]
    pub devices: String,
}

/// `agent.toml`, as far as joining knows it.
#[derive(Debug, Serialize)]
struct AgentFile<'a> {
    servers: &'a [String],
    name: &'a str,
    state_dir: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime_dir: Option<PathBuf>,
    identity_dir: PathBuf,
    devices: &'a str,
}

pub async fn run(context: &Context, args: JoinArgs) -> Result<u8, CliError> {
    let token = JoinToken::decode(&read_token(&args.token)?)?;
    let name = match args.name {
        Some(name) => name,
        None => nix::unistd::gethostname()
            .map_err(std::io::Error::from)?
            .to_string_lossy()
            .split('.')
            .next()
            .unwrap_or_default()
            .to_owned(),
    };
    check_word("node name", &name)?;
    super::check_devices(&args.devices)?;
    let dir = std::path::absolute(&args.dir)?;
    let identity_dir = dir.join(IDENTITY);
    if identity_dir.join("identity.crt").exists() {
        return Err(CliError::new(
            ErrorCode::Conflict,
            format!("{} holds an identity already", identity_dir.display()),
        )
        .hint("to join anew, move it away first"));
    }
    let settings = args.settings.as_deref().map(std::path::absolute).transpose()?;
    let file_path = settings.as_ref().unwrap_or(&dir).join(AGENT_FILE);
    if settings.is_some() && file_path.exists() {
        return Err(CliError::new(ErrorCode::Conflict, format!("{} exists already", file_path.display()))
            .hint("to join anew, move it away first"));
    }
    // Before the token is spent: a folder that cannot be written must not cost it.
    create_folder(&identity_dir)?;
    create_folder(file_path.parent().unwrap_or(&dir))?;
    let (identity, servers) = trade(&token, &name, context.now_ms()).await?;
    identity.save(&identity_dir)?;
    // Beside their file they need no place of their own in it, and the folder can be moved.
    let home = if settings.is_some() { dir } else { PathBuf::new() };
    // For the whole machine, as the service is: what lives no longer than a boot is no work for a disk.
    let for_machine = settings.is_some() && nix::unistd::geteuid().is_root();
    let file = AgentFile {
        servers: &servers,
        name: &name,
        state_dir: home.join("state"),
        runtime_dir: for_machine.then(|| Path::new(RUNTIME_DIR).join(&name)),
        identity_dir: home.join(IDENTITY),
        devices: &args.devices,
    };
    let about = "The agent of a node. Run: muster agent --config agent.toml";
    write_toml(&file_path, about, &file)?;
    context.printer.answer(|| document(&file_path, &identity), || render(&file_path, &identity))?;
    Ok(0)
}

fn read_token(text: &str) -> Result<String, CliError> {
    if text != "-" {
        return Ok(text.to_owned());
    }
    let mut token = String::new();
    std::io::stdin().lock().take(TOKEN_BYTES_MAX).read_to_string(&mut token)?;
    Ok(token)
}

/// Asks the servers in turn until the leader has signed.
async fn trade(token: &JoinToken, name: &str, now_ms: u64) -> Result<(Identity, Vec<String>), CliError> {
    let fingerprint: Fingerprint = token.ca_fingerprint.parse()?;
    let key = KeyRequest::new()?;
    let request =
        JoinRequest { token: token.secret.clone(), node_name: name.to_owned(), csr_pem: key.csr_pem().to_owned() };
    let mut servers = token.servers.clone();
    let (started, mut at) = (Instant::now(), 0);
    let reply = loop {
        let address = servers[at % servers.len()].clone();
        let expect = Expect::server().of_cluster(token.cluster_id.clone());
        let mut agents = AgentsClient::new(connect_pinned(&address, fingerprint, expect)?);
        let status = match tokio::time::timeout(ATTEMPT, agents.join(request.clone())).await {
            Ok(Ok(reply)) => break reply.into_inner(),
            Ok(Err(status)) => status,
            Err(_) => Status::unavailable(format!("{address} did not answer")),
        };
        if !matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
            || started.elapsed() > TRY_FOR
        {
            return Err(refused(&address, &status));
        }
        let leader = status.metadata().get(LEADER_KEY).and_then(|leader| leader.to_str().ok()).map(str::to_owned);
        at = match leader.filter(|leader| !leader.is_empty()) {
            Some(leader) => servers.iter().position(|known| *known == leader).unwrap_or_else(|| {
                servers.push(leader);
                servers.len() - 1
            }),
            None => at + 1,
        };
        tokio::time::sleep(PAUSE).await;
    };
    let identity = key.finish(&reply.certificate_pem, &reply.ca_pem, now_ms)?;
    if !identity.believes(fingerprint) {
        return Err(CliError::new(ErrorCode::ServerNotTrusted, "the server gave other CAs than the token names"));
    }
    let servers = if reply.servers.is_empty() { token.servers.clone() } else { reply.servers };
    Ok((identity, servers))
}

fn refused(address: &str, status: &Status) -> CliError {
    if let Some(info) = muster_proto::convert::error::decode(status) {
        return info.into();
    }
    let why = explain_transport(status).unwrap_or_else(|| status.message().to_owned());
    let code = match status.code() {
        Code::PermissionDenied => ErrorCode::TokenRefused,
        Code::InvalidArgument => ErrorCode::Usage,
        _ if why.contains("is refused") => ErrorCode::ServerNotTrusted,
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => ErrorCode::Unavailable,
        _ => ErrorCode::Internal,
    };
    let error = CliError::new(code, format!("{address}: {why}"));
    if code == ErrorCode::TokenRefused {
        error.hint("a token is good once, and not for long; make another with: muster node token")
    } else {
        error
    }
}

pub fn render(file: &Path, identity: &Identity) -> String {
    format!("Joined as {}\nRun: muster agent --config {}\n", identity.name(), file.display())
}

pub fn document(file: &Path, identity: &Identity) -> Value {
    json!({
        "schema": "muster.joined/1", "name": identity.name().name, "cluster": identity.name().cluster,
        "identity": identity.name().uri(), "config": file,
    })
}
