//! The same call for several jobs: each is made, and each failure is told.

use crate::error::{CliError, Report};
use crate::refs;
use muster_proto::client::JobRef;
use muster_proto::convert::error::ErrorCode;

/// What came of the calls, in the order of the jobs.
#[derive(Debug)]
pub struct Several<T> {
    pub done: Vec<T>,
    failed: Vec<Report>,
}

impl<T> Several<T> {
    /// Calls for one job after the other. A failure of one keeps the others from nothing, unless it
    /// would be theirs too.
    pub async fn call(jobs: &[JobRef], call: impl AsyncFn(&JobRef) -> Result<T, CliError>) -> Self {
        let mut several = Self { done: Vec::new(), failed: Vec::new() };
        for (at, job) in jobs.iter().enumerate() {
            match call(job).await {
                Ok(reply) => several.done.push(reply),
                Err(error) => {
                    let shared = is_everybodys(error.code());
                    several.note(job, error, jobs.len() > 1);
                    if shared {
                        several.leave(&jobs[at + 1..]);
                        break;
                    }
                }
            }
        }
        several
    }

    fn note(&mut self, job: &JobRef, error: CliError, of_many: bool) {
        let name = refs::show(job);
        for mut report in error.into_reports() {
            if of_many && !report.info.message.contains(&name) {
                report.info.message = format!("{name}: {}", report.info.message);
            }
            self.failed.push(report);
        }
    }

    fn leave(&mut self, rest: &[JobRef]) {
        let Some(last) = self.failed.last_mut().filter(|_| !rest.is_empty()) else { return };
        let names: Vec<String> = rest.iter().map(refs::show).collect();
        last.info.message.push_str(&format!("; not tried: {}", names.join(", ")));
    }

    /// Everything that failed; the command ends with the code of the first.
    ///
    /// # Errors
    /// When anything did.
    pub fn check(self) -> Result<(), CliError> {
        CliError::gather(self.failed).map_or(Ok(()), Err)
    }
}

/// Would the next call fail alike?
fn is_everybodys(code: ErrorCode) -> bool {
    use ErrorCode::{CertificateExpired, NotLoggedIn, ServerNotTrusted, VersionMismatch};
    code.is_retryable() || matches!(code, NotLoggedIn | CertificateExpired | ServerNotTrusted | VersionMismatch)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(codes: &[Option<ErrorCode>]) -> (Vec<u64>, Option<CliError>) {
        let jobs: Vec<JobRef> = (1..).zip(codes).map(|(id, _)| JobRef { id, ..JobRef::default() }).collect();
        let several = Several::call(&jobs, async |job| match codes[job.id as usize - 1] {
            None => Ok(job.id),
            Some(code) => Err(CliError::new(code, "no luck")),
        });
        let mut several = several.await;
        (std::mem::take(&mut several.done), several.check().err())
    }

    #[tokio::test]
    async fn one_failure_keeps_the_others_from_nothing() {
        let (done, error) = run(&[None, Some(ErrorCode::JobNotFound), Some(ErrorCode::Forbidden), None]).await;
        let error = error.expect("two failed");
        assert_eq!((done, error.exit_code()), (vec![1, 4], 3));
        let text = error.text(false);
        assert!(text.contains("E020]: 2: no luck") && text.contains("E041]: 3: no luck"), "{text}");
    }

    #[tokio::test]
    async fn what_would_fail_for_all_ends_it_and_says_what_was_left() {
        let (done, error) = run(&[None, Some(ErrorCode::NoLeader), None, None]).await;
        let error = error.expect("nobody led");
        assert_eq!((done, error.exit_code()), (vec![1], 7));
        assert!(error.text(false).contains("not tried: 3, 4"), "{}", error.text(false));
    }

    #[tokio::test]
    async fn one_job_needs_no_prefix() {
        let (_, error) = run(&[Some(ErrorCode::Forbidden)]).await;
        assert!(error.expect("it failed").text(false).starts_with("error[E041]: no luck"));
    }
}
