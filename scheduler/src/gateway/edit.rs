//! Edits: a job file in place of the one a job was made from. Run on the leader.

use super::jobs::{check_whole, load};
use super::render::{job, revision};
use super::roles::Caller;
use super::subject::Subject;
use super::submit::{self, unexpected};
use super::trial::tried;
use super::{Inner, errors, never};
use muster_common::job::file::{decompile, reads_as_number};
use muster_common::job::{Launch, Scheduling};
use muster_engine::command::Edit;
use muster_engine::{Command, Response};
use muster_proto::client as pb;
use muster_proto::convert::error::{ErrorCode, ErrorInfo};
use std::sync::Arc;

pub(super) async fn edit(
    inner: &Arc<Inner>,
    caller: &Caller,
    request: pb::EditJobRequest,
) -> Result<pb::EditJobReply, ErrorInfo> {
    errors::check_key("request id", &request.request_id)?;
    check_whole(request.job.as_ref(), "edit")?;
    let subject = load(inner, caller, request.job.clone()).await?;
    let id = subject.id();
    caller.check_owner(&subject.record.principal, &format!("job {id}"))?;
    if subject.end.is_some() {
        let message = format!("job {id} has ended");
        return Err(ErrorInfo::new(ErrorCode::JobEnded, message).hint(format!("`muster retry {id}` runs it again")));
    }
    let (by, plan_only, now) = (caller.clone(), request.plan_only, subject.now);
    let (prepared, subject) = inner
        .blocking(move |inner| {
            let prepared = prepare(inner, &subject, &by, &request)?;
            if request.plan_only {
                tried(&subject.state, Command::Edit(Box::new(prepared.edit.clone())), now)?;
            }
            Ok((prepared, subject))
        })
        .await?;
    let Prepared { edit, changes, notes } = prepared;
    if plan_only {
        let unchanged = changes.is_empty();
        return Ok(pb::EditJobReply { job: Some(job::summary(&subject, None)), changes, unchanged, notes });
    }
    let unchanged = match inner.commit(Command::Edit(Box::new(edit))).await? {
        Response::Edited { existing, .. } => existing,
        Response::Noop => true,
        other => return Err(unexpected(&other)),
    };
    let state = inner.ctx.view();
    let now = inner.now(&state);
    let subject = match Subject::live(&state, id, Default::default(), now) {
        Some(subject) => subject,
        None => inner.blocking(move |inner| Subject::load(&state, &inner.ctx.history, id, now)).await?,
    };
    Ok(pb::EditJobReply { job: Some(job::summary(&subject, None)), changes, unchanged, notes })
}

struct Prepared {
    edit: Edit,
    changes: Vec<pb::Change>,
    notes: Vec<String>,
}

fn prepare(
    inner: &Inner,
    subject: &Subject,
    caller: &Caller,
    request: &pb::EditJobRequest,
) -> Result<Prepared, ErrorInfo> {
    let (mut scheduling, mut launch) = submit::parse(&request.spec_json)?;
    let present: (&Scheduling, &Launch) = (&subject.scheduling, &subject.launch);
    // What a job file cannot say stays as it is.
    scheduling.limits.exact_ms = present.0.limits.exact_ms;
    let name = launch.name.clone();
    if reads_as_number(name.as_str()) {
        return Err(errors::usage(format!("`{name}` reads as a job's number")).hint("put a letter in it").path("name"));
    }
    let active = subject.record.gangs_active > 0;
    if active {
        // Ranks that run were told the name they have; a new one is for people.
        launch.name = present.1.name.clone();
    }
    let longer = match (present.0.limits.time_ms, scheduling.limits.time_ms) {
        (Some(before), Some(after)) => after > before,
        (Some(_), None) => true,
        (None, _) => false,
    };
    if active && longer && !caller.is_admin() {
        let message = format!("job {} runs; only an admin may give it more time", subject.id());
        return Err(ErrorInfo::new(ErrorCode::Forbidden, message).hint("ask an admin").path("limits.time"));
    }
    if scheduling != *present.0 {
        never::check(&subject.state, &inner.emptied, &scheduling)?;
    }
    let renamed = Launch { name: name.clone(), ..launch.clone() };
    let named = Launch { name: subject.record.name.clone(), ..present.1.clone() };
    let changes = revision::diff(&decompile(present.0, &named), &decompile(&scheduling, &renamed));
    let mut notes = Vec::new();
    let waits = !subject.record.unstarted.is_empty();
    if active && waits && (scheduling.groups != present.0.groups || launch != *present.1) {
        notes.push("elements that run stay as they were started; those that wait take the change".into());
    }
    let edit = Edit {
        request_id: request.request_id.clone(),
        job: subject.id(),
        from_revision: request.revision,
        name,
        scheduling,
        launch: Arc::new(launch),
        by: caller.principal(),
    };
    Ok(Prepared { edit, changes, notes })
}
