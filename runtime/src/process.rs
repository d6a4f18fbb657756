//! What this process uses of its machine, as the kernel counts it.

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};

/// A look at one moment; 0 where the kernel does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessUse {
    /// Memory held in RAM.
    pub resident_bytes: u64,
    /// Open file descriptors, sockets included.
    pub open_fds: u64,
    /// As many as it may open.
    pub fds_max: u64,
    /// Time on processors since it began, user and system.
    pub cpu_ms: u64,
}

/// Looks now.
pub fn process_use() -> ProcessUse {
    let page_bytes = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    let page_bytes = page_bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    let open_fds = std::fs::read_dir("/proc/self/fd").map_or(0, |all| all.count() as u64);
    let cpu_ms = getrusage(UsageWho::RUSAGE_SELF).map_or(0, |used| {
        let ms = |time: nix::sys::time::TimeVal| {
            u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000 + u64::try_from(time.tv_usec()).unwrap_or(0) / 1_000
        };
        ms(used.user_time()) + ms(used.system_time())
    });
    ProcessUse {
        resident_bytes: pages * page_bytes,
        // The look itself has the folder open.
        open_fds: open_fds.saturating_sub(1),
        fds_max: getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft),
        cpu_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_sees_itself() {
        let (before, file) = (process_use(), std::fs::File::open("/proc/self/stat").expect("it is there"));
        assert!(
            before.resident_bytes > 1 << 20 && before.fds_max >= before.open_fds && before.open_fds > 2,
            "{before:?}"
        );
        drop(file);
    }
}
