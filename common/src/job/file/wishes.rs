//! What a gang wishes of the fabric and of its nodes, beyond their number.

use super::error::{Errors, SpecErrorKind};
use super::gang::{NODES_MAX, name, under};
use super::{Gang, Topology};
use crate::Name;
use crate::node::{LABEL_VALUE_BYTES_MAX, is_label_value};
use crate::topology::{LabelWish, SegmentRequest, SpreadRequest, TopologyMode, TopologyRequest};

const TOPOLOGY_MAX: usize = 8;
const PREFER_MAX: usize = 64;
/// Of a wish that does not say how much it matters.
const WEIGHT: u16 = 10;

/// The levels that are named, each with the strict request before the wish.
pub(super) fn topology(gang: &Gang, at: &str, errors: &mut Errors) -> Vec<TopologyRequest> {
    let Some(given) = &gang.topology else { return Vec::new() };
    let path = under(at, "topology");
    let many = given.as_slice();
    if many.is_empty() || many.len() > TOPOLOGY_MAX {
        let what = format!("{} wishes", many.len());
        errors.value(&path, what, format!("a list has from 1 to {TOPOLOGY_MAX} of them"));
        return Vec::new();
    }
    let mut wishes: Vec<TopologyRequest> = Vec::new();
    for topology in many {
        for wish in levels(topology, &path, errors) {
            if wishes.iter().any(|known| known.level == wish.level && known.mode == wish.mode) {
                errors.value(
                    &path,
                    format!("level `{}` is named twice", wish.level),
                    "one wish for each level will do",
                );
            }
            wishes.push(wish);
        }
    }
    wishes
}

fn levels(topology: &Topology, path: &str, errors: &mut Errors) -> Vec<TopologyRequest> {
    let Some(level) =
        level(&topology.within, &under(path, "within"), "`at_most` and `prefer` count its domains", errors)
    else {
        return Vec::new();
    };
    let mut wishes = Vec::new();
    // Naming a level and nothing else asks for one domain of it.
    let at_most = topology.at_most.or(topology.prefer.is_none().then_some(1));
    for (key, count, mode) in
        [("at_most", at_most, TopologyMode::Required), ("prefer", topology.prefer, TopologyMode::Preferred)]
    {
        if let Some(at_most) = count {
            errors.check_range(&under(path, key), at_most.into(), 1, NODES_MAX.into());
            wishes.push(TopologyRequest { level: level.clone(), mode, at_most });
        }
    }
    if let (Some(most), Some(prefer)) = (topology.at_most, topology.prefer)
        && prefer > most
    {
        let what = format!("prefers {prefer} domains but allows {most}");
        errors.value(&under(path, "prefer"), what, "`prefer` is the closer wish, `at_most` the limit");
    }
    wishes
}

fn level(text: &Option<String>, path: &str, why: &str, errors: &mut Errors) -> Option<Name> {
    let Some(text) = text else {
        errors.add(SpecErrorKind::Missing, path, "no level of the fabric is named", why);
        errors.hint("write for example `within = \"leaf\"`");
        return None;
    };
    name(path, text, errors)
}

pub(super) fn segment(gang: &Gang, at: &str, errors: &mut Errors) -> Option<SegmentRequest> {
    let given = gang.segments.as_ref()?;
    let path = under(at, "segments");
    let level =
        level(&given.within, &under(&path, "within"), "each segment lies inside one domain of a level", errors)?;
    let Some(nodes) = given.nodes else {
        let why = "all segments have the same number of nodes";
        errors.add(SpecErrorKind::Missing, &under(&path, "nodes"), "the size of a segment is missing", why);
        return None;
    };
    errors.check_range(&under(&path, "nodes"), nodes.into(), 1, NODES_MAX.into());
    Some(SegmentRequest { level, nodes, apart: given.apart.unwrap_or(false) })
}

pub(super) fn spread(gang: &Gang, at: &str, errors: &mut Errors) -> Option<SpreadRequest> {
    let given = gang.spread.as_ref()?;
    let path = under(at, "spread");
    let Some(text) = &given.over else {
        let why = "nodes are spread over the domains of a level";
        errors.add(SpecErrorKind::Missing, &under(&path, "over"), "no level of the fabric is named", why);
        errors.hint("write for example `spread = { over = \"leaf\" }`");
        return None;
    };
    let level = name(&under(&path, "over"), text, errors)?;
    let nodes = given.nodes.unwrap_or(1);
    errors.check_range(&under(&path, "nodes"), nodes.into(), 1, NODES_MAX.into());
    Some(SpreadRequest { level, nodes })
}

/// Labels first, then data, in the order in which they stand.
pub(super) fn prefers(gang: &Gang, at: &str, errors: &mut Errors) -> Vec<LabelWish> {
    let mut wishes: Vec<LabelWish> = Vec::new();
    if gang.prefer.len() + gang.data.len() > PREFER_MAX {
        let what = format!("{} wishes", gang.prefer.len() + gang.data.len());
        let why = format!("`prefer` and `data` together may have {PREFER_MAX}");
        errors.add(SpecErrorKind::TooBig, &under(at, "prefer"), what, why);
        return wishes;
    }
    for (number, prefer) in gang.prefer.iter().enumerate() {
        let path = format!("{at}.prefer.{number}");
        let Some(label) = &prefer.label else {
            errors.add(
                SpecErrorKind::Missing,
                &under(&path, "label"),
                "no label is named",
                "it says what is preferred",
            );
            continue;
        };
        let weight = prefer.weight.unwrap_or(WEIGHT);
        errors.check_range(&under(&path, "weight"), weight.into(), 1, LabelWish::WEIGHT_MAX.into());
        if prefer.value.as_ref().is_some_and(|value| !is_label_value(value)) {
            let why = format!("at most {LABEL_VALUE_BYTES_MAX} printable bytes");
            errors.value(&under(&path, "value"), "not a label's value", why);
        }
        if let Some(label) = name(&under(&path, "label"), label, errors) {
            wishes.push(LabelWish { label, value: prefer.value.clone(), weight });
        }
    }
    for data in &gang.data {
        if let Some(label) = name(&under(at, "data"), &format!("{}{data}", LabelWish::DATA), errors) {
            wishes.push(LabelWish { label, value: None, weight: WEIGHT });
        }
    }
    wishes
}

pub(super) fn communication(gang: &Gang, at: &str, errors: &mut Errors) -> Option<u8> {
    let share = gang.communication?;
    let percent = (share * 100.0).round();
    if (0.0..=100.0).contains(&percent) {
        return Some(percent as u8);
    }
    let why = "it is the part of the run time spent in communication, from 0 to 1";
    errors.value(&under(at, "communication"), format!("{share} is not a share"), why);
    None
}
