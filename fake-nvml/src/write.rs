//! Writing through the pointers of NVML's callers, and the codes that go with it.

use nvml_wrapper_sys::bindings::*;
use std::ffi::{CStr, c_char, c_uint};

pub const OK: nvmlReturn_t = nvmlReturn_enum_NVML_SUCCESS;
pub const INVALID: nvmlReturn_t = nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT;
pub const NOT_SUPPORTED: nvmlReturn_t = nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED;

/// Writes through a pointer of the caller.
pub unsafe fn put<T>(target: *mut T, value: T) -> nvmlReturn_t {
    if target.is_null() {
        return INVALID;
    }
    // SAFETY: not null, and by the contract of every call valid for writes.
    unsafe { target.write(value) };
    OK
}

/// Writes a C string into the caller's buffer of `length` bytes.
pub unsafe fn put_text(target: *mut c_char, length: c_uint, text: &str) -> nvmlReturn_t {
    if target.is_null() {
        return INVALID;
    }
    if text.len() + 1 > length as usize {
        return nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE;
    }
    // SAFETY: the buffer holds `length` bytes by contract, which is enough for the text and its end.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), target, text.len());
        target.add(text.len()).write(0);
    }
    OK
}

pub unsafe fn text_of<'a>(text: *const c_char) -> Option<&'a str> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not null, and by contract a C string that outlives the call.
    unsafe { CStr::from_ptr(text) }.to_str().ok()
}
