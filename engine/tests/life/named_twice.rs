//! A job is named under one condition: a second one would be lost when the first one holds.

use crate::support;

use muster_common::job::Dependencies;
use muster_common::{GangId, JobId};
use muster_engine::Command;
use muster_engine::outcome::Response;
use support::*;

type Change = fn(&mut Dependencies, JobId);

const TWICE: [(&str, Change); 2] = [
    ("ok", |after, job| (after.started, after.ok) = (vec![job], vec![job])),
    ("any", |after, job| after.any = vec![job; 2]),
];

fn assert_refused(response: Response, kind: &str, job: JobId) {
    let why = match response {
        Response::Refused(refusal) => refusal.to_string(),
        other => panic!("answered {other:?}"),
    };
    assert!(why.starts_with(&format!("after.{kind}: job {job} is named twice in `[after]`; ")), "{why}");
}

#[test]
fn a_job_named_twice_is_refused_at_submit_and_by_an_edit() {
    let mut c = Cluster::new(1, 4);
    let [first, second] = [0; 2].map(|_| c.submit(scheduling(1, 1)));
    for (kind, change) in TWICE {
        let mut wish = scheduling(1, 1);
        change(&mut wish.after, first);
        let response = c.respond(Command::Submit(Box::new(submit(kind, wish))));
        assert_refused(response, kind, first);
        let edit = c.edit_of(second, kind, |edit| change(&mut edit.scheduling.after, first));
        assert_refused(c.respond(edit), kind, first);
    }
}

#[test]
fn so_is_one_that_has_started_or_ended() {
    let mut c = Cluster::new(1, 4);
    let first = c.submit(scheduling(1, 1));
    let gang = GangId::new(first, 0);
    c.start(gang);
    let mut wish = scheduling(1, 1);
    TWICE[0].1(&mut wish.after, first);
    assert_refused(c.respond(Command::Submit(Box::new(submit("started", wish.clone())))), "ok", first);
    let node = c.parts(gang)[0];
    c.exit(gang, node, 0, OK);
    c.release_all(gang);
    assert_refused(c.respond(Command::Submit(Box::new(submit("ended", wish)))), "ok", first);
}
