//! Puts the agent together and runs it.

use crate::config::{Config, ConfigFault};
use crate::core::{Core, CoreHandle, CoreParts};
use crate::env::Surroundings;
use crate::health::{Devices, LOOK_EVERY_MS, report_of};
use crate::inventory::{InventoryError, Survey, survey};
use crate::isolation::Isolation;
use crate::launcher::RealLauncher;
use crate::launches::Launches;
use crate::link::{Backoff, Link};
use crate::paths::Paths;
use crate::procfs;
use crate::runner::Workplace;
use crate::store::Store;
use muster_runtime::actor::ActorError;
use muster_runtime::clock::{Clock, SystemClock, boot_id};
use muster_runtime::durable::DurableError;
use muster_runtime::identity::{Credentials, Identity, IdentityError, Role};
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
    Store(#[from] DurableError),
    #[error("the kernel does not tell {what}: {cause}")]
    Kernel { what: &'static str, cause: std::io::Error },
    #[error("a part of the agent failed; running ranks are not touched: {0}")]
    Failed(#[from] Cause),
    #[error("the survey of this node was interrupted")]
    Interrupted,
}

/// Runs the agent until `shutdown`. Ranks that run at the end run on: only their leases, their
/// servers and they themselves end them.
///
/// Errors: see [`AgentError`]; each ends the agent and leaves ranks alone.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), AgentError> {
    config.validate()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let identity = Identity::load(&config.identity_dir(), clock.wall_ms())?;
    let name = identity.name();
    if name.role != Role::Agent || name.name != config.name.as_str() {
        return Err(AgentError::WrongName { have: name.uri(), want: config.name.to_string() });
    }
    let kernel = |what| move |cause| AgentError::Kernel { what, cause };
    let boot_id = boot_id().map_err(kernel("its boot id"))?;
    let (store_id, instance) = (procfs::random_id(), procfs::random_id());
    let store_id = store_id.map_err(kernel("a random id"))?;
    let instance = instance.map_err(kernel("a random id"))?;
    let isolation = Isolation::detect(config.pid_namespace);
    let Survey { inventory, probe, .. } = survey_node(&config, isolation).await?;
    let uuids = inventory.devices.iter().map(|device| device.uuid.clone()).collect();
    let devices = Devices::new(probe, uuids);
    let paths = Paths::of(&config);
    let server = watch::Sender::new(None);
    let workplace = Workplace {
        launches: Launches::new(paths.launches(), server.subscribe()),
        paths: paths.clone(),
        boot_id: boot_id.clone(),
        pid_namespace: isolation.has_pid_namespace(),
        around: Surroundings { home: std::env::var("HOME").ok(), exe: std::env::current_exe().ok() },
    };
    let (core, handle) = Core::new(CoreParts {
        store: Store::open(&config.state_dir, || store_id)?,
        workplace,
        launcher: Arc::new(RealLauncher::new(config.shim_command.clone(), boot_id)),
        devices: devices.clone(),
        clock: clock.clone(),
        kill_bound_ms: config.kill_bound_ms,
        kept_logs: config.kept_logs,
    });
    let link = Link {
        servers: config.servers.clone(),
        credentials: Credentials::new(identity),
        identity_dir: config.identity_dir(),
        inventory,
        backoff: Backoff::new(seed_of(&instance)),
        instance,
        core: handle.clone(),
        server,
        paths,
        clock: clock.clone(),
    };
    let supervisor = Supervisor::new(shutdown.clone(), clock.clone());
    supervisor.spawn("core", core.run(shutdown.clone()));
    supervisor.spawn("link", link.run(shutdown.clone()));
    supervisor.spawn("devices", watch_devices(devices, handle, clock, shutdown));
    supervisor.wait(END_WITHIN_MS).await?;
    Ok(())
}

async fn survey_node(config: &Config, isolation: Isolation) -> Result<Survey, AgentError> {
    let source = config.device_source()?;
    let about = config.inventory(isolation.has_pid_namespace());
    let surveyed = tokio::task::spawn_blocking(move || survey(&source, &about)).await;
    Ok(surveyed.map_err(|_| AgentError::Interrupted)??)
}

/// Passes on what devices say about themselves.
async fn watch_devices(
    devices: Devices,
    core: CoreHandle,
    clock: Arc<dyn Clock>,
    shutdown: Shutdown,
) -> Result<(), ActorError> {
    while shutdown.unless(clock.sleep_ms(LOOK_EVERY_MS)).await.is_some() {
        for event in devices.events().await {
            tracing::warn!(?event, "a device spoke up");
            if let Some(report) = report_of(&event) {
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
