//! `muster cluster issue`: a certificate by the folder `ca`, without a server.

use crate::context::Context;
use crate::error::CliError;
use crate::output::{human, json};
use clap::Args;
use muster_proto::convert::error::ErrorCode;
use muster_runtime::identity::{Authority, Identity, IdentityError, LEAF_VALID_MS, Name, Role, Sans};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// What says that a folder holds an identity.
const CERT_FILE: &str = "identity.crt";

#[derive(Debug, Args)]
pub struct IssueArgs {
    /// Whose it is to be, such as user/bob, admin/root or server/s1
    #[arg(value_name = "ROLE/NAME")]
    pub who: String,
    /// Folder for identity.crt, identity.key and ca.crt
    pub dir: PathBuf,
    /// The folder `ca` that `muster cluster init` made
    #[arg(long, value_name = "DIR")]
    pub ca: PathBuf,
    /// Replace the identity of that name that is there
    #[arg(long)]
    pub renew: bool,
    /// A host name or address in it, for browsers and curl (may be repeated)
    #[arg(long = "host", value_name = "HOST")]
    pub hosts: Vec<String>,
}

/// What was issued, for the answer.
#[derive(Debug, Clone)]
pub struct Issued {
    pub name: Name,
    pub dir: PathBuf,
    pub expires_at_ms: u64,
    pub renewed: bool,
}

pub fn run(context: &Context, args: &IssueArgs) -> Result<u8, CliError> {
    let issued = issue(args, context.now_ms())?;
    context.printer.answer(|| document(&issued), || render(&issued))?;
    Ok(0)
}

/// Everything is checked before the first file is written.
pub fn issue(args: &IssueArgs, now_ms: u64) -> Result<Issued, CliError> {
    let (role, word) = role_and_name(&args.who)?;
    let authority = Authority::load(&args.ca, now_ms)?;
    let name = Name::new(authority.cluster(), role, word)?;
    let dir = std::path::absolute(&args.dir)?;
    let replaced = replaced(&dir, &name, args.renew)?;
    let sans = match &replaced {
        Some(present) if args.hosts.is_empty() => present.sans(),
        _ => sans(&args.hosts),
    };
    let identity = authority.issue(&name, &sans, now_ms, LEAF_VALID_MS).map_err(|error| match error {
        IdentityError::BadRequest(why) => CliError::new(ErrorCode::Usage, format!("--host: {why}")),
        other => other.into(),
    })?;
    identity.save(&dir)?;
    if role == Role::Server && !dir.join("ca.key").exists() {
        // Servers sign for nodes.
        authority.save(&dir)?;
    }
    Ok(Issued { name, dir, expires_at_ms: identity.not_after_ms(), renewed: replaced.is_some() })
}

fn role_and_name(text: &str) -> Result<(Role, &str), CliError> {
    let usage = |why: String| {
        CliError::new(ErrorCode::Usage, format!("`{text}`: {why}")).hint("write for example user/bob or server/s1")
    };
    let (role, name) = text.split_once('/').ok_or_else(|| usage("no `/`".to_owned()))?;
    let role = role.parse::<Role>().map_err(|error: IdentityError| usage(error.to_string()))?;
    Ok((role, name))
}

fn sans(hosts: &[String]) -> Sans {
    let mut sans = Sans::default();
    for host in hosts {
        match host.parse() {
            Ok(ip) => sans.ip.push(ip),
            Err(_) => sans.dns.push(host.clone()),
        }
    }
    sans
}

/// The identity that is to be replaced; `None` where there is none. A key is never lost by mistake.
fn replaced(dir: &Path, name: &Name, renew: bool) -> Result<Option<Identity>, CliError> {
    let conflict = |what: String| CliError::new(ErrorCode::Conflict, format!("{} {what}", dir.display()));
    match (dir.join(CERT_FILE).exists(), renew) {
        (false, false) => return Ok(None),
        (false, true) => return Err(conflict("holds no identity".to_owned()).hint("leave out --renew to make one")),
        (true, false) => {
            return Err(conflict("holds an identity already".to_owned())
                .hint("add --renew to replace it by a new one of the same name, or give another folder"));
        }
        (true, true) => {}
    }
    let present =
        Identity::read(dir).map_err(|error| CliError::from(error).hint("move it away, and leave out --renew"))?;
    if present.name() != name {
        return Err(conflict(format!("holds the identity {}, not {}", present.name().uri(), name.uri()))
            .hint("give the name that it has, or another folder"));
    }
    Ok(Some(present))
}

pub fn render(issued: &Issued) -> String {
    let Issued { name, dir, expires_at_ms, renewed } = issued;
    let (done, dir) = (if *renewed { "Renewed" } else { "Issued" }, dir.display());
    let next = match name.role {
        Role::User | Role::Admin => {
            format!("Use it with --identity {dir}, or as `identity` in config.toml")
        }
        Role::Server | Role::Agent => {
            format!("Let the {} find it as its identity folder, and start it again", name.role)
        }
    };
    let until = human::moment(*expires_at_ms);
    format!("{done} the identity of {name} of cluster {} in {dir}, good until {until}\n{next}\n", name.cluster)
}

pub fn document(issued: &Issued) -> Value {
    json::plain(&json!({
        "schema": "muster.issued/1", "cluster": issued.name.cluster, "role": issued.name.role.as_str(),
        "name": issued.name.name, "identity": issued.name.uri(), "dir": issued.dir,
        "expires_at_ms": issued.expires_at_ms, "renewed": issued.renewed,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_runtime::clock::{Clock, SystemClock};
    use muster_runtime::identity::DAY_MS;
    use std::net::IpAddr;

    struct Bench {
        folder: tempfile::TempDir,
        now_ms: u64,
    }

    impl Bench {
        fn new() -> Self {
            let (folder, now_ms) = (tempfile::tempdir().expect("a temp folder"), SystemClock.wall_ms());
            Authority::create("c1", now_ms).expect("a CA").save(&folder.path().join("ca")).expect("saved");
            Self { folder, now_ms }
        }

        fn dir(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn args(&self, who: &str, dir: &str, renew: bool) -> IssueArgs {
            let (dir, ca) = (self.dir(dir), self.dir("ca"));
            IssueArgs { who: who.to_owned(), dir, ca, renew, hosts: Vec::new() }
        }

        fn issue(&self, who: &str, dir: &str, renew: bool) -> Result<Issued, CliError> {
            issue(&self.args(who, dir, renew), self.now_ms)
        }

        fn load(&self, dir: &str) -> Identity {
            Identity::load(&self.dir(dir), self.now_ms).expect("a sound identity")
        }
    }

    #[test]
    fn anybody_of_the_cluster_is_issued_an_identity_by_the_folder_of_the_ca() {
        let bench = Bench::new();
        for role in Role::ALL {
            let dir = role.as_str();
            let issued = bench.issue(&format!("{role}/x"), dir, false).expect("issued");
            assert_eq!((bench.load(dir).name(), issued.renewed), (&issued.name, false));
            assert_eq!(issued.name.uri(), format!("muster://c1/{role}/x"));
            let signs = Authority::load(&bench.dir(dir), bench.now_ms).is_ok();
            assert_eq!(signs, role == Role::Server, "{role}");
        }
        let hosts = vec!["s1.example".to_owned(), "10.0.0.1".to_owned()];
        issue(&IssueArgs { hosts, ..bench.args("server/s1", "s1", false) }, bench.now_ms).expect("issued");
        let ip: IpAddr = "10.0.0.1".parse().expect("an address");
        assert_eq!(bench.load("s1").sans(), Sans { dns: vec!["s1.example".to_owned()], ip: vec![ip] });
    }

    #[test]
    fn an_identity_that_is_there_is_replaced_only_when_asked_for_and_under_its_name() {
        let bench = Bench::new();
        let hosts = vec!["s1.example".to_owned()];
        let first = IssueArgs { hosts, ..bench.args("server/s1", "s1", false) };
        // It has run out: that is when it is renewed.
        issue(&first, bench.now_ms - 91 * DAY_MS).expect("issued");
        let there = std::fs::read_to_string(bench.dir("s1/identity.key")).expect("a key");
        for (who, dir, renew, says) in [
            ("server/s1", "s1", false, "--renew"),
            ("server/s2", "s1", true, "not muster://c1/server/s2"),
            ("user/s1", "s1", true, "not muster://c1/user/s1"),
            ("server/s1", "elsewhere", true, "holds no identity"),
        ] {
            let error = bench.issue(who, dir, renew).expect_err(says);
            assert_eq!((error.exit_code(), error.text(false).contains(says)), (5, true), "{}", error.text(false));
        }
        assert_eq!(std::fs::read_to_string(bench.dir("s1/identity.key")).expect("a key"), there);
        assert!(!bench.dir("elsewhere").exists());

        assert!(bench.issue("server/s1", "s1", true).expect("renewed").renewed);
        let renewed = bench.load("s1");
        assert_ne!(renewed.key_pem(), there);
        assert_eq!(renewed.sans().dns, ["s1.example"], "browsers find it under its name as before");
        assert!(renewed.not_after_ms() > bench.now_ms + 80 * DAY_MS);
    }

    #[test]
    fn what_cannot_be_a_name_or_a_host_is_a_mistake_of_the_line() {
        let bench = Bench::new();
        for who in ["bob", "guest/bob", "user/", "user/a b", "/bob", "user/a/b"] {
            let error = bench.issue(who, "bob", false).expect_err(who);
            assert_eq!(error.exit_code(), 2, "{who}: {}", error.text(false));
        }
        let host = IssueArgs { hosts: vec!["a b".to_owned()], ..bench.args("server/s1", "bob", false) };
        let error = issue(&host, bench.now_ms).expect_err("no host");
        assert_eq!(error.exit_code(), 2, "{}", error.text(false));
        assert!(!bench.dir("bob").exists(), "nothing was written");
    }
}
