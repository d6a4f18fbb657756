//! What the compiler's coverage pass reports: a counter for each edge, and the operands of comparisons.
//!
//! The pass is switched on for the house's own crates by `cargo xtask fuzz` (and never for this one). Its counters lie
//! in a section whose ends are told to the functions below before `main`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

static REGIONS: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

const COMPARES: usize = 128;
static COMPARED: [[AtomicU64; 2]; COMPARES] = [const { [const { AtomicU64::new(0) }; 2] }; COMPARES];
static COMPARED_AT: AtomicUsize = AtomicUsize::new(0);

/// # Safety
/// Called by the coverage pass alone, with the ends of its counters.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, end: *mut u8) {
    let region = (start as usize, end as usize);
    let mut regions = REGIONS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if region.0 < region.1 && !regions.contains(&region) {
        regions.push(region);
    }
}

macro_rules! compares {
    ($($name:ident($of:ty);)*) => {$(
        #[unsafe(no_mangle)]
        pub extern "C" fn $name(left: $of, right: $of) {
            note(u64::from(left), u64::from(right));
        }
    )*};
}

compares! {
    __sanitizer_cov_trace_cmp1(u8);
    __sanitizer_cov_trace_cmp2(u16);
    __sanitizer_cov_trace_cmp4(u32);
    __sanitizer_cov_trace_cmp8(u64);
    __sanitizer_cov_trace_const_cmp1(u8);
    __sanitizer_cov_trace_const_cmp2(u16);
    __sanitizer_cov_trace_const_cmp4(u32);
    __sanitizer_cov_trace_const_cmp8(u64);
}

/// Switches tell more than two numbers at once; their edges are enough.
#[unsafe(no_mangle)]
pub extern "C" fn __sanitizer_cov_trace_switch(_value: u64, _cases: *const u64) {}

fn note(left: u64, right: u64) {
    // Small numbers are found by ordinary mutations, and loops would drown the rest.
    if left == right || left.max(right) < 0x100 {
        return;
    }
    let at = COMPARED_AT.fetch_add(1, Ordering::Relaxed) % COMPARES;
    COMPARED[at][0].store(left, Ordering::Relaxed);
    COMPARED[at][1].store(right, Ordering::Relaxed);
}

/// A pair of numbers the last run compared and found different.
pub fn compared(at: usize) -> (u64, u64) {
    let pair = &COMPARED[at % COMPARES];
    (pair[0].load(Ordering::Relaxed), pair[1].load(Ordering::Relaxed))
}

/// What one run reached that no run before it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    Nothing,
    /// Known edges, taken more or less often than before.
    Counts,
    Edges,
}

/// Everything reached so far: for each edge, in which orders of magnitude it was taken.
pub struct Reached {
    buckets: Vec<u8>,
    edges: usize,
}

impl Default for Reached {
    fn default() -> Self {
        let total = regions().iter().map(|(start, end)| end - start).sum();
        Self { buckets: vec![0; total], edges: 0 }
    }
}

fn regions() -> Vec<(usize, usize)> {
    REGIONS.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
}

fn counters() -> Vec<&'static mut [u8]> {
    let slice = |(start, end): (usize, usize)| {
        // SAFETY: the pass named this region as its counters; the program's other accesses are plain increments of single
        // bytes on this thread, and no reference outlives the look at them.
        unsafe { std::slice::from_raw_parts_mut(start as *mut u8, end - start) }
    };
    regions().into_iter().map(slice).collect()
}

/// Before a run.
pub fn clear() {
    counters().into_iter().for_each(|region| region.fill(0));
}

/// The edges of the last run, each with its order of magnitude: what a smaller input must still reach.
pub fn features() -> Vec<(usize, u8)> {
    let mut found = Vec::new();
    let mut base = 0;
    for region in counters() {
        found.extend(region.iter().enumerate().filter(|(_, count)| **count > 0).map(|(at, n)| (base + at, bucket(*n))));
        base += region.len();
    }
    found
}

/// 1, 2, 3, 4-7, 8-15, 16-31, 32-127, more: one bit each.
fn bucket(count: u8) -> u8 {
    match count {
        0 => 0,
        1 => 1,
        2 => 2,
        3 => 4,
        4..=7 => 8,
        8..=15 => 16,
        16..=31 => 32,
        32..=127 => 64,
        128.. => 128,
    }
}

impl Reached {
    /// Edges there are; 0 in a build without coverage.
    pub fn edges_total(&self) -> usize {
        self.buckets.len()
    }

    pub fn edges(&self) -> usize {
        self.edges
    }

    /// Takes in the run since [`clear`].
    pub fn add(&mut self) -> News {
        let (mut edges, mut counts) = (0, false);
        let mut base = 0;
        for region in counters() {
            let seen = &mut self.buckets[base..base + region.len()];
            base += region.len();
            for (counts8, seen8) in region.chunks(8).zip(seen.chunks_mut(8)) {
                // Nearly all are 0, so eight are looked at together.
                if <[u8; 8]>::try_from(counts8 as &[u8]).is_ok_and(|eight| u64::from_ne_bytes(eight) == 0) {
                    continue;
                }
                for (count, seen) in counts8.iter().zip(seen8) {
                    let bit = bucket(*count);
                    if bit & !*seen != 0 {
                        edges += usize::from(*seen == 0);
                        counts = true;
                        *seen |= bit;
                    }
                }
            }
        }
        self.edges += edges;
        match (edges, counts) {
            (0, false) => News::Nothing,
            (0, true) => News::Counts,
            _ => News::Edges,
        }
    }
}
