//! The Debian package on a clean root: it installs, starts nothing by itself, becomes a working
//! cluster by the commands of its page, and is upgraded under a running job.
//!
//! The root is made with mmdebstrap and booted with its own systemd, so that the units run as they
//! are, sandbox included. Needs root, the network for Debian's packages, and mmdebstrap, cargo-deb,
//! lintian, unshare, nsenter and ip; so it is no test, but a program:
//! `cargo run -p muster-tests --bin muster-deb-check [PROGRAM]`, with the absolute path of a muster
//! that was built before, or without for one built now. `MUSTER_DEBIAN_SUITE` names another release
//! than bookworm.

use muster_tests::binary::muster;
use muster_tests::debian_root::{Booted, done, make, run_unbooted};
use muster_tests::terminal::Desk;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const LONG_JOB: &str = "name = \"long\"\n[gang]\nnodes = 1\ngpus_per_node = 2\nranks_per_node = \"gpu\"\n\
                        run = \"exec sleep 12345\"\n[limits]\ntime = \"1h\"\n";

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a package lies in the workspace").to_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

fn check_prerequisites() {
    assert!(nix::unistd::geteuid().is_root(), "NOT RUN: this check boots a system of its own and needs to be root");
    for tool in ["mmdebstrap", "cargo-deb", "lintian", "unshare", "nsenter", "ip"] {
        assert!(Command::new(tool).arg("--version").output().is_ok(), "NOT RUN: {tool} is not on this machine");
    }
}

/// Packs this program.
fn package(program: &Path) -> PathBuf {
    let packages = workspace().join("target/debian");
    let _ = fs::remove_dir_all(&packages);
    done("cargo", &["xtask", "deb", "--binary", text(program)]);
    let made = fs::read_dir(&packages).expect("the package is there").flatten().map(|entry| entry.path());
    made.into_iter().find(|path| path.extension().is_some_and(|end| end == "deb")).expect("the package is there")
}

fn check_fresh_install(root: &Path) {
    for path in [
        "usr/bin/muster",
        "usr/libexec/muster/muster-shim",
        "etc/muster/server.toml.example",
        "etc/muster/agent.toml.example",
    ] {
        assert!(root.join(path).exists(), "{path}");
    }
    for kind in ["server", "agent"] {
        assert!(!root.join(format!("etc/muster/{kind}.toml")).exists(), "nothing is configured");
        let enabled = root.join(format!("etc/systemd/system/multi-user.target.wants/muster-{kind}.service"));
        assert!(enabled.symlink_metadata().is_err(), "the {kind} is not enabled");
    }
    let mode = |path: &str| root.join(path).metadata().expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode("var/lib/muster/server"), mode("var/lib/muster/agent")), (0o700, 0o711));
    let said = run_unbooted(root, "systemd-analyze verify --man=no /usr/lib/systemd/system/muster-*.service 2>&1");
    let wrong: Vec<&str> = said.lines().filter(|line| line.contains("muster-")).collect();
    assert_eq!(wrong, [""; 0], "of systemd in the clean root");
}

/// Even when asked to, an unconfigured daemon does not start, and that is no failure.
fn check_unconfigured_daemons_stay_down(system: &Booted) {
    system.done("systemctl start muster-server muster-agent");
    for kind in ["server", "agent"] {
        let state = system.done(&format!("systemctl show --property ActiveState --value muster-{kind}"));
        assert_eq!(state.trim(), "inactive", "the {kind}");
    }
}

/// (main process, its user) of a daemon, counted as the system inside does.
fn daemon(system: &Booted, kind: &str) -> (u32, String) {
    let pid = system.done(&format!("systemctl show --property MainPID --value muster-{kind}"));
    let pid = pid.trim().parse().unwrap_or_else(|_| panic!("the {kind}'s main process: {pid}"));
    assert_ne!(pid, 0, "the {kind} runs");
    (pid, system.done(&format!("stat -c %U /proc/{pid}")).trim().to_owned())
}

/// The ranks of [`LONG_JOB`].
fn ranks(system: &Booted) -> String {
    system.done("grep -lz '^12345$' /proc/[0-9]*/cmdline 2>/dev/null | sort || true")
}

fn as_alice(system: &Booted, command: &str) -> String {
    system.done(&format!("MUSTER_CONFIG=/srv/lab/users/alice/config.toml HOME=/srv {command}"))
}

fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !there() {
        assert!(begun.elapsed().as_secs() < 60, "waited in vain for {what}");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

/// Installs the package over itself while a job runs.
fn check_upgrade(system: &Booted) {
    as_alice(system, "muster submit /srv/long.toml");
    wait_for("the ranks of the long job", || ranks(system).lines().count() == 2);
    assert_ne!(system.done("ls /run/muster/agent/*/allocations"), "", "what lives for a boot is in /run");
    let before = (daemon(system, "server"), daemon(system, "agent"), ranks(system));
    println!("{}", system.done("DEBIAN_FRONTEND=noninteractive dpkg --install /srv/muster.deb 2>&1"));
    let after = (daemon(system, "server"), daemon(system, "agent"), ranks(system));
    assert!(before.0.0 != after.0.0 && before.1.0 != after.1.0, "both daemons were restarted: {before:?} {after:?}");
    assert_eq!(before.2, after.2, "the same ranks run on");
    let running = || as_alice(system, "muster ps long 2>/dev/null || true").contains("RUNNING");
    wait_for("the job to be seen running by the new daemons", running);
    as_alice(system, "muster cancel long");
    wait_for("the end of the ranks, by the new agent", || ranks(system).is_empty());
}

fn check_purge_keeps_data(root: &Path) {
    let said = run_unbooted(root, "DEBIAN_FRONTEND=noninteractive apt-get purge -y muster 2>&1");
    assert!(said.contains("/var/lib/muster holds a cluster"), "{said}");
    assert!(!root.join("usr/bin/muster").exists() && !root.join("etc/muster/server.toml.example").exists());
    for kept in ["var/lib/muster/server/data", "var/lib/muster/agent/identity", "etc/muster/server.toml"] {
        assert!(root.join(kept).exists(), "{kept} is kept");
    }
}

fn main() {
    check_prerequisites();
    let kept = tempfile::tempdir().expect("a temp folder");
    let folder = kept.path().canonicalize().expect("the folder is there");
    let given = std::env::args_os().nth(1).map(PathBuf::from);
    let package = package(given.as_ref().unwrap_or_else(|| muster()));
    let suite = std::env::var("MUSTER_DEBIAN_SUITE").unwrap_or_else(|_| "bookworm".to_owned());
    let root = make(&suite, &workspace().join("target/debian-roots"), &folder);
    println!("{}", done("lintian", &["--fail-on", "error", text(&package)]));
    fs::copy(&package, root.join("srv/muster.deb")).expect("the package can be copied");
    fs::write(root.join("srv/long.toml"), LONG_JOB).expect("it can be written");
    let install = "apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -qq -y \
                   --no-install-recommends /srv/muster.deb 2>&1";
    println!("{}", run_unbooted(&root, install));
    check_fresh_install(&root);

    let system = Booted::start(&root, &folder.join("boot.log"));
    check_unconfigured_daemons_stay_down(&system);
    let env = [("HOME", "/srv"), ("PATH", PATH), ("LANG", "C.UTF-8")].map(|(key, value)| (key.into(), value.into()));
    let mut desk = Desk::new(&folder.join("desk"), Path::new("/"), &root.join("srv"))
        .with_env(env.into())
        .with_shell(system.inside(&["bash", "--noprofile", "--norc"]));
    desk.follow(&workspace().join("docs/how-to/install-debian.md"));
    drop(desk);
    assert_eq!(daemon(&system, "server").1, "muster");
    assert_eq!(daemon(&system, "agent").1, "root");
    check_upgrade(&system);
    drop(system);
    check_purge_keeps_data(&root);
    println!("deb-check: passed on {suite}");
}
