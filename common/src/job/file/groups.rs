//! `[gang]` alone, or `[[group]]`s and what `[gang]` says of all of them.

use super::env::check_env;
use super::error::{Errors, SpecErrorKind};
use super::gang::{compile_group, compile_run, name, under};
use super::{Gang, JobFile, wishes};
use crate::Name;
use crate::job::{GROUPS_MAX, GroupLaunch, GroupRequest, Run};
use crate::topology::{TopologyMode, TopologyRequest};

pub(super) struct Groups {
    pub requests: Vec<GroupRequest>,
    pub together: Vec<TopologyRequest>,
    pub run: Run,
    pub launches: Vec<GroupLaunch>,
}

pub(super) fn compile_groups(file: &JobFile, errors: &mut Errors) -> Groups {
    let absent = Gang::default();
    let gang = file.gang.as_ref().unwrap_or(&absent);
    if file.group.is_empty() {
        only_of_groups(gang, errors);
        let requests = vec![compile_group(gang, "gang", errors)];
        return Groups { requests, together: Vec::new(), run: compile_run(gang, "gang", errors), launches: Vec::new() };
    }
    only_for_all(gang, errors);
    if file.group.len() > GROUPS_MAX {
        let why = format!("a gang has at most {GROUPS_MAX}");
        errors.add(SpecErrorKind::TooBig, "group", format!("{} groups", file.group.len()), why);
    }
    let together = together(gang, errors);
    let run = gang.run.as_ref().map(|_| compile_run(gang, "gang", errors));
    let mut groups = Groups { requests: Vec::new(), together, run: Run::Argv(Vec::new()), launches: Vec::new() };
    for (number, group) in file.group.iter().enumerate() {
        let at = format!("group.{number}");
        let name = group_name(group, number, &groups.requests, errors);
        let own = (group.run.is_some() || run.is_none()).then(|| compile_run(group, &at, errors));
        check_env(&group.env, &under(&at, "env"), errors);
        groups.requests.push(GroupRequest { name: name.clone(), ..compile_group(group, &at, errors) });
        groups.launches.push(GroupLaunch { name, run: own, env: group.env.clone() });
    }
    // What is shown of a job is the command of its first group where no other is said.
    groups.run = run.or_else(|| groups.launches.first_mut()?.run.take()).unwrap_or(groups.run);
    groups
}

/// With one group the job's own name and variables are those of the group.
fn only_of_groups(gang: &Gang, errors: &mut Errors) {
    for (key, given, hint) in [
        ("name", gang.name.is_some(), "name the job: `name` stands at the top of the file"),
        ("env", !gang.env.is_empty(), "write the variables in the table `[env]`"),
    ] {
        if given {
            errors.value(&under("gang", key), "this belongs to a `[[group]]`", "`[gang]` is the whole gang");
            errors.hint(hint);
        }
    }
}

/// Beside groups `[gang]` says what holds for all of them, and nothing else.
fn only_for_all(gang: &Gang, errors: &mut Errors) {
    let rest = Gang { topology: None, run: None, ..gang.clone() };
    if rest != Gang::default() {
        let why = "beside `[[group]]`, `[gang]` takes `topology` (for all groups together) and `run` (their default)";
        errors.value("gang", "a size or a wish that belongs to one group", why);
        errors.hint("write it in each `[[group]]` that it is for");
    }
}

fn together(gang: &Gang, errors: &mut Errors) -> Vec<TopologyRequest> {
    let wishes = wishes::topology(gang, "gang", errors);
    if wishes.iter().any(|wish| wish.mode != TopologyMode::Required || wish.at_most != 1) {
        let why = "groups are kept together in one domain of a level, or not at all";
        errors.value("gang.topology", "`at_most` and `prefer` are for one group", why);
        errors.hint("write only `within` here");
    }
    wishes
}

fn group_name(group: &Gang, number: usize, before: &[GroupRequest], errors: &mut Errors) -> Name {
    let path = format!("group.{number}.name");
    let fallback = Name::new(format!("group{number}")).expect("letters and digits");
    let Some(text) = &group.name else {
        errors.add(SpecErrorKind::Missing, &path, "the group has no name", "ranks are told which group they are in");
        errors.hint("write for example `name = \"trainer\"`");
        return fallback;
    };
    let Some(name) = name(&path, text, errors) else { return fallback };
    if before.iter().any(|known| known.name == name) {
        errors.value(&path, format!("there are two groups `{name}`"), "each has a name of its own");
    }
    name
}
