//! Policy, fabric, cluster-wide times, accounts and queues, one by one or as a whole, and the feature level, as replicated
//! state.

use super::declaration;
use super::roles::Caller;
use super::submit::unexpected;
use super::trial::tried;
use super::{Inner, errors};
use crate::config::ElasticConfig;
use muster_common::Time;
use muster_engine::apply::HOOK_LEVEL;
use muster_engine::command::{ConfigChange, Declaration, Principal};
use muster_engine::policy::Policy;
use muster_engine::state::policies::Promotion;
use muster_engine::{Command, Response, State};
use muster_proto::client as pb;
use muster_proto::convert::error::{ErrorCode, ErrorInfo};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Largest value, as JSON; an organisation's thousands of accounts travel in a large entry.
const JSON_BYTES_MAX: usize = 48 << 10;
const ORGANISATION_BYTES_MAX: usize = 256 << 10;

pub(super) async fn configure(
    inner: &Arc<Inner>,
    caller: &Caller,
    request: pb::ConfigureRequest,
) -> Result<pb::ConfigureReply, ErrorInfo> {
    errors::check_key("request id", &request.request_id)?;
    let state = inner.fresh().await?;
    let present = present(&state, &request.kind)?;
    let unchanged = pb::ConfigureReply { version: state.config_version(), json: present, changed: false };
    if request.json.is_empty() {
        return Ok(unchanged);
    }
    let change = change(&request.kind, &request.json)?;
    let elastic = inner.ctx.elastic.as_ref();
    policy_of(&change).map_or(Ok(()), |policy| check_elastic(policy, state.cluster().feature_level, elastic))?;
    let whole = matches!(change, ConfigChange::Declare(_) | ConfigChange::RollBack { .. });
    let mut changed = differs(&state, &change);
    if let ConfigChange::FeatureLevel(level) = change
        && changed
    {
        check_known(level, &super::cluster::feature_levels(inner, caller).await)?;
    }
    if request.plan_only || whole {
        let (before, now, by, kind) = (state.clone(), inner.now(&state), caller.principal(), request.kind.clone());
        // Whether somebody was faster is for the log to say: a call whose first answer was lost finds nothing to change.
        let (trial, hook) = (unconditional(change.clone()), inner.ctx.elastic.clone());
        let seen = inner.reading(move |_| {
            let after = try_on(&before, trial, by, now)?;
            // Rolled back to, a policy may be of a time when there was a hook.
            if after.policy() != before.policy() {
                check_elastic(after.policy(), before.cluster().feature_level, hook.as_ref())?;
            }
            // What it would be says what it would do: names are resolved, and what is over is left out.
            let shown = || Ok((declaration::differs(&before, &after), self::present(&after, &kind)?));
            whole.then(shown).transpose()
        });
        let json;
        (changed, json) = seen.await?.unwrap_or((changed, unchanged.json.clone()));
        if request.plan_only {
            return Ok(pb::ConfigureReply { changed, json, ..unchanged });
        }
    }
    if !changed {
        return Ok(unchanged);
    }
    let command = Command::Configure { change: Box::new(change), by: caller.principal() };
    match inner.commit(command).await.map_err(invalid)? {
        Response::Done => {}
        other => return Err(unexpected(&other)),
    }
    let state = inner.ctx.view();
    let json = self::present(&state, &request.kind)?;
    Ok(pb::ConfigureReply { version: state.config_version(), json, changed: true })
}

/// Nodes would be asked for and never come, or be killed half way, if this server could not have them switched.
fn check_elastic(policy: &Policy, level: u32, elastic: Option<&ElasticConfig>) -> Result<(), ErrorInfo> {
    let refused = |message: String, hint: &str| ErrorInfo::new(ErrorCode::ConfigInvalid, message).hint(hint);
    if policy.elastic.is_empty() {
        return Ok(());
    }
    if level < HOOK_LEVEL {
        let message = format!("`elastic` pools need feature level {HOOK_LEVEL}; this cluster is at {level}");
        let hint = "once no server will go back to the version before: muster cluster upgrade";
        return Err(refused(message, hint).path("elastic"));
    }
    let Some(elastic) = elastic else {
        let message = "the policy has `elastic` pools, and the leading server has no hook that switches machines";
        let hint = "name a program as `hook` under [elastic] in the server.toml of each server, start them again one after the other, \
                    and look with muster cluster doctor; `muster sim run` plays such a policy without";
        return Err(refused(message.into(), hint).path("elastic"));
    };
    for (name, pool) in &policy.elastic {
        for (key, within_ms) in [("sleep_timeout_ms", pool.sleep_timeout_ms), ("wake_timeout_ms", pool.wake_timeout_ms)]
        {
            if within_ms < elastic.timeout_ms {
                let message = format!("{key} is {within_ms}, and the hook may take {} ms", elastic.timeout_ms);
                let hint = "raise it, or lower `timeout_ms` under [elastic] in the servers' server.toml";
                return Err(refused(message, hint).path(format!("elastic.{name}.{key}")));
            }
        }
    }
    Ok(())
}

/// The policy that it would put in force, or try beside it.
fn policy_of(change: &ConfigChange) -> Option<&Policy> {
    match change {
        ConfigChange::Policy(policy) => Some(policy),
        ConfigChange::Shadow(policy) => policy.as_deref(),
        ConfigChange::Promote(promotion) => Some(&promotion.policy),
        ConfigChange::Declare(declaration) => declaration.policy.as_deref(),
        _ => None,
    }
}

fn unknown(kind: &str) -> ErrorInfo {
    let message = format!("`{}` cannot be configured", super::render::words::plain(kind));
    errors::usage(message).hint(
        "there is: policy, fabric, settings, organisation, shadow, promotion, feature_level, declaration, rollback",
    )
}

/// The value in force.
pub fn present(state: &State, kind: &str) -> Result<String, ErrorInfo> {
    fn json<T: Serialize>(value: &T) -> Result<String, ErrorInfo> {
        serde_json::to_string(value).map_err(|error| ErrorInfo::new(ErrorCode::Internal, error.to_string()))
    }
    match kind {
        "policy" => json(&**state.policy()),
        "fabric" => json(&**state.fabric()),
        "settings" => json(state.settings()),
        "organisation" => json(&**state.accounts().document()),
        "shadow" => json(&state.policies().shadow().map(|shadow| &*shadow.policy)),
        // What a promotion would replace.
        "promotion" => json(&**state.policy()),
        "feature_level" => json(&state.cluster().feature_level),
        "declaration" | "rollback" => json(&declaration::shown(state)?),
        other => Err(unknown(other)),
    }
}

/// The change asked for.
pub fn change(kind: &str, json: &str) -> Result<ConfigChange, ErrorInfo> {
    fn read<T: DeserializeOwned>(kind: &str, json: &str) -> Result<T, ErrorInfo> {
        serde_json::from_str(json).map_err(|error| {
            let hint = match kind {
                "declaration" | "rollback" => "`muster apply` writes it; is it as new as the servers?".to_owned(),
                _ => format!("`muster cluster set {kind}` shows the present one"),
            };
            ErrorInfo::new(ErrorCode::ConfigInvalid, format!("the {kind} cannot be read: {error}")).hint(hint)
        })
    }
    let large = matches!(kind, "organisation" | "declaration");
    let most = if large { ORGANISATION_BYTES_MAX } else { JSON_BYTES_MAX };
    if json.len() > most {
        let message = format!("the {kind} has {} bytes; at most {most} are taken", json.len());
        return Err(ErrorInfo::new(ErrorCode::ConfigInvalid, message).hint("shorten it"));
    }
    Ok(match kind {
        "policy" => ConfigChange::Policy(read(kind, json)?),
        "fabric" => ConfigChange::Fabric(read(kind, json)?),
        "settings" => ConfigChange::Settings(read(kind, json)?),
        "organisation" => ConfigChange::Organisation(Arc::new(read(kind, json)?)),
        "shadow" => ConfigChange::Shadow(read(kind, json)?),
        "promotion" => {
            let promotion: Box<Promotion> = read(kind, json)?;
            super::policy::check_engine(&promotion.evidence)?;
            ConfigChange::Promote(promotion)
        }
        "feature_level" => ConfigChange::FeatureLevel(read(kind, json)?),
        "declaration" => ConfigChange::Declare(declaration::checked(read(kind, json)?)?),
        "rollback" => {
            let Return { version, made_from } = read(kind, json)?;
            ConfigChange::RollBack { version, made_from }
        }
        other => return Err(unknown(other)),
    })
}

/// To how a declaration left policy and organisation.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Return {
    version: u32,
    made_from: Option<u32>,
}

/// The same, whatever it was compared with.
fn unconditional(change: ConfigChange) -> ConfigChange {
    match change {
        ConfigChange::Declare(declaration) => {
            ConfigChange::Declare(Box::new(Declaration { made_from: None, ..*declaration }))
        }
        ConfigChange::RollBack { version, .. } => ConfigChange::RollBack { version, made_from: None },
        other => other,
    }
}

fn differs(state: &State, change: &ConfigChange) -> bool {
    match change {
        ConfigChange::Policy(policy) => *policy != **state.policy(),
        ConfigChange::Fabric(fabric) => *fabric != **state.fabric(),
        ConfigChange::Settings(settings) => settings != state.settings(),
        ConfigChange::Organisation(document) => document != state.accounts().document(),
        ConfigChange::Shadow(policy) => policy.as_deref() != state.policies().shadow().map(|shadow| &*shadow.policy),
        ConfigChange::FeatureLevel(level) => *level != state.cluster().feature_level,
        _ => true,
    }
}

/// A server that cannot compute a level would refuse it where the others take it, and be another State from then on.
/// `known`: the highest level that each server can compute; none of one that does not answer.
///
/// # Errors
/// [`ErrorCode::NotThereYet`] with the servers that cannot, or of which nobody knows.
fn check_known(level: u32, known: &[(String, Option<u32>)]) -> Result<(), ErrorInfo> {
    let of = |wanted: &dyn Fn(Option<u32>) -> bool| {
        let found: Vec<String> = known.iter().filter(|(_, most)| wanted(*most)).map(server).collect();
        (!found.is_empty()).then(|| found.join(", "))
    };
    if let Some(behind) = of(&|most| most.is_some_and(|most| most < level)) {
        let message = format!("feature level {level} is beyond {behind}");
        let hint = "upgrade them first; `muster cluster status` shows the versions";
        return Err(ErrorInfo::new(ErrorCode::NotThereYet, message).hint(hint));
    }
    if let Some(silent) = of(&|most| most.is_none()) {
        let message = format!("nobody knows whether they can compute feature level {level}: {silent}");
        let hint = "bring them back, or take them out with `muster cluster members remove`";
        return Err(ErrorInfo::new(ErrorCode::NotThereYet, message).hint(hint));
    }
    Ok(())
}

fn server((name, most): &(String, Option<u32>)) -> String {
    let name = super::render::words::plain(name);
    match most {
        Some(most) => format!("{name} (up to {most})"),
        None => format!("{name} (does not answer)"),
    }
}

/// Applies the change to a copy, which is returned.
///
/// # Errors
/// [`ErrorCode::ConfigInvalid`] with what `apply` says.
pub fn try_on(state: &State, change: ConfigChange, by: Principal, now: Time) -> Result<State, ErrorInfo> {
    let command = Command::Configure { change: Box::new(change), by };
    tried(state, command, now).map(|(after, _)| after).map_err(invalid)
}

fn invalid(error: ErrorInfo) -> ErrorInfo {
    match error.code {
        ErrorCode::SpecValue => ErrorInfo::new(ErrorCode::ConfigInvalid, error.message)
            .hint("nothing was changed; correct it and try again"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_engine::apply::FEATURE_LEVEL;
    use muster_engine::{Entry, apply};

    #[test]
    fn a_policy_with_elastic_pools_needs_a_hook_wherever_it_comes_from() {
        let policy = r#"{"elastic": {"all": {"idle_ms": 60000, "sleep_timeout_ms": 60000}}}"#;
        let declared = format!(
            r#"{{"source": "x", "made_from": null, "organisation": null, "policy": {policy}, "windows": null, "whole": false}}"#
        );
        let hook = |timeout_ms| ElasticConfig { hook: "/hook".into(), timeout_ms };
        for (kind, json) in [("policy", policy), ("shadow", policy), ("declaration", &declared)] {
            let change = change(kind, json).unwrap();
            let refusal = |level, hook: Option<ElasticConfig>| {
                check_elastic(policy_of(&change).unwrap(), level, hook.as_ref()).map_err(|error| {
                    assert_eq!(error.code, ErrorCode::ConfigInvalid, "{kind}");
                    (error.path.unwrap(), error.message)
                })
            };
            assert_eq!(refusal(FEATURE_LEVEL, Some(hook(60_000))), Ok(()));
            let (path, message) = refusal(FEATURE_LEVEL, None).unwrap_err();
            assert!(path == "elastic" && message.contains("no hook"), "{kind}: {message}");
            let (_, message) = refusal(HOOK_LEVEL - 1, Some(hook(60_000))).unwrap_err();
            assert!(message.contains("feature level"), "{kind}: {message}");
            let (path, message) = refusal(FEATURE_LEVEL, Some(hook(60_001))).unwrap_err();
            assert_eq!(path, "elastic.all.sleep_timeout_ms");
            assert_eq!(message, "sleep_timeout_ms is 60000, and the hook may take 60001 ms");
        }
        assert_eq!(check_elastic(policy_of(&change("policy", "{}").unwrap()).unwrap(), 0, None), Ok(()));
    }

    #[test]
    fn a_feature_level_is_raised_when_every_server_can_compute_it_and_never_lowered() {
        let of = |known: &[(&str, Option<u32>)], level| {
            let known: Vec<_> = known.iter().map(|(name, most)| ((*name).to_owned(), *most)).collect();
            check_known(level, &known).map_err(|error| (error.code, error.message))
        };
        assert_eq!(of(&[("s1", Some(5)), ("s2", Some(6))], 5), Ok(()));
        let (code, message) = of(&[("s1", Some(5)), ("s2", Some(4)), ("s3", None)], 5).unwrap_err();
        assert_eq!((code, message.as_str()), (ErrorCode::NotThereYet, "feature level 5 is beyond s2 (up to 4)"));
        let (code, message) = of(&[("s1", Some(5)), ("s3", None)], 5).unwrap_err();
        assert!(code == ErrorCode::NotThereYet && message.contains("s3 (does not answer)"), "{message}");

        // As a cluster of the first version left it.
        let old = State::default();
        let change = change("feature_level", &FEATURE_LEVEL.to_string()).unwrap();
        let by = || Principal("root".into());
        assert_eq!((present(&old, "feature_level").unwrap().as_str(), differs(&old, &change)), ("0", true));
        try_on(&old, change.clone(), by(), old.now()).unwrap();
        let mut raised = old;
        let command = Command::Configure { change: Box::new(change.clone()), by: by() };
        let entry = Entry { index: 1, term: 1, at: raised.now(), command };
        assert_eq!(apply(&mut raised, &entry).response, Response::Done);
        assert_eq!(present(&raised, "feature_level").unwrap(), FEATURE_LEVEL.to_string());
        assert!(!differs(&raised, &change));
        let lower = super::change("feature_level", "1").unwrap();
        assert_eq!(try_on(&raised, lower, by(), raised.now()).unwrap_err().code, ErrorCode::ConfigInvalid);
    }
}
