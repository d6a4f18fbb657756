//! Why everything waits that does, in groups: from the one look that lists share.

use super::Inner;
use super::render::cluster;
use super::render::words::{gang_name, owner, plain};
use super::roles::Caller;
use muster_common::Time;
use muster_engine::State;
use muster_engine::plan::brief::Briefs;
use muster_engine::plan::explain::Reason;
use muster_engine::plan::groups::{Group, groups};
use muster_proto::client as pb;
use muster_proto::convert::error::ErrorInfo;
use std::sync::Arc;

/// The reason of those in whose way nothing was seen.
const UNKNOWN: &str = "unknown";

pub(super) async fn why_all(
    inner: &Arc<Inner>,
    _caller: &Caller,
    _request: pb::WhyAllRequest,
) -> Result<pb::WhyAllReply, ErrorInfo> {
    let state = inner.fresh().await?;
    inner
        .reading(move |inner| {
            let now = inner.now(&state);
            let briefs = inner.looks.get(&state, now, &*inner.ctx.clock);
            Ok(answer(&state, &briefs, now))
        })
        .await
}

/// The whole answer.
pub fn answer(state: &State, briefs: &Briefs, now: Time) -> pb::WhyAllReply {
    let groups: Vec<pb::WaitingGroup> = groups(state, briefs).iter().map(|group| render(state, group)).collect();
    pb::WhyAllReply {
        gangs: groups.iter().map(|group| group.gangs).sum(),
        gpus: groups.iter().map(|group| group.gpus).sum(),
        groups,
        applied_index: state.applied_index(),
        looked_at_ms: now.0,
        policy: cluster::policy(state),
    }
}

fn render(state: &State, group: &Group) -> pb::WaitingGroup {
    let (example_name, example_user) = owner(state, group.example);
    let (unseen, text) = match (group.starts_now, group.reason) {
        (false, None) => (UNKNOWN, "nothing is seen in its way"),
        _ => ("", &*group.detail),
    };
    pb::WaitingGroup {
        reason: group.reason.map_or(unseen, Reason::word).to_owned(),
        what: plain(&group.what),
        gangs: group.gangs,
        gpus: group.devices,
        jobs: group.jobs,
        oldest_wait_since_at_ms: group.oldest.0,
        example: gang_name(state, group.example),
        example_name,
        example_user,
        text: plain(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::tests::fixture::Cluster;
    use muster_common::GangId;

    #[test]
    fn only_what_the_next_cycle_starts_is_said_to_start() {
        let mut cluster = Cluster::new(1, 8);
        let job = cluster.submit("alice", r#"{"gang":{"nodes":1,"gpus_per_node":8,"run":"x"},"limits":{"time":"1h"}}"#);
        let group = |starts_now, reason| Group {
            starts_now,
            reason,
            what: String::new(),
            gangs: 1,
            devices: 8,
            jobs: 1,
            oldest: Time(0),
            example: GangId::new(job, 0),
            detail: String::new(),
        };
        let told = |starts_now, reason| render(&cluster.state, &group(starts_now, reason)).reason;
        assert_eq!(told(true, None), "");
        assert_eq!(told(false, None), "unknown");
        assert_eq!(told(false, Some(Reason::Hold)), "hold");
    }
}
