//! Which nodes an advance reservation takes: named, those of a domain, all, or some of a model.

use super::super::{Applying, Result};
use super::crosses;
use crate::command::{MakeWindow, Which};
use crate::outcome::Refusal;
use crate::plan::feasible::domain_of;
use crate::state::State;
use crate::state::node::NodeRecord;
use crate::state::window::{Holders, Window};
use muster_common::text::nearest;
use muster_common::{Name, Time};
use std::collections::{BTreeMap, BTreeSet};

/// Most names that a refusal lists.
const LISTED_MAX: usize = 8;

impl Applying<'_> {
    pub(super) fn window_nodes(&self, asked: &MakeWindow, (start, end): (Time, Time)) -> Result<Vec<Name>> {
        let nodes = match &asked.nodes {
            Which::Nodes(names) => {
                let known: BTreeSet<&Name> = names.iter().collect();
                if let Some(unknown) = known.iter().find(|name| !self.state.node_names.contains(name)) {
                    return Err(unknown_node(self.state, unknown));
                }
                known.into_iter().cloned().collect()
            }
            Which::Domain(path) => in_domain(self.state, path)?,
            Which::All => self.state.node_names.keys().cloned().collect(),
            Which::Some { nodes, model, level } => {
                choose(self.state, (*nodes as usize, model.as_ref(), level.as_ref()), (start, end), &asked.holders)?
            }
        };
        if nodes.is_empty() {
            return Err(Refusal::Invalid("nodes: a reservation needs at least one".into()));
        }
        let taken = |node: &&Name| taken_by(self.state, node, (start, end)).is_some();
        match nodes.iter().find(taken) {
            Some(node) => {
                let other = taken_by(self.state, node, (start, end)).map(|other| other.name.clone());
                Err(Refusal::Overlaps { node: node.clone(), other: other.unwrap_or_else(|| asked.name.clone()) })
            }
            None => Ok(nodes),
        }
    }
}

fn taken_by<'s>(state: &'s State, node: &Name, (start, end): (Time, Time)) -> Option<&'s Window> {
    state.windows.iter().map(|window| &**window).find(|window| window.meets(start, end) && window.has(node))
}

/// Nodes of the one domain whose path ends so, in whichever tree.
pub(super) fn in_domain(state: &State, path: &[Name]) -> Result<Vec<Name>> {
    let mut found: BTreeMap<(&Name, &[Name]), Vec<Name>> = Default::default();
    let mut known: BTreeSet<&str> = BTreeSet::new();
    for node in state.nodes.values() {
        for (tree, place) in &node.inventory.place {
            known.extend(place.iter().map(|name| name.as_str()));
            for depth in path.len().max(1)..=place.len() {
                if place[..depth].ends_with(path) {
                    found.entry((tree, &place[..depth])).or_default().push(node.name.clone());
                }
            }
        }
    }
    let said = |path: &[Name]| path.iter().map(|name| name.as_str()).collect::<Vec<_>>().join("/");
    let mut all = found.into_iter();
    match (all.next(), all.next()) {
        (Some((_, mut nodes)), None) => {
            nodes.sort();
            Ok(nodes)
        }
        (Some((one, _)), Some((other, _))) => Err(Refusal::Invalid(format!(
            "domain: `{}` may be `{}` of {} or `{}` of {}; give more of the path",
            said(path),
            said(one.1),
            one.0,
            said(other.1),
            other.0
        ))),
        (None, _) => {
            let last = path.last().map_or("", |name| name.as_str());
            let known: Vec<&str> = known.into_iter().collect();
            let help = help(last, &known);
            Err(Refusal::Invalid(format!("domain: no node is in a domain `{}`; {help}", said(path))))
        }
    }
}

/// So many nodes of one model in one domain of a level: where the fewest jobs would run into the window.
fn choose(
    state: &State,
    (count, model, level): (usize, Option<&Name>, Option<&Name>),
    (start, end): (Time, Time),
    holders: &Holders,
) -> Result<Vec<Name>> {
    let level = level.map_or("", |name| name.as_str());
    if !level.is_empty() && state.fabric.find_level(level).is_none() {
        let known = state.fabric.level_names();
        return Err(Refusal::Invalid(format!("within: there is no level `{level}`; {}", help(level, &known))));
    }
    let mut domains: BTreeMap<_, Vec<(bool, Name)>> = Default::default();
    for node in state.nodes.values().filter(|node| has_model(node, model) && node.is_in_service()) {
        let domain = match level {
            "" => Some((0, &[][..], None)),
            level => domain_of(&state.fabric, level, node.id, &node.inventory),
        };
        let free = taken_by(state, &node.name, (start, end)).is_none();
        if let Some(domain) = domain.filter(|_| free) {
            let crossed = node.gangs.iter().any(|gang| crosses(state, *gang, start, state.now, holders).is_some());
            domains.entry(domain).or_default().push((crossed, node.name.clone()));
        }
    }
    let most = domains.values().map(Vec::len).max().unwrap_or(0);
    let best = domains.into_values().filter(|nodes| nodes.len() >= count).map(|mut nodes| {
        nodes.sort();
        nodes.truncate(count);
        nodes
    });
    let best = best.min_by_key(|nodes| nodes.iter().filter(|(crossed, _)| *crossed).count());
    let Some(nodes) = best.filter(|_| count > 0) else {
        let what = model.map_or(String::new(), |model| format!(" with {model}"));
        let place = if level.is_empty() { String::new() } else { format!(" in one domain of level `{level}`") };
        let why = format!("nodes: {count} open nodes{what}{place} are not to be had then; there are at most {most}");
        return Err(Refusal::Invalid(why));
    };
    let mut nodes: Vec<Name> = nodes.into_iter().map(|(_, name)| name).collect();
    nodes.sort();
    Ok(nodes)
}

fn has_model(node: &NodeRecord, model: Option<&Name>) -> bool {
    model.is_none_or(|model| node.inventory.devices.iter().any(|device| device.model == *model))
}

/// Might [`choose`] have chosen these for the same request? Machines that have gone since are given the benefit of the doubt.
pub(super) fn are_such(state: &State, nodes: &[Name], model: Option<&Name>, level: Option<&Name>) -> bool {
    let known: Vec<&NodeRecord> = nodes.iter().filter_map(|name| state.node_named(name)).collect();
    let together = |level: &Name| {
        let mut domains = known.iter().map(|node| domain_of(&state.fabric, level.as_str(), node.id, &node.inventory));
        let first = domains.next();
        domains.all(|domain| Some(domain) == first)
    };
    known.iter().all(|node| has_model(node, model)) && level.is_none_or(together)
}

fn unknown_node(state: &State, name: &Name) -> Refusal {
    let known: Vec<&str> = state.node_names.keys().map(|name| name.as_str()).collect();
    Refusal::Invalid(format!("nodes: there is no node `{name}`; {}", help(name.as_str(), &known)))
}

/// The nearest of the known words, or all of them.
pub(super) fn help(word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None if known.is_empty() => "there is none".into(),
        None if known.len() > LISTED_MAX => {
            format!("there are {}, {} among them", known.len(), known[..LISTED_MAX].join(", "))
        }
        None => format!("there is: {}", known.join(", ")),
    }
}
