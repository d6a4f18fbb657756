//! Puts the agent together and runs it.

use crate::config::{Config, ConfigFault};
use crate::core::{Core, CoreHandle, CoreParts};
use crate::device::Probe;
use crate::env::Surroundings;
use crate::health::{Devices, FaultsTold, HEALTH_EVERY_MS, LOOK_EVERY_MS, SAMPLE_EVERY_MS, Samples, report_of};
use crate::inventory::{InventoryError, Survey, survey};
use crate::isolation::Isolation;
use crate::launcher::{Launcher, RealLauncher};
use crate::launches::Launches;
use crate::link::{Backoff, Link};
use crate::paths::Paths;
use crate::procfs;
use crate::runner::Workplace;
use crate::shim::raise_open_files;
use crate::store::{Store, StoreError};
use muster_common::node::Inventory;
use muster_runtime::actor::ActorError;
use muster_runtime::clock::{Clock, SystemClock, boot_id};
use muster_runtime::identity::{Credentials, Identity, IdentityError, Network, Role, TlsNetwork};
use muster_runtime::shutdown::Shutdown;
use muster_runtime::supervisor::{Cause, Supervisor};
use std::sync::Arc;
use tokio::sync::watch;

/// How long parts of the agent have to end after the signal.
const END_WITHIN_MS: u64 = 3_000;

/// Why an agent cannot run, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("the agent's configuration cannot work: {0}")]
    Config(#[from] ConfigFault),
    #[error("this node has no usable identity: {0}\n  help: get one with `muster agent join`")]
    Identity(#[from] IdentityError),
    #[error("the certificate names {have}, the configuration agent `{want}`\n  help: join again under the right name")]
    WrongName { have: String, want: String },
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    #[error("the agent's state cannot be kept: {0}")]
    Store(#[from] StoreError),
    #[error("the kernel does not tell {what}: {cause}")]
    Kernel { what: &'static str, cause: std::io::Error },
    #[error("a part of the agent failed; running ranks are not touched: {0}")]
    Failed(#[from] Cause),
    #[error("the survey of this node was interrupted")]
    Interrupted,
}

/// Everything outside an agent that it reaches, in one place: a process gets the machine's own, a simulated cluster its
/// pretended ones.
pub struct Seams {
    pub clock: Arc<dyn Clock>,
    pub network: Arc<dyn Network>,
    pub launcher: Arc<dyn Launcher>,
    pub credentials: Credentials,
    /// What the node has, and how its devices are asked.
    pub inventory: Inventory,
    pub probe: Box<dyn Probe>,
    /// Whether ranks die with their shim by the kernel's hand.
    pub pid_namespace: bool,
    pub ids: Ids,
}

/// Ids no two of a kind share.
#[derive(Debug, Clone)]
pub struct Ids {
    /// Of this boot of the node.
    pub boot: String,
    /// Of the store, if a new one has to be made.
    pub store: String,
    /// Of this run of the agent.
    pub instance: String,
}

impl Seams {
    async fn of_machine(config: &Config) -> Result<Self, AgentError> {
        let identity = Identity::load(&config.identity_dir(), SystemClock.wall_ms())?;
        let name = identity.name();
        if name.role != Role::Agent || name.name != config.name.as_str() {
            return Err(AgentError::WrongName { have: name.uri(), want: config.name.to_string() });
        }
        let kernel = |what| move |cause| AgentError::Kernel { what, cause };
        let boot = boot_id().map_err(kernel("its boot id"))?;
        let id = || procfs::random_id().map_err(kernel("a random id"));
        let isolation = Isolation::detect(config.pid_namespace);
        let Survey { inventory, probe, .. } = survey_node(config, isolation).await?;
        Ok(Self {
            clock: Arc::new(SystemClock),
            network: Arc::new(TlsNetwork),
            launcher: Arc::new(RealLauncher::new(config.shim_command.clone(), boot.clone())),
            credentials: Credentials::new(identity),
            inventory,
            probe,
            pid_namespace: isolation.has_pid_namespace(),
            ids: Ids { store: id()?, instance: id()?, boot },
        })
    }
}

/// Runs the agent until `shutdown`. Ranks that run at the end run on: only their leases, their
/// servers and they themselves end them.
///
/// Errors: see [`AgentError`]; each ends the agent and leaves ranks alone.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), AgentError> {
    config.validate()?;
    // A socket for each allocation, and what starts an agent may have left it few.
    raise_open_files();
    let seams = Seams::of_machine(&config).await?;
    run_on(config, seams, shutdown).await
}

/// The same on a clock, a network, a launcher and devices of the caller's choice.
pub async fn run_on(config: Config, seams: Seams, shutdown: Shutdown) -> Result<(), AgentError> {
    let Seams { clock, network, launcher, credentials, inventory, probe, pid_namespace, ids } = seams;
    let uuids = inventory.devices.iter().map(|device| device.uuid.clone()).collect();
    let devices = Devices::new(probe, uuids);
    let paths = Paths::open(&config).map_err(StoreError::from)?;
    let server = watch::Sender::new(None);
    let workplace = Workplace {
        launches: Launches::new(paths.launches(), server.subscribe()),
        paths: paths.clone(),
        boot_id: ids.boot,
        pid_namespace,
        around: Surroundings { home: std::env::var("HOME").ok(), exe: std::env::current_exe().ok() },
    };
    let (core, handle) = Core::new(CoreParts {
        store: Store::open(&config.state_dir, || ids.store)?,
        workplace,
        launcher,
        devices: devices.clone(),
        clock: clock.clone(),
        kill_bound_ms: config.kill_bound_ms,
        kept_logs: config.kept_logs,
    });
    let (samples, sampled) = watch::channel(Samples::default());
    let link = Link {
        servers: config.servers.clone(),
        network,
        credentials,
        identity_dir: config.identity_dir(),
        inventory,
        backoff: Backoff::new(seed_of(&ids.instance)),
        instance: ids.instance,
        core: handle.clone(),
        server,
        paths,
        clock: clock.clone(),
        heartbeat: config.heartbeat,
        samples: sampled,
    };
    let supervisor = Supervisor::new(shutdown.clone(), clock.clone());
    supervisor.spawn("core", core.run(shutdown.clone()));
    supervisor.spawn("link", link.run(shutdown.clone()));
    supervisor.spawn("devices", watch_devices(devices, handle, clock, samples, shutdown));
    supervisor.wait(END_WITHIN_MS).await?;
    Ok(())
}

async fn survey_node(config: &Config, isolation: Isolation) -> Result<Survey, AgentError> {
    let source = config.device_source()?;
    let about = config.inventory(isolation.has_pid_namespace());
    let surveyed = muster_runtime::aside::run(move || survey(&source, &about)).await;
    Ok(surveyed.map_err(|_| AgentError::Interrupted)??)
}

/// Passes on what devices say about themselves.
async fn watch_devices(
    devices: Devices,
    core: CoreHandle,
    clock: Arc<dyn Clock>,
    samples: watch::Sender<Samples>,
    shutdown: Shutdown,
) -> Result<(), ActorError> {
    let (mut sample_at_ms, mut health_at_ms) = (0, 0);
    let mut told = FaultsTold::default();
    while shutdown.unless(clock.sleep_ms(LOOK_EVERY_MS)).await.is_some() {
        for event in devices.events().await {
            tracing::warn!(?event, "a device spoke up");
            if let Some(report) = report_of(&event) {
                core.report(report).await?;
            }
        }
        let now_ms = clock.boottime_ms();
        if now_ms >= sample_at_ms {
            sample_at_ms = now_ms + SAMPLE_EVERY_MS;
            samples.send_replace(Arc::new(devices.samples(core.load(), now_ms).await));
        }
        if now_ms >= health_at_ms {
            health_at_ms = now_ms + HEALTH_EVERY_MS;
            for report in told.news(&devices.health().await, &core.load()) {
                tracing::warn!(?report, "a device is not as it should be");
                core.report(report).await?;
            }
        }
    }
    Ok(())
}

/// A number from a random id.
fn seed_of(id: &str) -> u64 {
    id.bytes().fold(0, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)))
}
