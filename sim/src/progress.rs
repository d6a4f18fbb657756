//! What an attempt gets done: work, checkpoints, and what of it is kept when it is stopped.
//! Whole milliseconds. Work is counted in milliseconds of the recorded run.

/// Parts in which a slowdown is counted: 2 * NORMAL = twice as long as recorded.
pub const NORMAL: u64 = 1_000_000_000;

/// How one attempt runs where it was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Before the first work: reading the checkpoint, warming up.
    pub lead_ms: u64,
    /// Time for work, in parts of [`NORMAL`].
    pub slowdown: u64,
    /// Between two checkpoints; 0 = none are made.
    pub checkpoint_every_ms: u64,
    /// Each stops the work for so long.
    pub checkpoint_ms: u64,
}

/// How an attempt spent its time, up to a moment. The parts sum to that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spent {
    pub lead_ms: u64,
    pub checkpoint_ms: u64,
    /// On work, at the attempt's own pace.
    pub working_ms: u64,
    /// Of `working_ms`, what the last finished checkpoint holds.
    pub saved_ms: u64,
    /// Work done: all of it, and as far as saved.
    pub work_done: u64,
    pub work_saved: u64,
}

impl Pace {
    fn working_ms(&self, work_ms: u64) -> u64 {
        let ms = (u128::from(work_ms) * u128::from(self.slowdown)).div_ceil(u128::from(NORMAL));
        u64::try_from(ms).unwrap_or(u64::MAX)
    }

    fn work(&self, working_ms: u64) -> u64 {
        (u128::from(working_ms) * u128::from(NORMAL) / u128::from(self.slowdown.max(1))) as u64
    }

    /// From the start to the end of so much work. No checkpoint is written at the very end.
    pub fn run_ms(&self, work_ms: u64) -> u64 {
        let working_ms = self.working_ms(work_ms);
        let checkpoints = match self.checkpoint_every_ms {
            0 => 0,
            every_ms => working_ms.saturating_sub(1) / every_ms,
        };
        let writing_ms = checkpoints.saturating_mul(self.checkpoint_ms);
        self.lead_ms.saturating_add(working_ms).saturating_add(writing_ms)
    }

    /// What was done `ran_ms` after the start, of `left_ms` of work.
    pub fn spent(&self, ran_ms: u64, left_ms: u64) -> Spent {
        let lead_ms = ran_ms.min(self.lead_ms);
        let rest_ms = ran_ms - lead_ms;
        let whole_ms = self.working_ms(left_ms);
        let (working_ms, saved_ms) = match self.checkpoint_every_ms {
            0 => (rest_ms.min(whole_ms), 0),
            every_ms => {
                let period_ms = every_ms.saturating_add(self.checkpoint_ms);
                let saved_ms = rest_ms / period_ms * every_ms;
                let working_ms = saved_ms + (rest_ms % period_ms).min(every_ms);
                (working_ms.min(whole_ms), saved_ms.min(whole_ms))
            }
        };
        let done = |ms: u64| if ms == whole_ms { left_ms } else { self.work(ms).min(left_ms) };
        Spent {
            lead_ms,
            checkpoint_ms: rest_ms - working_ms,
            working_ms,
            saved_ms,
            work_done: done(working_ms),
            work_saved: done(saved_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { lead_ms: 5, slowdown: NORMAL * 3 / 2, checkpoint_every_ms: 30, checkpoint_ms: 4 };

    #[test]
    fn the_end_of_the_run_is_the_end_of_the_work() {
        for left_ms in 1..200 {
            let run_ms = PACE.run_ms(left_ms);
            assert_eq!(PACE.spent(run_ms, left_ms).work_done, left_ms, "{left_ms}");
            assert!(PACE.spent(run_ms - 1, left_ms).work_done < left_ms, "{left_ms}");
        }
    }

    #[test]
    fn time_is_spent_once() {
        for ran_ms in 0..PACE.run_ms(100) {
            let spent = PACE.spent(ran_ms, 100);
            assert_eq!(spent.lead_ms + spent.checkpoint_ms + spent.working_ms, ran_ms);
            assert!(spent.saved_ms <= spent.working_ms && spent.work_saved <= spent.work_done);
        }
        // Lead 5, 30 of work, 4 of writing: saved from 39 on.
        assert_eq!(PACE.spent(38, 100).saved_ms, 0);
        assert_eq!(
            PACE.spent(39, 100),
            Spent { lead_ms: 5, checkpoint_ms: 4, working_ms: 30, saved_ms: 30, work_done: 20, work_saved: 20 }
        );
    }

    #[test]
    fn without_checkpoints_nothing_is_saved() {
        let pace = Pace { lead_ms: 0, slowdown: NORMAL, checkpoint_every_ms: 0, checkpoint_ms: 9 };
        assert_eq!(pace.run_ms(100), 100);
        assert_eq!((pace.spent(60, 100).work_done, pace.spent(60, 100).work_saved), (60, 0));
    }
}
