//! What the leader tells about the cluster.

use super::sheet::Sheet;
use crate::context::Context;
use crate::gateway::render::cluster;
use muster_common::Time;
use muster_engine::plan::brief::briefs;
use muster_engine::plan::explain::Reason;

use muster_engine::{Memo, State};
use std::collections::BTreeMap;

/// Of a gang that the next cycle places.
const STARTS_NOW: &str = "starts-now";
/// Where nothing was seen in its way.
const UNKNOWN: &str = "unknown";

pub fn look(sheet: &mut Sheet, context: &Context, memo: &mut Memo) {
    let state = context.view();
    let jobs = cluster::jobs(&state);
    let by_state =
        [("queued", jobs.queued), ("starting", jobs.starting), ("running", jobs.running), ("stopping", jobs.stopping)];
    sheet.gauges("jobs", "Live jobs by state", "state", by_state);
    sheet.gauge("jobs_held", "Live jobs that are held", jobs.held);
    let nodes = cluster::nodes(&state);
    let by_state = [("up", nodes.up), ("silent", nodes.silent), ("fenced", nodes.fenced)];
    sheet.gauges("nodes", "Nodes by liveness", "state", by_state.map(|(state, count)| (state, u64::from(count))));
    sheet.gauge("nodes_closed", "Nodes that take no new work", u64::from(nodes.closed));
    let devices = cluster::devices(&state);
    let by_state = [
        ("free", devices.free),
        ("held", devices.held),
        ("unknown", devices.unknown),
        ("quarantined", devices.quarantined),
    ];
    let by_state = by_state.map(|(state, count)| (state, u64::from(count)));
    sheet.gauges("devices", "Devices by state", "state", by_state);
    let reasons = reasons(&state, memo, context.proposer.now().max(state.now()));
    sheet.gauges("queue_gangs", "Gangs that wait, by the reason that decides", "reason", reasons);
}

/// Gangs that wait, by the reason that decides, from one cycle.
fn reasons(state: &State, memo: &mut Memo, now: Time) -> BTreeMap<&'static str, u64> {
    let briefs = briefs(state, memo, now);
    let mut counts = BTreeMap::from([(Reason::Hold.word(), 0)]);
    for (blocker, gangs) in briefs.apart.values() {
        *counts.entry(blocker.reason.word()).or_default() += u64::from(*gangs);
    }
    for brief in &briefs.order {
        let none = if brief.starts_now { STARTS_NOW } else { UNKNOWN };
        let word = brief.reason.as_ref().map_or(none, |(reason, _)| reason.word());
        *counts.entry(word).or_default() += u64::from(brief.gangs);
    }
    counts
}
