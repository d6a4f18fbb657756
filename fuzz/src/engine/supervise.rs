//! What a panic handler cannot see: an abort, a stack that overflows, an input that takes too long or too much memory.
//!
//! The input being run lies in a file shared with the supervising process, which keeps it when the run dies.

use anyhow::{Context, Result};
use std::fs::{self, OpenOptions};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One input may take so long.
const INPUT_TIME_MAX: Duration = Duration::from_secs(10);
/// Address space of a run; a decoder that believes a length from its input ends here.
const MEMORY_BYTES_MAX: u64 = 3 << 30;
const LENGTH_BYTES: usize = 8;

/// Where a run in `work` keeps its present input.
pub fn current_path(work: &Path) -> PathBuf {
    work.join("current")
}

/// The input being run, in shared memory.
pub struct Current {
    memory: *mut u8,
    length_max: usize,
}

/// Counts inputs; odd while one is being run.
static TURN: AtomicU64 = AtomicU64::new(0);

impl Current {
    pub fn create(path: &Path, length_max: usize) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path);
        let file = file.with_context(|| format!("cannot make {}", path.display()))?;
        file.set_len((LENGTH_BYTES + length_max) as u64)?;
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a fresh mapping of a file of this length, which stays for the life of the process.
        let memory = unsafe {
            libc::mmap(std::ptr::null_mut(), LENGTH_BYTES + length_max, protection, flags, file.as_raw_fd(), 0)
        };
        if memory == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error()).context("cannot share memory with the supervisor");
        }
        Ok(Self { memory: memory.cast(), length_max })
    }

    pub fn set(&self, input: &[u8]) {
        let length = input.len().min(self.length_max);
        // SAFETY: the mapping has room for the length and `length_max` bytes, and nobody else writes to it.
        unsafe {
            self.memory.cast::<u64>().write_unaligned(length as u64);
            std::ptr::copy_nonoverlapping(input.as_ptr(), self.memory.add(LENGTH_BYTES), length);
        }
        TURN.fetch_add(1, Ordering::SeqCst);
    }

    pub fn done(&self) {
        TURN.fetch_add(1, Ordering::SeqCst);
    }

    /// Ends the process when one input takes too long or too much memory.
    pub fn watch(&self) {
        let limit = libc::rlimit { rlim_cur: MEMORY_BYTES_MAX, rlim_max: MEMORY_BYTES_MAX };
        // SAFETY: plain system call on a local value.
        unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) };
        std::thread::spawn(|| {
            loop {
                let before = TURN.load(Ordering::SeqCst);
                std::thread::sleep(INPUT_TIME_MAX);
                if before % 2 == 1 && TURN.load(Ordering::SeqCst) == before {
                    eprintln!("one input took more than {} s", INPUT_TIME_MAX.as_secs());
                    std::process::abort();
                }
            }
        });
    }
}

/// The input a dead run was at.
pub fn last_input(work: &Path) -> Result<Vec<u8>> {
    let path = current_path(work);
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let (length, input) = bytes.split_first_chunk::<LENGTH_BYTES>().context("the shared input is cut")?;
    let length = u64::from_le_bytes(*length) as usize;
    Ok(input[..length.min(input.len())].to_vec())
}
