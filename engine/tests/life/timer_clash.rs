//! `begin` and the back-off of the first element share one timer: neither takes the other's wake.

use crate::support;
use muster_common::{GangId, Time};
use muster_engine::command::Exit;
use muster_engine::state::gang::GangState;
use muster_engine::{Memo, cycle};
use support::*;

#[test]
fn taking_a_begin_time_back_leaves_the_back_off_its_timer() {
    let mut c = Cluster::new(1, 4);
    let mut wish = scheduling(1, 1);
    wish.retry.app = 3;
    let gang = GangId::new(c.submit(wish), 0);
    c.start(gang);
    let node = c.parts(gang)[0];
    c.exit(gang, node, 0, Exit::Code(1));
    c.release_all(gang);
    let GangState::Queued { not_before } = c.state.gang(gang).unwrap().state else { panic!("it is tried again") };
    let later = c.edit_of(gang.job, "r1", |edit| edit.scheduling.begin_at_ms = Some(not_before.0));
    c.apply(later);
    let never_mind = c.edit_of(gang.job, "r2", |edit| edit.scheduling.begin_at_ms = None);
    c.apply(never_mind);
    let wake_at = cycle(&c.state, &mut Memo::default(), c.state.now()).wake_at;
    assert_eq!(wake_at, Some(Time(not_before.0)));
}
