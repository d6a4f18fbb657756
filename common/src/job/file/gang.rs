//! `[gang]` into a request for nodes and devices.

use super::error::{Errors, SpecErrorKind};
use super::value::{Command, NodeCount, Ranks};
use super::{Gang, wishes};
use crate::Name;
use crate::job::{Count, DeviceTotal, GroupRequest, RANKS_PER_NODE_MAX, RanksPerNode, Run};
use crate::node::{LABEL_VALUE_BYTES_MAX, is_label_value};
use crate::resources::Share;
use std::collections::BTreeMap;

pub(super) const NODES_MAX: u32 = 100_000;
const GPUS_PER_NODE_MAX: u32 = 1024;
const GPUS_MAX: u32 = 1_000_000;
const CPUS_PER_NODE_MAX: u32 = 65_536;
const MODELS_MAX: usize = 16;
const LABELS_MAX: usize = 64;
const EXCLUDE_MAX: usize = 4096;
const SCRIPT_BYTES_MAX: usize = 128 * 1024;
const ARGV_MAX: usize = 4096;

/// `at`: the path of the table, `gang` or `group.0`.
pub(super) fn compile_group(gang: &Gang, at: &str, errors: &mut Errors) -> GroupRequest {
    if gang.resize.is_some() {
        errors.add(
            SpecErrorKind::NotThereYet,
            &under(at, "resize"),
            "gangs that change their size are not there yet",
            "this version starts a gang with exactly the nodes it asks for",
        );
    }
    if gang.mixed_gpus == Some(true) && gang.gpu.is_none() {
        let why = "GPUs of any model are taken already where no model is named";
        errors.value(&under(at, "mixed_gpus"), "no models are named", why);
    }
    GroupRequest {
        name: Name::literal("main"),
        count: count(gang, at, errors),
        models: models(gang, at, errors),
        mixed_models: gang.mixed_gpus.unwrap_or(false),
        share: share(gang, at, errors),
        cpu_milli_per_node: gang.cpus_per_node.map(|cpus| {
            errors.check_range(&under(at, "cpus_per_node"), cpus.into(), 1, CPUS_PER_NODE_MAX.into());
            u64::from(cpus) * 1000
        }),
        memory_bytes_per_node: gang.memory_per_node.as_ref().map(super::SizeText::bytes),
        exclusive: gang.exclusive.unwrap_or(false),
        topology: wishes::topology(gang, at, errors),
        segment: wishes::segment(gang, at, errors),
        spread: wishes::spread(gang, at, errors),
        labels: labels(&gang.labels, &under(at, "labels"), errors),
        avoid: labels(&gang.avoid, &under(at, "avoid"), errors),
        prefers: wishes::prefers(gang, at, errors),
        exclude: exclude(gang, at, errors),
        ranks: ranks(gang, at, errors),
        communication_percent: wishes::communication(gang, at, errors),
    }
}

pub(super) fn compile_run(gang: &Gang, at: &str, errors: &mut Errors) -> Run {
    let path = under(at, "run");
    match &gang.run {
        None => {
            errors.add(SpecErrorKind::Missing, &path, "nothing to run", "`run` has no default");
            errors.hint("write `run = \"python train.py\"` in the table `[gang]` or in each `[[group]]`");
            Run::Argv(Vec::new())
        }
        Some(Command::Script(script)) => {
            if script.trim().is_empty() {
                errors.value(&path, "the script is empty", "there is nothing to run");
            } else if script.len() > SCRIPT_BYTES_MAX {
                let why = format!("at most {SCRIPT_BYTES_MAX} bytes are allowed");
                errors.add(SpecErrorKind::TooBig, &path, format!("the script has {} bytes", script.len()), why);
                errors.hint("put it in a file and run that");
            } else if script.contains('\0') {
                errors.value(&path, "the script contains a NUL character", "no shell can receive it");
            }
            Run::Script(script.clone())
        }
        Some(Command::Argv(argv)) => {
            let bytes: usize = argv.iter().map(|word| word.len() + 1).sum();
            if argv.first().is_none_or(|program| program.is_empty()) {
                errors.value(&path, "the command names no program", "the first item of the list is the program");
            } else if argv.len() > ARGV_MAX || bytes > SCRIPT_BYTES_MAX {
                let why = format!("at most {ARGV_MAX} words and {SCRIPT_BYTES_MAX} bytes are allowed");
                errors.add(SpecErrorKind::TooBig, &path, format!("{} words, {bytes} bytes", argv.len()), why);
            } else if argv.iter().any(|word| word.contains('\0')) {
                errors.value(&path, "a word contains a NUL character", "no program can receive it");
            }
            Run::Argv(argv.clone())
        }
    }
}

/// `nodes`, `gpus_per_node` and `gpus` in every sensible combination.
fn count(gang: &Gang, at: &str, errors: &mut Errors) -> Count {
    let nodes = match gang.nodes {
        Some(NodeCount::Elastic) => {
            errors.add(
                SpecErrorKind::NotThereYet,
                &under(at, "nodes"),
                "a range of nodes is not there yet",
                "this version starts a gang with exactly the nodes it asks for",
            );
            errors.hint("give a number, such as `nodes = 8`");
            Some(1)
        }
        Some(NodeCount::Fixed(nodes)) => Some(nodes),
        None => None,
    };
    for (key, value, most) in [
        ("nodes", nodes, NODES_MAX),
        ("gpus_per_node", gang.gpus_per_node.filter(|gpus| *gpus > 0), GPUS_PER_NODE_MAX),
        ("gpus", gang.gpus, GPUS_MAX),
    ] {
        if let Some(value) = value {
            errors.check_range(&under(at, key), value.into(), 1, most.into());
        }
    }
    let Some(gpus) = gang.gpus else {
        return Count::Nodes { nodes: nodes.unwrap_or(1), per_node: gang.gpus_per_node.unwrap_or(0) };
    };
    match (nodes, gang.gpus_per_node) {
        (None, None) => {
            Count::Total(DeviceTotal { devices: gpus, per_node_min: 1, per_node_max: gpus.max(1), step: 1 })
        }
        (Some(nodes), None) => {
            Count::Nodes { nodes, per_node: divide(&under(at, "gpus"), gpus, nodes, "nodes", errors) }
        }
        (None, Some(per_node)) => {
            Count::Nodes { nodes: divide(&under(at, "gpus"), gpus, per_node, "gpus_per_node", errors), per_node }
        }
        (Some(nodes), Some(per_node)) => {
            if u64::from(nodes) * u64::from(per_node) != u64::from(gpus) {
                let what = format!("{gpus} GPUs in all, but {nodes} nodes with {per_node} each");
                errors.value(&under(at, "gpus"), what, "the three numbers contradict each other");
                errors.hint("leave one of them out");
            }
            Count::Nodes { nodes, per_node }
        }
    }
}

fn divide(path: &str, gpus: u32, by: u32, of: &str, errors: &mut Errors) -> u32 {
    match gpus.checked_rem(by) {
        Some(0) => gpus / by,
        _ => {
            let what = format!("{gpus} GPUs cannot be divided by {of} = {by}");
            errors.value(path, what, "every node of a gang gives the same number");
            1
        }
    }
}

fn models(gang: &Gang, at: &str, errors: &mut Errors) -> Vec<Name> {
    let Some(text) = &gang.gpu else { return Vec::new() };
    let path = &under(at, "gpu");
    if gang.gpus_per_node.unwrap_or(0) == 0 && gang.gpus.is_none() {
        errors.value(path, "a GPU model, but no GPUs", "`gpus_per_node` is 0 unless it is given");
        errors.hint("add `gpus_per_node = 8`");
    }
    if text.contains(['=', '<', '>', '&', '(', '!']) {
        let why = "this version takes model names, joined by `|`";
        errors.add(SpecErrorKind::NotThereYet, path, "expressions over labels are not there yet", why);
        errors.hint("write for example `gpu = \"H100 | H200\"`");
        return Vec::new();
    }
    let mut models = Vec::new();
    for word in text.split('|').map(str::trim) {
        match Name::new(word) {
            Ok(model) if !models.contains(&model) => models.push(model),
            Ok(_) => {}
            Err(error) => errors.value(path, format!("{word:?} is not a GPU model"), error.to_string()),
        }
    }
    errors.check_range(path, models.len().max(1) as u64, 1, MODELS_MAX as u64);
    models
}

fn share(gang: &Gang, at: &str, errors: &mut Errors) -> Share {
    let Some(share) = gang.share else {
        return Share::WHOLE;
    };
    let path = &under(at, "share");
    let milli = (share * 1000.0).round();
    if !(1.0..=1000.0).contains(&milli) {
        errors.value(path, format!("{share} is not a share of a GPU"), "between 0.001 and 1 is possible");
        return Share::WHOLE;
    }
    if milli < 1000.0 && gang.gpus.is_some() {
        errors.value(path, "a share needs `nodes` and `gpus_per_node`", "`gpus` counts whole devices");
    }
    Share(milli as u16)
}

fn labels(given: &BTreeMap<String, String>, at: &str, errors: &mut Errors) -> BTreeMap<Name, String> {
    if given.len() > LABELS_MAX {
        let what = format!("{} labels", given.len());
        errors.add(SpecErrorKind::TooBig, at, what, format!("at most {LABELS_MAX} are allowed"));
        return BTreeMap::new();
    }
    let mut labels = BTreeMap::new();
    for (key, value) in given {
        let path = format!("{at}.{key}");
        if !is_label_value(value) {
            errors.value(&path, "not a label's value", format!("at most {LABEL_VALUE_BYTES_MAX} printable bytes"));
        } else if let Some(key) = name(&path, key, errors) {
            labels.insert(key, value.clone());
        }
    }
    labels
}

fn exclude(gang: &Gang, at: &str, errors: &mut Errors) -> Vec<Name> {
    let path = under(at, "exclude");
    if gang.exclude.len() > EXCLUDE_MAX {
        let what = format!("{} nodes", gang.exclude.len());
        errors.add(SpecErrorKind::TooBig, &under(at, "exclude"), what, format!("at most {EXCLUDE_MAX} are allowed"));
        return Vec::new();
    }
    let mut nodes: Vec<Name> = gang.exclude.iter().filter_map(|node| name(&path, node, errors)).collect();
    nodes.sort();
    nodes.dedup();
    nodes
}

fn ranks(gang: &Gang, at: &str, errors: &mut Errors) -> RanksPerNode {
    match gang.ranks_per_node {
        None => RanksPerNode::Fixed(1),
        Some(Ranks::Fixed(ranks)) => {
            errors.check_range(&under(at, "ranks_per_node"), ranks.into(), 1, RANKS_PER_NODE_MAX.into());
            RanksPerNode::Fixed(ranks)
        }
        Some(Ranks::PerGpu) => {
            if gang.gpus_per_node.unwrap_or(0) == 0 && gang.gpus.is_none() {
                errors.value(&under(at, "ranks_per_node"), "one rank per GPU, but no GPUs", "`gpus_per_node` is 0");
                errors.hint("add `gpus_per_node = 8`, or give a number of ranks");
            }
            RanksPerNode::PerDevice
        }
    }
}

/// The path of a key of a table.
pub(super) fn under(at: &str, key: &str) -> String {
    format!("{at}.{key}")
}

pub(super) fn name(path: &str, text: &str, errors: &mut Errors) -> Option<Name> {
    match Name::new(text) {
        Ok(name) => Some(name),
        Err(error) => {
            errors.value(path, format!("{text:?} is not a name"), error.to_string());
            None
        }
    }
}
