//! One image: the names and contents that a cut left, and the folder made from them.

use super::choice::content;
use super::dice::Dice;
use super::disk::{Disk, Id, Names, ROOT};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// What is on the disk after the cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    pub names: Names,
    pub contents: BTreeMap<Id, Vec<u8>>,
}

impl Image {
    /// What a cut at this point could leave.
    pub fn pick(disk: &Disk, dice: &mut Dice) -> Self {
        let mut names = disk.durable.clone();
        // Of the later changes of names: the first ones, or any.
        let first = dice.between(0, disk.pending.len() as u64) as usize;
        let in_order = dice.percent(50);
        for (number, (_, change)) in disk.pending.iter().enumerate() {
            if if in_order { number < first } else { dice.percent(50) } {
                change.apply(&mut names);
            }
        }
        drop_lost(&mut names);
        let mut contents = BTreeMap::new();
        for id in names.values() {
            if let Some(file) = disk.files.get(id) {
                contents.entry(*id).or_insert_with(|| content(file, dice));
            }
        }
        Image { names, contents }
    }

    /// Makes the folder, which must not exist.
    pub fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        self.write_below(ROOT, folder)
    }

    fn write_below(&self, id: Id, folder: &Path) -> Result<()> {
        for ((_, name), child) in self.names.range((id, String::new())..(id + 1, String::new())) {
            let path = folder.join(name);
            match self.contents.get(child) {
                Some(content) => fs::write(&path, content)?,
                None => {
                    fs::create_dir(&path)?;
                    self.write_below(*child, &path)?;
                }
            }
        }
        Ok(())
    }

    /// All files by path.
    pub fn by_path(&self) -> BTreeMap<String, &Vec<u8>> {
        let mut found = BTreeMap::new();
        self.walk(ROOT, "", &mut |path, _, id| {
            if let Some(content) = self.contents.get(&id) {
                found.insert(path, content);
            }
        });
        found
    }

    /// Visits everything: its path, its place in `names`, what it is.
    pub fn walk_places(&self, visit: &mut impl FnMut(String, &(Id, String), Id)) {
        self.walk(ROOT, "", visit);
    }

    fn walk(&self, id: Id, above: &str, visit: &mut impl FnMut(String, &(Id, String), Id)) {
        for (place, child) in self.names.range((id, String::new())..(id + 1, String::new())) {
            let path = if above.is_empty() { place.1.clone() } else { format!("{above}/{}", place.1) };
            visit(path.clone(), place, *child);
            self.walk(*child, &path, visit);
        }
    }
}

/// Removes names in folders that are not there themselves.
fn drop_lost(names: &mut Names) {
    loop {
        let before = names.len();
        let there: std::collections::BTreeSet<Id> = names.values().copied().chain([ROOT]).collect();
        names.retain(|(folder, _), _| there.contains(folder));
        if names.len() == before {
            return;
        }
    }
}

/// Compares a folder with what the record, played to its end, says a reader sees there. Anything else means that the
/// record missed something, and would prove nothing.
pub fn check_record_is_whole(disk: &Disk, folder: &Path) -> Result<()> {
    let (names, contents) = disk.seen();
    let played = Image { names, contents };
    let mut expected = played.by_path();
    compare_below(folder, "", &mut expected)?;
    ensure!(expected.is_empty(), "the record has files that are not there: {:?}", expected.keys());
    Ok(())
}

fn compare_below(folder: &Path, above: &str, expected: &mut BTreeMap<String, &Vec<u8>>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().into_string().ok().context("a name that is not UTF-8")?;
        let path = if above.is_empty() { name } else { format!("{above}/{name}") };
        if entry.file_type()?.is_dir() {
            compare_below(&entry.path(), &path, expected)?;
        } else {
            let recorded = expected.remove(&path).with_context(|| format!("the record does not know {path}"))?;
            ensure!(fs::read(entry.path())? == *recorded, "the record has other bytes of {path}");
        }
    }
    Ok(())
}
