//! What an invented device would say of itself, from what it is and what it runs. Not a model of
//! hardware: enough that what is shown moves with the work, and that equal work looks equal.

use crate::device::{DeviceHealth, Load, model};
use muster_common::node::Device;
use muster_proto::datagram::Sample;
use sha2::{Digest, Sha256};

/// Between two values of one device's wobble.
const WOBBLE_EVERY_MS: u64 = 5_000;
const WHOLE_MILLI: u64 = 1_000;
/// Of the memory that a job may use; the rest is what frameworks leave.
const FILLED_PERCENT: u64 = 85;
/// Of a fully busy device, before its wobble.
const BUSY_PERCENT: u64 = 90;
/// Of its rated power that a fully busy device draws.
const DRAWN_PERCENT: u64 = 85;
/// Above an idle device, by the fullest load.
const WARMER_C: u64 = 32;

/// Each value is what the device would show idle, plus its share for what is held of it.
pub(super) fn sample(slot: u16, device: &Device, idle: &DeviceHealth, load: &Load, now_ms: u64) -> Sample {
    let held_milli = u64::from(load.get(&slot).copied().unwrap_or(0)).min(WHOLE_MILLI);
    let of = |whole: u64| whole * held_milli / WHOLE_MILLI;
    let wobble = if held_milli == 0 { 0 } else { wobble(&device.uuid, now_ms) };
    let idle_mw = u64::from(idle.power_mw.unwrap_or(0));
    let rated_mw = model::products()
        .iter()
        .find(|known| known.product == device.product)
        .map(|known| u64::from(known.tdp_w) * 1000);
    let drawn_mw = rated_mw.map(|rated| of((rated * DRAWN_PERCENT / 100).saturating_sub(idle_mw)));
    let idle_busy = u64::from(idle.busy_percent.unwrap_or(0));
    let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    Sample {
        slot,
        busy_percent: Some((idle_busy + of(BUSY_PERCENT) + wobble).min(100) as u8),
        memory_used_bytes: Some(
            (idle.memory_used_bytes.unwrap_or(0) + of(device.memory_bytes / 100 * FILLED_PERCENT))
                .min(device.memory_bytes),
        ),
        temperature_c: idle.temperature_c.map(|celsius| (u64::from(celsius) + of(WARMER_C) + wobble / 2) as u16),
        power_mw: Some(small(idle_mw + drawn_mw.unwrap_or(0) + wobble * 1_000)),
    }
}

/// 0 to 9, another every few seconds, the same for the same device and moment.
fn wobble(uuid: &str, now_ms: u64) -> u64 {
    let digest = Sha256::digest(format!("wobble\0{uuid}\0{}", now_ms / WOBBLE_EVERY_MS));
    u64::from(digest[0]) % 10
}
