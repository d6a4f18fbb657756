//! Devices that are cut into instances, and quota.

use crate::plan_support;
use crate::taking_support;

use muster_common::job::Scheduling;
use muster_common::node::Inventory;
use muster_engine::plan::explain::Reason;
use muster_engine::policy::Policy;
use plan_support::{inventory, name, nodes};
use taking_support::*;

/// Eight devices of which the first is cut into seven instances.
fn with_instances() -> Inventory {
    let mut machine = inventory("H100", 15, &[]);
    for device in &mut machine.devices[8..] {
        (device.model, device.parent) = (name("H100-1g.10gb"), Some(0));
    }
    machine
}

fn small(account: &str, devices: u32) -> Scheduling {
    let mut job = charged(forever(nodes(1, devices)), account);
    job.groups[0].cpu_milli_per_node = Some(1000);
    job
}

/// Today: the plan places it on an instance, `apply` rejects it ("device 8 ... is a H100-1g.10gb"), so `submit` panics.
#[test]
fn who_names_no_model_gets_no_instance_when_its_quota_of_whole_ones_ends() {
    let mut cluster = Cluster::new(Policy::default());
    cluster.node("n", with_instances());
    cluster.organise(vec![account("red", None, (0, Some(0), None)), account("blue", None, (7, None, None))]);
    let red = cluster.submit(small("red", 1));
    assert!(!cluster.runs(red));
    assert_eq!(cluster.why(red).blockers[0].reason, Reason::Quota);
}

/// Seven whole ones are there, all of them blue's: the eighth that is counted is in pieces.
#[test]
fn what_may_not_be_stopped_is_not_lent_a_device_in_pieces() {
    let mut cluster = Cluster::new(Policy::default());
    cluster.node("n", with_instances());
    cluster.organise(vec![account("red", None, (0, None, None)), account("blue", None, (7, None, None))]);
    let mut firm = small("red", 1);
    firm.preemptible = false;
    firm.groups[0].models = vec![name("H100")];
    let red = cluster.submit(firm);
    assert!(!cluster.runs(red), "it is on one of blue's for good");
    let mut all = small("blue", 7);
    all.groups[0].models = vec![name("H100")];
    let blue = cluster.submit(all);
    cluster.pass(600);
    assert!(cluster.runs(blue), "blue owns seven");
}
