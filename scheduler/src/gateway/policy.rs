//! The policy in force, those before it, and what the shadow says.

use super::Inner;
use super::roles::Caller;
use crate::shadow::{Latest, STEPS_MAX, Sheet};
use muster_common::GangId;
use muster_engine::State;
use muster_engine::policy::Policy;
use muster_engine::shadow::Kind;
use muster_engine::state::policies::{Evidence, PolicyRecord, ShadowPolicy};
use muster_proto::client as pb;
use muster_proto::convert::error::{ErrorCode, ErrorInfo};
use std::sync::Arc;

pub(super) async fn show(
    inner: &Arc<Inner>,
    _caller: &Caller,
    _request: pb::ShowPolicyRequest,
) -> Result<pb::ShowPolicyReply, ErrorInfo> {
    let state = inner.fresh().await?;
    let sheet = inner.ctx.shadow.sheet();
    reply(&state, &sheet, inner.now(&state).0)
}

pub fn reply(state: &State, sheet: &Sheet, now_ms: u64) -> Result<pb::ShowPolicyReply, ErrorInfo> {
    let history: Result<Vec<_>, _> = state.policies().past().iter().rev().map(record).collect();
    let shadow = state.policies().shadow().map(|shadow| self::shadow(shadow, sheet)).transpose()?;
    Ok(pb::ShowPolicyReply {
        version: state.config_version(),
        policy_json: json(state.policy())?,
        history: history?,
        shadow,
        looked_at_ms: now_ms,
        engine_version: muster_engine::ENGINE_VERSION,
    })
}

fn json(policy: &Policy) -> Result<String, ErrorInfo> {
    serde_json::to_string(policy).map_err(|error| ErrorInfo::new(ErrorCode::Internal, error.to_string()))
}

fn record(known: &PolicyRecord) -> Result<pb::PolicyRecord, ErrorInfo> {
    Ok(pb::PolicyRecord {
        version: known.version,
        set_at_ms: known.at.0,
        by: known.by.0.to_string(),
        policy_json: json(&known.policy)?,
        evidence: known.evidence.as_ref().map(evidence),
    })
}

fn evidence(known: &Evidence) -> pb::PolicyEvidence {
    let figure = |(name, value): &(String, String)| pb::PolicyFigure { name: name.clone(), value: value.clone() };
    pb::PolicyEvidence {
        run: known.run.clone(),
        manifest_sha256: known.manifest.to_string(),
        engine_version: known.engine_version,
        figures: known.figures.iter().map(figure).collect(),
    }
}

fn shadow(known: &ShadowPolicy, sheet: &Sheet) -> Result<pb::PolicyShadow, ErrorInfo> {
    let blank = Sheet::default();
    // A leader that has not run it yet has nothing to say of it.
    let sheet = if sheet.version == known.version { sheet } else { &blank };
    let kind = |kind: Kind| {
        let cycles = sheet.kinds.get(&kind).copied()?;
        Some(pb::ShadowKind { kind: kind.word().into(), text: kind.text().into(), cycles })
    };
    Ok(pb::PolicyShadow {
        version: known.version,
        set_at_ms: known.at.0,
        by: known.by.0.to_string(),
        policy_json: json(&known.policy)?,
        counted_since_at_ms: (sheet.offered > 0).then_some(sheet.since.0),
        cycles: sheet.offered,
        compared: sheet.compared,
        skipped: sheet.skipped(),
        agree: sheet.agree(),
        truncated: sheet.truncated,
        steps_max: STEPS_MAX.min(known.policy.budget.steps),
        kinds: Kind::ALL.into_iter().filter_map(kind).collect(),
        latest: sheet.latest.iter().rev().map(latest).collect(),
    })
}

fn latest(known: &Latest) -> pb::ShadowDifference {
    let names = |gangs: &[GangId]| gangs.iter().map(GangId::to_string).collect();
    pb::ShadowDifference {
        index: known.index,
        decided_at_ms: known.at.0,
        kind: known.kind.word().into(),
        only_in_force: names(&known.only_real),
        only_shadow: names(&known.only_shadow),
    }
}

/// A promotion must come from the engine that will decide.
///
/// # Errors
/// Evidence of another engine version.
pub fn check_engine(evidence: &Evidence) -> Result<(), ErrorInfo> {
    let own = muster_engine::ENGINE_VERSION;
    if evidence.engine_version == own {
        return Ok(());
    }
    let other = evidence.engine_version;
    let message = format!("the run was decided by engine version {other}; this cluster decides by {own}");
    Err(ErrorInfo::new(ErrorCode::VersionMismatch, message)
        .hint("run the simulation again with the cluster's own version of muster"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_common::job::Hash;

    #[test]
    fn evidence_of_another_engine_is_a_mismatch_of_versions_as_the_program_says_too() {
        let of = |engine_version| {
            let evidence = Evidence { run: "r".into(), manifest: Hash([0; 32]), engine_version, figures: Vec::new() };
            check_engine(&evidence).map_err(|error| error.code)
        };
        let own = muster_engine::ENGINE_VERSION;
        assert_eq!((of(own), of(own + 1)), (Ok(()), Err(ErrorCode::VersionMismatch)));
    }
}
