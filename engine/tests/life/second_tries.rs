//! What makes another attempt, whom it is charged to, and what takes it away.

use crate::support;

use muster_common::GangId;
use muster_common::job::ArraySpec;
use muster_engine::command::{Cancel, Exit, ReportBody};
use muster_engine::state::gang::Cause;
use muster_engine::state::timer::Timer;
use muster_engine::{Command, Response};
use support::{Cluster, principal, scheduling};

fn silent(c: &mut Cluster, n: usize) {
    let (node, term) = (c.node(n), c.term);
    let epoch = c.state.node(node).unwrap().epoch;
    c.apply(Command::NodeSilent { node, epoch, term });
}

#[test]
fn a_rank_that_fails_beside_a_silent_node_is_not_the_jobs_fault() {
    for is_silent in [true, false] {
        let mut c = Cluster::new(2, 1);
        let mut spec = scheduling(2, 1);
        (spec.retry.app, spec.retry.infra) = (0, 5);
        let gang = GangId::new(c.submit(spec), 0);
        c.start(gang);
        let nodes = c.parts(gang);
        if is_silent {
            silent(&mut c, 0);
        }
        c.exit(gang, nodes[1], 1, Exit::Code(1));
        let blamed = matches!(c.cause(gang), Some(Cause::NodeLost { node }) if node == nodes[0]);
        assert_eq!(blamed, is_silent, "{:?}", c.cause(gang));
        c.release_all(gang);
        assert_eq!(c.word(gang), if is_silent { "QUEUED" } else { "GONE" });
    }
}

#[test]
fn an_element_cancelled_while_it_stops_for_its_next_attempt_gets_none() {
    let mut c = Cluster::new(1, 1);
    let mut spec = scheduling(1, 1);
    spec.array = Some(ArraySpec { count: 2, at_once: None, stop_after_failures: None });
    spec.retry.infra = 5;
    let job = c.submit(spec);
    let gang = GangId::new(job, 0);
    c.start(gang);
    let node = c.node(0);
    let why = "XID 79".to_owned();
    c.report(node, gang, ReportBody::DeviceFault { slot: 0, xid: 79, why, fatal: true });
    assert_eq!(c.word(gang), "STOPPING");
    let cancel = Cancel { job, ordinal: Some(0), reason: "enough".into(), by: principal() };
    assert_eq!(c.respond(Command::Cancel(cancel.clone())), Response::Cancelled { gangs: 1 });
    assert_eq!(c.respond(Command::Cancel(cancel)), Response::Cancelled { gangs: 0 }, "once is enough");
    c.release_all(gang);
    assert_eq!(c.word(gang), "GONE");
    let record = c.state.job(job).unwrap();
    assert_eq!((record.tally.cancelled, record.unstarted.len()), (1, 1));
}

#[test]
fn a_gang_that_is_placed_before_its_back_off_is_expired_leaves_no_timer_behind() {
    let mut c = Cluster::new(1, 1);
    let mut spec = scheduling(1, 1);
    spec.retry.app = 5;
    let job = c.submit(spec);
    let gang = GangId::new(job, 0);
    c.start(gang);
    let node = c.node(0);
    c.exit(gang, node, 0, Exit::Code(1));
    c.release_all(gang);
    assert_eq!(c.word(gang), "QUEUED");
    c.pass(3_600_000);
    c.start(gang);
    c.exit(gang, node, 0, Exit::Code(0));
    c.release_all(gang);
    assert_eq!(
        (c.word(gang), c.state.timers().filter(|(_, timer)| matches!(timer, Timer::NotBefore { .. })).count()),
        ("GONE", 0)
    );
}
