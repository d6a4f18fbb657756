//! Cells in a document of accounts: is there a fabric for them, and is every promise one that can be kept?

use super::Result;
use super::level::needs_level;
use crate::organisation::{CellQuota, Organisation};
use crate::outcome::Refusal;
use crate::plan::owed::{self, CellsOf, Owed};
use crate::state::State;
use muster_common::Name;
use muster_common::text::nearest;
use muster_common::topology::FabricSpec;
use std::collections::BTreeMap;

/// From this feature level on, all servers know cells, and times within which accounts have back their own.
pub const CELLS_LEVEL: u32 = 6;

/// May the document be put in force? Its levels are there, the fabric has what is owned, and nobody is
/// promised a cell that could not be had now, nor loses one that could.
pub(super) fn check_document(state: &State, document: &Organisation) -> Result<()> {
    if document.has_cells() || document.reclaim_within_ms().is_some() {
        needs_level(state, CELLS_LEVEL)?;
    }
    check_times(state, document)?;
    check_levels(document, state.fabric())?;
    check_sizes(state, document)?;
    check_room(state, document)?;
    check_kept(state, state, document)
}

/// The same document under another policy, other times or another fabric.
pub(super) fn check_still_kept(before: &State, after: &State) -> Result<()> {
    let document = after.accounts().document();
    check_times(after, document)?;
    check_levels(document, after.fabric())?;
    check_kept(before, after, document)
}

/// Time enough to stop at least what needs none to stop, or nothing at all would be lent.
fn check_times(state: &State, document: &Organisation) -> Result<()> {
    let (min_run_ms, kill_ms) = (state.policy().taking.reclaim.min_run_ms, state.settings().kill_bound_ms);
    let least = min_run_ms.saturating_add(kill_ms);
    let times = document.accounts.iter().enumerate();
    let short =
        times.filter_map(|(at, account)| Some((at, account.reclaim_within_ms.filter(|ms| *ms < least)?))).next();
    let Some((at, within_ms)) = short else { return Ok(()) };
    Err(Refusal::Invalid(format!(
        "account[{at}].reclaim_within_ms: in {within_ms} ms nothing can be stopped, so nothing could be lent: that takes \
         the policy's taking.reclaim.min_run_ms ({min_run_ms}) and the time to kill what does not stop ({kill_ms}); give \
         at least {least}, and the longest grace that is to be lent to beside it"
    )))
}

fn lines(document: &Organisation) -> impl Iterator<Item = (String, &CellQuota)> {
    document.accounts.iter().enumerate().flat_map(|(at, account)| {
        let path = move |line: usize| format!("account[{at}].cells[{line}]");
        account.cells.iter().enumerate().map(move |(line, cells)| (path(line), cells))
    })
}

/// Levels that the fabric has, and for one model those of one tree: trees do not nest.
fn check_levels(document: &Organisation, fabric: &FabricSpec) -> Result<()> {
    let mut trees: BTreeMap<&Name, (usize, &Name)> = BTreeMap::new();
    for (path, cells) in lines(document).filter(|(_, cells)| cells.level.as_str() != "node") {
        let CellQuota { model, level, .. } = cells;
        let Some((tree, _)) = fabric.find_level(level.as_str()) else {
            let known = fabric.level_names();
            let help = match nearest(level.as_str(), known.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("there is: {}", known.join(", ")),
            };
            return Err(Refusal::Invalid(format!("{path}.level: there is no topology level `{level}`; {help}")));
        };
        let (first, named) = trees.entry(model).or_insert((tree, level));
        if *first != tree {
            let why = format!(
                "{path}.level: `{level}` and `{named}` are levels of different trees; own cells of {model} in one tree"
            );
            return Err(Refusal::Invalid(why));
        }
    }
    Ok(())
}

/// A whole node is one that has as many devices of the model as the document says.
fn check_sizes(state: &State, document: &Organisation) -> Result<()> {
    if state.nodes().is_empty() {
        return Ok(());
    }
    for (path, cells) in lines(document) {
        let sizes = owed::node_sizes(state, &cells.model);
        if !sizes.contains(&cells.gpus) {
            let CellQuota { model, gpus, .. } = cells;
            let sizes: Vec<String> = sizes.iter().map(u32::to_string).collect();
            let there = if sizes.is_empty() { "none".to_owned() } else { sizes.join(" or ") };
            let why = format!("{path}.gpus: no node has {gpus} {model}; nodes with any have {there}");
            return Err(Refusal::Invalid(why));
        }
    }
    Ok(())
}

/// What is owned is there when nothing runs.
fn check_room(state: &State, document: &Organisation) -> Result<()> {
    if state.nodes().is_empty() || !document.has_cells() {
        return Ok(());
    }
    let best = Owed::at_best(state, document, state.fabric()).by_account(document, state.fabric());
    let Some(short) = best.iter().find(|of| of.lost > 0) else { return Ok(()) };
    let same = |of: &&CellsOf| {
        (&of.cells.model, &of.cells.level, of.cells.nodes)
            == (&short.cells.model, &short.cells.level, short.cells.nodes)
    };
    let sum = |number: fn(&CellsOf) -> u32| best.iter().filter(same).map(number).sum::<u32>();
    let (owned, had) = (sum(|of| of.cells.number), sum(|of| of.used + of.obtainable));
    let one = CellQuota { number: 1, ..short.cells.clone() }.told();
    let (path, _) = lines(document)
        .find(|(_, cells)| {
            (&cells.model, &cells.level, cells.nodes) == (&short.cells.model, &short.cells.level, short.cells.nodes)
        })
        .unwrap_or_else(|| ("account".into(), &short.cells));
    let why = format!(
        "{path}: with this, {owned} cells of the shape \"{one}\" are owned, and beside the wider ones that are owned the \
         fabric has {had}; own fewer, or join the nodes first"
    );
    Err(Refusal::Invalid(why))
}

fn check_kept(before: &State, after: &State, document: &Organisation) -> Result<()> {
    if after.nodes().is_empty() || !document.has_cells() {
        return Ok(());
    }
    let mut was = Owed::of(before);
    was.hold_kept(before);
    let mut is = Owed::under(after, document, after.fabric());
    is.hold_kept(after);
    // Line by line: what one account gives up makes up for nothing that another is promised.
    let known = was.by_account(before.accounts().document(), before.fabric());
    let lost_before = |of: &CellsOf| {
        let same = |other: &&CellsOf| {
            let shape = |of: &CellsOf| (of.cells.model.clone(), of.cells.level.clone(), of.cells.nodes);
            other.account == of.account && shape(other) == shape(of)
        };
        known.iter().find(same).map_or(0, |other| other.lost)
    };
    let mut worse = is.by_account(document, after.fabric());
    worse.retain(|of| of.lost > lost_before(of));
    if worse.is_empty() {
        return Ok(());
    }
    let told = |of: &CellsOf| {
        format!("account `{}` would own {} and could not have {} of them", of.account, of.cells.told(), of.lost)
    };
    let lost: Vec<String> = worse.iter().take(3).map(told).collect();
    let why = format!(
        "{}: work that may not be stopped in time is in the way, or hardware is out of order (`muster queue ls`, `muster \
         node ls`); wait until it has ended, own fewer, or leave more time in reclaim_within_ms",
        lost.join("; ")
    );
    Err(Refusal::Invalid(why))
}
