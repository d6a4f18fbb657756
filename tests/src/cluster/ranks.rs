//! Ranks as the machine shows them, and the script that most tests let them run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A live rank: the process that the shim started, not its children.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    pub job: u64,
    pub attempt: u32,
    pub rank: u32,
    pub node: String,
    pub pid: u32,
    /// In clock ticks since boot: with it a recycled pid is told from the old one.
    pub start_time: u64,
}

/// All live ranks whose environment names `folder`, in order of job, attempt and rank.
pub fn live_ranks(folder: &Path) -> Vec<Rank> {
    let found: BTreeMap<u32, (u32, Rank)> =
        pids().into_iter().filter_map(|pid| Some((pid, rank_of(pid, folder)?))).collect();
    let same = |a: &Rank, b: &Rank| (a.job, a.attempt, a.rank) == (b.job, b.attempt, b.rank);
    let top = found.values().filter(|(parent, rank)| !found.get(parent).is_some_and(|(_, above)| same(above, rank)));
    let mut ranks: Vec<Rank> = top.map(|(_, rank)| rank.clone()).collect();
    ranks.sort();
    ranks
}

fn rank_of(pid: u32, folder: &Path) -> Option<(u32, Rank)> {
    let env = environment(pid)?;
    if !env.contains(folder.to_str()?) {
        return None;
    }
    let value = |name: &str| {
        env.split('\0').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let (parent, start_time) = parent_and_start(pid)?;
    let rank = Rank {
        job: value("MUSTER_JOB_ID")?.parse().ok()?,
        attempt: value("MUSTER_ATTEMPT")?.parse().ok()?,
        rank: value("RANK")?.parse().ok()?,
        node: value("MUSTER_SHIM").unwrap_or_default().split('@').next().unwrap_or_default().to_owned(),
        pid,
        start_time,
    };
    Some((parent, rank))
}

fn environment(pid: u32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// `None` for the dead.
fn parent_and_start(pid: u32) -> Option<(u32, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let alive = !matches!(fields.first(), Some(&"Z" | &"X"));
    alive.then(|| Some((fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?)))?
}

fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Every process of the cluster in `folder`, by its command line or its environment, but not this one.
pub fn all_of(folder: &Path) -> Vec<u32> {
    let text = folder.to_string_lossy().into_owned();
    let own = std::process::id();
    let mut pids = pids();
    pids.retain(|pid| *pid != own && parent_and_start(*pid).is_some());
    pids.retain(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&text) || environment(*pid).is_some_and(|env| env.contains(&text))
    });
    pids
}

/// Shims, their helpers and ranks of one node.
pub fn below_node(folder: &Path, node: &str) -> Vec<u32> {
    let mark = format!("MUSTER_SHIM={node}@");
    let mut pids = all_of(folder);
    pids.retain(|pid| environment(*pid).is_some_and(|env| env.split('\0').any(|pair| pair.starts_with(&mark))));
    pids
}

/// Folder through which a test steers its ranks.
#[derive(Debug, Clone)]
pub struct Gate(PathBuf);

impl Gate {
    pub fn new(folder: &Path, name: &str) -> Self {
        let path = folder.join("gates").join(name);
        fs::create_dir_all(&path).expect("a folder can be made");
        Self(path)
    }

    /// Prints `RANK line N` ten times a second until the gate opens, then `RANK end N`, and ends
    /// with 0 or the code the test has set.
    pub fn script(&self) -> String {
        format!(
            "gate={}\nn=0\n\
             while [ ! -e $gate/all ] && [ ! -e $gate/rank-$RANK ]; do\n\
             echo \"$RANK line $n\"; n=$((n+1)); sleep 0.1\n\
             done\n\
             echo \"$RANK end $n\"\n\
             if [ -e $gate/rank-$RANK ]; then exit $(cat $gate/rank-$RANK); fi\n",
            self.0.display()
        )
    }

    /// All ranks end with 0.
    pub fn open(&self) {
        fs::write(self.0.join("all"), "").expect("the gate's folder is there");
    }

    /// One rank ends, with this code.
    pub fn open_for(&self, rank: u32, code: u8) {
        let path = self.0.join(format!("rank-{rank}"));
        let aside = path.with_extension("new");
        fs::write(&aside, code.to_string()).expect("the gate's folder is there");
        fs::rename(aside, path).expect("the gate's folder is there");
    }
}

/// Checks a rank's whole log: lines numbered from 0 without a gap or a repeat, then the end.
///
/// # Panics
/// When a line is missing, doubled or foreign. Returns how many lines there were.
pub fn check_lines(rank: u32, text: &str) -> u64 {
    let mut lines = text.lines().filter(|line| line.starts_with(&format!("{rank} ")));
    let mut next = 0;
    let end = lines.find(|line| {
        let is_line = **line == format!("{rank} line {next}");
        next += u64::from(is_line);
        !is_line
    });
    assert_eq!(end, Some(format!("{rank} end {next}").as_str()), "rank {rank}: after line {next}, in\n{text}");
    assert_eq!(lines.next(), None, "rank {rank}: nothing follows the end, in\n{text}");
    next
}
