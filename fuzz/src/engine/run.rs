//! One process's run of one target: mutate, execute, keep what is new, note what panics.

use super::coverage::{self, News, Reached};
use super::mutate::Mutator;
use super::random::Random;
use super::supervise::Current;
use super::{corpus, supervise};
use crate::targets::Target;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A run stops after this many different panics.
const PANICS_MAX: usize = 8;

/// What to run and for how long.
#[derive(Debug, Clone)]
pub struct Options {
    pub time: Duration,
    /// Ends the run sooner, and begins it with the inputs under version control only: such a run is repeatable.
    pub executions: Option<u64>,
    pub seed: u64,
    /// Inputs found and crashes noted in this target's runs.
    pub work: PathBuf,
}

/// What a run did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Summary {
    pub executions: u64,
    pub inputs: usize,
    pub edges: usize,
    pub edges_total: usize,
    /// Where it panicked: the message and the file with the input.
    pub panics: BTreeMap<String, PathBuf>,
}

/// Message and place of the last panic.
static PANIC: Mutex<String> = Mutex::new(String::new());

/// Panics are noted instead of printed; `false` from a run means it panicked.
pub fn catch_panics() {
    panic::set_hook(Box::new(|info| {
        let place = info.location().map(|at| format!("{}:{}", at.file(), at.line())).unwrap_or_default();
        let payload = info.payload();
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
        *PANIC.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = format!("{place}: {text}");
    }));
}

/// The message of a panic, if the input makes the target panic.
pub fn execute(target: &Target, input: &[u8]) -> Option<String> {
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    outcome.err().map(|_| PANIC.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone())
}

struct Run<'a> {
    target: &'a Target,
    options: &'a Options,
    current: Current,
    random: Random,
    reached: Reached,
    inputs: Vec<Vec<u8>>,
    summary: Summary,
}

/// Runs the target until its time is over, or it panicked in too many ways.
pub fn run(target: &Target, options: &Options) -> Result<Summary> {
    catch_panics();
    fs::create_dir_all(&options.work).with_context(|| format!("cannot make {}", options.work.display()))?;
    let current = Current::create(&supervise::current_path(&options.work), target.length_max)?;
    current.watch();
    let mut run = Run {
        target,
        options,
        current,
        random: Random::new(options.seed),
        reached: Reached::default(),
        inputs: Vec::new(),
        summary: Summary::default(),
    };
    if run.reached.edges_total() == 0 {
        bail!("this program was built without coverage; `cargo xtask fuzz` builds it right");
    }
    let found = options.work.join("found");
    let earlier = if options.executions.is_none() { corpus::read(&found)? } else { Vec::new() };
    let known = [(target.seeds)(), corpus::read(&corpus::folder().join(target.name))?, earlier].concat();
    for input in known {
        run.step(input)?;
    }
    let end = Instant::now() + options.time;
    let enough = options.executions.unwrap_or(u64::MAX);
    while Instant::now() < end && run.summary.executions < enough && run.summary.panics.len() < PANICS_MAX {
        for _ in 0..64 {
            let input = run.next();
            run.step(input)?;
        }
    }
    corpus::write(&found, &run.inputs)?;
    let Run { reached, inputs, mut summary, .. } = run;
    (summary.inputs, summary.edges, summary.edges_total) = (inputs.len(), reached.edges(), reached.edges_total());
    Ok(summary)
}

impl Run<'_> {
    fn next(&mut self) -> Vec<u8> {
        // Half of the time one of the latest, for it lies at the border of what is known.
        let count = self.inputs.len();
        let recent = count.min(16);
        let at =
            if self.random.one_in(2) { count - recent + self.random.below(recent) } else { self.random.below(count) };
        let other = self.random.below(count);
        let empty = Vec::new();
        let (input, other) = (self.inputs.get(at).unwrap_or(&empty), self.inputs.get(other).unwrap_or(&empty));
        let mut mutator =
            Mutator { random: &mut self.random, words: self.target.words, length_max: self.target.length_max };
        mutator.mutate(input, other)
    }

    fn step(&mut self, input: Vec<u8>) -> Result<()> {
        self.current.set(&input);
        coverage::clear();
        let panicked = execute(self.target, &input);
        self.current.done();
        self.summary.executions += 1;
        let news = self.reached.add();
        match panicked {
            Some(message) => self.note_panic(message, &input)?,
            None if news != News::Nothing => self.inputs.push(input),
            None => {}
        }
        Ok(())
    }

    fn note_panic(&mut self, message: String, input: &[u8]) -> Result<()> {
        // One panic is one place, whatever numbers its message names.
        let place = message.split(": ").next().unwrap_or_default().to_owned();
        if self.summary.panics.keys().any(|known| known.starts_with(&place)) {
            return Ok(());
        }
        let path = write_crash(&self.options.work, input)?;
        self.summary.panics.insert(message, path);
        Ok(())
    }
}

/// Keeps an input that must not be lost; its name is told to whoever has to look.
pub fn write_crash(work: &Path, input: &[u8]) -> Result<PathBuf> {
    let number = (1..).find(|n| !work.join(format!("crash-{n}")).exists()).expect("there is a free number");
    let path = work.join(format!("crash-{number}"));
    fs::write(&path, input).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// The fewest and smallest of the inputs known that reach all that all of them reach.
pub fn minimised(target: &Target, inputs: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    catch_panics();
    let mut sized = inputs;
    sized.sort_by_key(Vec::len);
    let mut kept: Vec<Vec<u8>> = Vec::new();
    let mut have = std::collections::BTreeSet::new();
    for input in sized {
        coverage::clear();
        if execute(target, &input).is_some() {
            continue;
        }
        let edges: Vec<usize> = coverage::features().into_iter().map(|(edge, _)| edge).collect();
        if edges.iter().any(|edge| !have.contains(edge)) {
            have.extend(edges);
            kept.push(input);
        }
    }
    kept
}
