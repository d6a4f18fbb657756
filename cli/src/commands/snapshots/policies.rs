//! Answers of the commands about policies.

use super::*;
use muster_common::job::Hash;
use muster_engine::policy::{Order, Policy};
use muster_sim::evidence::RunEvidence;

fn figures() -> Vec<(String, String)> {
    let figure = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    vec![figure("wait_p95_s", "7321.5000"), figure("utilisation", "0.8812")]
}

fn reply() -> ShowPolicyReply {
    let evidence = PolicyEvidence {
        run: "fair".into(),
        manifest_sha256: "ab".repeat(32),
        engine_version: 3,
        figures: figures().into_iter().map(|(name, value)| PolicyFigure { name, value }).collect(),
    };
    let policy_json = r#"{"order":"fair"}"#.to_owned();
    let set = PolicyRecord {
        version: 4,
        set_at_ms: NOW - 24 * HOUR,
        by: "root".into(),
        policy_json: r#"{"order":"default"}"#.into(),
        evidence: None,
    };
    let promoted = PolicyRecord {
        version: 7,
        set_at_ms: NOW - HOUR,
        by: "root".into(),
        policy_json: policy_json.clone(),
        evidence: Some(evidence),
    };
    let kind = |kind: &str, text: &str, cycles| ShadowKind { kind: kind.into(), text: text.into(), cycles };
    let difference = ShadowDifference {
        index: 88_401,
        decided_at_ms: NOW - MINUTE,
        kind: "other_gangs".into(),
        only_in_force: vec!["4711_0".into()],
        only_shadow: vec!["4655_0".into(), "4720_3".into()],
    };
    let shadow = PolicyShadow {
        version: 8,
        set_at_ms: NOW - 30 * MINUTE,
        by: "root".into(),
        policy_json: r#"{"order":"fifo"}"#.into(),
        counted_since_at_ms: Some(NOW - 29 * MINUTE),
        cycles: 5_000,
        compared: 4_990,
        skipped: 10,
        agree: 4_800,
        truncated: 1,
        steps_max: 5_000_000,
        kinds: vec![kind("same", "the same in all", 4_800), kind("other_gangs", "starts others instead", 190)],
        latest: vec![difference],
    };
    ShowPolicyReply {
        version: 8,
        policy_json,
        history: vec![promoted, set],
        shadow: Some(shadow),
        looked_at_ms: NOW,
        engine_version: 3,
    }
}

#[test]
fn history() {
    check("policy_history", policy::history::render(&reply()), policy::history::document(&reply()));
}

#[test]
fn shadow_report() {
    check("policy_shadow", policy::shadow::render(&reply()), policy::shadow::document(&reply()));
    let none = ShowPolicyReply { shadow: None, history: vec![], ..reply() };
    check("policy_shadow_none", policy::shadow::render(&none), policy::shadow::document(&none));
}

#[test]
fn promoted() {
    use policy::promote::{changes, document, render_changes};
    let after = Policy { order: Order::Fair, ..Policy::default() };
    let changes = changes(&Policy::default(), &after);
    let found = RunEvidence {
        run: "fair".into(),
        policy: after,
        manifest: Hash([0xab; 32]),
        engine_version: 3,
        figures: figures(),
    };
    check("policy_promoted", render_changes(&found, &changes), document(7, &found, &changes));
}
