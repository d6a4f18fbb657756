//! Starts the observer process and reads what it saw.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The running observer. It is told to end, and waited for, by [`Observer::finish`].
#[derive(Debug)]
pub struct Observer {
    child: Child,
    file: PathBuf,
}

/// One process of a rank, from its first sight to its last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    pub job: u64,
    pub attempt: u32,
    pub rank: u32,
    pub node: String,
    pub devices: Vec<String>,
    pub pid: u32,
    /// Boot clock, and the number of the look.
    pub appeared: (u64, u64),
    /// `None` = still there at the end.
    pub gone: Option<(u64, u64)>,
}

/// All it saw.
#[derive(Debug)]
pub struct Sightings {
    pub all: Vec<Sighting>,
    /// (boot clock ms, longest pause between two looks in ms), ten times a second.
    pub pauses: Vec<(u64, u64)>,
}

impl Observer {
    /// # Panics
    /// When the program cannot be started. `program` is the path of `muster-observer`.
    pub fn start(program: &str, folder: &Path) -> Self {
        let file = folder.join("observed");
        let child = Command::new(program).arg(folder).arg(&file).stdin(Stdio::piped()).spawn();
        let child = child.unwrap_or_else(|error| panic!("{program}: {error}"));
        while !std::fs::read_to_string(&file).is_ok_and(|text| text.starts_with("begin ")) {
            std::thread::yield_now();
        }
        Self { child, file }
    }

    pub fn finish(mut self) -> Sightings {
        drop(self.child.stdin.take());
        let status = self.child.wait().expect("the observer is our child");
        assert!(status.success(), "the observer failed: {status}");
        parse(&std::fs::read_to_string(&self.file).expect("the observer's file"))
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn parse(text: &str) -> Sightings {
    let mut sightings = Sightings { all: Vec::new(), pauses: Vec::new() };
    let mut open: BTreeMap<(u32, u64), usize> = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap_or_else(|_| panic!("word {at} of `{line}`"));
        match words[0] {
            "appear" => {
                let pid = number(3) as u32;
                open.insert((pid, number(4)), sightings.all.len());
                let devices = words[9].split(',').filter(|device| *device != "-").map(str::to_owned).collect();
                sightings.all.push(Sighting {
                    job: number(5),
                    attempt: number(6) as u32,
                    rank: number(7) as u32,
                    node: words[8].to_owned(),
                    devices,
                    pid,
                    appeared: (number(1), number(2)),
                    gone: None,
                });
            }
            "gone" => {
                let at = open.remove(&(number(3) as u32, number(4))).expect("what goes had come");
                sightings.all[at].gone = Some((number(1), number(2)));
            }
            "looked" => sightings.pauses.push((number(1), number(3))),
            _ => {}
        }
    }
    sightings
}

impl Sightings {
    pub fn of(&self, job: u64, attempt: u32) -> impl Iterator<Item = &Sighting> {
        self.all.iter().filter(move |seen| seen.job == job && seen.attempt == attempt)
    }

    /// First sight of any rank of the attempt, boot clock ms.
    ///
    /// # Panics
    /// When there was none.
    pub fn first(&self, job: u64, attempt: u32) -> (u64, u64) {
        let first = self.of(job, attempt).map(|seen| seen.appeared).min();
        first.unwrap_or_else(|| panic!("no rank of job {job} attempt {attempt} was ever seen"))
    }

    /// Last sight of any process of the attempt.
    ///
    /// # Panics
    /// When there was none, or one is still there.
    pub fn last(&self, job: u64, attempt: u32) -> (u64, u64) {
        let gone = |seen: &Sighting| seen.gone.unwrap_or_else(|| panic!("still there: {seen:?}"));
        let last = self.of(job, attempt).map(gone).max();
        last.unwrap_or_else(|| panic!("no rank of job {job} attempt {attempt} was ever seen"))
    }

    /// # Panics
    /// When a process of an attempt lived while a rank of the next one did, or the observer looked
    /// away around the change.
    pub fn assert_attempts_apart(&self, job: u64, attempt: u32) {
        let (last, first) = (self.last(job, attempt), self.first(job, attempt + 1));
        assert!(
            last.1 < first.1,
            "job {job}: attempt {attempt} was there at {last:?} (ms, look), attempt {} at {first:?}",
            attempt + 1
        );
        let pause = self.longest_pause(last.0.saturating_sub(200), first.0 + 200);
        assert!(pause < 1000, "the observer did not look for {pause} ms around the change");
        println!(
            "observer: last process of job {job} attempt {attempt} at {} ms, first of attempt {} at {} ms, longest pause {pause} ms",
            last.0,
            attempt + 1,
            first.0
        );
    }

    fn longest_pause(&self, from_ms: u64, to_ms: u64) -> u64 {
        let near = self.pauses.iter().filter(|(at, _)| (from_ms..=to_ms).contains(at));
        near.map(|(_, pause)| *pause).max().unwrap_or(0)
    }

    /// # Panics
    /// When two attempts ever had live processes with the same GPU of the same node.
    pub fn assert_devices_never_shared(&self) {
        let mut holders: BTreeMap<(&str, &str), Vec<&Sighting>> = BTreeMap::new();
        for seen in &self.all {
            for device in &seen.devices {
                holders.entry((&seen.node, device)).or_default().push(seen);
            }
        }
        let mut checked = BTreeSet::new();
        for ((node, device), seen) in holders {
            for (at, one) in seen.iter().enumerate() {
                for two in &seen[at + 1..] {
                    let apart = one.gone.is_some_and(|gone| gone.1 < two.appeared.1)
                        || two.gone.is_some_and(|gone| gone.1 < one.appeared.1);
                    let same = (one.job, one.attempt) == (two.job, two.attempt);
                    assert!(same || apart, "{node} {device} was held twice:\n{one:?}\n{two:?}");
                }
            }
            checked.insert((node, device));
        }
        println!("observer: no two attempts ever together on any of {} devices", checked.len());
    }
}
