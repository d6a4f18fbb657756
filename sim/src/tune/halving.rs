//! Successive halving: all settings on a little work, the better third on three times as much, and so on; the last few
//! on the whole trace with every seed. After Jamieson and Talwalkar, "Non-stochastic best arm identification and
//! hyperparameter optimization", AISTATS 2016.

use super::range::shuffled;
use crate::draw::Draw;
use std::ops::Range;

/// What one setting is played on: pieces of the trace, one after the other, then all of it with each seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Course {
    /// Windows into which the trace is cut; 1 = it is not.
    pub parts: usize,
    pub seeds: usize,
}

/// One run of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lap {
    /// `None` = the whole trace.
    pub part: Option<usize>,
    pub seed: u64,
}

/// What is played at one stage, and by what settings are judged there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stage {
    /// Laps that are new.
    pub new: Range<usize>,
    pub judged: Range<usize>,
}

/// One in so many goes on.
const KEPT: usize = 3;

impl Course {
    pub fn laps(&self) -> Vec<Lap> {
        let whole = (0..self.seeds as u64).map(|seed| Lap { part: None, seed });
        if self.parts == 1 {
            return whole.collect();
        }
        // In no order, so that the first stage does not see the beginning of the trace only.
        let mixed = shuffled(self.seeds * self.parts, &mut Draw::of(0, "laps", 0));
        let parts = mixed.into_iter().map(|lap| Lap { part: Some(lap % self.parts), seed: (lap / self.parts) as u64 });
        parts.chain(whole).collect()
    }

    pub fn stages(&self) -> Vec<Stage> {
        let pieces = if self.parts == 1 { self.seeds } else { self.seeds * self.parts };
        let mut ends = vec![pieces];
        while ends[ends.len() - 1] > 1 {
            ends.push(ends[ends.len() - 1].div_ceil(KEPT));
        }
        // A single piece of many is chance.
        if ends.len() > 2 {
            ends.pop();
        }
        ends.reverse();
        let mut from = 0;
        let stage = |end: usize| Stage { new: std::mem::replace(&mut from, end)..end, judged: 0..end };
        let mut stages: Vec<Stage> = ends.into_iter().map(stage).collect();
        if self.parts > 1 {
            let whole = pieces..pieces + self.seeds;
            stages.push(Stage { new: whole.clone(), judged: whole });
        }
        stages
    }

    /// Runs of all stages from this one on, for so many settings that are there.
    pub fn runs(&self, stage: usize, settings: usize) -> usize {
        let mut there = settings;
        let runs = self.stages().into_iter().skip(stage).map(|stage| {
            let runs = there.saturating_mul(stage.new.len());
            there = go_on(there);
            runs
        });
        runs.fold(0, usize::saturating_add)
    }

    /// The most settings that so many runs are enough for.
    pub fn settings(&self, budget: usize) -> usize {
        let (mut enough, mut too_many) = (0, budget.saturating_add(1));
        while enough + 1 < too_many {
            let middle = enough + (too_many - enough) / 2;
            if self.runs(0, middle) <= budget {
                enough = middle;
            } else {
                too_many = middle;
            }
        }
        enough
    }
}

/// How many of so many settings go on at most, the policy as it is among them in any case.
pub(super) fn go_on(settings: usize) -> usize {
    settings.min(settings.div_ceil(KEPT) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_has_more_work_and_fewer_settings_and_the_last_one_the_whole_trace() {
        let course = Course { parts: 6, seeds: 2 };
        let stages = course.stages();
        let news: Vec<_> = stages.iter().map(|stage| stage.new.clone()).collect();
        assert_eq!(news, [0..2, 2..4, 4..12, 12..14]);
        assert_eq!(stages.iter().map(|stage| stage.judged.clone()).collect::<Vec<_>>(), [0..2, 0..4, 0..12, 12..14]);
        let laps = course.laps();
        assert_eq!((laps.len(), laps[13]), (14, Lap { part: None, seed: 1 }));
        // 20 settings, then 8, 4, 3.
        assert_eq!(course.runs(0, 20), 20 * 2 + 8 * 2 + 4 * 8 + 3 * 2);
    }

    #[test]
    fn one_part_and_one_seed_are_one_stage() {
        let course = Course { parts: 1, seeds: 1 };
        assert_eq!(course.stages(), [Stage { new: 0..1, judged: 0..1 }]);
        assert_eq!((course.runs(0, 50), course.settings(50)), (50, 50));
    }

    #[test]
    fn the_budget_is_never_exceeded() {
        for parts in 1..6 {
            for seeds in 1..6 {
                let course = Course { parts, seeds };
                for budget in 0..200 {
                    let settings = course.settings(budget);
                    assert!(course.runs(0, settings) <= budget && course.runs(0, settings + 1) > budget);
                }
            }
        }
    }
}
