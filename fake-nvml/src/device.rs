//! NVML's calls about what a device is.

use crate::node::{Handle, with_device, with_identity};
use crate::write::{INVALID, NOT_SUPPORTED, OK, put, put_text};
use nvml_wrapper_sys::bindings::*;
use std::ffi::{c_char, c_uint, c_ulong};

/// MIG instances that one GPU can have at most.
const INSTANCES_MAX: c_uint = 7;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetName(device: nvmlDevice_t, name: *mut c_char, length: c_uint) -> nvmlReturn_t {
    with_identity(device, |node, handle| {
        let part = if handle.instance.is_some() { " MIG 1g" } else { "" };
        unsafe { put_text(name, length, &format!("{}{part}", node.product.product)) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(device: nvmlDevice_t, uuid: *mut c_char, length: c_uint) -> nvmlReturn_t {
    with_identity(device, |node, handle| unsafe { put_text(uuid, length, &node.uuid(handle)) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetSerial(
    device: nvmlDevice_t,
    serial: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    with_identity(device, |node, handle| {
        let whole = Handle { instance: None, ..handle };
        unsafe { put_text(serial, length, &node.uuid(whole)["GPU-".len()..][..13].to_uppercase()) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(device: nvmlDevice_t, pci: *mut nvmlPciInfo_t) -> nvmlReturn_t {
    with_identity(device, |node, handle| {
        let gpu = &node.machine.gpus[handle.gpu];
        match pci_info(&gpu.pci_bus_id, &gpu.pci_device_id) {
            Some(info) => unsafe { put(pci, info) },
            None => nvmlReturn_enum_NVML_ERROR_UNKNOWN,
        }
    })
}

/// From `0000:1b:00.0` and `10de:2330`.
pub fn pci_info(address: &str, ids: &str) -> Option<nvmlPciInfo_t> {
    let hex = |text: &str| c_uint::from_str_radix(text, 16).ok();
    let mut parts = address.split([':', '.']);
    let (domain, bus, device) = (hex(parts.next()?)?, hex(parts.next()?)?, hex(parts.next()?)?);
    let (vendor, product) = ids.split_once(':')?;
    let mut info = nvmlPciInfo_t {
        busIdLegacy: [0; 16],
        domain,
        bus,
        device,
        pciDeviceId: hex(product)? << 16 | hex(vendor)?,
        pciSubSystemId: 0,
        busId: [0; 32],
    };
    let id = format!("{domain:08X}:{bus:02X}:{device:02X}.0");
    for (target, byte) in info.busId.iter_mut().zip(id.bytes()) {
        *target = byte as c_char;
    }
    Some(info)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCpuAffinity(
    device: nvmlDevice_t,
    words: c_uint,
    set: *mut c_ulong,
) -> nvmlReturn_t {
    with_device(device, |node, handle| {
        if set.is_null() {
            return INVALID;
        }
        // SAFETY: by contract the caller's array has `words` elements, already initialised.
        let set = unsafe { std::slice::from_raw_parts_mut(set, words as usize) };
        set.fill(0);
        let bits = c_ulong::BITS as usize;
        for part in node.machine.gpus[handle.gpu].cpu_affinity.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) else {
                return INVALID;
            };
            for cpu in first..=last {
                let Some(word) = set.get_mut(cpu / bits) else {
                    return nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE;
                };
                *word |= 1 << (cpu % bits);
            }
        }
        OK
    })
}

/// As with a real driver: only where the device's memory is a NUMA node, and then that node.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNumaNodeId(device: nvmlDevice_t, numa: *mut c_uint) -> nvmlReturn_t {
    with_device(device, |node, handle| match node.machine.gpus[handle.gpu].memory_numa_node {
        Some(id) => unsafe { put(numa, id) },
        None => NOT_SUPPORTED,
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigMode(
    device: nvmlDevice_t,
    current: *mut c_uint,
    pending: *mut c_uint,
) -> nvmlReturn_t {
    with_device(device, |node, handle| {
        let mode = c_uint::from(node.gpus[handle.gpu].instances.is_some());
        match unsafe { put(current, mode) } {
            OK => unsafe { put(pending, mode) },
            code => code,
        }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMaxMigDeviceCount(device: nvmlDevice_t, count: *mut c_uint) -> nvmlReturn_t {
    with_device(device, |_, _| unsafe { put(count, INSTANCES_MAX) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    device: nvmlDevice_t,
    index: c_uint,
    instance: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    with_device(device, |node, handle| match node.gpus[handle.gpu].instances {
        Some(count) if index < count => unsafe { put(instance, Handle { instance: Some(index), ..handle }.encode()) },
        _ => nvmlReturn_enum_NVML_ERROR_NOT_FOUND,
    })
}
