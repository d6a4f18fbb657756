//! `muster cluster init`: what a new cluster needs before its first server starts.

use crate::context::Context;
use crate::error::CliError;
use crate::layout::{Layout, Member};
use clap::Args;
use muster_proto::convert::error::ErrorCode;
use muster_runtime::durable::create_folder;
use muster_runtime::identity::{Authority, Role, check_word};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub struct InitArgs {
    /// Folder to make; it must not exist or be empty
    pub dir: PathBuf,
    /// Name of the cluster, part of every certificate
    #[arg(long, default_value = "muster")]
    pub cluster: String,
    /// A server, as NAME=HOST:PORT (1, 3 or 5 of them)
    #[arg(long = "server-at", value_name = "NAME=HOST:PORT", required = true)]
    pub servers: Vec<String>,
    /// Where each server will keep its data and keys, if not beside its settings file, such as /var/lib/muster/server
    #[arg(long, value_name = "DIR")]
    pub server_dir: Option<PathBuf>,
    /// Name of the first admin
    #[arg(long, default_value = "admin")]
    pub admin: String,
    /// Users to make identities for
    #[arg(long = "user", value_name = "NAME")]
    pub users: Vec<String>,
}

pub fn run(context: &Context, args: InitArgs) -> Result<u8, CliError> {
    let made = make(&args, context.now_ms())?;
    context.printer.answer(|| document(&made), || render(&made))?;
    context.printer.say(&format!(
        "keep {} off the network: whoever has its key can pose as anybody in this cluster",
        made.dir.join("ca").display()
    ));
    Ok(0)
}

/// What was made, for the answer.
#[derive(Debug, Clone)]
pub struct Made {
    pub cluster: String,
    pub dir: PathBuf,
    pub fingerprint: String,
    pub members: Vec<Member>,
    pub admin: String,
    pub users: Vec<String>,
    pub server_dir: Option<PathBuf>,
}

/// Everything is checked before the first file is written.
pub fn make(args: &InitArgs, now_ms: u64) -> Result<Made, CliError> {
    check_word("cluster name", &args.cluster)?;
    for name in args.users.iter().chain([&args.admin]) {
        check_word("user name", name)?;
    }
    let members = members(&args.servers)?;
    let dir = std::path::absolute(&args.dir)?;
    if let Some(home) = args.server_dir.as_ref().filter(|home| !home.is_absolute()) {
        let message = format!("--server-dir {}: not an absolute path", home.display());
        return Err(CliError::new(ErrorCode::Usage, message).hint("write for example /var/lib/muster/server"));
    }
    refuse_used(&dir)?;
    let authority = Authority::create(&args.cluster, now_ms)?;
    let layout = Layout { authority: &authority, members: &members, now_ms };
    create_folder(&dir.join("ca"))?;
    authority.save(&dir.join("ca"))?;
    for member in &members {
        let folder = dir.join("servers").join(&member.name);
        layout.server(&folder, member, listen(&member.address)?, args.server_dir.as_deref())?;
    }
    layout.client(&dir.join("users").join(&args.admin), Role::Admin, &args.admin)?;
    for user in &args.users {
        layout.client(&dir.join("users").join(user), Role::User, user)?;
    }
    Ok(Made {
        cluster: args.cluster.clone(),
        dir,
        fingerprint: authority.fingerprint().to_string(),
        members,
        admin: args.admin.clone(),
        users: args.users.clone(),
        server_dir: args.server_dir.clone(),
    })
}

fn members(servers: &[String]) -> Result<Vec<Member>, CliError> {
    let usage = |message: String| {
        CliError::new(ErrorCode::Usage, message).hint("write for example --server-at s1=10.0.0.1:7070")
    };
    if !matches!(servers.len(), 1 | 3 | 5) {
        return Err(usage(format!("{} servers; use 1, 3 or 5, so that a majority is clear", servers.len())));
    }
    let mut members: Vec<Member> = Vec::new();
    for (text, id) in servers.iter().zip(1..) {
        let (name, address) = text.split_once('=').ok_or_else(|| usage(format!("--server-at {text}: no `=`")))?;
        check_word("server name", name)?;
        listen(address)?;
        if members.iter().any(|member| member.name == name || member.address == address) {
            return Err(usage(format!("--server-at {text}: the name or the address is given twice")));
        }
        members.push(Member { id, name: name.to_owned(), address: address.to_owned() });
    }
    Ok(members)
}

/// An IP address is listened on as it is; for a host name, every interface.
pub fn listen(address: &str) -> Result<SocketAddr, CliError> {
    if let Ok(exact) = address.parse() {
        return Ok(exact);
    }
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).and_then(|(_, port)| port.parse().ok());
    match port {
        Some(port) if port > 0 => Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)),
        _ => Err(CliError::new(ErrorCode::Usage, format!("`{address}` is not HOST:PORT"))),
    }
}

/// A second `init` must never replace the keys of a cluster that lives.
pub fn refuse_used(dir: &Path) -> Result<(), CliError> {
    match std::fs::read_dir(dir).map(|mut entries| entries.next().is_some()) {
        Ok(true) => Err(CliError::new(ErrorCode::Conflict, format!("{} is not empty", dir.display()))
            .hint("give a folder that does not exist yet")),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

pub fn render(made: &Made) -> String {
    let dir = made.dir.display();
    let mut text = format!("Cluster {} in {dir}, CA {}\n", made.cluster, made.fingerprint);
    match &made.server_dir {
        None => text.push_str("On each server, with its folder copied there:\n"),
        Some(_) => text.push_str("On each server, with its folder copied there, as root:\n"),
    }
    for member in &made.members {
        let (name, address) = (&member.name, &member.address);
        match &made.server_dir {
            None => {
                text.push_str(&format!("  muster server --config {dir}/servers/{name}/server.toml    # {address}\n"));
            }
            Some(home) => {
                let (home, folder) = (home.display(), format!("{dir}/servers/{name}"));
                text.push_str(&format!(
                    "  cp -r {folder}/identity {home}/ && chown -R muster: {home}    # {address}\n  \
                     cp {folder}/server.toml /etc/muster/ && systemctl enable --now muster-server\n"
                ));
            }
        }
    }
    text.push_str("Then here:\n");
    text.push_str(&format!("  export MUSTER_CONFIG={dir}/users/{}/config.toml\n", made.admin));
    text.push_str("  muster cluster status\n");
    text.push_str("  muster node token | ssh NODE muster agent join --token - --dir /var/lib/muster\n");
    text
}

pub fn document(made: &Made) -> Value {
    let servers: Vec<Value> = made
        .members
        .iter()
        .map(|member| {
            json!({
                "id": member.id, "name": member.name, "address": member.address,
                "config": made.dir.join("servers").join(&member.name).join("server.toml"),
            })
        })
        .collect();
    let user = |name: &String| json!({"name": name, "config": made.dir.join("users").join(name).join("config.toml")});
    json!({
        "schema": "muster.cluster_init/1", "cluster": made.cluster, "dir": made.dir, "ca_fingerprint": made.fingerprint,
        "servers": servers, "admin": user(&made.admin), "users": made.users.iter().map(user).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings;
    use muster_runtime::clock::{Clock, SystemClock};
    use muster_runtime::identity::Identity;

    fn args(dir: &Path, servers: &[&str]) -> InitArgs {
        InitArgs {
            dir: dir.to_owned(),
            cluster: "c1".into(),
            servers: servers.iter().map(|server| (*server).to_owned()).collect(),
            admin: "root".into(),
            users: vec!["alice".into()],
            server_dir: None,
        }
    }

    #[test]
    fn a_server_that_keeps_its_data_elsewhere_is_told_so_by_absolute_paths() {
        let folder = tempfile::tempdir().expect("a temp folder");
        let dir = folder.path().join("c1");
        let mut elsewhere = args(&dir, &["s1=127.0.0.1:7001"]);
        elsewhere.server_dir = Some("muster".into());
        assert_eq!((make(&elsewhere, 0).expect_err("relative").exit_code(), dir.exists()), (2, false));
        elsewhere.server_dir = Some("/var/lib/muster/server".into());
        make(&elsewhere, SystemClock.wall_ms()).expect("made");
        let file = dir.join("servers/s1/server.toml");
        let config: muster_scheduler::config::ServerConfig = muster_runtime::config::load_file(&file).expect("read");
        assert_eq!(config.dir, Path::new("/var/lib/muster/server/data"));
        assert_eq!(config.identity, Path::new("/var/lib/muster/server/identity"));
    }

    #[test]
    fn every_part_of_the_cluster_gets_an_identity_of_its_own() {
        let folder = tempfile::tempdir().expect("a temp folder");
        let dir = folder.path().join("c1");
        let now_ms = SystemClock.wall_ms();
        make(&args(&dir, &["s1=127.0.0.1:7001", "s2=127.0.0.1:7002", "s3=host3:7003"]), now_ms).expect("made");
        let load = |part: &str| Identity::load(&dir.join(part).join("identity"), now_ms).expect(part).name().uri();
        assert_eq!(load("servers/s2"), "muster://c1/server/s2");
        assert_eq!(load("users/root"), "muster://c1/admin/root");
        assert_eq!(load("users/alice"), "muster://c1/user/alice");
        Authority::load(&dir.join("servers/s3/identity"), now_ms).expect("servers sign for nodes");

        let flags = settings::Flags { config: Some(dir.join("users/alice/config.toml")), ..settings::Flags::default() };
        let settings = settings::load(&flags, &[]).expect("sound");
        assert_eq!(settings.servers, ["127.0.0.1:7001", "127.0.0.1:7002", "host3:7003"]);
        assert_eq!(settings.identity, Some(dir.join("users/alice/identity")));
    }

    #[test]
    fn a_folder_in_use_and_wrong_servers_are_refused_before_anything_is_written() {
        let folder = tempfile::tempdir().expect("a temp folder");
        let dir = folder.path().join("c1");
        for servers in [&["s1"][..], &["s1=host"], &["s1=h:1", "s2=h:2"], &["s1=h:1", "s1=h:2", "s3=h:3"], &["a/b=h:1"]]
        {
            let error = make(&args(&dir, servers), 0).expect_err("refused");
            assert_eq!((error.exit_code(), dir.exists()), (2, false), "{servers:?}");
        }
        std::fs::create_dir(&dir).expect("made");
        std::fs::write(dir.join("precious"), "x").expect("written");
        assert_eq!(make(&args(&dir, &["s1=h:1"]), 0).expect_err("in use").exit_code(), 5);
    }
}
