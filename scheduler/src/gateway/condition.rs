//! How this server itself is doing, for whoever looks after it.

use super::{Inner, errors};
use muster_engine::apply::FEATURE_LEVEL;
use muster_proto::client as pb;
use muster_proto::convert::error::ErrorInfo;

/// What only the server itself knows. Touches the disk.
pub fn of(inner: &Inner) -> Result<pb::ServerCondition, ErrorInfo> {
    let ctx = &inner.ctx;
    let hook = ctx.elastic.as_ref().map(|elastic| elastic.hook.as_path());
    let identity = ctx.credentials.current();
    let syncs = ctx.consensus.instruments().recent_syncs_us();
    let room = nix::sys::statvfs::statvfs(ctx.consensus.data_dir()).ok();
    let bytes = |blocks: u64| room.as_ref().map_or(0, |room| blocks.saturating_mul(room.fragment_size()));
    Ok(pb::ServerCondition {
        wall_ms: ctx.clock.wall_ms(),
        certificate_expires_at_ms: identity.not_after_ms(),
        disk_free_bytes: bytes(room.as_ref().map_or(0, |room| room.blocks_available())),
        disk_bytes: bytes(room.as_ref().map_or(0, |room| room.blocks())),
        sync_median_us: syncs.get(syncs.len() / 2).copied(),
        sync_max_us: syncs.last().copied(),
        history_gaps: ctx.history.gaps().map_err(errors::history)?.len() as u64,
        feature_level_max: FEATURE_LEVEL,
        hook: hook.map(|hook| hook.display().to_string()).unwrap_or_default(),
        hook_problem: hook.and_then(crate::elastic::problem).unwrap_or_default(),
        elastic_pools: ctx.view().policy().elastic.len() as u32,
    })
}
