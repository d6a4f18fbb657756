//! Watches ranks from outside: reads `/proc` and nothing of Muster's own state or code.
//!
//! `muster-observer TEXT FILE` looks, every few milliseconds, for processes whose environment holds
//! `TEXT` (a folder of the cluster under test) and the variables of a rank. It appends one line to
//! FILE for each that appears and disappears, and a line ten times a second that says how often it
//! has looked and its longest pause. It ends when its standard input does.
//!
//! ```text
//! begin <boot clock ms>
//! appear <ms> <poll> <pid> <start time> <job> <attempt> <rank> <node> <gpu uuids, by commas or ->
//! gone <ms> <poll> <pid> <start time>
//! looked <ms> <poll> <longest pause ms>
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const NAP: Duration = Duration::from_millis(3);
/// A process may change its environment by `exec` soon after its birth: it is read again at each
/// look while it is this young, and once in [`OLD_EVERY`] looks later.
const YOUNG: Duration = Duration::from_millis(500);
const OLD_EVERY: u64 = 16;
const LOOKED_EVERY: Duration = Duration::from_millis(100);

struct Seen {
    start_time: u64,
    first: Instant,
    rank: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [text, path] = arguments.as_slice() else {
        eprintln!("usage: muster-observer TEXT FILE");
        return ExitCode::from(2);
    };
    match File::create(path).and_then(|file| watch(text, BufWriter::new(file))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("muster-observer: {path}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn watch(text: &str, mut out: BufWriter<File>) -> std::io::Result<()> {
    let over = Arc::new(AtomicBool::new(false));
    let told = over.clone();
    thread::spawn(move || {
        let mut rest = Vec::new();
        let _ = std::io::stdin().read_to_end(&mut rest);
        told.store(true, Ordering::Relaxed);
    });
    let (boot_ms, begun) = (boot_clock_ms()?, Instant::now());
    writeln!(out, "begin {boot_ms}")?;
    out.flush()?;
    let mut seen: BTreeMap<u32, Seen> = BTreeMap::new();
    let (mut poll, mut last, mut longest, mut said) = (0u64, begun, Duration::ZERO, begun);
    while !over.load(Ordering::Relaxed) {
        poll += 1;
        let now = Instant::now();
        longest = longest.max(now - last);
        last = now;
        let at_ms = boot_ms + now.duration_since(begun).as_millis() as u64;
        let lines = look(text, &mut seen, now, poll, at_ms)?;
        out.write_all(lines.as_bytes())?;
        if now - said >= LOOKED_EVERY {
            writeln!(out, "looked {at_ms} {poll} {}", longest.as_millis())?;
            (said, longest) = (now, Duration::ZERO);
            out.flush()?;
        } else if !lines.is_empty() {
            out.flush()?;
        }
        thread::sleep(NAP);
    }
    out.flush()
}

/// One look at the whole of `/proc`: the deaths first, then the births.
fn look(text: &str, seen: &mut BTreeMap<u32, Seen>, now: Instant, poll: u64, at_ms: u64) -> std::io::Result<String> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        if let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) {
            pids.push(pid);
        }
    }
    pids.sort_unstable();
    let mut lines = String::new();
    seen.retain(|pid, process| {
        let alive = pids.binary_search(pid).is_ok() && (!process.rank || start_time(*pid) == Some(process.start_time));
        if !alive && process.rank {
            lines.push_str(&format!("gone {at_ms} {poll} {pid} {}\n", process.start_time));
        }
        alive
    });
    for pid in pids {
        let known = seen.get(&pid);
        let due = match known {
            None => true,
            Some(process) if process.rank => false,
            Some(process) => now - process.first < YOUNG || (poll + u64::from(pid)).is_multiple_of(OLD_EVERY),
        };
        if !due {
            continue;
        }
        let first = known.map_or(now, |process| process.first);
        let found = rank_of(pid, text).and_then(|words| Some((start_time(pid)?, words)));
        if let Some((start_time, words)) = &found {
            lines.push_str(&format!("appear {at_ms} {poll} {pid} {start_time} {words}\n"));
        }
        let start_time = found.as_ref().map_or(0, |found| found.0);
        seen.insert(pid, Seen { start_time, first, rank: found.is_some() });
    }
    Ok(lines)
}

/// Job, attempt, rank, node and devices from a process's environment, if it is a rank (or a child
/// of one) of the cluster under test.
fn rank_of(pid: u32, text: &str) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let whole = String::from_utf8_lossy(&bytes);
    if !whole.contains(text) {
        return None;
    }
    let value = |name: &str| {
        let mut found = whole.split('\0').filter_map(|pair| pair.split_once('='));
        found.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
    };
    let (job, attempt, rank) = (value("MUSTER_JOB_ID")?, value("MUSTER_ATTEMPT")?, value("RANK")?);
    let shim = value("MUSTER_SHIM").unwrap_or_default();
    let node = shim.split('@').next().filter(|node| !node.is_empty()).unwrap_or("-").to_owned();
    let devices = value("CUDA_VISIBLE_DEVICES").filter(|devices| !devices.is_empty()).unwrap_or_else(|| "-".to_owned());
    Some(format!("{job} {attempt} {rank} {node} {devices}"))
}

/// `None` for a process that is dead, waited for or not.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    // The state is field 3, the start time field 22.
    let start_time = fields.nth(18)?.parse().ok()?;
    (state != "Z" && state != "X").then_some(start_time)
}

/// Milliseconds since boot, as other processes can read them too.
fn boot_clock_ms() -> std::io::Result<u64> {
    let text = fs::read_to_string("/proc/uptime")?;
    let seconds = text.split_ascii_whitespace().next().and_then(|word| word.parse::<f64>().ok());
    seconds.map(|seconds| (seconds * 1000.0) as u64).ok_or_else(|| std::io::Error::other("/proc/uptime is no number"))
}
