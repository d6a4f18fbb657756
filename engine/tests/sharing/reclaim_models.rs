//! Reclaim for a gang that takes one of several models: how far its lender is beyond its own is asked of each model.

use crate::plan_support;
use crate::taking_support;

use muster_common::job::Scheduling;
use muster_engine::organisation::{Account, Quota};
use muster_engine::policy::Policy;
use plan_support::{inventory, name, nodes};
use taking_support::*;

fn of(models: &[&str], devices: u32, account: &str) -> Scheduling {
    let mut job = charged(forever(nodes(1, devices)), account);
    job.groups[0].models = models.iter().map(|model| name(model)).collect();
    job.groups[0].cpu_milli_per_node = Some(1000);
    job
}

fn owns(text: &str, h100: u32, h200: u32) -> Account {
    let mut account = account(text, None, (h100, None, None));
    account.quota.insert(name("H200"), Quota { nominal: h200, borrow_limit: None, lend_limit: None });
    account
}

#[test]
fn what_is_borrowed_of_another_model_does_not_protect_the_borrower() {
    let mut cluster = Cluster::new(Policy::default());
    cluster.node("a", inventory("H100", 8, &[]));
    cluster.node("b", inventory("H200", 8, &[]));
    cluster.node("c", inventory("H200", 8, &[]));
    cluster.organise(vec![owns("ours", 8, 16), owns("theirs", 0, 0)]);
    let fixed = |devices| Scheduling { preemptible: false, ..of(&["H200"], devices, "ours") };
    // Five of its own on each H200 node.
    let mut all = vec![cluster.submit(fixed(5)), cluster.submit(fixed(5))];
    all.push(cluster.submit(of(&["H200"], 1, "theirs")));
    all.extend([cluster.submit(of(&["H100"], 4, "theirs")), cluster.submit(of(&["H100"], 4, "theirs"))]);
    assert!(all.iter().all(|gang| cluster.runs(*gang)));
    assert_ne!(cluster.nodes_of(all[0]), cluster.nodes_of(all[1]));
    // Left of its own: 8 H100 and 6 H200. No H200 node has room for six; the H100 node has once both fours are gone.
    let either = cluster.submit(of(&["H100", "H200"], 6, "ours"));
    cluster.pass(600);
    assert!(cluster.runs(either), "within its own of either model, and named H100 first");
}
