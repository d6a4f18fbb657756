//! The NVIDIA driver's answers, through NVML.
//!
//! A call into a wedged driver may never return. So all calls run on a thread of their own and the
//! agent waits for a bounded time: a stuck driver costs that thread, not the agent. Critical errors
//! are waited for on a second thread.

mod events;
mod links;
mod raw;
mod read;

use super::{DeviceEvent, DeviceReport, Load, Probe, ProbeError};
use muster_proto::datagram::Sample;
use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use read::Reader;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The name the driver's package installs; the name without `.1` belongs to developers' packages.
const LIBRARY: &str = "libnvidia-ml.so.1";
/// Starting the library may load the kernel module and wake every GPU.
const START_LIMIT_MS: u64 = 60_000;
/// One question. A healthy driver answers all of ours for eight GPUs in well under a second.
const ANSWER_LIMIT_MS: u64 = 20_000;
const QUESTIONS_MAX: usize = 4;
const EVENTS_MAX: usize = 1024;

/// Asks the driver through `libnvidia-ml`.
#[derive(Debug)]
pub struct NvmlProbe {
    questions: SyncSender<Question>,
    events: Mutex<Receiver<DeviceEvent>>,
    shared: Arc<Shared>,
    driver: String,
    answer_limit_ms: u64,
}

/// What the two threads and the handle have in common.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// UUIDs in slot order, from the last report.
    slots: Mutex<Vec<String>>,
    last_xid: Mutex<BTreeMap<String, u32>>,
}

enum Question {
    Devices(SyncSender<Result<DeviceReport, ProbeError>>),
    Samples(SyncSender<Result<Vec<Sample>, ProbeError>>),
    Processes { uuid: String, reply: SyncSender<Result<Vec<u32>, ProbeError>> },
}

impl NvmlProbe {
    /// Loads the library (the driver's own if `None`) and starts both threads.
    ///
    /// Errors: [`ProbeError::LibraryMissing`] when there is no such library, [`ProbeError::Init`] when
    /// it does not start, [`ProbeError::Stuck`] when the driver does not answer.
    pub fn open(library: Option<&Path>) -> Result<Self, ProbeError> {
        let library = library.map_or_else(|| OsStr::new(LIBRARY).to_owned(), |path| path.as_os_str().to_owned());
        let shared = Arc::new(Shared::default());
        let (questions, asked) = sync_channel(QUESTIONS_MAX);
        let (started, start) = sync_channel(1);
        let worker_shared = shared.clone();
        spawn("nvml-probe", move || match start_library(&library) {
            Ok(nvml) => {
                let nvml = Arc::new(nvml);
                // A caller that gave up waiting has dropped its end; then there is nobody to work for.
                if started.send(Ok(nvml.clone())).is_ok() {
                    Reader::new(&nvml, &worker_shared).answer_all(&asked);
                }
            }
            Err(error) => drop(started.send(Err(error))),
        })?;
        let nvml = receive(&start, "the start of its library", START_LIMIT_MS)??;
        let driver = nvml.sys_driver_version().unwrap_or_else(|_| "of unknown version".to_owned());
        let (sender, events) = sync_channel(EVENTS_MAX);
        let (registered, registration) = sync_channel(1);
        let watch_shared = shared.clone();
        spawn("nvml-events", move || events::watch(&nvml, &watch_shared, &sender, registered))?;
        // After this nothing is missed. A driver without events just ends that thread.
        match receive(&registration, "the registration for events", START_LIMIT_MS) {
            Ok(()) | Err(ProbeError::Stopped) => {}
            Err(error) => return Err(error),
        }
        Ok(Self { questions, events: Mutex::new(events), shared, driver, answer_limit_ms: ANSWER_LIMIT_MS })
    }

    /// Waits at most that long for each answer of the driver.
    pub fn with_answer_limit_ms(mut self, limit_ms: u64) -> Self {
        self.answer_limit_ms = limit_ms;
        self
    }

    fn ask<T>(
        &self,
        what: &str,
        question: impl FnOnce(SyncSender<Result<T, ProbeError>>) -> Question,
    ) -> Result<T, ProbeError> {
        let (reply, answer) = sync_channel(1);
        self.questions.try_send(question(reply)).map_err(|error| match error {
            TrySendError::Full(_) => ProbeError::Stuck { what: what.to_owned(), limit_ms: self.answer_limit_ms },
            TrySendError::Disconnected(_) => ProbeError::Stopped,
        })?;
        receive(&answer, what, self.answer_limit_ms)?
    }
}

impl Probe for NvmlProbe {
    fn devices(&mut self) -> Result<DeviceReport, ProbeError> {
        self.ask("the list of devices", Question::Devices)
    }

    fn events(&mut self, wait_ms: u64) -> Vec<DeviceEvent> {
        let events = self.events.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut arrived = Vec::new();
        match events.recv_timeout(Duration::from_millis(wait_ms)) {
            Ok(event) => arrived.push(event),
            Err(RecvTimeoutError::Timeout) => return arrived,
            Err(RecvTimeoutError::Disconnected) => {
                // A driver without events ends the thread at once; do not let callers spin.
                std::thread::sleep(Duration::from_millis(wait_ms));
                return arrived;
            }
        }
        arrived.extend(events.try_iter().take(EVENTS_MAX));
        arrived
    }

    fn processes(&self, slot: u16) -> Result<Vec<u32>, ProbeError> {
        let uuid = {
            let slots = self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner);
            let count = slots.len();
            slots.get(usize::from(slot)).cloned().ok_or(ProbeError::NoSuchSlot { slot, count })?
        };
        self.ask("the processes on a device", |reply| Question::Processes { uuid, reply })
    }

    fn samples(&mut self, _load: &Load, _now_ms: u64) -> Result<Vec<Sample>, ProbeError> {
        self.ask("samples of all devices", Question::Samples)
    }

    fn describe(&self) -> String {
        format!("nvml, driver {}", self.driver)
    }
}

impl Drop for NvmlProbe {
    /// Both threads end by themselves; a thread stuck in the driver must not hold up the agent, so
    /// nobody waits for them.
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), ProbeError> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(body);
    spawned.map(drop).map_err(|error| query(&format!("the thread {name}"), error))
}

fn receive<T>(from: &Receiver<T>, what: &str, limit_ms: u64) -> Result<T, ProbeError> {
    from.recv_timeout(Duration::from_millis(limit_ms)).map_err(|error| match error {
        RecvTimeoutError::Timeout => ProbeError::Stuck { what: what.to_owned(), limit_ms },
        RecvTimeoutError::Disconnected => ProbeError::Stopped,
    })
}

fn start_library(library: &OsStr) -> Result<Nvml, ProbeError> {
    let path = library.to_string_lossy().into_owned();
    Nvml::builder().lib_path(library).init().map_err(|error| match error {
        NvmlError::LibloadingError(cause) => ProbeError::LibraryMissing { path, cause: cause.to_string() },
        // The file is a library, but not this one.
        NvmlError::FailedToLoadSymbol(cause) => ProbeError::LibraryMissing { path, cause },
        other => ProbeError::Init { path, cause: other.to_string() },
    })
}

fn query(what: &str, cause: impl std::fmt::Display) -> ProbeError {
    ProbeError::Query { what: what.to_owned(), cause: cause.to_string() }
}
