//! Waiting for a job, with or without its logs: over retries, leader changes and server restarts.

use super::logs::{Assembler, Target, Unread};
use crate::client::{Client, status_error};
use crate::context::Context;
use crate::error::CliError;
use crate::refs;
use muster_proto::client::{Job, JobRef, LogsRequest, WaitReply, WaitRequest};
use muster_proto::convert::error::ErrorCode;
use std::time::{Duration, Instant};

/// One long poll.
const POLL: Duration = Duration::from_secs(20);
/// Broken streams in a row without a byte of progress.
const BREAKS_MAX: u32 = 30;
const BREAK_PAUSE: Duration = Duration::from_millis(300);
/// A followed stream that is silent for so long is checked against the attempt itself.
const SILENCE: Duration = Duration::from_secs(2);
/// So many times silent after the attempt is over, and nothing more is coming.
const SILENCES_MAX: u32 = 3;

/// Where a rank's standard error goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    /// Both are data.
    Together,
    /// As if the program ran here.
    Apart,
}

/// The job a reference means now, by its id from here on: later its name may be that of another.
///
/// # Errors
/// Those of the call; none is made for an id.
pub async fn pinned(client: &Client, job: &JobRef) -> Result<JobRef, CliError> {
    pinned_within(client, job, None).await
}

async fn pinned_within(client: &Client, job: &JobRef, limit: Option<Duration>) -> Result<JobRef, CliError> {
    if job.id > 0 {
        return Ok(job.clone());
    }
    let named = JobRef { attempt: None, ..job.clone() };
    let found = poll_once(client, &named, Duration::ZERO, limit, "", 0).await?.job.unwrap_or_default();
    Ok(JobRef { id: found.id, name: String::new(), ..job.clone() })
}

/// The job once it has ended. `limit`: for how long at most; then [`ErrorCode::TimedOut`].
pub async fn to_end(client: &Client, job: &JobRef, limit: Option<Duration>) -> Result<Job, CliError> {
    let started = Instant::now();
    let id = pinned_within(client, job, limit).await?;
    loop {
        let left = limit.map(|limit| limit.saturating_sub(started.elapsed()));
        let poll = left.map_or(POLL, |left| POLL.min(left));
        let reply = poll_once(client, &id, poll, left, "", 0).await?;
        let now = reply.job.unwrap_or_default();
        if reply.ended {
            return Ok(now);
        }
        if left.is_some_and(|left| left.is_zero()) {
            let message = format!("job {} is still {}", refs::show(job), now.state);
            return Err(CliError::new(ErrorCode::TimedOut, message).hint("it goes on; wait longer, or see: muster why"));
        }
    }
}

/// What a job is once it is other than was seen, or once `held` is over.
async fn poll_once(
    client: &Client,
    job: &JobRef,
    held: Duration,
    limit: Option<Duration>,
    state: &str,
    attempt: u32,
) -> Result<WaitReply, CliError> {
    let started = Instant::now();
    let asked = WaitRequest {
        job: Some(job.clone()),
        seen_state: state.to_owned(),
        seen_attempt: attempt,
        ..WaitRequest::default()
    };
    client
        .call_held(held, limit, async |mut api| {
            // Another try waits for the rest of the time only.
            let timeout_ms = held.saturating_sub(started.elapsed()).as_millis() as u64;
            api.wait(WaitRequest { timeout_ms, ..asked.clone() }).await
        })
        .await
}

/// Prints the logs of every attempt as they are written, until the job has ended.
pub async fn logs_to_end(context: &Context, client: &Client, job: &JobRef, streams: Streams) -> Result<Job, CliError> {
    let request = LogsRequest { job: Some(job.clone()), follow: true, ..LogsRequest::default() };
    chosen_to_end(context, client, request, Target::new(streams)).await
}

/// The same of the ranks that a request names; with a tail from the last lines of the latest attempt on.
pub async fn chosen_to_end(
    context: &Context,
    client: &Client,
    mut request: LogsRequest,
    mut target: Target,
) -> Result<Job, CliError> {
    let job = pinned(client, &request.job.take().unwrap_or_default()).await?;
    let (mut printed, mut seen) = (0, 0);
    // No job has this state, so the first answer comes at once.
    let (mut state, mut told) = ("UNSEEN".to_owned(), String::new());
    loop {
        // What was seen, not what was printed: an attempt of which nothing is printed yet is news only once.
        let reply = poll_once(client, &job, POLL, None, &state, seen).await?;
        let now = reply.job.unwrap_or_default();
        state.clone_from(&now.state);
        seen = now.attempt;
        let started = now.attempt > printed && now.state != "QUEUED" && now.state != "STARTING";
        if started {
            let first = if target.tail.is_some() { now.attempt } else { printed + 1 };
            for attempt in first..=now.attempt {
                if attempt > 1 {
                    context.printer.say(&format!("attempt {attempt} of job {}", now.id));
                }
                request.job = Some(JobRef { attempt: Some(attempt), ..job.clone() });
                match stream(context, client, request.clone(), target).await {
                    // An attempt that never had a rank has no logs to speak of.
                    Err(error) if error.code() == ErrorCode::AttemptNotFound => {}
                    // Nor has one that had fewer ranks than a later one.
                    Err(error) if error.code() == ErrorCode::LogNotFound && attempt < now.attempt => {}
                    read => drop(read?),
                }
                // What comes after the last lines is all new.
                (target.tail, request.tail_bytes) = (None, 0);
            }
            printed = now.attempt;
        } else if reply.ended {
            return Ok(now);
        } else if now.state == "QUEUED" && !now.reason.is_empty() && told != now.reason {
            context
                .printer
                .say(&format!("waiting: {}", if now.reason_text.is_empty() { &now.reason } else { &now.reason_text }));
            told.clone_from(&now.reason);
        }
    }
}

/// Prints one attempt's logs; a broken stream is opened again where it broke. Tells of a log that could not be read.
pub async fn stream(
    context: &Context,
    client: &Client,
    mut request: LogsRequest,
    target: Target,
) -> Result<Option<Unread>, CliError> {
    let job = request.job.take().unwrap_or_default();
    request.job = Some(pinned(client, &job).await?);
    let mut lines = Assembler::new(target);
    let (mut breaks, mut silences) = (0, 0);
    loop {
        let opened = client.call(async |mut api| api.logs(request.clone()).await).await;
        let mut chunks = match opened {
            Ok(chunks) => chunks,
            Err(error) => {
                lines.finish(context)?;
                return Err(error);
            }
        };
        loop {
            match tokio::time::timeout(lines.patience().unwrap_or(SILENCE), chunks.message()).await {
                Err(_) if lines.patience().is_some() => lines.pause(context)?,
                Err(_) => {
                    silences = if request.follow && is_over(client, &request).await { silences + 1 } else { 0 };
                    if silences >= SILENCES_MAX {
                        context.printer.warn("the attempt is over, but not every log was marked as whole");
                        lines.finish(context)?;
                        return Ok(lines.unread);
                    }
                }
                Ok(Ok(Some(chunk))) => {
                    (breaks, silences) = (0, 0);
                    lines.take(context, chunk)?;
                }
                Ok(Ok(None)) => {
                    lines.finish(context)?;
                    return Ok(lines.unread);
                }
                Ok(Err(status)) => {
                    let error = status_error(&status);
                    breaks += 1;
                    if !error.info().retryable || breaks > BREAKS_MAX {
                        lines.finish(context)?;
                        return Err(error);
                    }
                    break;
                }
            }
        }
        tokio::time::sleep(BREAK_PAUSE).await;
    }
}

/// Has the attempt ended whose logs are followed?
async fn is_over(client: &Client, request: &LogsRequest) -> bool {
    let reference = request.job.clone().unwrap_or_default();
    let job = JobRef { attempt: None, ..reference.clone() };
    let Ok(reply) = poll_once(client, &job, Duration::ZERO, None, "", 0).await else { return false };
    let now = reply.job.unwrap_or_default();
    reply.ended || reference.attempt.is_some_and(|attempt| now.attempt > attempt || now.state == "QUEUED")
}
