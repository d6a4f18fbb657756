//! The runs of a search, stage by stage, and who stands where after them.

use super::goal::Standing;
use super::halving::{Course, Lap, Stage, go_on};
use super::{Constraint, Goal, StageCard, Trial, TuneArgs};
use crate::compare::BySeed;
use crate::figures::{FIGURES, figures};
use crate::metrics::Summary;
use crate::run::{Going, Scene};
use crate::{SimError, batch};
use muster_engine::policy::Policy;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering as Memory};

/// One policy that is tried.
#[derive(Debug)]
pub(super) struct Setting {
    pub values: Vec<String>,
    pub policy: Policy,
    /// By lap; shorter while later laps were not played. `None`: it was stopped.
    pub runs: Vec<Option<Result<Summary, String>>>,
    pub judged: Option<Judged>,
}

/// Where a setting stood when it was judged last.
#[derive(Debug, Clone)]
pub(super) struct Judged {
    stage: usize,
    runs: usize,
    figures: Vec<f64>,
    standing: Standing,
}

impl Setting {
    pub fn new(values: Vec<String>, policy: Policy) -> Self {
        Self { values, policy, runs: Vec::new(), judged: None }
    }

    /// Means over these laps, if all of them were played to their end.
    fn means(&self, laps: Range<usize>) -> Option<Vec<f64>> {
        let count = laps.len() as f64;
        let mut sums = vec![0.0; FIGURES.len()];
        for run in self.runs.get(laps)? {
            let summary = run.as_ref()?.as_ref().ok()?;
            sums.iter_mut().zip(figures(summary)).for_each(|(sum, value)| *sum += value);
        }
        sums.iter_mut().for_each(|sum| *sum /= count);
        Some(sums)
    }

    /// Jobs that came to an end in these laps.
    fn ended(&self, laps: Range<usize>) -> u64 {
        let played = self.runs.get(laps).unwrap_or_default().iter().filter_map(|run| run.as_ref()?.as_ref().ok());
        played.map(Summary::ended).sum()
    }

    fn failed(&self) -> Option<&String> {
        self.runs.iter().flatten().find_map(|run| run.as_ref().err())
    }
}

pub(super) struct Race {
    pub settings: Vec<Setting>,
    /// Of stages that are over.
    pub cards: Vec<StageCard>,
    course: Course,
    laps: Vec<Lap>,
    stages: Vec<Stage>,
    /// The trace in parts, and as a whole.
    scenes: BTreeMap<Option<usize>, Scene>,
    goal: Goal,
    constraints: Vec<Constraint>,
    threads: usize,
    /// Settings of the last stage that is over, the best first.
    ranked: Vec<usize>,
}

impl Race {
    pub fn new(args: &TuneArgs, course: Course, scene: &Scene, settings: Vec<Setting>) -> Result<Self, SimError> {
        let jobs = scene.trace.jobs.len();
        if course.parts > jobs {
            return Err(SimError::Arguments(format!("{} parts of {jobs} jobs; ask for fewer --parts", course.parts)));
        }
        let mut scenes = BTreeMap::from([(None, scene.clone())]);
        for part in (0..course.parts).filter(|_| course.parts > 1) {
            let (from, to) = (part * jobs / course.parts, (part + 1) * jobs / course.parts);
            scenes.insert(Some(part), scene.part(from, to - from)?);
        }
        Ok(Self {
            settings,
            cards: Vec::new(),
            laps: course.laps(),
            stages: course.stages(),
            course,
            scenes,
            goal: args.goal,
            constraints: args.constraints.clone(),
            threads: args.threads,
            ranked: Vec::new(),
        })
    }

    /// Every stage, or as far as it comes before it is stopped.
    ///
    /// # Errors
    /// The policy as it is cannot be played.
    pub fn run(&mut self, stop: &AtomicBool, told: &mut dyn FnMut(usize, usize)) -> Result<(), SimError> {
        let mut there: Vec<usize> = (0..self.settings.len()).collect();
        for number in 0..self.stages.len() {
            let before = self.runs_made();
            let all = before + self.course.runs(number, there.len());
            self.play(number, &there, stop, &mut |done| told(before + done, all));
            if let Some(why) = self.settings[0].failed() {
                return Err(SimError::Play(format!("with the policy as it is: {why}")));
            }
            if stop.load(Memory::Relaxed) {
                break;
            }
            self.judge(number, &there);
            let mut next = self.ranked.clone();
            next.truncate(go_on(there.len()));
            if !next.contains(&0) {
                next.pop();
                next.push(0);
            }
            there = next;
        }
        if self.ranked.is_empty() {
            // It was stopped within the first stage: those that are through it are judged.
            self.judge(0, &there);
        }
        Ok(())
    }

    fn play(&mut self, stage: usize, there: &[usize], stop: &AtomicBool, told: &mut dyn FnMut(usize)) {
        let laps = self.stages[stage].new.clone();
        let going = || if stop.load(Memory::Relaxed) { Going::Stop } else { Going::On };
        let work = |number: usize| {
            let setting = &self.settings[there[number / laps.len()]];
            let lap = self.laps[laps.start + number % laps.len()];
            match self.scenes[&lap.part].play(&setting.policy, lap.seed, None, &mut |_| going()) {
                Ok((_, summary)) => summary.complete.then_some(Ok(summary)),
                Err(error) => Some(Err(error.to_string())),
            }
        };
        let results = batch::all(there.len() * laps.len(), self.threads, stop, work, told);
        let mut results = results.into_iter();
        for &at in there {
            // What was dropped at an earlier stage never comes back, so laps follow each other; only those of the
            // last stage, on the whole trace, are always new.
            let runs = results.by_ref().take(laps.len()).map(Option::flatten);
            self.settings[at].runs.extend(runs);
        }
    }

    /// Ranks those that are through a stage.
    fn judge(&mut self, number: usize, there: &[usize]) {
        let laps = self.stages[number].judged.clone();
        let Some(base) = self.settings[0].means(laps.clone()) else { return };
        let base_ended = self.settings[0].ended(laps.clone());
        let mut through = Vec::new();
        for &at in there {
            let Some(figures) = self.settings[at].means(laps.clone()) else { continue };
            let ended = self.settings[at].ended(laps.clone());
            let standing = Standing::of(&self.goal, &self.constraints, &figures, &base).with_ended(ended, base_ended);
            self.settings[at].judged = Some(Judged { stage: number, runs: laps.len(), figures, standing });
            through.push(at);
        }
        through.sort_by(|one, other| self.order(*one, *other));
        let whole_trace = self.laps[laps.start].part.is_none();
        self.cards.push(StageCard { settings: through.len(), runs_each: laps.len(), whole_trace });
        self.ranked = through;
    }

    fn order(&self, one: usize, other: usize) -> Ordering {
        self.standing(one).order(&self.standing(other)).then(one.cmp(&other))
    }

    /// Of a setting that was judged.
    pub fn standing(&self, at: usize) -> Standing {
        self.settings[at].judged.as_ref().expect("only those that were judged are ranked").standing
    }

    /// The last stage that is over, and its settings, the best first.
    ///
    /// # Errors
    /// There is none.
    pub fn result(&self) -> Result<(usize, Vec<usize>), SimError> {
        if self.ranked.is_empty() {
            let why = "it was stopped before the policy as it is was through the first stage; nothing was written";
            return Err(SimError::Arguments(why.into()));
        }
        Ok((self.cards.len() - 1, self.ranked.clone()))
    }

    pub fn runs_made(&self) -> usize {
        self.settings.iter().map(|setting| setting.runs.iter().flatten().count()).sum()
    }

    /// What the whole trace came to, under the policy as it is and under another, by seed.
    pub fn by_seed(&self, stage: usize, other: usize) -> BySeed {
        let summary = |at: usize, lap: usize| match self.settings[at].runs.get(lap) {
            Some(Some(Ok(summary))) => Some(summary.clone()),
            _ => None,
        };
        let laps = self.stages[stage].judged.clone();
        let pair = |lap: usize| Some((self.laps[lap].seed, vec![summary(0, lap)?, summary(other, lap)?]));
        laps.filter_map(pair).collect()
    }

    /// All settings: those that came furthest first, the best of them first.
    pub fn trials(&self) -> Vec<Trial> {
        let mut order: Vec<usize> = (0..self.settings.len()).collect();
        let stage = |at: usize| self.settings[at].judged.as_ref().map(|judged| judged.stage);
        order.sort_by(|one, other| {
            let further = stage(*other).cmp(&stage(*one));
            further.then_with(|| if stage(*one).is_some() { self.order(*one, *other) } else { one.cmp(other) })
        });
        order.into_iter().map(|at| self.trial(at)).collect()
    }

    fn trial(&self, at: usize) -> Trial {
        let setting = &self.settings[at];
        let judged = setting.judged.as_ref();
        let shortfall = judged.map_or(0.0, |judged| judged.standing.shortfall);
        Trial {
            number: at,
            values: setting.values.clone(),
            stage: judged.map_or(0, |judged| judged.stage + 1),
            runs: judged.map_or(0, |judged| judged.runs),
            figures: judged.map_or_else(Vec::new, |judged| judged.figures.clone()),
            meets: judged.is_some() && shortfall == 0.0,
            shortfall,
            failed: setting.failed().cloned(),
        }
    }
}
