//! Clocks of simulated machines: each has its own rate and wall offset, and can stand still while its process is paused.

use muster_runtime::clock::{Clock, Sleep, TRUE_RATE_PPM};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What every wall clock shows when a world begins: some day in 2027.
pub const WALL_START_MS: u64 = 1_800_000_000_000;
/// How long a machine was up before a world begins; deadlines of zero must mean nothing.
const UPTIME_MS: u64 = 1_000_000;
/// The longest stretch slept in one go, so that a changed rate is noticed.
const LONGEST_NAP_MS: u64 = 500;

/// True milliseconds since the world began; moved by the world alone.
#[derive(Debug, Clone, Default)]
pub struct TrueTime(Arc<AtomicU64>);

impl TrueTime {
    pub fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub fn advance(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }

    pub fn clock(&self) -> SimClock {
        let anchor = Anchor { true_ms: 0, own_ms: UPTIME_MS, rate_ppm: TRUE_RATE_PPM, frozen: false, offset_ms: 0 };
        SimClock { time: self.clone(), anchor: Arc::new(Mutex::new(anchor)) }
    }
}

#[derive(Debug, Clone, Copy)]
struct Anchor {
    true_ms: u64,
    own_ms: u64,
    rate_ppm: u32,
    frozen: bool,
    offset_ms: i64,
}

impl Anchor {
    fn own_at(&self, true_ms: u64) -> u64 {
        let passed = u128::from(true_ms.saturating_sub(self.true_ms)) * u128::from(self.rate_ppm);
        self.own_ms + u64::try_from(passed / u128::from(TRUE_RATE_PPM)).unwrap_or(u64::MAX)
    }
}

/// One machine's clock. Clones are the same clock.
#[derive(Debug, Clone)]
pub struct SimClock {
    time: TrueTime,
    anchor: Arc<Mutex<Anchor>>,
}

impl SimClock {
    pub fn set_offset_ms(&self, offset_ms: i64) {
        self.anchor().offset_ms = offset_ms;
    }

    pub fn set_rate_ppm(&self, rate_ppm: u32) {
        let mut anchor = self.anchor();
        let true_ms = self.time.now_ms();
        (anchor.own_ms, anchor.true_ms) = (anchor.own_at(true_ms), true_ms);
        anchor.rate_ppm = rate_ppm;
    }

    /// Time passes here, and nowhere else: what a process sees that stood still for so long.
    pub fn jump_ms(&self, ms: u64) {
        let mut anchor = self.anchor();
        anchor.own_ms += ms;
        // The wall clock is not the process's own, and was right all the time.
        anchor.offset_ms -= i64::try_from(ms).expect("a short pause");
    }

    /// A paused process sees no time pass, and all of it at once when it wakes.
    pub fn freeze(&self, frozen: bool) {
        let mut anchor = self.anchor();
        let true_ms = self.time.now_ms();
        if frozen && !anchor.frozen {
            (anchor.own_ms, anchor.true_ms) = (anchor.own_at(true_ms), true_ms);
        }
        anchor.frozen = frozen;
    }

    fn anchor(&self) -> MutexGuard<'_, Anchor> {
        self.anchor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for SimClock {
    fn boottime_ms(&self) -> u64 {
        let anchor = self.anchor();
        if anchor.frozen { anchor.own_ms } else { anchor.own_at(self.time.now_ms()) }
    }

    fn wall_ms(&self) -> u64 {
        let offset_ms = self.anchor().offset_ms;
        (WALL_START_MS + self.boottime_ms() - UPTIME_MS).saturating_add_signed(offset_ms)
    }

    fn sleep_until_ms(&self, boottime_ms: u64) -> Sleep {
        let own = self.clone();
        Box::pin(async move {
            loop {
                let left_ms = boottime_ms.saturating_sub(own.boottime_ms());
                if left_ms == 0 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(left_ms.min(LONGEST_NAP_MS))).await;
            }
        })
    }
}

#[test]
fn a_frozen_clock_shows_all_the_time_at_once_when_it_thaws() {
    let time = TrueTime::default();
    let clock = time.clock();
    clock.set_rate_ppm(1_010_000);
    time.advance(1_000);
    assert_eq!(clock.boottime_ms(), UPTIME_MS + 1_010);
    clock.freeze(true);
    time.advance(60_000);
    assert_eq!(clock.boottime_ms(), UPTIME_MS + 1_010);
    clock.freeze(false);
    assert_eq!(clock.boottime_ms(), UPTIME_MS + 1_010 + 60_600);
    clock.set_offset_ms(-86_400_000);
    assert_eq!(clock.wall_ms(), WALL_START_MS + 61_610 - 86_400_000);
}
