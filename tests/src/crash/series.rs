//! Many images from one seed: lives in a row, each beginning on a disk that the one before could have left.

use super::check::{Verdict, judge};
use super::dice::Dice;
use super::engine::Engine;
use super::expect::Expect;
use super::image::Image;
use super::life::{FORKING, Recording, Sample};
use super::workload::Life;
use anyhow::{Context, Result};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Lives in a row.
const LIVES: u64 = 3;
/// Lengths of a log's file, so that some lives begin new ones all the time.
const FILE_BYTES: [u64; 4] = [16 << 10, 64 << 10, 256 << 10, 4 << 20];

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// `muster-crash-images`.
    pub program: PathBuf,
    pub engine: Engine,
    pub with_history: bool,
    /// Calls in one life.
    pub ops: u64,
    pub images: u64,
    /// How many of a hundred images also have something durable damaged.
    pub damage_percent: u64,
    /// Where the records of a series with a miss are kept.
    pub keep: Option<PathBuf>,
}

/// What came of many images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    pub images: u64,
    /// Of these, images with damage.
    pub damaged: u64,
    /// Damaged ones that were refused.
    pub refused: u64,
    /// Images whose history said that it must be rebuilt.
    pub history_moved: u64,
    pub events: u64,
    pub misses: Vec<Miss>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Miss {
    pub what: String,
    /// The command that makes the very image again.
    pub repeat: String,
}

impl Tally {
    pub fn add(&mut self, other: Tally) {
        self.images += other.images;
        self.damaged += other.damaged;
        self.refused += other.refused;
        self.history_moved += other.history_moved;
        self.events += other.events;
        self.misses.extend(other.misses);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { images, damaged, refused, history_moved, events, misses } = self;
        write!(
            f,
            "{images} images from {events} recorded events: {} misses; {damaged} damaged, {refused} of them refused; \
             history to be rebuilt in {history_moved}",
            misses.len()
        )
    }
}

/// Where images are opened: in memory if possible, since what they must survive has already happened.
fn scratch() -> Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let made = tempfile::Builder::new().prefix("crash-").tempdir_in(memory);
    made.or_else(|_| tempfile::tempdir()).context("there is no room for images")
}

/// Runs a series; the seed fixes what the lives do and which images are picked, not how their threads interleave.
pub fn run(plan: &Plan, seed: u64) -> Result<Tally> {
    let folder = tempfile::tempdir()?;
    let kept = plan.keep.as_ref().map(|keep| keep.join(format!("{}-{seed}", plan.engine)));
    let tally = run_in(folder.path(), plan, seed, kept.as_deref().unwrap_or(Path::new("DIR")))?;
    if let Some(kept) = kept.filter(|_| !tally.misses.is_empty()) {
        copy(folder.path(), &kept)?;
    }
    Ok(tally)
}

fn run_in(folder: &Path, plan: &Plan, seed: u64, kept: &Path) -> Result<Tally> {
    let mut dice = Dice::new(seed);
    let mut tally = Tally::default();
    let mut base: Option<Image> = None;
    let mut before = Expect::nothing();
    for number in 0..LIVES {
        let life = Life {
            engine: plan.engine,
            seed: dice.draw(),
            ops: plan.ops,
            file_bytes: *dice.pick(&FILE_BYTES),
            with_history: plan.with_history,
            committed: before.committed(),
        };
        let here = folder.join(format!("life-{number}"));
        let recording = match Recording::make(&plan.program, &here, base.as_ref(), before.clone(), &life) {
            Ok(recording) => recording,
            Err(error) => {
                tally.misses.push(Miss { what: format!("{error:#}"), repeat: format!("ls {}", kept.display()) });
                return Ok(tally);
            }
        };
        tally.events += recording.events() as u64;
        let share = plan.images / LIVES + u64::from(number < plan.images % LIVES);
        let mut next = None;
        for _ in 0..share {
            let image = dice.draw();
            let sample = recording.sample(image, plan.damage_percent)?;
            match judge_sample(plan.engine, plan.with_history, &sample, &mut tally)? {
                None if sample.damage.is_none() => next = Some((image, sample)),
                None => {}
                Some(what) => {
                    let repeat = repeat_command(plan, kept, number, image);
                    tally.misses.push(Miss { what, repeat });
                }
            }
        }
        // The last good one is where the next life begins.
        let Some((image, sample)) = next else { break };
        fs::write(here.join("next"), image.to_string())?;
        (base, before) = (Some(sample.image), sample.expect);
    }
    Ok(tally)
}

/// Opens the image; says what was missed.
fn judge_sample(engine: Engine, with_history: bool, sample: &Sample, tally: &mut Tally) -> Result<Option<String>> {
    let scratch = scratch()?;
    let data = scratch.path().join("data");
    sample.image.write(&data)?;
    let damaged = sample.damage.is_some();
    let _no_fork = FORKING.read().unwrap_or_else(|poisoned| poisoned.into_inner());
    let verdict = judge(&data, engine, with_history, &sample.expect, damaged);
    tally.images += 1;
    tally.damaged += u64::from(damaged);
    let why = sample.damage.as_ref().map_or(String::new(), |damage| format!(" ({damage})"));
    Ok(match verdict {
        Ok(Verdict::Whole { history_moved }) => {
            tally.history_moved += u64::from(history_moved);
            None
        }
        Ok(Verdict::Refused(_)) if damaged => {
            tally.refused += 1;
            None
        }
        Ok(Verdict::Refused(why)) => {
            Some(format!("cut at event {}: refused, and nothing durable was damaged: {why}", sample.cut))
        }
        Ok(Verdict::Missed(what)) => Some(format!("cut at event {}{why}: {what}", sample.cut)),
        Err(error) => Some(format!("cut at event {}{why}: it opens and cannot be read: {error:#}", sample.cut)),
    })
}

fn repeat_command(plan: &Plan, kept: &Path, life: u64, image: u64) -> String {
    let Plan { engine, with_history, damage_percent, .. } = plan;
    let history = if *with_history { "" } else { " --no-history" };
    format!(
        "cargo run -p muster-tests --bin muster-crash-images -- --repeat {} --life {life} --image {image} \
         --engine {engine} --damage-percent {damage_percent}{history}",
        kept.display()
    )
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// Makes and judges one image of a kept series again; leaves the image in `to` if that is given.
pub fn repeat(plan: &Plan, kept: &Path, life: u64, image: u64, to: Option<&Path>) -> Result<Tally> {
    let mut before = Expect::nothing();
    for earlier in 0..life {
        let folder = kept.join(format!("life-{earlier}"));
        let next: u64 = fs::read_to_string(folder.join("next"))?.trim().parse()?;
        before = Recording::read(&folder, before)?.sample(next, plan.damage_percent)?.expect;
    }
    let recording = Recording::read(&kept.join(format!("life-{life}")), before)?;
    let sample = recording.sample(image, plan.damage_percent)?;
    if let Some(to) = to {
        sample.image.write(to)?;
        recording.tell(sample.cut, &to.with_extension("events"))?;
    }
    let mut tally = Tally { events: recording.events() as u64, ..Tally::default() };
    if let Some(what) = judge_sample(plan.engine, plan.with_history, &sample, &mut tally)? {
        tally.misses.push(Miss { what, repeat: repeat_command(plan, kept, life, image) });
    }
    Ok(tally)
}
