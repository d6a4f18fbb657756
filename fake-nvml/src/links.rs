//! NVML's calls about how devices are joined.

use crate::device::pci_info;
use crate::node::{Handle, lock, with_device};
use crate::write::{INVALID, NOT_SUPPORTED, OK, put};
use nvml_wrapper_sys::bindings::*;
use std::ffi::c_uint;
use std::mem::size_of;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTopologyCommonAncestor(
    one: nvmlDevice_t,
    other: nvmlDevice_t,
    level: *mut nvmlGpuTopologyLevel_t,
) -> nvmlReturn_t {
    let Some(other) = Handle::decode(other) else {
        return INVALID;
    };
    with_device(one, |node, one| {
        let told =
            node.machine.matrix_pci_level[one.gpu].get(other.gpu).and_then(|level| c_uint::try_from(*level).ok());
        match told {
            Some(told) => unsafe { put(level, told) },
            None => INVALID,
        }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNvLinkState(
    device: nvmlDevice_t,
    link: c_uint,
    state: *mut nvmlEnableState_t,
) -> nvmlReturn_t {
    with_link(device, link, |active| unsafe { put(state, c_uint::from(active)) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNvLinkRemoteDeviceType(
    device: nvmlDevice_t,
    link: c_uint,
    kind: *mut nvmlIntNvLinkDeviceType_t,
) -> nvmlReturn_t {
    if lock().as_ref().is_some_and(|node| node.old_driver) {
        return nvmlReturn_enum_NVML_ERROR_FUNCTION_NOT_FOUND;
    }
    with_link(device, link, |_| unsafe { put(kind, nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_SWITCH) })
}

/// Every link of every fixture ends in a switch; its address is one that no GPU has.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNvLinkRemotePciInfo_v2(
    device: nvmlDevice_t,
    link: c_uint,
    pci: *mut nvmlPciInfo_t,
) -> nvmlReturn_t {
    with_link(device, link, |_| match pci_info(&format!("0000:fe:{:02x}.0", link / 4), "10de:22a3") {
        Some(info) => unsafe { put(pci, info) },
        None => nvmlReturn_enum_NVML_ERROR_UNKNOWN,
    })
}

fn with_link(device: nvmlDevice_t, link: c_uint, call: impl FnOnce(bool) -> nvmlReturn_t) -> nvmlReturn_t {
    with_device(device, |node, handle| {
        let gpu = &node.machine.gpus[handle.gpu];
        if gpu.nvlinks_max == 0 {
            return NOT_SUPPORTED;
        }
        if link >= gpu.nvlinks_max {
            return INVALID;
        }
        call(link < gpu.nvlinks_active && !node.gpus[handle.gpu].links_down.contains(&link))
    })
}

/// Takes version 3 of the struct only, as the newest driver of the fixtures does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuFabricInfoV(
    device: nvmlDevice_t,
    info: *mut nvmlGpuFabricInfoV_t,
) -> nvmlReturn_t {
    with_device(device, |node, handle| {
        if info.is_null() {
            return INVALID;
        }
        let (Some(fabric), false) = (&node.machine.fabric, node.old_driver) else {
            return NOT_SUPPORTED;
        };
        // SAFETY: not null; every version begins with its number.
        if unsafe { (&raw const (*info).version).read() } != (size_of::<nvmlGpuFabricInfo_v3_t>() | 3 << 24) as c_uint {
            return nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
        }
        // SAFETY: the number says that the caller's struct is this one.
        let info = unsafe { &mut *info };
        let hex: String = fabric.cluster_uuid.chars().filter(|c| *c != '-').collect();
        for (at, byte) in info.clusterUuid.iter_mut().enumerate() {
            *byte = hex.get(at * 2..at * 2 + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()).unwrap_or(0);
        }
        info.status = OK;
        info.cliqueId = fabric.clique_id;
        let joined = fabric.state == "completed" && node.machine.gpus[handle.gpu].nvlinks_active > 0;
        let state = if joined { NVML_GPU_FABRIC_STATE_COMPLETED } else { NVML_GPU_FABRIC_STATE_NOT_STARTED };
        info.state = state as u8;
        info.healthMask = 0;
        info.healthSummary = 0;
        OK
    })
}
