//! The calls that the wrapper lacks or gets wrong, straight through the library's symbols.

use crate::device::{Fabric, FabricState};
use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings as sys;
use std::mem::size_of;

/// Rows of memory that were mapped to spares.
pub(super) struct RemappedRows {
    pub pending: bool,
    pub failed: bool,
}

/// `None` where the driver or the device does not tell (before Ampere, or with MIG on).
pub(super) fn remapped_rows(nvml: &Nvml, device: &Device<'_>) -> Option<RemappedRows> {
    let symbol = nvml.lib().nvmlDeviceGetRemappedRows.as_ref().ok()?;
    let (mut corrected, mut uncorrected, mut pending, mut failed) = (0, 0, 0, 0);
    // SAFETY: the handle comes from this library and lives as long as `nvml`; all four targets are
    // valid for writes.
    let code = unsafe { symbol(device.handle(), &mut corrected, &mut uncorrected, &mut pending, &mut failed) };
    (code == sys::nvmlReturn_enum_NVML_SUCCESS).then_some(RemappedRows { pending: pending != 0, failed: failed != 0 })
}

/// What is at the far end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkEnd {
    Gpu,
    Switch,
    Other,
}

/// The wrapper's own call of this name throws the answer away.
pub(super) fn link_end(nvml: &Nvml, device: &Device<'_>, link: u32) -> Option<LinkEnd> {
    let symbol = nvml.lib().nvmlDeviceGetNvLinkRemoteDeviceType.as_ref().ok()?;
    let mut kind = sys::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_UNKNOWN;
    // SAFETY: as above; one target, valid for writes.
    let code = unsafe { symbol(device.handle(), link, &mut kind) };
    (code == sys::nvmlReturn_enum_NVML_SUCCESS).then_some(match kind {
        sys::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_GPU => LinkEnd::Gpu,
        sys::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_SWITCH => LinkEnd::Switch,
        _ => LinkEnd::Other,
    })
}

/// Membership in an NVLink fabric. Tries the newest struct first, as drivers refuse one they do not know.
pub(super) fn fabric(nvml: &Nvml, device: &Device<'_>) -> Fabric {
    let Ok(symbol) = nvml.lib().nvmlDeviceGetGpuFabricInfoV.as_ref() else {
        return Fabric::default();
    };
    let versions = [(3, size_of::<sys::nvmlGpuFabricInfo_v3_t>()), (2, size_of::<sys::nvmlGpuFabricInfo_v2_t>())];
    for (version, size) in versions {
        let mut info = sys::nvmlGpuFabricInfo_v3_t {
            version: size as u32 | version << 24,
            clusterUuid: [0; 16],
            status: 0,
            cliqueId: 0,
            state: 0,
            healthMask: 0,
            healthSummary: 0,
        };
        // SAFETY: version 2 is a prefix of version 3, so the target is large enough for either.
        let code = unsafe { symbol(device.handle(), &mut info) };
        if code == sys::nvmlReturn_enum_NVML_SUCCESS {
            return fabric_of(&info);
        }
    }
    Fabric::default()
}

fn fabric_of(info: &sys::nvmlGpuFabricInfo_v3_t) -> Fabric {
    let state = match u32::from(info.state) {
        sys::NVML_GPU_FABRIC_STATE_NOT_STARTED => FabricState::NotStarted,
        sys::NVML_GPU_FABRIC_STATE_IN_PROGRESS => FabricState::InProgress,
        // Completed with an error status is a fabric that could not be joined.
        sys::NVML_GPU_FABRIC_STATE_COMPLETED if info.status == 0 => FabricState::Completed,
        sys::NVML_GPU_FABRIC_STATE_COMPLETED => FabricState::NotStarted,
        _ => return Fabric::default(),
    };
    let hex: String = info.clusterUuid.iter().map(|byte| format!("{byte:02x}")).collect();
    let cluster_uuid = format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
    Fabric { state, cluster_uuid, clique: info.cliqueId, health_mask: info.healthMask }
}
