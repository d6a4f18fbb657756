//! One recorded run, and the disks it could leave.

use super::damage::{Damage, damage};
use super::dice::Dice;
use super::disk::Disk;
use super::expect::Expect;
use super::image::{Image, check_record_is_whole};
use super::mark::Mark;
use super::preload::{failing_once, recorded};
use super::record::{Event, parse};
use super::workload::{Life, folders};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::RwLock;

/// A child has its parent's handles, locks included, from its fork to its exec; so no log is open meanwhile.
pub static FORKING: RwLock<()> = RwLock::new(());

/// The recording of a life, in a folder of its own: `base` is what it began with, `record` what it did.
pub struct Recording {
    folder: PathBuf,
    events: Vec<Event>,
    before: Expect,
}

/// Lets `program` (`muster-crash-images`) live one life on the stores in `data`, and appends what it did to `record`.
pub fn live(program: &Path, data: &Path, record: &Path, life: &Life) -> Result<()> {
    let data = data.canonicalize()?;
    let mut command = Command::new(program);
    command.arg("live").arg(&data).args(life.arguments());
    command.envs(recorded(&data, record)).envs([failing_once(&record.with_extension("failure"))]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = {
        let _alone = FORKING.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        command.spawn().with_context(|| format!("{} does not start", program.display()))?
    };
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the recorded life failed: {}: {said}", output.status);
    Ok(())
}

/// An image with what must be in it.
pub struct Sample {
    pub image: Image,
    pub expect: Expect,
    pub damage: Option<Damage>,
    pub cut: usize,
}

impl Recording {
    /// Lets `program` (`muster-crash-images`) live one life that begins with `base`; `before` is what must be in there.
    pub fn make(program: &Path, folder: &Path, base: Option<&Image>, before: Expect, life: &Life) -> Result<Self> {
        let (kept, data) = (folder.join("base"), folder.join("data"));
        match base {
            Some(image) => image.write(&kept).and_then(|()| image.write(&data))?,
            None => {
                for data in [&kept, &data] {
                    for folder in folders(data) {
                        fs::create_dir_all(folder)?;
                    }
                }
            }
        }
        live(program, &data, &folder.join("record"), life)?;
        let recording = Self::read(folder, before)?;
        let mut disk = recording.disk()?;
        for event in &recording.events {
            disk.step(event)?;
        }
        check_record_is_whole(&disk, &data).context("what was recorded is not what was done")?;
        fs::remove_dir_all(data)?;
        Ok(recording)
    }

    /// Reads one that was kept.
    pub fn read(folder: &Path, before: Expect) -> Result<Self> {
        let record = fs::read(folder.join("record")).context("there is no record")?;
        Ok(Self { folder: folder.to_owned(), events: parse(&record)?, before })
    }

    fn disk(&self) -> Result<Disk> {
        Disk::holding(&self.folder.join("base"))
    }

    /// The image of a number: a cut, and what it left. The same number gives the same image.
    pub fn sample(&self, number: u64, damage_percent: u64) -> Result<Sample> {
        let mut dice = Dice::for_use(number, 1);
        let cut = dice.between(0, self.events.len() as u64) as usize;
        let mut disk = self.disk()?;
        let mut expect = self.before.clone();
        for event in &self.events[..cut] {
            disk.step(event)?;
            if let Event::Mark(bytes) = event {
                expect.step(&serde_json::from_slice::<Mark>(bytes)?);
            }
        }
        let mut image = Image::pick(&disk, &mut dice);
        let damage = dice.percent(damage_percent).then(|| damage(&mut image, &disk, &mut dice)).flatten();
        Ok(Sample { image, expect, damage, cut })
    }

    /// Writes the events before a cut in words, long bytes by their length.
    pub fn tell(&self, cut: usize, to: &Path) -> Result<()> {
        let mut text = String::new();
        for (number, event) in self.events[..cut].iter().enumerate() {
            let said = match event {
                Event::Written { id, offset, bytes } => {
                    format!("Written {{ {id}, {} bytes at {offset} }}", bytes.len())
                }
                Event::Mark(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                other => format!("{other:?}"),
            };
            text.push_str(&format!("{number} {said}\n"));
        }
        Ok(fs::write(to, text)?)
    }

    pub fn events(&self) -> usize {
        self.events.len()
    }
}
