//! NVML's calls about the library, and the ways to a device's handle.

use crate::node::{FIXTURE_VARIABLE, Handle, Node, lock, with_identity, with_node};
use crate::write::{INVALID, OK, put, put_text, text_of};
use nvml_wrapper_sys::bindings::*;
use std::ffi::{c_char, c_uint};
use std::path::Path;

const DRIVER: &str = "580.95.05";

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> nvmlReturn_t {
    let mut node = lock();
    if node.is_some() {
        return OK;
    }
    let Some(path) = std::env::var_os(FIXTURE_VARIABLE) else {
        return nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED;
    };
    match Node::load(Path::new(&path)) {
        Ok(loaded) => {
            *node = Some(loaded);
            OK
        }
        Err(cause) => {
            eprintln!("fake-nvml: {cause}");
            nvmlReturn_enum_NVML_ERROR_UNKNOWN
        }
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> nvmlReturn_t {
    nvmlInit_v2()
}

/// The machine stays: another user of the same library may still need it.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> nvmlReturn_t {
    OK
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(_code: nvmlReturn_t) -> *const c_char {
    c"an error of the stand-in NVML".as_ptr()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) -> nvmlReturn_t {
    unsafe { put_text(version, length, DRIVER) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetNVMLVersion(version: *mut c_char, length: c_uint) -> nvmlReturn_t {
    unsafe { put_text(version, length, "13.580.95.05") }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> nvmlReturn_t {
    with_node(|node| unsafe { put(count, node.gpus.len() as c_uint) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: *mut nvmlDevice_t) -> nvmlReturn_t {
    let wanted = Handle { gpu: index as usize, instance: None }.encode();
    with_identity(wanted, |_, _| unsafe { put(device, wanted) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, device: *mut nvmlDevice_t) -> nvmlReturn_t {
    let Some(uuid) = (unsafe { text_of(uuid) }) else {
        return INVALID;
    };
    let found = lock().as_ref().and_then(|node| node.handles().find(|handle| node.uuid(*handle) == uuid));
    let Some(found) = found else {
        return nvmlReturn_enum_NVML_ERROR_NOT_FOUND;
    };
    with_identity(found.encode(), |_, _| unsafe { put(device, found.encode()) })
}
