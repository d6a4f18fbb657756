//! What tests do to the machine. Every function returns an NVML code: 0 is done, 2 is an argument that
//! names nothing, 1 is a machine that is not loaded yet.

use crate::node::{CHANGED, Event, Lost, Node, lock, with_node};
use crate::write::{INVALID, OK};
use nvml_wrapper_sys::bindings::*;
use std::ffi::{CStr, c_char, c_uint};
use std::path::Path;

/// Plays the fixture at `path` from now on, instead of the one in the environment.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fake_load(path: *const c_char) -> nvmlReturn_t {
    if path.is_null() {
        return INVALID;
    }
    // SAFETY: not null, and by contract a C string.
    let Ok(path) = (unsafe { CStr::from_ptr(path) }).to_str() else {
        return INVALID;
    };
    match Node::load(Path::new(path)) {
        Ok(node) => {
            *lock() = Some(node);
            OK
        }
        Err(cause) => {
            eprintln!("fake-nvml: {cause}");
            INVALID
        }
    }
}

/// A critical error with that number.
#[unsafe(no_mangle)]
pub extern "C" fn fake_inject_xid(gpu: c_uint, xid: u64) -> nvmlReturn_t {
    change(gpu, |node, gpu| node.push_event(Event { gpu, kind: u64::from(nvmlEventTypeXidCriticalError), data: xid }))
}

#[unsafe(no_mangle)]
pub extern "C" fn fake_set_temperature(gpu: c_uint, celsius: c_uint) -> nvmlReturn_t {
    change(gpu, |node, gpu| node.gpus[gpu].temperature_c = celsius)
}

/// Takes one NVLink down.
#[unsafe(no_mangle)]
pub extern "C" fn fake_drop_link(gpu: c_uint, link: c_uint) -> nvmlReturn_t {
    change(gpu, |node, gpu| {
        node.gpus[gpu].links_down.insert(link);
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn fake_set_remap(gpu: c_uint, pending: c_uint, failed: c_uint) -> nvmlReturn_t {
    change(gpu, |node, gpu| {
        node.gpus[gpu].remap_pending = pending != 0;
        node.gpus[gpu].remap_failed = failed != 0;
    })
}

/// The recovery action the driver asks for, by NVML's number.
#[unsafe(no_mangle)]
pub extern "C" fn fake_set_recovery(gpu: c_uint, action: c_uint) -> nvmlReturn_t {
    change(gpu, |node, gpu| node.gpus[gpu].recovery = action)
}

/// The device falls off the bus (1: refuses everything, 2: still tells its name), or comes back (0).
#[unsafe(no_mangle)]
pub extern "C" fn fake_set_lost(gpu: c_uint, lost: c_uint) -> nvmlReturn_t {
    let lost = match lost {
        0 => Lost::No,
        1 => Lost::Wholly,
        _ => Lost::ButNamed,
    };
    change(gpu, |node, gpu| node.gpus[gpu].lost = lost)
}

/// A compute process appears on the device; with `instance` below 0xffffffff on that MIG instance.
#[unsafe(no_mangle)]
pub extern "C" fn fake_add_process(gpu: c_uint, instance: c_uint, pid: c_uint) -> nvmlReturn_t {
    let instance = Some(instance).filter(|instance| *instance != c_uint::MAX);
    change(gpu, |node, gpu| node.gpus[gpu].pids.entry(instance).or_default().push(pid))
}

#[unsafe(no_mangle)]
pub extern "C" fn fake_clear_processes(gpu: c_uint) -> nvmlReturn_t {
    change(gpu, |node, gpu| node.gpus[gpu].pids.clear())
}

/// Splits a GPU into MIG instances; 0 turns MIG off.
#[unsafe(no_mangle)]
pub extern "C" fn fake_set_mig(gpu: c_uint, instances: c_uint) -> nvmlReturn_t {
    change(gpu, |node, gpu| node.gpus[gpu].instances = (instances > 0).then_some(instances))
}

/// While set, calls on devices do not return.
#[unsafe(no_mangle)]
pub extern "C" fn fake_set_hang(hangs: c_uint) -> nvmlReturn_t {
    changed(|node| {
        node.hangs = hangs != 0;
        OK
    })
}

/// While set, calls of later drivers are missing.
#[unsafe(no_mangle)]
pub extern "C" fn fake_set_old_driver(old: c_uint) -> nvmlReturn_t {
    changed(|node| {
        node.old_driver = old != 0;
        OK
    })
}

fn change(gpu: c_uint, change: impl FnOnce(&mut Node, usize)) -> nvmlReturn_t {
    changed(|node| {
        let gpu = gpu as usize;
        if gpu >= node.gpus.len() {
            return INVALID;
        }
        change(node, gpu);
        OK
    })
}

fn changed(change: impl FnOnce(&mut Node) -> nvmlReturn_t) -> nvmlReturn_t {
    let code = with_node(change);
    CHANGED.notify_all();
    code
}
