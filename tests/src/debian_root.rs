//! A Debian system made on the spot, and booted: systemd is its process 1, in namespaces of its own.

use crate::cluster::process::die_with_the_test;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const BOOTS_WITHIN: Duration = Duration::from_secs(90);

/// Runs it to its end; returns what it printed.
///
/// # Panics
/// When it fails.
pub fn done(program: &str, words: &[&str]) -> String {
    let (output, said) = run(program, words);
    assert!(output.status.success(), "{program} {words:?}: {}\n{said}", output.status);
    said
}

fn run(program: &str, words: &[&str]) -> (Output, String) {
    let output = Command::new(program).args(words).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output, said)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// A minimal system of this release in `folder`, unpacked from `kept`, where it is made once.
pub fn make(suite: &str, kept: &Path, folder: &Path) -> PathBuf {
    fs::create_dir_all(kept).expect("a folder can be made");
    let tar = kept.join(format!("{suite}.tar"));
    if !tar.exists() {
        let aside = kept.join(format!("{suite}.new.tar"));
        done("mmdebstrap", &["--variant=minbase", "--mode=root", suite, text(&aside)]);
        fs::rename(aside, &tar).expect("it can be renamed");
    }
    let root = folder.join("root");
    fs::create_dir(&root).expect("a folder can be made");
    done("tar", &["-xf", text(&tar), "-C", text(&root)]);
    fs::copy("/etc/resolv.conf", root.join("etc/resolv.conf")).expect("the resolver can be copied");
    root
}

/// Runs a command in a root that is not booted, with this machine's network.
///
/// # Panics
/// When it fails.
pub fn run_unbooted(root: &Path, command: &str) -> String {
    let root = text(root);
    let script = format!(
        "mount -t proc proc {root}/proc; mount --rbind /dev {root}/dev; mount -t tmpfs tmpfs {root}/run; \
         exec chroot {root} sh -euc \"$1\""
    );
    let namespaces = ["--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child"];
    done("unshare", &[&namespaces[..], &["sh", "-euc", &script, "sh", command]].concat())
}

/// Ends, with everything in it, when it is dropped.
#[derive(Debug)]
pub struct Booted {
    unshare: Child,
    cgroup: PathBuf,
    /// systemd, as this machine counts.
    init: u32,
}

impl Booted {
    /// Boots it without any network but loopback, and waits until everything is started.
    ///
    /// # Panics
    /// When systemd does not come up; what it said is in `log`.
    pub fn start(root: &Path, log: &Path) -> Self {
        let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let groups = Path::new("/sys/fs/cgroup").join(if unified { "" } else { "systemd" });
        let cgroup = groups.join(format!("muster-deb-check-{}", std::process::id()));
        fs::create_dir(&cgroup).unwrap_or_else(|error| panic!("{}: {error}", cgroup.display()));
        let script = boot_script(text(root), unified);
        let out = fs::File::create(log).expect("a log can be made");
        let enter = format!("echo $$ > {}/cgroup.procs; exec \"$@\"", cgroup.display());
        let mut command = Command::new("sh");
        command.args(["-euc", &enter, "sh", "unshare", "--cgroup", "--mount", "--pid", "--net", "--uts", "--ipc"]);
        command.args(["--fork", "--kill-child", "sh", "-euc", &script]).stdin(Stdio::null());
        command.stdout(out.try_clone().expect("a file handle can be copied")).stderr(out);
        die_with_the_test(&mut command);
        let unshare = command.spawn().expect("sh starts");
        let mut booted = Self { unshare, cgroup, init: 0 };
        let begun = Instant::now();
        while !booted.is_up() {
            let said = fs::read_to_string(log).unwrap_or_default();
            assert!(matches!(booted.unshare.try_wait(), Ok(None)), "systemd ended:\n{said}");
            assert!(begun.elapsed() < BOOTS_WITHIN, "systemd is not up after {BOOTS_WITHIN:?}:\n{said}");
            std::thread::sleep(Duration::from_millis(200));
        }
        booted
    }

    fn is_up(&mut self) -> bool {
        let shell = self.unshare.id();
        let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap_or_default();
        let Some(init) = children.split_whitespace().next().and_then(|pid| pid.parse().ok()) else { return false };
        let line = fs::read_to_string(format!("/proc/{init}/cmdline")).unwrap_or_default();
        self.init = init;
        // Some unit of the distribution may have failed: that is its own affair.
        line.contains("systemd") && matches!(self.run("systemctl is-system-running").1.trim(), "running" | "degraded")
    }

    /// The words that start a program inside.
    pub fn inside(&self, program: &[&str]) -> Vec<String> {
        let init = self.init.to_string();
        let enter =
            ["nsenter", "--target", &init, "--mount", "--pid", "--net", "--uts", "--ipc", "--root", "--wd", "--"];
        enter.iter().chain(program).map(|word| (*word).to_owned()).collect()
    }

    fn run(&self, command: &str) -> (Output, String) {
        let words = self.inside(&["sh", "-euc", command]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        run(words[0], &words[1..])
    }

    /// What a command inside prints.
    ///
    /// # Panics
    /// When it fails.
    pub fn done(&self, command: &str) -> String {
        let (output, said) = self.run(command);
        assert!(output.status.success(), "{command}: {}\n{said}", output.status);
        said
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        // Its processes die with its first one, which takes a moment; the groups go from the leaves up.
        let begun = Instant::now();
        while self.cgroup.exists() && begun.elapsed() < Duration::from_secs(10) {
            let _ = Command::new("find").arg(&self.cgroup).args(["-depth", "-type", "d", "-delete"]).output();
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn boot_script(root: &str, unified: bool) -> String {
    let cgroups = if unified {
        "mount -t cgroup2 cgroup2 sys/fs/cgroup"
    } else {
        "mount -t tmpfs tmpfs sys/fs/cgroup; mkdir sys/fs/cgroup/systemd; \
         mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd"
    };
    format!(
        "ip link set lo up
         mount --make-rprivate /
         mount --bind {root} {root}
         cd {root}
         mount -t proc proc proc
         mount -t sysfs sysfs sys
         {cgroups}
         mount -t tmpfs tmpfs run
         mount -t tmpfs -o mode=755 tmpfs dev
         for device in null zero full random urandom tty; do
             touch dev/$device; mount --bind /dev/$device dev/$device
         done
         mkdir dev/pts dev/shm
         mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
         mount -t tmpfs -o mode=1777 tmpfs dev/shm
         ln -s pts/ptmx dev/ptmx; ln -s /proc/self/fd dev/fd
         pivot_root . mnt
         umount -l /mnt
         export container=muster-deb-check
         exec /lib/systemd/systemd --system --unit=multi-user.target --log-target=console"
    )
}
