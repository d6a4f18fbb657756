//! What became of one file's unsynced changes: the choices a power cut has.
//!
//! A disk takes pages of 4 KiB in any order and at any moment, so each page is as some change left it; a page that was on its
//! way may be a mix of sectors of 512 bytes. Lengths go through the file system's journal: some number of the changes is in
//! it. A page that was cut off comes back neither before its cut is in the journal nor after.

use super::dice::Dice;
use super::disk::{Change, File};

const PAGE: usize = 4096;
const SECTOR: usize = 512;

/// How the pages of one file are picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The first changes, and then none.
    InOrder,
    /// The first changes; of the pages of the next ones, any.
    TornAtEnd,
    /// Each page at any moment.
    AnyPages,
    /// Each sector at any moment.
    AnySectors,
    /// The length, and none of the bytes.
    LengthOnly,
    /// Later pages only.
    LateFirst,
}

const WAYS: [Way; 6] = [Way::InOrder, Way::TornAtEnd, Way::AnyPages, Way::AnySectors, Way::LengthOnly, Way::LateFirst];

/// The content a cut leaves of a file.
pub fn content(file: &File, dice: &mut Dice) -> Vec<u8> {
    if file.pending.is_empty() {
        return file.durable.clone();
    }
    let changes: Vec<&Change> = file.pending.iter().map(|(_, change)| change).collect();
    let way = *dice.pick(&WAYS);
    // Changes whose lengths are in the journal.
    let journaled = match way {
        Way::LengthOnly | Way::LateFirst => changes.len(),
        _ => dice.between(0, changes.len() as u64) as usize,
    };
    let lengths = lengths(file.durable.len(), &changes);
    let length = length(&lengths, journaled, way, dice);
    let mut content = file.durable.clone();
    content.resize(length, 0);
    for page in touched(&changes, length) {
        let versions = Versions::of(&file.durable, &changes, page, journaled);
        let old = versions.first();
        let bytes = match way {
            Way::InOrder => versions.at(journaled),
            Way::TornAtEnd if dice.percent(50) => versions.at(journaled),
            Way::TornAtEnd | Way::AnyPages if dice.percent(70) => versions.any(dice),
            Way::TornAtEnd | Way::AnyPages | Way::AnySectors => versions.torn(dice),
            Way::LengthOnly => old,
            Way::LateFirst if (page + 1) * PAGE >= length => versions.at(changes.len()),
            Way::LateFirst if dice.percent(50) => old,
            Way::LateFirst => versions.any(dice),
        };
        let end = length.min((page + 1) * PAGE);
        content[page * PAGE..end].copy_from_slice(&bytes[..end - page * PAGE]);
    }
    content
}

/// The length after each number of changes.
fn lengths(durable: usize, changes: &[&Change]) -> Vec<usize> {
    let mut lengths = vec![durable];
    for change in changes {
        let before = lengths[lengths.len() - 1];
        lengths.push(match change {
            Change::Write { offset, bytes } => before.max(*offset as usize + bytes.len()),
            Change::Length(length) => *length as usize,
        });
    }
    lengths
}

fn length(lengths: &[usize], journaled: usize, way: Way, dice: &mut Dice) -> usize {
    let (now, next) = (lengths[journaled], lengths.get(journaled + 1).copied().unwrap_or(lengths[journaled]));
    if way == Way::InOrder || next <= now || dice.percent(40) {
        return now;
    }
    // A growing file's length follows its pages, and on some systems its bytes.
    let between = dice.between(now as u64, next as u64) as usize;
    if dice.percent(70) { (between.next_multiple_of(PAGE)).min(next) } else { between }
}

/// Pages below `length` that some change touches.
fn touched(changes: &[&Change], length: usize) -> Vec<usize> {
    let mut pages: Vec<usize> = Vec::new();
    for change in changes {
        let (from, to) = match change {
            Change::Write { offset, bytes } => (*offset as usize, *offset as usize + bytes.len()),
            Change::Length(cut) => (*cut as usize, length),
        };
        pages.extend(from / PAGE..to.min(length).div_ceil(PAGE).max(from / PAGE));
    }
    pages.sort_unstable();
    pages.dedup();
    pages.retain(|page| page * PAGE < length);
    pages
}

/// The contents one page had, each from some change on.
struct Versions(Vec<(usize, Box<[u8; PAGE]>)>);

impl Versions {
    fn of(durable: &[u8], changes: &[&Change], page: usize, journaled: usize) -> Self {
        let start = page * PAGE;
        let mut bytes = Box::new([0; PAGE]);
        if let Some(there) = durable.get(start..) {
            let there = &there[..there.len().min(PAGE)];
            bytes[..there.len()].copy_from_slice(there);
        }
        let mut versions = vec![(0, bytes.clone())];
        for (number, change) in (1..).zip(changes) {
            match change {
                Change::Write { offset, bytes: new } => {
                    let (from, to) = (*offset as usize, *offset as usize + new.len());
                    let (low, high) = (from.max(start), to.min(start + PAGE));
                    if low < high {
                        bytes[low - start..high - start].copy_from_slice(&new[low - from..high - from]);
                        versions.push((number, bytes.clone()));
                    }
                }
                Change::Length(cut) => {
                    let cut = *cut as usize;
                    if cut <= start {
                        if number > journaled {
                            // Not cut off yet, so its room cannot hold anything newer.
                            return Versions(versions);
                        }
                        bytes.fill(0);
                        versions = vec![(number, bytes.clone())];
                    } else if cut < start + PAGE {
                        bytes[cut - start..].fill(0);
                        versions.push((number, bytes.clone()));
                    }
                }
            }
        }
        Versions(versions)
    }

    fn first(&self) -> Box<[u8; PAGE]> {
        self.0[0].1.clone()
    }

    /// After so many changes.
    fn at(&self, changes: usize) -> Box<[u8; PAGE]> {
        let later = self.0.partition_point(|(number, _)| *number <= changes);
        self.0[later.max(1) - 1].1.clone()
    }

    fn any(&self, dice: &mut Dice) -> Box<[u8; PAGE]> {
        dice.pick(&self.0).1.clone()
    }

    fn torn(&self, dice: &mut Dice) -> Box<[u8; PAGE]> {
        let mut page = self.any(dice);
        for from in (0..PAGE).step_by(SECTOR) {
            let sector = &dice.pick(&self.0).1[from..from + SECTOR];
            page[from..from + SECTOR].copy_from_slice(sector);
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn write(offset: u64, bytes: &[u8]) -> (u64, Change) {
        (0, Change::Write { offset, bytes: bytes.into() })
    }

    /// All contents that many seeds make.
    fn outcomes(file: &File) -> BTreeSet<Vec<u8>> {
        (0..4000).map(|seed| content(file, &mut Dice::new(seed))).collect()
    }

    #[test]
    fn what_is_durable_is_in_every_outcome_and_what_is_not_may_be_lost_or_torn() {
        let old = vec![b'o'; 700];
        let pending = vec![write(700, &[b'n'; 2 * PAGE])];
        let file = File { durable: old.clone(), pending, ..File::default() };
        let outcomes = outcomes(&file);
        assert!(outcomes.iter().all(|content| content.starts_with(&old)));
        assert!(outcomes.contains(&old), "all of it lost");
        assert!(outcomes.contains(&[old.clone(), vec![b'n'; 2 * PAGE]].concat()), "all of it there");
        let zero_then_new = |content: &&Vec<u8>| content[PAGE] == 0 && content.last() == Some(&b'n');
        assert!(
            outcomes.iter().filter(|content| content.len() > PAGE).any(|c| zero_then_new(&c)),
            "a later page alone"
        );
        let torn = |content: &&Vec<u8>| content.len() > 1024 && content[1023] == b'n' && content[1024] == 0;
        assert!(outcomes.iter().any(|c| torn(&c)), "a torn page");
    }

    #[test]
    fn a_cut_off_page_never_shows_new_bytes_before_its_cut_is_in_the_journal() {
        let durable = vec![b'o'; 3 * PAGE];
        let pending = vec![(0, Change::Length(0)), write(0, &vec![b'n'; 2 * PAGE])];
        let outcomes = outcomes(&File { durable, pending, ..File::default() });
        for content in &outcomes {
            let old = content.contains(&b'o');
            assert!(!(old && content.iter().any(|byte| *byte != b'o')), "old and new bytes share a file");
        }
        assert!(outcomes.iter().any(Vec::is_empty) && outcomes.iter().any(|content| content.len() == 3 * PAGE));
    }
}
