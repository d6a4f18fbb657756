//! Job references as people write them: `4711`, `4711_3`, `4711@2`, or a name.

use crate::client::JobRef;
use crate::convert::error::{ErrorCode, ErrorInfo};

const EXAMPLES: &str = "write a job's number (4711), an element (4711_3), an attempt (4711@2), or its name";

/// Reads a reference.
///
/// # Errors
/// [`ErrorCode::Usage`] when the text can name no job.
pub fn parse(text: &str) -> Result<JobRef, ErrorInfo> {
    let wrong = || ErrorInfo::new(ErrorCode::Usage, format!("`{text}` names no job")).hint(EXAMPLES);
    let (job, attempt) = match text.split_once('@') {
        Some((job, attempt)) => (job, Some(attempt.parse().ok().filter(|number| *number > 0).ok_or_else(wrong)?)),
        None => (text, None),
    };
    if job.starts_with(|c: char| c.is_ascii_digit()) {
        let (id, ordinal) = match job.split_once('_') {
            Some((id, ordinal)) => (id, Some(ordinal.parse().map_err(|_| wrong())?)),
            None => (job, None),
        };
        if let Ok(id) = id.parse() {
            return if id == 0 { Err(wrong()) } else { Ok(JobRef { id, name: String::new(), ordinal, attempt }) };
        }
    }
    let name = muster_common::Name::new(job).map_err(|_| wrong())?;
    Ok(JobRef { id: 0, name: name.to_string(), ordinal: None, attempt })
}

/// As a person would write it.
pub fn show(job: &JobRef) -> String {
    let mut text = if job.id == 0 { job.name.clone() } else { job.id.to_string() };
    if let Some(ordinal) = job.ordinal {
        text.push_str(&format!("_{ordinal}"));
    }
    if let Some(attempt) = job.attempt {
        text.push_str(&format!("@{attempt}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(id: u64, name: &str, ordinal: Option<u32>, attempt: Option<u32>) -> JobRef {
        JobRef { id, name: name.into(), ordinal, attempt }
    }

    #[test]
    fn every_documented_form_is_read_and_shown_alike() {
        for (text, expected) in [
            ("4711", job(4711, "", None, None)),
            ("4711_3", job(4711, "", Some(3), None)),
            ("4711@2", job(4711, "", None, Some(2))),
            ("4711_3@2", job(4711, "", Some(3), Some(2))),
            ("llama-sft", job(0, "llama-sft", None, None)),
            ("7b-sft", job(0, "7b-sft", None, None)),
            ("llama_3@1", job(0, "llama_3", None, Some(1))),
        ] {
            let read = parse(text).expect(text);
            assert_eq!(read, expected);
            assert_eq!(show(&read), text);
        }
    }

    #[test]
    fn what_names_no_job_is_refused() {
        for text in ["", "0", "a b", "4711@0", "4711@x", "4711_x", "../etc", "-x", "-"] {
            assert_eq!(parse(text).expect_err(text).code, ErrorCode::Usage, "{text:?}");
        }
    }
}
