//! Configuration as a whole, as it is shown: what is in force by name, and what was declared before.

use super::errors;
use super::reservations::{JOBS_MAX, NAMED_MAX};
use muster_common::Name;
use muster_engine::State;
use muster_engine::command::{Declaration, Which};
use muster_engine::organisation::Price;
use muster_engine::state::declarations::Declared;
use muster_engine::state::window::{Holders, Window};
use muster_proto::convert::error::{ErrorCode, ErrorInfo};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// Accounts, queues and declared reservations by name, the policy, and the declarations, the newest first.
pub fn shown(state: &State) -> Result<Value, ErrorInfo> {
    let document = state.accounts().document();
    let windows = state.windows().iter().filter(|window| window.managed);
    Ok(json!({
        "version": state.config_version(),
        "account": by_name(document.accounts.iter())?,
        "queue": by_name(document.queues.iter())?,
        "price": prices(&document.prices)?,
        "preemptible_only": value(&document.preemptible_only)?,
        "policy": value(&**state.policy())?,
        "reservation": windows.map(|window| (window.name.to_string(), reservation(window))).collect::<Map<_, _>>(),
        "history": state.declarations().past().iter().rev().map(declared).collect::<Vec<_>>(),
    }))
}

fn value(of: &impl Serialize) -> Result<Value, ErrorInfo> {
    serde_json::to_value(of).map_err(|error| ErrorInfo::new(ErrorCode::Internal, error.to_string()))
}

/// By model; `(any)`, which is no name, stands for those without one of their own.
fn prices(all: &[Price]) -> Result<Map<String, Value>, ErrorInfo> {
    let mut prices = Map::new();
    for price in all {
        let mut one = value(price)?;
        one.as_object_mut().and_then(|fields| fields.remove("model"));
        prices.insert(price.model.as_ref().map_or_else(|| "(any)".to_owned(), Name::to_string), one);
    }
    Ok(prices)
}

/// Each under its name, which it then need not have inside.
fn by_name<'a, T: Serialize + 'a>(all: impl Iterator<Item = &'a T>) -> Result<Map<String, Value>, ErrorInfo> {
    let mut named = Map::new();
    for one in all {
        let mut one = value(one)?;
        let name = one.as_object_mut().and_then(|fields| fields.remove("name"));
        named.insert(name.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned(), one);
    }
    Ok(named)
}

fn reservation(window: &Window) -> Value {
    let holders = match &window.holders {
        Holders::Nobody => json!({}),
        Holders::Account(account) => json!({"account": account}),
        Holders::Jobs(jobs) => json!({"jobs": jobs}),
    };
    json!({
        "start_at_ms": window.start.0, "end_at_ms": window.end.0, "nodes": window.nodes, "holders": holders,
        "reason": window.reason,
    })
}

fn declared(known: &Declared) -> Value {
    json!({"version": known.version, "at_ms": known.at.0, "by": known.by.0, "source": known.source})
}

/// What a reservation may say is the same as when it is made alone.
pub fn checked(declaration: Box<Declaration>) -> Result<Box<Declaration>, ErrorInfo> {
    for (at, window) in declaration.windows.iter().flatten().enumerate() {
        let place = |key: &str| format!("reservation[{at}].{key}");
        errors::check_reason(&window.reason).map_err(|error| error.path(place("reason")))?;
        if let Which::Nodes(names) = &window.nodes
            && names.len() > NAMED_MAX
        {
            let message = format!("{} nodes are named; at most {NAMED_MAX} can be", names.len());
            return Err(errors::usage(message).hint("mean them by their domain").path(place("nodes")));
        }
        if let Holders::Jobs(jobs) = &window.holders
            && jobs.len() > JOBS_MAX
        {
            let message = format!("{} jobs are named; at most {JOBS_MAX} can be", jobs.len());
            return Err(errors::usage(message).hint("keep it for an account instead").path(place("jobs")));
        }
    }
    Ok(declaration)
}

/// Is any of it another?
pub fn differs(before: &State, after: &State) -> bool {
    let windows = |state: &State| -> Vec<_> { state.windows().iter().cloned().collect() };
    before.policy() != after.policy()
        || before.accounts().document() != after.accounts().document()
        || windows(before) != windows(after)
}
