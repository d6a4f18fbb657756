//! Damage of what was durable: one byte or one sector of an image, as a disk loses it.

use super::dice::Dice;
use super::disk::{Change, Disk, Id};
use super::image::Image;
use std::fmt;

const SECTOR: usize = 512;

/// What was done to an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    pub path: String,
    pub at: usize,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// One byte is another.
    Byte,
    /// One sector reads as zeros.
    ZeroSector,
    /// One sector reads as anything.
    WildSector,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at byte {} of {}", self.kind, self.at, self.path)
    }
}

/// Damages one durable place of an image; none if it has none. Places near the end of what is durable are picked more often,
/// since a reader may take them for a torn write.
pub fn damage(image: &mut Image, disk: &Disk, dice: &mut Dice) -> Option<Damage> {
    let named: Vec<(String, Id)> = image.durable_files(disk);
    let candidates: Vec<(String, Id, usize)> = named
        .into_iter()
        .filter_map(|(path, id)| {
            let solid = solid(disk, id).min(image.contents[&id].len());
            (solid > 0).then_some((path, id, solid))
        })
        .collect();
    if candidates.is_empty() {
        return None;
    }
    let (path, id, solid) = dice.pick(&candidates).clone();
    let near = solid.saturating_sub(2 * SECTOR) as u64;
    let low = if dice.percent(50) { near } else { 0 };
    let at = dice.between(low, solid as u64 - 1) as usize;
    let kind = *dice.pick(&[Kind::Byte, Kind::ZeroSector, Kind::WildSector]);
    let start = at / SECTOR * SECTOR;
    // Zeros where the last sync wrote are what a write that never came would leave: no reader can tell.
    let untellable = |(from, to): &(usize, usize)| *from < start + SECTOR && *to > start;
    if kind == Kind::ZeroSector && disk.files[&id].fresh.iter().any(untellable) {
        return None;
    }
    let content = image.contents.get_mut(&id).expect("it was just looked at");
    let before = content.clone();
    let end = (start + SECTOR).min(content.len());
    match kind {
        Kind::Byte => content[at] ^= dice.between(1, 255) as u8,
        Kind::ZeroSector => content[start..end].fill(0),
        Kind::WildSector => dice.fill(&mut content[start..end]),
    }
    (*content != before).then_some(Damage { path, at, kind })
}

/// How many bytes of a file, from its beginning, are durable and under no pending change; rounded to whole sectors unless
/// nothing is pending.
fn solid(disk: &Disk, id: Id) -> usize {
    let file = &disk.files[&id];
    let first_change = file.pending.iter().map(|(_, change)| match change {
        Change::Write { offset, .. } => *offset as usize,
        Change::Length(length) => *length as usize,
    });
    match first_change.min() {
        None => file.durable.len(),
        Some(change) => file.durable.len().min(change) / SECTOR * SECTOR,
    }
}

impl Image {
    /// Files that were durable under the very name they have in the image.
    fn durable_files(&self, disk: &Disk) -> Vec<(String, Id)> {
        let mut files = Vec::new();
        self.walk_places(&mut |path, place, id| {
            if self.contents.contains_key(&id) && disk.durable.get(place) == Some(&id) {
                files.push((path, id));
            }
        });
        files
    }
}
