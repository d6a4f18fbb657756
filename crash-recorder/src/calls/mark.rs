//! Marks: what the recorded process wants to be remembered between its calls.

use crate::record::Event;
use crate::watch::watch;

/// Puts `length` bytes into the record, in order with everything else. Found by its name with `dlsym`; a process that finds
/// none is not recorded.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn muster_crash_mark(bytes: *const u8, length: usize) {
    if let Some(watch) = watch() {
        // SAFETY: the caller promises readable bytes.
        watch.put(&Event::Mark { bytes: unsafe { std::slice::from_raw_parts(bytes, length) } });
    }
}
