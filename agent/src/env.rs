//! What a rank finds in its environment.
//!
//! | variable | value |
//! |---|---|
//! | `RANK`, `WORLD_SIZE` | number of this rank among all ranks of the gang; how many there are |
//! | `LOCAL_RANK`, `LOCAL_WORLD_SIZE` | the same on this node |
//! | `NODE_RANK`, `GROUP_RANK` | number of this node in rank order |
//! | `MASTER_ADDR`, `MASTER_PORT` | address of the first node, and the port leased for the gang on it |
//! | `MUSTER_JOB_ID`, `MUSTER_ATTEMPT` | the job; which attempt this is, from 1 |
//! | `MUSTER_ARRAY_INDEX` | the element, only in an array |
//! | `MUSTER_NODES`, `MUSTER_NODE_RANK`, `MUSTER_NODE_LIST` | how many nodes; which one this is; their names in rank order, with commas |
//! | `MUSTER_GROUP`, `MUSTER_GROUPS` | this rank's group; all groups as `name:first rank+ranks`, with commas |
//! | `MUSTER_GROUP_RANKS`, `MUSTER_GROUP_NODES`, `MUSTER_GROUP_NODE_RANK`, `MUSTER_GROUP_NODE_LIST` | ranks and nodes of the group; which of its nodes this is; their names |
//! | `MUSTER_NUMA_NODES`, `MUSTER_NICS` | NUMA nodes of the devices and the NICs nearest to them, where the machine says |
//! | `MUSTER_GPUS_PER_NODE`, `MUSTER_RANKS_PER_NODE` | devices and ranks of the gang on this node |
//! | `MUSTER_RDZV_ID` | `<job>_<ordinal>@<attempt>-<token>`: ranks of an old attempt cannot join under it |
//! | `MUSTER_TOKEN` | the attempt's fencing token |
//! | `MUSTER_OUTPUT_DIR` | this attempt's own folder |
//! | `MUSTER_CHECKPOINT_FILE` | touched when a checkpoint is complete: what ran until then is no longer lost with the attempt |
//! | `MUSTER_USER` | who submitted |
//! | `MUSTER_EXE` | the agent's own binary, for the helper programs it ships |
//! | `CUDA_VISIBLE_DEVICES`, `CUDA_DEVICE_ORDER` | the gang's devices on this node by UUID; `PCI_BUS_ID` |
//! | `PATH`, `HOME`, `LANG`, `TMPDIR` | a plain base; nothing of the agent's own environment |
//!
//! With one rank per device, every rank sees all devices of the node and takes `cuda:LOCAL_RANK`. With
//! one launcher per node (`torchrun`), `RANK` is the node's number, and the launcher numbers its own
//! children. What the user sets wins over the base and over nothing else.

use crate::assignment::{Key, RunPart};
use crate::runner::checkpoint_file;
use muster_common::job::Launch;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables by name.
pub type Env = BTreeMap<String, String>;

/// What ranks are told of the agent they run under.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The agent's `HOME`.
    pub home: Option<String>,
    /// Its binary.
    pub exe: Option<PathBuf>,
}

/// What all ranks of this node share.
pub fn common_env(key: Key, run: &RunPart, launch: &Launch, output_dir: &Path, around: &Surroundings) -> Env {
    let mut env = Env::new();
    let mut set = |name: &str, value: String| drop(env.insert(name.to_owned(), value));
    set("PATH", PATH.to_owned());
    set("HOME", around.home.clone().unwrap_or_else(|| "/".to_owned()));
    set("LANG", "C.UTF-8".to_owned());
    set("TMPDIR", "/tmp".to_owned());
    env.extend(launch.env.clone());
    let group = run.group();
    if let Some(own) = launch.groups.get(group) {
        env.extend(own.env.clone());
    }
    if let Some(element) = run.array_index.and_then(|index| launch.elements.get(index as usize)) {
        env.extend(element.clone());
    }
    env.retain(|name, _| !is_ours(name));
    let mut set = |name: &str, value: String| drop(env.insert(name.to_owned(), value));
    set("WORLD_SIZE", run.world_size.to_string());
    set("LOCAL_WORLD_SIZE", run.ranks.to_string());
    for name in ["NODE_RANK", "GROUP_RANK", "MUSTER_NODE_RANK"] {
        set(name, run.node_rank.to_string());
    }
    set("MASTER_ADDR", run.peers.first().map(|peer| peer.address.clone()).unwrap_or_default());
    set("MASTER_PORT", run.master_port.to_string());
    set("MUSTER_JOB_ID", key.gang.job.to_string());
    set("MUSTER_ATTEMPT", key.attempt.to_string());
    if let Some(index) = run.array_index {
        set("MUSTER_ARRAY_INDEX", index.to_string());
    }
    set("MUSTER_NODES", run.peers.len().to_string());
    let names: Vec<&str> = run.peers.iter().map(|peer| peer.node_name.as_str()).collect();
    set("MUSTER_NODE_LIST", names.join(","));
    set_group(run, launch, group, &mut set);
    set("MUSTER_GPUS_PER_NODE", run.devices.len().to_string());
    set("MUSTER_RANKS_PER_NODE", run.ranks.to_string());
    set("MUSTER_RDZV_ID", key.to_string());
    set("MUSTER_TOKEN", key.token.to_string());
    set("MUSTER_OUTPUT_DIR", output_dir.display().to_string());
    set("MUSTER_CHECKPOINT_FILE", checkpoint_file(output_dir).display().to_string());
    set("MUSTER_USER", run.user.clone());
    if let Some(exe) = &around.exe {
        set("MUSTER_EXE", exe.display().to_string());
    }
    let uuids: Vec<&str> = run.devices.iter().map(|device| device.uuid.as_str()).collect();
    // Empty means "none" to CUDA; unset would mean "all of the machine".
    set("CUDA_VISIBLE_DEVICES", uuids.join(","));
    set("CUDA_DEVICE_ORDER", "PCI_BUS_ID".to_owned());
    env
}

/// What a rank needs to find its role and the other roles of its gang.
fn set_group(run: &RunPart, launch: &Launch, group: usize, set: &mut impl FnMut(&str, String)) {
    let name = |group: usize| launch.groups.get(group).map_or("main", |group| group.name.as_str());
    let members = |group: usize| run.peers.iter().filter(move |peer| usize::from(peer.group) == group);
    let ranks = |group: usize| members(group).map(|peer| peer.ranks).sum::<u32>();
    set("MUSTER_GROUP", name(group).to_owned());
    set("MUSTER_GROUP_RANKS", ranks(group).to_string());
    set("MUSTER_GROUP_NODES", members(group).count().to_string());
    let before = run.peers.iter().take(run.node_rank as usize).filter(|peer| usize::from(peer.group) == group).count();
    set("MUSTER_GROUP_NODE_RANK", before.to_string());
    let mut spans = Vec::new();
    let mut base = 0;
    for group in 0..launch.groups.len().max(1) {
        spans.push(format!("{}:{base}+{}", name(group), ranks(group)));
        base += ranks(group);
    }
    set("MUSTER_GROUPS", spans.join(","));
    let nodes: Vec<&str> = members(group).map(|peer| peer.node_name.as_str()).collect();
    set("MUSTER_GROUP_NODE_LIST", nodes.join(","));
    if !run.numa.is_empty() {
        let numa: Vec<String> = run.numa.iter().map(u16::to_string).collect();
        set("MUSTER_NUMA_NODES", numa.join(","));
    }
    if !run.nics.is_empty() {
        set("MUSTER_NICS", run.nics.join(","));
    }
}

/// What only the rank with this number on this node has.
pub fn rank_env(run: &RunPart, local_rank: u32) -> Env {
    let rank = run.rank_base + local_rank;
    Env::from([("RANK".to_owned(), rank.to_string()), ("LOCAL_RANK".to_owned(), local_rank.to_string())])
}

/// Names a user cannot set: a wrong one would break the gang's rendezvous or its fencing.
fn is_ours(name: &str) -> bool {
    const OURS: [&str; 10] = [
        "RANK",
        "LOCAL_RANK",
        "WORLD_SIZE",
        "LOCAL_WORLD_SIZE",
        "NODE_RANK",
        "GROUP_RANK",
        "MASTER_ADDR",
        "MASTER_PORT",
        "CUDA_VISIBLE_DEVICES",
        "CUDA_DEVICE_ORDER",
    ];
    name.starts_with("MUSTER_") || OURS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assignment::tests::assignment;
    use muster_common::Name;
    use muster_common::job::{GroupLaunch, LogLimits, Run};
    use muster_proto::agent::Phase::Prepare;

    fn launch(env: &[(&str, &str)]) -> Launch {
        Launch {
            name: Name::literal("x"),
            run: Run::Script("true".to_owned()),
            env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            groups: Vec::new(),
            workdir: None,
            logs: LogLimits::default(),
            elements: vec![Env::new(), Env::from([("LR".to_owned(), "0.1".to_owned())])],
        }
    }

    fn env_of(change: impl FnOnce(&mut RunPart), user: &[(&str, &str)]) -> Env {
        let assignment = assignment(7, 50, Prepare, &[1, 0]);
        let mut run = assignment.run.expect("it runs");
        change(&mut run);
        common_env(assignment.key, &run, &launch(user), Path::new("/out"), &Surroundings::default())
    }

    #[test]
    fn one_rank_per_device_is_numbered_across_nodes() {
        let run = assignment(7, 50, Prepare, &[0, 1]).run.expect("it runs");
        let ranks: Vec<_> = (0..run.ranks).map(|local| rank_env(&run, local)["RANK"].clone()).collect();
        assert_eq!(ranks, ["2", "3"]);
        let env = env_of(|_| {}, &[]);
        let expected = [
            ("WORLD_SIZE", "4"),
            ("LOCAL_WORLD_SIZE", "2"),
            ("NODE_RANK", "1"),
            ("GROUP_RANK", "1"),
            ("MASTER_ADDR", "a"),
            ("MASTER_PORT", "20000"),
            ("MUSTER_JOB_ID", "7"),
            ("MUSTER_ATTEMPT", "1"),
            ("MUSTER_NODES", "2"),
            ("MUSTER_NODE_LIST", "a,b"),
            ("MUSTER_GROUP", "main"),
            ("MUSTER_GROUPS", "main:0+4"),
            ("MUSTER_GROUP_NODE_RANK", "1"),
            ("MUSTER_GROUP_NODE_LIST", "a,b"),
            ("MUSTER_GPUS_PER_NODE", "2"),
            ("MUSTER_RANKS_PER_NODE", "2"),
            ("MUSTER_RDZV_ID", "7_0@1-1.50"),
            ("MUSTER_TOKEN", "1.50"),
            ("MUSTER_OUTPUT_DIR", "/out"),
            ("CUDA_VISIBLE_DEVICES", "GPU-1,GPU-0"),
            ("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),
        ];
        for (name, value) in expected {
            assert_eq!(env.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(!env.contains_key("MUSTER_ARRAY_INDEX"));
    }

    #[test]
    fn one_launcher_per_node_has_the_nodes_number_as_rank() {
        let change = |run: &mut RunPart| (run.ranks, run.rank_base, run.world_size) = (1, 1, 2);
        let mut run = assignment(7, 50, Prepare, &[0, 1]).run.expect("it runs");
        change(&mut run);
        assert_eq!(rank_env(&run, 0)["RANK"], run.node_rank.to_string());
        assert_eq!(env_of(change, &[])["WORLD_SIZE"], "2");
    }

    #[test]
    fn users_override_the_base_but_never_our_names() {
        let env = env_of(|_| {}, &[("PATH", "/mine"), ("RANK", "9"), ("MUSTER_TOKEN", "9.9"), ("FOO", "bar")]);
        assert_eq!((env["PATH"].as_str(), env["FOO"].as_str()), ("/mine", "bar"));
        assert_eq!(env["MUSTER_TOKEN"], "1.50");
        assert!(!env.contains_key("RANK"), "a shared RANK would be the user's");
    }

    #[test]
    fn nothing_of_the_agents_environment_leaks() {
        let env = env_of(|run| run.devices.clear(), &[]);
        let foreign = std::env::vars()
            .map(|(name, _)| name)
            .filter(|name| !is_ours(name) && !["PATH", "HOME", "LANG", "TMPDIR"].contains(&name.as_str()));
        for name in foreign {
            assert!(!env.contains_key(&name), "{name} leaked");
        }
        assert_eq!(env["CUDA_VISIBLE_DEVICES"], "", "a node without devices of the gang shows none");
    }

    #[test]
    fn ranks_of_several_groups_are_told_of_theirs_and_of_the_others() {
        let run = |run: &mut RunPart| {
            run.peers[1].group = 1;
            (run.numa, run.nics) = (vec![0], vec!["mlx5_0".into(), "mlx5_1".into()]);
        };
        let assignment = assignment(7, 50, Prepare, &[1, 0]);
        let mut part = assignment.run.expect("it runs");
        run(&mut part);
        let group = |name: &str, run, role: &str| GroupLaunch {
            name: Name::new(name).unwrap(),
            run,
            env: Env::from([("ROLE".to_owned(), role.to_owned())]),
        };
        let mut both = launch(&[("ROLE", "none")]);
        both.groups = vec![group("trainer", None, "t"), group("reward", Some(Run::Argv(vec!["serve".into()])), "r")];
        let env = common_env(assignment.key, &part, &both, Path::new("/out"), &Surroundings::default());
        for (name, value) in [
            ("ROLE", "r"),
            ("WORLD_SIZE", "4"),
            ("NODE_RANK", "1"),
            ("MUSTER_GROUP", "reward"),
            ("MUSTER_GROUPS", "trainer:0+2,reward:2+2"),
            ("MUSTER_GROUP_RANKS", "2"),
            ("MUSTER_GROUP_NODES", "1"),
            ("MUSTER_GROUP_NODE_RANK", "0"),
            ("MUSTER_GROUP_NODE_LIST", "b"),
            ("MUSTER_NUMA_NODES", "0"),
            ("MUSTER_NICS", "mlx5_0,mlx5_1"),
        ] {
            assert_eq!(env.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert_eq!((both.run_of(0), both.run_of(1)), (&both.run, both.groups[1].run.as_ref().unwrap()));
    }

    #[test]
    fn an_array_element_gets_its_own_variables() {
        let env = env_of(|run| run.array_index = Some(1), &[("LR", "1")]);
        assert_eq!((env["LR"].as_str(), env["MUSTER_ARRAY_INDEX"].as_str()), ("0.1", "1"));
    }
}
