//! Cells: quota that has a shape. See ADR 7.

use super::validate::{Checked, refuse};
use super::{Account, Organisation};
use muster_common::Name;
use muster_common::text::nearest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most cells of one line and, of one model, of all.
const NUMBER_MAX: u32 = 100_000;
const CELLS_MAX: u64 = 1_000_000;
/// Most lines of one account.
const LINES_MAX: usize = 64;
/// Most different shapes of one model.
const SHAPES_MAX: usize = 32;
/// The longest time in which a guarantee may be promised: a day.
const WITHIN_MS_MAX: u64 = 24 * 3_600_000;

/// So many cells of one shape: whole nodes that are together in one domain of a level. They are the shape
/// of a part of the account's `nominal`, not more of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellQuota {
    pub model: Name,
    /// `node`, or a level of a fabric tree: the nodes of a cell are in one of its domains.
    pub level: Name,
    /// Nodes of one cell; 1 for the level `node`.
    #[serde(default = "one")]
    pub nodes: u32,
    /// Devices of the model on each of these nodes: all that such a machine has.
    pub gpus: u32,
    /// How many such cells.
    pub number: u32,
}

fn one() -> u32 {
    1
}

impl CellQuota {
    /// Devices of all its cells together.
    pub fn devices(&self) -> u64 {
        u64::from(self.nodes) * u64::from(self.gpus) * u64::from(self.number)
    }

    /// As a person says it.
    pub fn told(&self) -> String {
        let Self { model, level, nodes, gpus, number } = self;
        let plural = |n: u32| if n == 1 { "" } else { "s" };
        match level.as_str() {
            "node" => format!("{number} whole node{} of {gpus} {model}", plural(*number)),
            _ => format!("{number} x {nodes} node{} of {gpus} {model} in one {level}", plural(*nodes)),
        }
    }
}

impl Organisation {
    /// Does any account own cells?
    pub fn has_cells(&self) -> bool {
        self.accounts.iter().any(|account| !account.cells.is_empty())
    }

    /// The shortest time within which anybody is promised its own back; `None` = nobody is.
    pub fn reclaim_within_ms(&self) -> Option<u64> {
        self.accounts.iter().filter_map(|account| account.reclaim_within_ms).min()
    }

    /// What can be said of cells without looking at the fabric.
    pub(super) fn check_cells(&self) -> Checked {
        let mut sizes: BTreeMap<&Name, (u32, String)> = BTreeMap::new();
        let mut shapes: BTreeMap<(&Name, &Name), BTreeMap<u32, String>> = BTreeMap::new();
        let mut sums: BTreeMap<&Name, u64> = BTreeMap::new();
        for (at, account) in self.accounts.iter().enumerate() {
            let path = format!("account[{at}]");
            check_account(&path, account)?;
            for (line, cells) in account.cells.iter().enumerate() {
                let path = format!("{path}.cells[{line}]");
                let (size, first) = sizes.entry(&cells.model).or_insert((cells.gpus, path.clone()));
                if *size != cells.gpus {
                    let what = format!("cells of {} GPUs a node, and of {size} in {first}", cells.gpus);
                    return refuse(format!("{path}.gpus"), what, "cells of one model are of nodes of one size");
                }
                let sum = sums.entry(&cells.model).or_default();
                *sum += u64::from(cells.number);
                if *sum > CELLS_MAX {
                    let what = format!("with these, {sum} cells of {} are owned", cells.model);
                    return refuse(format!("{path}.number"), what, format!("at most {CELLS_MAX} are taken"));
                }
                shapes.entry((&cells.model, &cells.level)).or_default().insert(cells.nodes, path);
            }
        }
        let mut numbers: BTreeMap<&Name, usize> = BTreeMap::new();
        for ((model, _), of_level) in &shapes {
            let number = numbers.entry(model).or_default();
            *number += of_level.len();
            if let Some((_, path)) = of_level.last_key_value().filter(|_| *number > SHAPES_MAX) {
                let what = format!("{number} shapes of {model} are owned");
                return refuse(path.clone(), what, format!("at most {SHAPES_MAX} are taken"));
            }
        }
        shapes.values().try_for_each(check_chain)
    }
}

/// Cells of one level must be cut out of each other without a rest, or what is obtainable could not be counted.
fn check_chain(shapes: &BTreeMap<u32, String>) -> Checked {
    let sizes: Vec<(&u32, &String)> = shapes.iter().collect();
    for pair in sizes.windows(2) {
        let [(small, _), (large, path)] = pair else { continue };
        if *large % *small != 0 {
            let what = format!("{large} nodes cannot be cut into cells of {small}, which are owned at this level too");
            return refuse(format!("{path}.nodes"), what, "choose sizes that divide each other, as 2, 4 and 8 do");
        }
    }
    Ok(())
}

fn check_account(path: &str, account: &Account) -> Checked {
    if let Some(within_ms) = account.reclaim_within_ms.filter(|ms| !(1..=WITHIN_MS_MAX).contains(ms)) {
        let what = format!("{within_ms} ms");
        return refuse(format!("{path}.reclaim_within_ms"), what, format!("it is between 1 and {WITHIN_MS_MAX}"));
    }
    if account.cells.is_empty() {
        return Ok(());
    }
    if account.reclaim_within_ms.is_none() {
        let what = format!("`{}` owns cells, and not within which time it has them back", account.name);
        return refuse(format!("{path}.reclaim_within_ms"), what, "give one, such as 120000 for two minutes");
    }
    if account.cells.len() > LINES_MAX {
        let what = format!("there are {} lines of cells", account.cells.len());
        return refuse(format!("{path}.cells"), what, format!("at most {LINES_MAX} are taken"));
    }
    let mut devices: BTreeMap<&Name, u64> = BTreeMap::new();
    for (line, cells) in account.cells.iter().enumerate() {
        let path = format!("{path}.cells[{line}]");
        check_line(&path, cells)?;
        let sum = devices.entry(&cells.model).or_default();
        *sum += cells.devices();
        let nominal = account.quota.get(&cells.model).map_or(0, |quota| u64::from(quota.nominal));
        if *sum > nominal {
            let model = &cells.model;
            let what = format!("with these, cells of {sum} {model} are owned and `quota.{model}.nominal` is {nominal}");
            let known = account.quota.keys().map(|name| name.as_str());
            let remedy = match nearest(model.as_str(), known).filter(|_| !account.quota.contains_key(model)) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "cells are the shape of a part of `nominal`: raise it, or own fewer".into(),
            };
            return refuse(path, what, remedy);
        }
    }
    Ok(())
}

fn check_line(path: &str, cells: &CellQuota) -> Checked {
    let counts = [("nodes", cells.nodes), ("gpus", cells.gpus), ("number", cells.number)];
    if let Some((name, count)) = counts.iter().find(|(_, count)| !(1..=NUMBER_MAX).contains(count)) {
        return refuse(format!("{path}.{name}"), format!("{count}"), format!("it is between 1 and {NUMBER_MAX}"));
    }
    if cells.level.as_str() == "node" && cells.nodes != 1 {
        let what = format!("{} nodes cannot be in one node", cells.nodes);
        return refuse(format!("{path}.nodes"), what, "leave `nodes` out and raise `number`, or name a wider level");
    }
    Ok(())
}
