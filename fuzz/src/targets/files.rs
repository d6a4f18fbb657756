//! What is read back from disks, and what passes between an agent and its shims.

use super::{Target, choice, chosen};
use muster_agent::fuzz::{shim_request, shim_status, store_file};
use muster_agent::shim::wire::{self, Request};
use muster_agent::store::{Store, StoreError};
use muster_runtime::durable;
use muster_scheduler::fuzz;
use muster_sim::trace::{BadRows, Format, Reading, TraceJob, parquet_table, read};
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::{Path, PathBuf};

pub const SEALED: Target = Target {
    name: "sealed",
    what: "sealed files, the agent's store and its slots, and history records",
    run: run_sealed,
    seeds: seeds_sealed,
    words: &[b"MSTR", b"MSTH", b"MSTS"],
    length_max: 4 << 10,
};

pub const SNAPSHOT_FILE: Target = Target {
    name: "snapshot",
    what: "a snapshot file's frame, its head and its compressed state",
    run: run_snapshot,
    seeds: seeds_snapshot,
    words: &[b"MSTRSNAP"],
    length_max: 4 << 10,
};

pub const WAL: Target = Target {
    name: "wal",
    what: "batches of the write-ahead log, their sectors, and sectors damaged after they were written",
    run: run_wal,
    seeds: seeds_wal,
    words: &[],
    length_max: 4 << 10,
};

pub const SHIM: Target = Target {
    name: "shim",
    what: "frames on a shim's socket, cut anywhere",
    run: run_shim,
    seeds: seeds_shim,
    words: &[b"\"version\":1", b"\"body\":", b"\"stop\"", b"\"grace_ms\":", b"\"phase\"", b"null"],
    length_max: 4 << 10,
};

pub const TABLE: Target = Target {
    name: "table",
    what: "a table of jobs as Parquet: its end, its pages and the cells in them",
    run: run_table,
    seeds: seeds_table,
    words: &[b"PAR1", b"job_id", b"submit_ms", b"run_ms", b"devices", b"muster.trace/1"],
    length_max: 8 << 10,
};

/// A file in memory, for decoders that take a path.
pub(super) struct MemoryFile(std::fs::File);

impl MemoryFile {
    pub(super) fn new(bytes: &[u8]) -> Self {
        // SAFETY: plain system call with a constant name.
        let fd = unsafe { libc::memfd_create(c"fuzz".as_ptr(), 0) };
        assert!(fd >= 0, "no file in memory: {}", std::io::Error::last_os_error());
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let mut file = unsafe { std::fs::File::from_raw_fd(fd) };
        file.write_all(bytes).expect("memory");
        Self(file)
    }

    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

/// A folder in memory where there is one.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a folder")
}

fn seal(version: u8, payload: &[u8]) -> Vec<u8> {
    let folder = folder();
    let path = folder.path().join("sealed");
    durable::write_sealed(&path, version, payload).expect("memory");
    std::fs::read(&path).expect("just written")
}

fn seeds_sealed() -> Vec<Vec<u8>> {
    let folder = folder();
    // The second value of a store is in its first slot.
    let mut store = Store::open(folder.path(), || "store".into()).expect("a folder");
    store.save().expect("memory");
    let whole = std::fs::read(folder.path().join("store")).expect("just saved");
    let used = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let slot = &whole[SLOTS_AT..SLOTS_AT + SLOT_BYTES];
    let slot = &slot[..used(slot)];
    let payload = &slot[SLOT_HEAD_BYTES..slot.len() - 4];
    let parts = [&whole[..HEAD_BYTES], slot].concat();
    // Time 5, then the smallest event there is.
    vec![chosen(0, &seal(3, b"a value")), chosen(1, payload), chosen(2, &[5, 0, 1, 1]), chosen(3, &parts)]
}

/// Where a small store's file has its head and its slots.
const HEAD_BYTES: usize = 24;
const SLOTS_AT: usize = 4096;
const SLOT_BYTES: usize = 64 << 10;
const SLOT_HEAD_BYTES: usize = 21;

fn run_sealed(input: &[u8]) {
    match choice(input) {
        Some((kind, bytes)) if kind % 4 == 0 => {
            let file = MemoryFile::new(bytes);
            if let Ok(sealed) = durable::read_sealed(&file.path(), 1 << 20) {
                assert_eq!(seal(sealed.version, &sealed.bytes), bytes, "two files hold the same payload");
            }
        }
        Some((kind, bytes)) if kind % 4 == 1 => open_store(&store_file(bytes)),
        Some((kind, bytes)) if kind % 4 == 3 => open_store(&in_parts(bytes)),
        Some((_, bytes)) => drop(fuzz::history_record(1, bytes)),
        None => {}
    }
}

/// A store's file with any head and any first slot.
fn in_parts(bytes: &[u8]) -> Vec<u8> {
    let (head, slot) = bytes.split_at(bytes.len().min(HEAD_BYTES));
    let mut whole = head.to_vec();
    whole.resize(SLOTS_AT, 0);
    whole.extend(slot);
    whole.resize((SLOTS_AT + 2 * SLOT_BYTES).max(whole.len()), 0);
    whole
}

/// A store in a file that may hold anything.
fn open_store(file: &[u8]) {
    let folder = folder();
    std::fs::write(folder.path().join("store"), file).expect("memory");
    let mut store = match Store::open(folder.path(), || "fresh".into()) {
        Ok(store) => store,
        Err(StoreError::OtherFormat { .. }) => return,
        Err(error) => panic!("a damaged store is no error: {error}"),
    };
    let (lost, held, first) = (store.is_lost(), store.held().clone(), store.first_report());
    store.report(None, muster_agent::store::ReportBody::Released { lease_expired: false });
    store.acknowledge(first);
    held.keys().for_each(|key| store.forget(key));
    store.save().expect("memory");
    let again = Store::open(folder.path(), || "other".into()).expect("just saved");
    assert!(!again.is_lost() && again.held().is_empty(), "what was saved is not there (lost before: {lost})");
}

/// Version, head, checksum, body, checksum: what a faulty writer could make of them.
fn frame(head: &[u8], body: &[u8]) -> Vec<u8> {
    let mut bytes = b"MSTRSNAP\x01\x00".to_vec();
    bytes.extend((head.len() as u32).to_le_bytes());
    bytes.extend(head);
    bytes.extend(muster_scheduler::fuzz::crc32(&bytes).to_le_bytes());
    bytes.extend(body);
    let sha = muster_scheduler::fuzz::sha256(&bytes);
    bytes.extend(sha);
    bytes
}

/// The state `abc`, compressed, under a head without a log position.
const BODY: &[u8] = b"\x28\xb5\x2f\xfd\x20\x03\x19\x00\x00abc";

fn seeds_snapshot() -> Vec<Vec<u8>> {
    // last, membership_at, membership (empty bytes), raw and compressed length.
    let head = [0, 0, 0, 3, BODY.len() as u8];
    let sized = chosen(head.len() as u8, &[&head[..], BODY].concat());
    vec![chosen(0, &frame(&head, BODY)), chosen(1, &sized)]
}

fn run_snapshot(input: &[u8]) {
    let bytes = match choice(input) {
        Some((kind, bytes)) if kind % 2 == 0 => bytes.to_vec(),
        Some((_, rest)) => {
            let Some((length, rest)) = choice(rest) else { return };
            let (head, body) = rest.split_at(rest.len().min(usize::from(length)));
            frame(head, body)
        }
        None => return,
    };
    let file = MemoryFile::new(&bytes);
    fuzz::snapshot(&file.path());
}

fn seeds_wal() -> Vec<Vec<u8>> {
    let numbers = |count: u8| (0..count).flat_map(|n| u64::from(n).to_le_bytes()).collect::<Vec<u8>>();
    let vote = [&[1][..], &numbers(2), &[1]].concat();
    let entry = [&[2][..], &numbers(2), &3u32.to_le_bytes(), b"abc"].concat();
    let (truncate, purge) = ([&[3, 1][..], &numbers(2)].concat(), [&[4][..], &numbers(2)].concat());
    let committed = [&[5][..], &numbers(2)].concat();
    vec![chosen(0, &[vote, entry.clone(), truncate, purge, committed].concat()), chosen(7, &entry)]
}

/// A batch is read; or laid out on disk and damaged at one byte, which its sector must notice.
fn run_wal(input: &[u8]) {
    let Some((kind, payload)) = choice(input) else { return };
    if kind % 2 == 0 {
        fuzz::wal_batch(payload);
        return;
    }
    let mut laid = fuzz::wal_laid_out(1, 2, payload);
    let whole = fuzz::wal_sectors(1, &laid);
    assert_eq!(whole, laid.len() / 512, "what was laid out is not read");
    assert_eq!(fuzz::wal_sectors(2, &laid), 0, "a sector of another segment was believed");
    let at = usize::from(kind) * 31 % laid.len();
    laid[at] ^= 1 << (kind % 8);
    assert_eq!(fuzz::wal_sectors(1, &laid), whole - 1, "a damaged sector was believed");
}

fn seeds_shim() -> Vec<Vec<u8>> {
    let stop = Request::Stop { signal: Some(10), grace_ms: 5 };
    let requests = [Request::Status, Request::Go, stop, Request::Extend { deadline_ms: 9 }];
    let mut frames: Vec<u8> = requests.iter().flat_map(|request| wire::encode(request).expect("small")).collect();
    let mut seeds = vec![chosen(3, &frames)];
    let status = r#"{"version":1,"body":{"phase":"preparing","deadline_ms":5,"spawned":false,"lease_expired":false,
        "failure":null,"exits":[],"weak_fencing":true}}"#;
    frames = (status.len() as u32).to_le_bytes().to_vec();
    frames.extend(status.as_bytes());
    seeds.push(chosen(0, &frames));
    seeds
}

/// Bytes in pieces, as a socket brings them; what is read must be what was written.
fn run_shim(input: &[u8]) {
    let Some((piece, bytes)) = choice(input) else { return };
    let (mut requests, mut statuses) = (Vec::new(), Vec::new());
    for part in bytes.chunks(1 + usize::from(piece)) {
        requests.extend_from_slice(part);
        statuses.extend_from_slice(part);
        while let Ok(Some(request)) = shim_request(&mut requests) {
            let mut again = wire::encode(&request).expect("it was within the limit");
            assert_eq!(shim_request(&mut again).expect("just written"), Some(request));
        }
        while let Ok(Some(status)) = shim_status(&mut statuses) {
            let mut again = wire::encode(&status).expect("it was within the limit");
            assert_eq!(shim_status(&mut again).expect("just written"), Some(status));
        }
    }
}

fn seeds_table() -> Vec<Vec<u8>> {
    let job = |id: &str| TraceJob { id: id.into(), run_ms: 5, requested_ms: 5, ..TraceJob::default() };
    let tables = [vec![job("a")], vec![job("a"), TraceJob { user: Some("ann".into()), submit_ms: 7, ..job("b") }]];
    let bytes = |jobs: &Vec<TraceJob>| {
        let mut bytes = Vec::new();
        parquet_table::write(&mut bytes, jobs, Some(8)).expect("memory");
        bytes
    };
    tables.iter().map(bytes).collect()
}

fn run_table(input: &[u8]) {
    let file = MemoryFile::new(input);
    let reading = Reading { format: Some(Format::Parquet), throughputs: None, bad_rows: BadRows::Skip };
    match read(&file.path(), reading) {
        Ok(trace) => assert!(!trace.jobs.is_empty() && trace.jobs.iter().all(|job| job.run_ms > 0)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
