//! Chance of the system, given from a seed. The standard library draws the keys of its hash maps from `getrandom`, once a
//! thread: with other keys, maps inside of libraries are walked in another order, and a seed does not repeat.

use std::cell::Cell;
use std::ffi::{c_long, c_uint, c_void};

thread_local! {
    /// The state of this thread's generator. `None` = chance is the kernel's.
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From here on this thread draws from the seed.
pub fn draw_from(seed: u64) {
    STATE.set(Some(seed));
}

/// Stands in for the C library's: the linker prefers what the program itself defines.
///
/// # Safety
/// As of `getrandom(2)`: `buffer` has room for `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, flags: c_uint) -> isize {
    let Some(mut state) = STATE.try_with(Cell::get).ok().flatten() else {
        // SAFETY: the caller's promise is passed on.
        let read: c_long = unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) };
        return read as isize;
    };
    // SAFETY: the caller promises room for `length` bytes.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
    for chunk in bytes.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        chunk.copy_from_slice(&mixed(state).to_le_bytes()[..chunk.len()]);
    }
    STATE.set(Some(state));
    length as isize
}

/// The output function of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
fn mixed(state: u64) -> u64 {
    let one = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let two = (one ^ (one >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    two ^ (two >> 31)
}

#[test]
fn hash_maps_of_one_seed_are_walked_alike() {
    let walked = |seed| {
        let walk = move || {
            draw_from(seed);
            (0..100).collect::<std::collections::HashSet<i32>>().into_iter().collect::<Vec<_>>()
        };
        std::thread::spawn(walk).join().expect("it walks")
    };
    assert_eq!(walked(1), walked(1));
    assert_ne!(walked(1), walked(2));
}
