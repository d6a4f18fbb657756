//! Policy, fabric, cluster-wide times, accounts and queues, one by one or as a whole, as replicated state.

use super::declaration;
use super::roles::Caller;
use super::submit::unexpected;
use super::{Inner, errors};
use muster_engine::command::{ConfigChange, Principal};
use muster_engine::state::policies::Promotion;
use muster_engine::{Command, Entry, Response, State, apply};
use muster_proto::client as pb;
use muster_proto::convert::error::{ErrorCode, ErrorInfo};
use serde::Serialize;
use serde::de::DeserializeOwned;
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
    let whole = matches!(change, ConfigChange::Declare(_) | ConfigChange::RollBack { .. });
    if request.plan_only || whole {
        let after = try_on(&state, change.clone(), caller.principal())?;
        let changed = if whole { declaration::differs(&state, &after) } else { differs(&state, &change) };
        // What it would be says what it would do: names are resolved, and what is over is left out.
        let json = if whole { self::present(&after, &request.kind)? } else { unchanged.json.clone() };
        if request.plan_only || !changed {
            return Ok(pb::ConfigureReply { changed, json, ..unchanged });
        }
    }
    let differs = differs(&state, &change);
    if !differs {
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

fn unknown(kind: &str) -> ErrorInfo {
    let message = format!("`{}` cannot be configured", super::render::words::plain(kind));
    errors::usage(message)
        .hint("there is: policy, fabric, settings, organisation, shadow, promotion, declaration, rollback")
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
        "promotion" => json(&**state.policy()),
        "declaration" | "rollback" => json(&declaration::shown(state)?),
        other => Err(unknown(other)),
    }
}

/// The change asked for.
pub fn change(kind: &str, json: &str) -> Result<ConfigChange, ErrorInfo> {
    fn read<T: DeserializeOwned>(kind: &str, json: &str) -> Result<T, ErrorInfo> {
        serde_json::from_str(json).map_err(|error| {
            ErrorInfo::new(ErrorCode::ConfigInvalid, format!("the {kind} cannot be read: {error}"))
                .hint(format!("`muster cluster set {kind}` shows the present one"))
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
        "declaration" => ConfigChange::Declare(read(kind, json)?),
        "rollback" => ConfigChange::RollBack { version: read(kind, json)? },
        other => return Err(unknown(other)),
    })
}

fn differs(state: &State, change: &ConfigChange) -> bool {
    match change {
        ConfigChange::Policy(policy) => *policy != **state.policy(),
        ConfigChange::Fabric(fabric) => *fabric != **state.fabric(),
        ConfigChange::Settings(settings) => settings != state.settings(),
        ConfigChange::Organisation(document) => document != state.accounts().document(),
        ConfigChange::Shadow(policy) => policy.as_deref() != state.policies().shadow().map(|shadow| &*shadow.policy),
        _ => true,
    }
}

/// Applies the change to a copy, which is returned.
///
/// # Errors
/// [`ErrorCode::ConfigInvalid`] with what `apply` says.
pub fn try_on(state: &State, change: ConfigChange, by: Principal) -> Result<State, ErrorInfo> {
    let mut copy = state.clone();
    let command = Command::Configure { change: Box::new(change), by };
    let entry = Entry { index: copy.applied_index() + 1, term: copy.applied_term(), at: copy.now(), command };
    match apply(&mut copy, &entry).response {
        Response::Refused(refusal) => Err(invalid(errors::refused(refusal))),
        _ => Ok(copy),
    }
}

fn invalid(error: ErrorInfo) -> ErrorInfo {
    match error.code {
        ErrorCode::SpecValue => ErrorInfo::new(ErrorCode::ConfigInvalid, error.message)
            .hint("nothing was changed; correct it and try again"),
        _ => error,
    }
}
