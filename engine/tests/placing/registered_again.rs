//! A node that registers again with another inventory while work runs on it.

use crate::plan_support;
use muster_common::GangId;
use muster_common::node::Inventory;
use muster_engine::command::{Command, HeldToken};
use muster_engine::policy::Policy;
use plan_support::*;

/// The agent is started again, still has the gang, and says other things of its machine.
fn again(cluster: &mut Cluster, node: &str, machine: Inventory, gang: GangId) {
    let attempt = cluster.player.state.gang(gang).unwrap().current().unwrap();
    let held = HeldToken { gang, attempt: attempt.number, token: attempt.token, live: None };
    let Command::RegisterNode(mut registration) = register(node, machine) else { unreachable!() };
    registration.held = vec![held];
    cluster.commit(Command::RegisterNode(registration));
}

#[test]
fn an_exclusive_gang_stays_alone_when_its_node_comes_back_with_more_cpus() {
    let mut cluster = Cluster::new(Policy::default());
    let node = cluster.node("n", inventory("H100", 8, &[]));
    let mut whole = job(nodes(1, 4));
    whole.groups[0].exclusive = true;
    let whole = cluster.submit(whole);
    cluster.decide();
    // `cpus` in the agent's settings was 64 and is 128 now.
    again(&mut cluster, "n", Inventory { cpu_milli: 128_000, ..inventory("H100", 8, &[]) }, whole);
    assert_eq!(cluster.held(whole)[0].0, node, "it runs on");
    let other = cluster.submit(job(nodes(1, 4)));
    cluster.decide();
    assert_eq!(cluster.held(other), [], "nobody beside the gang");
    assert_eq!(cluster.player.state.node(node).unwrap().inventory.cpu_milli, 64_000, "until the gang is gone");
}

#[test]
fn a_device_that_was_cut_into_instances_meanwhile_is_nobodys_as_a_whole() {
    let mut cluster = Cluster::new(Policy::default());
    cluster.node("n", inventory("H100", 8, &[]));
    let first = cluster.submit(job(nodes(1, 1)));
    cluster.decide();
    assert_eq!(cluster.held(first)[0].1, [0]);
    // GPU 7, idle, is cut into seven; the agent is started again.
    let mut machine = inventory("H100", 15, &[]);
    machine.cpu_milli = 64_000;
    for device in &mut machine.devices[8..] {
        (device.model, device.parent) = (name("H100-1g.10gb"), Some(7));
    }
    again(&mut cluster, "n", machine, first);
    let gangs: Vec<GangId> = (0..7).map(|_| cluster.submit(job(nodes(1, 1)))).collect();
    cluster.decide();
    let held: Vec<u16> = gangs.iter().flat_map(|gang| cluster.held(*gang)).flat_map(|(_, slots)| slots).collect();
    assert!(!held.contains(&7), "GPU 7 is in pieces: {held:?}");
}
