//! NVML's event sets.

use crate::node::{CHANGED, EventSet, Handle, lock, with_device, with_node};
use crate::write::{INVALID, OK};
use nvml_wrapper_sys::bindings::*;
use std::ffi::{c_uint, c_ulonglong};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

const OFFERED: u64 = (nvmlEventTypeXidCriticalError | nvmlEventTypeDoubleBitEccError) as u64;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetCreate(set: *mut nvmlEventSet_t) -> nvmlReturn_t {
    if set.is_null() {
        return INVALID;
    }
    with_node(|node| {
        let number = node.next_set;
        node.next_set += 1;
        node.sets.insert(number, EventSet::default());
        // SAFETY: not null, and by contract valid for writes.
        unsafe { set.write(std::ptr::without_provenance_mut(number)) };
        OK
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlEventSetFree(set: nvmlEventSet_t) -> nvmlReturn_t {
    with_node(|node| if node.sets.remove(&set.addr()).is_some() { OK } else { INVALID })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetSupportedEventTypes(
    device: nvmlDevice_t,
    types: *mut c_ulonglong,
) -> nvmlReturn_t {
    with_device(device, |_, _| {
        if types.is_null() {
            return INVALID;
        }
        // SAFETY: not null, and by contract valid for writes.
        unsafe { types.write(OFFERED) };
        OK
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceRegisterEvents(
    device: nvmlDevice_t,
    types: c_ulonglong,
    set: nvmlEventSet_t,
) -> nvmlReturn_t {
    with_device(device, |node, handle| {
        if types & !OFFERED != 0 {
            return nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED;
        }
        let Some(set) = node.sets.get_mut(&set.addr()) else {
            return INVALID;
        };
        *set.wanted.entry(handle.gpu).or_default() |= types;
        OK
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetWait_v2(
    set: nvmlEventSet_t,
    data: *mut nvmlEventData_t,
    timeout_ms: c_uint,
) -> nvmlReturn_t {
    if data.is_null() {
        return INVALID;
    }
    let until = Instant::now() + Duration::from_millis(u64::from(timeout_ms));
    let mut guard = lock();
    loop {
        let Some(node) = guard.as_mut() else {
            return nvmlReturn_enum_NVML_ERROR_UNINITIALIZED;
        };
        let Some(queue) = node.sets.get_mut(&set.addr()) else {
            return INVALID;
        };
        if let Some(event) = queue.queue.pop_front() {
            let filled = nvmlEventData_t {
                device: Handle { gpu: event.gpu, instance: None }.encode(),
                eventType: event.kind,
                eventData: event.data,
                gpuInstanceId: c_uint::MAX,
                computeInstanceId: c_uint::MAX,
            };
            // SAFETY: not null, and by contract valid for writes.
            unsafe { data.write(filled) };
            return OK;
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return nvmlReturn_enum_NVML_ERROR_TIMEOUT;
        }
        (guard, _) = CHANGED.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner);
    }
}
