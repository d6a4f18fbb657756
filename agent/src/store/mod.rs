//! What an agent must not forget: tokens, allocations, reports nobody has acknowledged.
//!
//! One file of two slots that take turns, synced at every change that matters; how dropped
//! allocations ended is in another beside it. A file that is
//! missing or damaged is never taken for an empty one: it is moved aside, the store gets a new id,
//! and whoever opens it is told that it was lost.

mod ends;
mod ledger;
pub mod rank_logs;
mod slots;

pub use ends::Ends;
pub use ledger::{Ledger, Refusal};

use crate::assignment::{Key, Position, RunPart, StopRules};
use crate::shim::machine::RankExit;
use muster_runtime::durable::{self, DurableError};
use serde::{Deserialize, Serialize};
use slots::{SlotError, SlotFile};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Versions below 3 were sealed files, replaced as a whole.
const VERSION: u8 = 3;
const SEALED_MAGIC: &[u8] = b"MSTR";
const FILE: &str = "store";
/// The largest store. An agent holds at most a few thousand small records.
const BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Reports nobody acknowledges, before informational ones are left out.
const REPORTS_SOFT_MAX: usize = 4096;
/// Devices of which a fault is put off; a node has no more.
const PUT_OFF_MAX: usize = 256;

/// One allocation this node has accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub run: RunPart,
    pub stop: StopRules,
    /// End of the lease it began with, boot time in ms.
    pub first_deadline_ms: u64,
    pub boot_id: String,
    /// No process of it is left, and its devices are free of processes.
    pub gone: bool,
    /// It ended because the lease ran out.
    pub lease_expired: bool,
    /// A server asked for its end.
    pub stop_wanted: bool,
    pub prepared_reported: bool,
    pub started_reported: bool,
    pub failed_reported: bool,
    pub quarantine_reported: bool,
    pub released_reported: bool,
    /// By rank; told again to servers that were restored from a backup.
    pub exits: BTreeMap<u32, RankExit>,
}

impl Held {
    /// A record of something that has not begun.
    pub fn new(run: RunPart, stop: StopRules, first_deadline_ms: u64, boot_id: String) -> Self {
        Self {
            run,
            stop,
            first_deadline_ms,
            boot_id,
            gone: false,
            lease_expired: false,
            stop_wanted: false,
            prepared_reported: false,
            started_reported: false,
            failed_reported: false,
            quarantine_reported: false,
            released_reported: false,
            exits: BTreeMap::new(),
        }
    }

    /// What servers were told of it, in the order in which it happened, as far as it is the work's own doing.
    pub fn told(&self) -> Vec<ReportBody> {
        let mut told = Vec::new();
        told.extend(self.prepared_reported.then_some(ReportBody::Prepared));
        if self.ended_by_itself() {
            told.extend(self.exits.values().cloned().map(ReportBody::Exited));
        }
        // Of an end that the work came to by itself the release is asked for once the server knows of it.
        if self.gone && !self.is_concluded() {
            told.push(ReportBody::Released { lease_expired: self.lease_expired });
        }
        told
    }

    /// Whether a server that hears of its ranks' ends knows that no more of it runs.
    pub fn is_concluded(&self) -> bool {
        let failed = self.exits.values().any(|exit| exit.code != 0);
        self.has_succeeded() || (failed && self.ended_by_itself())
    }

    fn has_succeeded(&self) -> bool {
        self.exits.len() == self.run.ranks as usize && self.exits.values().all(|exit| exit.code == 0)
    }

    /// How ranks end that were told to is not the job's doing, and those who told them may be forgotten.
    fn ended_by_itself(&self) -> bool {
        self.has_succeeded() || !(self.stop_wanted || self.lease_expired)
    }
}

/// A report, as it will be sent until it is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// `None` for facts about the node.
    pub key: Option<Key>,
    pub body: ReportBody,
    /// UUID of the device that a fault is of. The slot in the body is that of the agent that wrote it, and the next one may
    /// find other devices. `None` in what an agent wrote that did not keep it.
    #[serde(skip)]
    pub device: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReportBody {
    Prepared,
    Failed {
        infra: bool,
        why: String,
    },
    Started,
    Exited(RankExit),
    Released {
        lease_expired: bool,
    },
    Quarantined {
        slots: Vec<u16>,
        why: String,
    },
    DeviceFault {
        slot: u16,
        xid: u32,
        why: String,
        fatal: bool,
    },
    /// A checkpoint that a later attempt can go on from is complete.
    Checkpointed,
}

impl ReportBody {
    /// What takes a device out of use.
    pub fn is_fatal_fault(&self) -> bool {
        matches!(self, Self::DeviceFault { fatal: true, .. })
    }

    /// Nothing depends on its arrival.
    fn is_informational(&self) -> bool {
        matches!(self, Self::Started | Self::Checkpointed | Self::DeviceFault { fatal: false, .. })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Image {
    store_id: String,
    cluster_id: Option<String>,
    seen: Position,
    ledger: Ledger,
    held: BTreeMap<Key, Held>,
    reports: BTreeMap<u64, Report>,
    next_report: u64,
    /// Fatal faults of devices that servers do not have yet, one for each, by UUID. They have no number: those are applied
    /// in order, and a later report's would count for them.
    #[serde(skip)]
    put_off: BTreeMap<String, ReportBody>,
}

impl Image {
    /// What was added to the format stands behind the rest, where agents from before it do not look.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = postcard::to_stdvec(self).expect("plain data encodes");
        let devices = self.reports.iter().filter_map(|(number, report)| Some((*number, report.device.as_deref()?)));
        let devices: BTreeMap<u64, &str> = devices.collect();
        bytes.extend(postcard::to_stdvec(&devices).expect("plain data encodes"));
        bytes.extend(postcard::to_stdvec(&self.put_off).expect("plain data encodes"));
        bytes
    }

    /// `None` for what no agent wrote.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (mut image, rest) = postcard::take_from_bytes::<Self>(bytes).ok()?;
        let (devices, rest) = next_part::<BTreeMap<u64, String>>(rest)?;
        (image.put_off, _) = next_part(rest)?;
        for (number, device) in devices {
            if let Some(report) = image.reports.get_mut(&number) {
                report.device = Some(device);
            }
        }
        image.is_sound().then_some(image)
    }

    /// Report numbers count on from here; one that was used already, or the last there is, was written by no agent.
    fn is_sound(&self) -> bool {
        let last = self.reports.last_key_value().map_or(0, |(number, _)| *number);
        self.next_report > last && self.next_report < u64::MAX / 2
    }
}

/// The next of the parts behind an image, and what is behind it; an image from before the part has the default.
fn next_part<'b, T: Deserialize<'b> + Default>(rest: &'b [u8]) -> Option<(T, &'b [u8])> {
    if rest.is_empty() {
        return Some((T::default(), rest));
    }
    postcard::take_from_bytes(rest).ok()
}

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Durable(#[from] DurableError),
    #[error(
        "{} has format {have}, and this agent writes format {VERSION}\n  help: run the agent that wrote it until the node is \
         drained and idle, then move the file away and start this one; without the file, processes it named are killed",
        path.display()
    )]
    OtherFormat { path: PathBuf, have: u8 },
}

/// The open store. Changes are made in memory and made durable by [`Store::save`]; nothing that
/// depends on a change may be done before it is saved.
#[derive(Debug)]
pub struct Store {
    file: SlotFile,
    image: Image,
    ends: Ends,
    ends_path: PathBuf,
    /// The store's absence or damage was noticed at opening.
    lost: bool,
}

impl Store {
    /// Opens the store in `state_dir`; `new_id` becomes its id if there is none to be read.
    ///
    /// Errors: the folder cannot be used, or the store is another release's. A damaged store is no error: see
    /// [`Store::is_lost`].
    pub fn open(state_dir: &Path, new_id: impl FnOnce() -> String) -> Result<Self, StoreError> {
        durable::create_folder(state_dir)?;
        let path = state_dir.join(FILE);
        let ends_path = state_dir.join(ends::FILE);
        if let Some((file, image)) = read(&path)? {
            let ends = Ends::open(&ends_path, &image.store_id)?;
            return Ok(Self { file, image, ends, ends_path, lost: false });
        }
        move_aside(&path);
        let image = Image {
            store_id: new_id(),
            cluster_id: None,
            seen: Position::default(),
            ledger: Ledger::default(),
            held: BTreeMap::new(),
            reports: BTreeMap::new(),
            next_report: 1,
            put_off: BTreeMap::new(),
        };
        let ends = Ends::open(&ends_path, &image.store_id)?;
        let file = SlotFile::create(&path, VERSION, &image.encode())?;
        let store = Self { file, image, ends, ends_path, lost: true };
        Ok(store)
    }

    /// Makes every change so far survive a power cut. After an error nothing is known, and the store must not be used on.
    pub fn save(&mut self) -> Result<(), DurableError> {
        // First: an allocation that is dropped from the one is in the other.
        self.ends.save(&self.ends_path)?;
        self.file.write(VERSION, &self.image.encode())
    }

    /// True when nothing may be concluded from what is not in the store.
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    pub fn id(&self) -> &str {
        &self.image.store_id
    }

    pub fn cluster_id(&self) -> Option<&str> {
        self.image.cluster_id.as_deref()
    }

    pub fn set_cluster_id(&mut self, id: &str) {
        self.image.cluster_id = Some(id.to_owned());
    }

    pub fn seen(&self) -> Position {
        self.image.seen
    }

    /// The newest desired state acted on. True when a leader or a generation changed: then it must
    /// be saved at once; a higher index alone may wait for the next save.
    pub fn advance_seen(&mut self, position: Position) -> bool {
        let before = self.image.seen;
        self.image.seen = before.max(position);
        (before.generation, before.term) != (self.image.seen.generation, self.image.seen.term)
    }

    pub fn ledger(&self) -> &Ledger {
        &self.image.ledger
    }

    pub fn ledger_mut(&mut self) -> &mut Ledger {
        &mut self.image.ledger
    }

    pub fn held(&self) -> &BTreeMap<Key, Held> {
        &self.image.held
    }

    pub fn held_mut(&mut self, key: &Key) -> Option<&mut Held> {
        self.image.held.get_mut(key)
    }

    /// Records an accepted allocation and its token.
    pub fn accept(&mut self, key: Key, held: Held) {
        self.image.ledger.accept(key, &held.run);
        self.image.held.insert(key, held);
    }

    /// How allocations ended that were dropped.
    pub fn ends(&self) -> &Ends {
        &self.ends
    }

    /// Drops an allocation that is gone; its token stays spent, and its end is remembered for a while.
    pub fn forget(&mut self, key: &Key) {
        if let Some(held) = self.image.held.remove(key) {
            self.image.ledger.spend(*key, &held.run);
            self.ends.note(*key, &held);
        }
    }

    /// Notes a report; it has its number from here on.
    pub fn report(&mut self, key: Option<Key>, body: ReportBody) {
        self.number(Report { key, body, device: None });
    }

    /// The same of a fact about the node; `device` is the UUID of the one that it is about.
    pub fn report_of(&mut self, device: Option<String>, body: ReportBody) {
        self.number(Report { key: None, body, device });
    }

    /// Keeps the first fatal fault of a device that servers do not have, without a number.
    pub fn put_off(&mut self, device: String, fault: ReportBody) {
        let put_off = &mut self.image.put_off;
        if put_off.len() >= PUT_OFF_MAX && !put_off.contains_key(&device) {
            tracing::warn!(%device, ?fault, "too many devices of which a fault waits; this one is left out");
            return;
        }
        put_off.entry(device).or_insert(fault);
    }

    /// Devices of which a fault waits without a number.
    pub fn waiting_faults(&self) -> impl Iterator<Item = &String> + '_ {
        self.image.put_off.keys()
    }

    /// Gives what was put off its number, but for devices that are still `unregistered`; what waits with a number and is of
    /// one of those loses it. True when anything changed.
    pub fn sort_faults(&mut self, unregistered: &BTreeSet<String>) -> bool {
        let is_early = |report: &Report| {
            report.body.is_fatal_fault() && report.device.as_ref().is_some_and(|device| unregistered.contains(device))
        };
        let early = self.image.reports.iter().filter(|(_, report)| is_early(report));
        let early: Vec<u64> = early.map(|(number, _)| *number).collect();
        let due = self.image.put_off.keys().filter(|device| !unregistered.contains(*device));
        let due: Vec<String> = due.cloned().collect();
        for number in &early {
            if let Some(Report { device: Some(device), body, .. }) = self.image.reports.remove(number) {
                self.put_off(device, body);
            }
        }
        for device in &due {
            if let Some(body) = self.image.put_off.remove(device) {
                self.report_of(Some(device.clone()), body);
            }
        }
        !(early.is_empty() && due.is_empty())
    }

    fn number(&mut self, report: Report) {
        let body = &report.body;
        if body.is_informational() && self.image.reports.len() >= REPORTS_SOFT_MAX {
            tracing::warn!(?body, "too many reports wait for a server; this one is left out");
            return;
        }
        self.image.reports.insert(self.image.next_report, report);
        self.image.next_report += 1;
    }

    /// What no server's applied index covers yet, by number.
    pub fn reports(&self) -> &BTreeMap<u64, Report> {
        &self.image.reports
    }

    /// Whether this very report has its number and no acknowledgement yet.
    pub fn is_waiting(&self, key: &Key, body: &ReportBody) -> bool {
        self.image.reports.values().any(|report| report.key == Some(*key) && report.body == *body)
    }

    /// The lowest number that is still here, or the next one.
    pub fn first_report(&self) -> u64 {
        self.image.reports.first_key_value().map_or(self.image.next_report, |(number, _)| *number)
    }

    /// Drops the reports up to `number`; a number never given out is ignored.
    pub fn acknowledge(&mut self, number: u64) -> bool {
        if number >= self.image.next_report {
            tracing::error!(number, "a server acknowledged a report that was never made");
            return false;
        }
        let kept = self.image.reports.split_off(&(number + 1));
        let dropped = std::mem::replace(&mut self.image.reports, kept);
        !dropped.is_empty()
    }
}

/// The store at `path`; `None` when it is missing, damaged, or cannot be true.
fn read(path: &Path) -> Result<Option<(SlotFile, Image)>, StoreError> {
    if let Some(have) = sealed_version(path) {
        return Err(StoreError::OtherFormat { path: path.to_owned(), have });
    }
    let (file, value) = match SlotFile::open(path, BYTES_MAX) {
        Ok(found) => found,
        Err(SlotError::Durable(error)) if error.is_missing() => return Ok(None),
        Err(SlotError::Durable(error)) => return Err(error.into()),
        Err(error @ SlotError::Damaged { .. }) => {
            tracing::error!(%error, "the agent's store cannot be believed");
            return Ok(None);
        }
    };
    if value.version != VERSION {
        return Err(StoreError::OtherFormat { path: path.to_owned(), have: value.version });
    }
    Ok(Image::decode(&value.bytes).map(|image| (file, image)))
}

/// The file of a store that holds this, whatever it is, for the fuzz targets.
pub(crate) fn file_of(payload: &[u8]) -> Vec<u8> {
    slots::lay_out(1, VERSION, payload).1
}

/// The version of a store from before there were slots.
fn sealed_version(path: &Path) -> Option<u8> {
    let mut start = [0; 5];
    File::open(path).ok()?.read_exact(&mut start).ok()?;
    start.starts_with(SEALED_MAGIC).then_some(start[4])
}

/// Removes a finished allocation's folder: it has nothing left to tell.
pub fn remove_folder(folder: &Path) {
    if let Err(error) = fs::remove_dir_all(folder)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %folder.display(), %error, "a finished allocation's folder cannot be removed");
    }
}

/// Keeps the `kept` newest files of a folder.
pub fn prune_files(folder: &Path, kept: usize) {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if let Ok(changed) = entry.metadata().and_then(|data| data.modified()) {
            files.push((changed, entry.path()));
        }
    }
    files.sort_unstable();
    let excess = files.len().saturating_sub(kept);
    for (_, path) in files.into_iter().take(excess) {
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "an old file cannot be removed");
        }
    }
}

fn move_aside(path: &Path) {
    if !path.exists() {
        return;
    }
    let target = (1..).map(|n| path.with_extension(format!("damaged-{n}"))).find(|target| !target.exists());
    let target = target.expect("there is a free number");
    match fs::rename(path, &target) {
        Ok(()) => tracing::error!(path = %target.display(), "the agent's store was damaged; it was moved aside"),
        Err(error) => tracing::error!(%error, path = %path.display(), "the damaged store cannot be moved aside"),
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub use tests::{exit as test_exit, held as test_held};
