//! The only place that asks the machine for the time. Deadlines use boot time, which runs on through suspend and
//! never steps; wall time is for people and certificates.

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tokio::sync::watch;

/// A boxed wait.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The longest stretch slept in one go: timers do not count time asleep, so after a suspend a deadline is seen at most this late.
const LONGEST_NAP_MS: u64 = 1_000;

/// Time as one machine sees it.
pub trait Clock: Send + Sync + Debug {
    /// Milliseconds since this machine started, suspend included; never goes back.
    fn boottime_ms(&self) -> u64;
    /// The same in microseconds, for measuring; a clock may be coarser than that.
    fn boottime_us(&self) -> u64 {
        self.boottime_ms().saturating_mul(1_000)
    }
    /// Milliseconds since the Unix epoch; may step.
    fn wall_ms(&self) -> u64;
    /// Completes when boot time has reached `boottime_ms`.
    fn sleep_until_ms(&self, boottime_ms: u64) -> Sleep;
    /// Completes after `ms` of boot time.
    fn sleep_ms(&self, ms: u64) -> Sleep {
        self.sleep_until_ms(self.boottime_ms().saturating_add(ms))
    }
}

/// The machine's own clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

fn read_us(clock: ClockId) -> u64 {
    let now = clock_gettime(clock).expect("Linux has had CLOCK_BOOTTIME and CLOCK_REALTIME since 2.6.39");
    let whole_us = u64::try_from(now.tv_sec()).unwrap_or(0).saturating_mul(1_000_000);
    whole_us + u64::try_from(now.tv_nsec()).unwrap_or(0) / 1_000
}

fn read_ms(clock: ClockId) -> u64 {
    read_us(clock) / 1_000
}

impl Clock for SystemClock {
    fn boottime_ms(&self) -> u64 {
        read_ms(ClockId::CLOCK_BOOTTIME)
    }

    fn boottime_us(&self) -> u64 {
        read_us(ClockId::CLOCK_BOOTTIME)
    }

    fn wall_ms(&self) -> u64 {
        read_ms(ClockId::CLOCK_REALTIME)
    }

    fn sleep_until_ms(&self, boottime_ms: u64) -> Sleep {
        Box::pin(async move {
            loop {
                let left_ms = boottime_ms.saturating_sub(read_ms(ClockId::CLOCK_BOOTTIME));
                if left_ms == 0 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(left_ms.min(LONGEST_NAP_MS))).await;
            }
        })
    }
}

/// The true time of a simulated world, moved by hand. Every [`ManualClock`] made from it follows, each with its own errors.
#[derive(Debug, Clone)]
pub struct ManualTime {
    now_ms: Arc<watch::Sender<u64>>,
    wall_start_ms: u64,
}

impl ManualTime {
    /// A world at time 0 whose wall clock shows `wall_ms`.
    pub fn new(wall_ms: u64) -> Self {
        Self { now_ms: Arc::new(watch::Sender::new(0)), wall_start_ms: wall_ms }
    }

    /// Moves every clock of this world on.
    pub fn advance(&self, ms: u64) {
        self.now_ms.send_modify(|now| *now += ms);
    }

    /// True milliseconds since the world began.
    pub fn now_ms(&self) -> u64 {
        *self.now_ms.borrow()
    }

    /// A clock without errors.
    pub fn clock(&self) -> ManualClock {
        self.clock_with(0, TRUE_RATE_PPM)
    }

    /// A clock whose wall time is off by `offset_ms` and which runs at `rate_ppm` (1,000,000 is true).
    pub fn clock_with(&self, offset_ms: i64, rate_ppm: u32) -> ManualClock {
        let start = Anchor { true_ms: self.now_ms(), own_ms: self.now_ms(), rate_ppm, stalled: false, offset_ms };
        ManualClock { time: self.clone(), anchor: Arc::new(Mutex::new(start)) }
    }
}

/// Parts per million of a clock that runs true.
pub const TRUE_RATE_PPM: u32 = 1_000_000;

/// From where a clock counts at its present rate; rewritten whenever the rate changes, so that time never goes back.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    true_ms: u64,
    own_ms: u64,
    rate_ppm: u32,
    stalled: bool,
    offset_ms: i64,
}

impl Anchor {
    fn own_at(&self, true_ms: u64) -> u64 {
        if self.stalled {
            return self.own_ms;
        }
        let passed = u128::from(true_ms.saturating_sub(self.true_ms)) * u128::from(self.rate_ppm);
        let passed_ms = u64::try_from(passed / u128::from(TRUE_RATE_PPM)).unwrap_or(u64::MAX);
        self.own_ms.saturating_add(passed_ms)
    }
}

/// One simulated machine's clock. Clones are the same clock.
#[derive(Debug, Clone)]
pub struct ManualClock {
    time: ManualTime,
    anchor: Arc<Mutex<Anchor>>,
}

impl ManualClock {
    /// Sets how far this machine's wall clock is off; boot time is not touched.
    pub fn set_offset_ms(&self, offset_ms: i64) {
        self.change(|anchor| anchor.offset_ms = offset_ms);
    }

    /// Sets how fast this machine's clock runs from now on.
    pub fn set_rate_ppm(&self, rate_ppm: u32) {
        self.change(|anchor| anchor.rate_ppm = rate_ppm);
    }

    /// Stops this machine's clock, or lets it run on from where it stopped.
    pub fn stall(&self, stalled: bool) {
        self.change(|anchor| anchor.stalled = stalled);
    }

    /// Moves the whole world on.
    pub fn advance(&self, ms: u64) {
        self.time.advance(ms);
    }

    fn change(&self, how: impl FnOnce(&mut Anchor)) {
        let true_ms = self.time.now_ms();
        let mut anchor = self.anchor();
        anchor.own_ms = anchor.own_at(true_ms);
        anchor.true_ms = true_ms;
        how(&mut anchor);
    }

    fn anchor(&self) -> MutexGuard<'_, Anchor> {
        self.anchor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn boottime_ms(&self) -> u64 {
        let true_ms = self.time.now_ms();
        self.anchor().own_at(true_ms)
    }

    fn wall_ms(&self) -> u64 {
        let offset_ms = self.anchor().offset_ms;
        self.time.wall_start_ms.saturating_add(self.boottime_ms()).saturating_add_signed(offset_ms)
    }

    fn sleep_until_ms(&self, boottime_ms: u64) -> Sleep {
        let own = self.clone();
        // Subscribed now, not at the first poll: an advance in between must not be missed.
        let mut moved = self.time.now_ms.subscribe();
        Box::pin(async move {
            while own.boottime_ms() < boottime_ms {
                if moved.changed().await.is_err() {
                    return std::future::pending().await;
                }
            }
        })
    }
}

/// The kernel's random id of this boot; another id means that every process of before is gone.
///
/// # Errors
/// When `/proc` is not mounted or not readable.
pub fn boot_id() -> io::Result<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_never_goes_back_when_the_rate_changes() {
        let time = ManualTime::new(1_000_000);
        let (fast, slow) = (time.clock_with(0, 1_500_000), time.clock_with(-400, 500_000));
        time.advance(1_000);
        assert_eq!((fast.boottime_ms(), slow.boottime_ms()), (1_500, 500));
        assert_eq!((fast.wall_ms(), slow.wall_ms()), (1_001_500, 1_000_100));
        fast.set_rate_ppm(500_000);
        assert_eq!(fast.boottime_ms(), 1_500);
        time.advance(1_000);
        assert_eq!(fast.boottime_ms(), 2_000);
        fast.stall(true);
        time.advance(1_000);
        assert_eq!(fast.boottime_ms(), 2_000);
        fast.stall(false);
        time.advance(1_000);
        assert_eq!(fast.boottime_ms(), 2_500);
    }

    #[tokio::test]
    async fn a_sleep_ends_when_its_own_clock_says_so() {
        let time = ManualTime::new(0);
        let slow = time.clock_with(0, 500_000);
        let mut nap = slow.sleep_ms(100);
        time.advance(199);
        assert!(futures_ready(&mut nap).await.is_none());
        time.advance(1);
        nap.await;
    }

    async fn futures_ready(nap: &mut Sleep) -> Option<()> {
        tokio::select! {
            biased;
            () = nap => Some(()),
            () = std::future::ready(()) => None,
        }
    }

    #[tokio::test]
    async fn the_system_clock_runs_on_and_knows_its_boot() {
        let before = SystemClock.boottime_ms();
        SystemClock.sleep_ms(2).await;
        assert!(SystemClock.boottime_ms() >= before + 2);
        assert!(SystemClock.wall_ms() > 1_700_000_000_000);
        assert_eq!(boot_id().expect("proc is mounted").len(), 36);
    }
}
