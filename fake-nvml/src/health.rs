//! NVML's calls about how a device is doing.

use crate::node::with_device;
use crate::write::{INVALID, NOT_SUPPORTED, OK, put};
use nvml_wrapper_sys::bindings::field_id::*;
use nvml_wrapper_sys::bindings::*;
use std::ffi::{c_int, c_uint, c_ulonglong};
use std::mem::size_of;

const GIB: u64 = 1 << 30;
/// A MIG instance is told to have this part of its GPU's memory.
const INSTANCE_PART: u64 = 8;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(
    device: nvmlDevice_t,
    memory: *mut nvmlMemory_v2_t,
) -> nvmlReturn_t {
    with_device(device, |node, handle| {
        let part = if handle.instance.is_some() { INSTANCE_PART } else { 1 };
        let total = node.product.memory_gib * GIB / part;
        let version = (size_of::<nvmlMemory_v2_t>() | 2 << 24) as c_uint;
        unsafe { put(memory, nvmlMemory_v2_t { version, total, reserved: 0, free: total, used: 0 }) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetRemappedRows(
    device: nvmlDevice_t,
    corrected: *mut c_uint,
    uncorrected: *mut c_uint,
    pending: *mut c_uint,
    failed: *mut c_uint,
) -> nvmlReturn_t {
    with_device(device, |node, handle| {
        let state = &node.gpus[handle.gpu];
        if state.instances.is_some() || node.old_driver {
            return NOT_SUPPORTED;
        }
        let (is_pending, has_failed) = (c_uint::from(state.remap_pending), c_uint::from(state.remap_failed));
        let values = [(corrected, 0), (uncorrected, is_pending), (pending, is_pending), (failed, has_failed)];
        values.into_iter().map(|(target, value)| unsafe { put(target, value) }).find(|code| *code != OK).unwrap_or(OK)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetFieldValues(
    device: nvmlDevice_t,
    count: c_int,
    values: *mut nvmlFieldValue_t,
) -> nvmlReturn_t {
    with_device(device, |node, handle| {
        let Ok(count) = usize::try_from(count) else {
            return INVALID;
        };
        if values.is_null() {
            return INVALID;
        }
        // SAFETY: by contract the caller's array has `count` elements, already initialised.
        for value in unsafe { std::slice::from_raw_parts_mut(values, count) } {
            let state = &node.gpus[handle.gpu];
            let told = match value.fieldId {
                _ if node.old_driver => None,
                NVML_FI_DEV_REMAPPED_PENDING => Some(c_uint::from(state.remap_pending)),
                NVML_FI_DEV_REMAPPED_FAILURE => Some(c_uint::from(state.remap_failed)),
                NVML_FI_DEV_GET_GPU_RECOVERY_ACTION => Some(state.recovery),
                _ => None,
            };
            value.nvmlReturn = if told.is_some() { OK } else { NOT_SUPPORTED };
            value.valueType = nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT;
            value.value = nvmlValue_t { uiVal: told.unwrap_or(0) };
        }
        OK
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTotalEccErrors(
    device: nvmlDevice_t,
    _error: nvmlMemoryErrorType_t,
    _counter: nvmlEccCounterType_t,
    count: *mut c_ulonglong,
) -> nvmlReturn_t {
    with_device(device, |_, _| unsafe { put(count, 0) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUtilizationRates(
    device: nvmlDevice_t,
    rates: *mut nvmlUtilization_t,
) -> nvmlReturn_t {
    with_device(device, |_, _| unsafe { put(rates, nvmlUtilization_t { gpu: 0, memory: 0 }) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperature(
    device: nvmlDevice_t,
    _sensor: nvmlTemperatureSensors_t,
    celsius: *mut c_uint,
) -> nvmlReturn_t {
    with_device(device, |node, handle| unsafe { put(celsius, node.gpus[handle.gpu].temperature_c) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPowerUsage(device: nvmlDevice_t, milliwatts: *mut c_uint) -> nvmlReturn_t {
    with_device(device, |_, _| unsafe { put(milliwatts, 70_000) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    device: nvmlDevice_t,
    count: *mut c_uint,
    infos: *mut nvmlProcessInfo_t,
) -> nvmlReturn_t {
    with_device(device, |node, handle| {
        if count.is_null() {
            return INVALID;
        }
        let pids: &[u32] = node.gpus[handle.gpu].pids.get(&handle.instance).map_or(&[], Vec::as_slice);
        // SAFETY: not null; by contract `count` holds the length of `infos` and takes the number found.
        let room = unsafe { count.replace(pids.len() as c_uint) } as usize;
        if room < pids.len() {
            return nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE;
        }
        for (at, pid) in pids.iter().enumerate() {
            let info = nvmlProcessInfo_t {
                pid: *pid,
                usedGpuMemory: 0,
                gpuInstanceId: c_uint::MAX,
                computeInstanceId: c_uint::MAX,
            };
            // SAFETY: `at` is below the length the caller gave.
            unsafe { infos.add(at).write(info) };
        }
        OK
    })
}
