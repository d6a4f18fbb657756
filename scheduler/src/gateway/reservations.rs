//! Advance reservations: made and ended by admins, seen by everybody.

use super::nodes::affected_by_end;
use super::render::words::{duration, plain};
use super::roles::Caller;
use super::submit::unexpected;
use super::trial::tried;
use super::{Inner, errors};
use muster_common::{JobId, Name, Time};
use muster_engine::apply::{crossing, window_named};
use muster_engine::command::{MakeWindow, Which};
use muster_engine::state::window::{Holders, Window};
use muster_engine::{Command, Response, State};
use muster_proto::client as pb;
use muster_proto::convert::error::{ErrorCode, ErrorInfo};
use std::sync::Arc;

/// Nodes that one call may name; more are meant by their domain.
pub(super) const NAMED_MAX: usize = 1000;
/// Names that one answer lists, and gangs.
const LISTED_MAX: usize = 1000;
const CROSSING_MAX: usize = 100;
/// Jobs that one reservation may be for.
pub(super) const JOBS_MAX: usize = 1000;

pub(super) async fn list(
    inner: &Arc<Inner>,
    _caller: &Caller,
    _request: pb::ListReservationsRequest,
) -> Result<pb::ListReservationsReply, ErrorInfo> {
    let state = inner.fresh().await?;
    let now = inner.now(&state);
    inner
        .reading(move |_| {
            let mut windows: Vec<&Arc<Window>> = state.windows().iter().filter(|window| window.end > now).collect();
            windows.sort_by_key(|window| (window.start, window.number));
            let short = |window: &&Arc<Window>| pb::Reservation { nodes: Vec::new(), ..render(&state, window, now) };
            Ok(pb::ListReservationsReply { reservations: windows.iter().map(short).collect() })
        })
        .await
}

pub(super) async fn show(
    inner: &Arc<Inner>,
    _caller: &Caller,
    request: pb::ShowReservationRequest,
) -> Result<pb::Reservation, ErrorInfo> {
    let state = inner.fresh().await?;
    let now = inner.now(&state);
    inner.reading(move |_| Ok(whole(&state, standing(&state, &request.name, now)?, now))).await
}

pub(super) async fn make(
    inner: &Arc<Inner>,
    caller: &Caller,
    request: pb::MakeReservationRequest,
) -> Result<pb::MakeReservationReply, ErrorInfo> {
    errors::check_key("request id", &request.request_id)?;
    let state = inner.fresh().await?;
    let now = inner.now(&state);
    let asked = asked(&request, caller, now)?;
    let name = asked.name.clone();
    let command = Command::MakeWindow(Box::new(asked));
    if request.plan_only {
        let tried = move |_: &Inner| {
            let (after, response) = tried(&state, command, now)?;
            answer(&after, &name, now, changed(&response)?)
        };
        return inner.reading(tried).await;
    }
    let changed = changed(&inner.commit(command).await?)?;
    // What begins at once has begun when it was committed, which is later than when it was asked for.
    let read = move |inner: &Inner| {
        let state = inner.ctx.view();
        answer(&state, &name, inner.now(&state), changed)
    };
    inner.reading(read).await
}

pub(super) async fn end(
    inner: &Arc<Inner>,
    caller: &Caller,
    request: pb::EndReservationRequest,
) -> Result<pb::EndReservationReply, ErrorInfo> {
    errors::check_key("request id", &request.request_id)?;
    let state = inner.fresh().await?;
    let now = inner.now(&state);
    let before = move |_: &Inner| {
        let window = named(&state, &request.name)?;
        Ok((window.name.clone(), Some(whole(&state, window, now))))
    };
    let (name, reservation) = inner.reading(before).await?;
    let command = Command::EndWindow { name, by: caller.principal() };
    match inner.commit(command).await? {
        Response::Done => Ok(pb::EndReservationReply { reservation }),
        other => Err(unexpected(&other)),
    }
}

fn changed(response: &Response) -> Result<bool, ErrorInfo> {
    match response {
        Response::WindowMade { existing, .. } => Ok(!existing),
        other => Err(unexpected(other)),
    }
}

fn answer(state: &State, name: &Name, now: Time, changed: bool) -> Result<pb::MakeReservationReply, ErrorInfo> {
    let reservation = state.windows().named(name).map(|window| whole(state, window, now));
    Ok(pb::MakeReservationReply { reservation, changed })
}

fn named<'a>(state: &'a State, name: &str) -> Result<&'a Arc<Window>, ErrorInfo> {
    window_named(state, &word("name", name)?).map_err(errors::refused)
}

/// One that is not over: its end may have passed and State, which goes on with the next entry, still have it.
fn standing<'a>(state: &'a State, name: &str, now: Time) -> Result<&'a Arc<Window>, ErrorInfo> {
    let window = named(state, name)?;
    if window.end > now {
        return Ok(window);
    }
    let message = format!("reservation `{}` is over", window.name);
    let hint = "`muster reservation ls` lists those that are not over";
    Err(ErrorInfo::new(ErrorCode::ReservationNotFound, message).hint(hint))
}

/// What is asked for, with the times that were left out.
pub fn asked(request: &pb::MakeReservationRequest, caller: &Caller, now: Time) -> Result<MakeWindow, ErrorInfo> {
    errors::check_reason(&request.reason)?;
    let start = request.start_at_ms.map_or(now, Time);
    let end = match (request.end_at_ms, request.duration_ms) {
        (Some(end), None) => Time(end),
        (None, Some(ms)) => start.plus_ms(ms),
        (None, None) => {
            return Err(errors::usage("a reservation needs an end").hint("give `--duration 4h`, or `--end MOMENT`"));
        }
        (Some(_), Some(_)) => {
            return Err(errors::usage("an end and a duration are given").hint("leave one of them out"));
        }
    };
    Ok(MakeWindow {
        name: word("name", &request.name)?,
        start,
        end,
        nodes: which(request)?,
        holders: holders(request)?,
        reason: request.reason.clone(),
        by: caller.principal(),
        managed: false,
    })
}

fn word(what: &str, text: &str) -> Result<Name, ErrorInfo> {
    Name::new(text).map_err(|error| errors::usage(format!("{what} `{}`: {error}", plain(text))))
}

fn maybe(what: &str, text: &str) -> Result<Option<Name>, ErrorInfo> {
    if text.is_empty() { Ok(None) } else { word(what, text).map(Some) }
}

fn which(request: &pb::MakeReservationRequest) -> Result<Which, ErrorInfo> {
    let ways = [!request.nodes.is_empty(), !request.domain.is_empty(), request.all_nodes, request.count > 0];
    if ways.iter().filter(|given| **given).count() != 1 {
        let hint = "name them (`--nodes n1,n2`), or their domain (`--domain pod-1/leaf-3`), or say how many \
                    (`--count 4`) or `--all-nodes`";
        return Err(errors::usage("a reservation needs nodes, said in one way").hint(hint));
    }
    if request.count == 0 && !(request.model.is_empty() && request.within.is_empty()) {
        let message = "a model and a level are for so many nodes of a kind";
        return Err(errors::usage(message).hint("give `--count`, or leave `--model` and `--within` out"));
    }
    if request.nodes.len() > NAMED_MAX {
        let message = format!("at most {NAMED_MAX} nodes may be named");
        return Err(errors::usage(message).hint("name their domain, or make several reservations"));
    }
    if request.all_nodes {
        return Ok(Which::All);
    }
    if !request.domain.is_empty() {
        let path = request.domain.split('/').map(|part| word("domain", part)).collect::<Result<_, _>>()?;
        return Ok(Which::Domain(path));
    }
    if request.count > 0 {
        let (model, level) = (maybe("model", &request.model)?, maybe("within", &request.within)?);
        return Ok(Which::Some { nodes: request.count, model, level });
    }
    Ok(Which::Nodes(request.nodes.iter().map(|node| word("node", node)).collect::<Result<_, _>>()?))
}

fn holders(request: &pb::MakeReservationRequest) -> Result<Holders, ErrorInfo> {
    match (request.account.is_empty(), request.jobs.is_empty()) {
        (true, true) => Ok(Holders::Nobody),
        (false, true) => Ok(Holders::Account(word("account", &request.account)?)),
        (true, false) if request.jobs.len() > JOBS_MAX => {
            Err(errors::usage(format!("at most {JOBS_MAX} jobs may be named")).hint("name their account"))
        }
        (true, false) => Ok(Holders::Jobs(request.jobs.iter().copied().map(JobId).collect())),
        (false, false) => {
            Err(errors::usage("a reservation is for an account or for jobs, not for both").hint("leave one out"))
        }
    }
}

fn render(state: &State, window: &Window, now: Time) -> pb::Reservation {
    let (word, account, jobs) = match &window.holders {
        Holders::Nobody => ("nobody", String::new(), Vec::new()),
        Holders::Account(account) => ("account", account.to_string(), Vec::new()),
        Holders::Jobs(jobs) => ("jobs", String::new(), jobs.iter().map(|job| job.0).collect()),
    };
    let known = window.nodes.iter().filter_map(|name| state.node_named(name));
    pb::Reservation {
        name: window.name.to_string(),
        start_at_ms: window.start.0,
        end_at_ms: window.end.0,
        state: if window.start <= now { "ACTIVE" } else { "UPCOMING" }.into(),
        holders: word.into(),
        account,
        jobs,
        nodes_total: window.nodes.len() as u32,
        nodes: window.nodes.iter().take(LISTED_MAX).map(ToString::to_string).collect(),
        gpus: known.map(|node| node.inventory.devices.len() as u32).sum(),
        reason: window.reason.clone(),
        by: window.by.0.to_string(),
        made_at_ms: window.made_at.0,
        crossing: Vec::new(),
        crossing_total: 0,
    }
}

/// With those that hold its nodes and may hold them beyond its start.
fn whole(state: &State, window: &Window, now: Time) -> pb::Reservation {
    let crossing = crossing(state, window, now);
    let fate = |ends: Option<Time>| match ends {
        None => "has no time limit; it may run on for as long as it likes".to_owned(),
        Some(ends) if window.start <= now => format!("ends in {} at the latest", duration(ends.since_ms(now))),
        Some(ends) => format!("may run {} into it", duration(ends.since_ms(window.start))),
    };
    pb::Reservation {
        crossing_total: crossing.len() as u32,
        crossing: crossing
            .iter()
            .take(CROSSING_MAX)
            .map(|known| affected_by_end(state, known.gang, known.ends, fate(known.ends)))
            .collect(),
        ..render(state, window, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::tests::fixture::{Cluster, START, principal};

    #[test]
    fn a_reservation_whose_end_has_passed_is_shown_no_more_even_if_state_still_has_it() {
        let mut cluster = Cluster::new(1, 1);
        let end = START.plus_ms(60_000);
        let asked = MakeWindow {
            name: Name::literal("firmware"),
            start: START,
            end,
            nodes: Which::All,
            holders: Holders::Nobody,
            reason: String::new(),
            by: principal("root"),
            managed: false,
        };
        cluster.apply(Command::MakeWindow(Box::new(asked)));
        let state = &cluster.state;
        let shown = standing(state, "firmware", Time(end.0 - 1)).unwrap();
        assert_eq!(render(state, shown, Time(end.0 - 1)).state, "ACTIVE");
        assert!(state.windows().named(&Name::literal("firmware")).is_some());
        let over = standing(state, "firmware", end).unwrap_err();
        assert_eq!(over.code, ErrorCode::ReservationNotFound);
        assert_eq!(over.message, "reservation `firmware` is over");
    }
}
