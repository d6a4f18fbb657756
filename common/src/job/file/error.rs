//! What is wrong with a job file.

use super::text::DurationText;
use crate::time::{DAY_MS, HOUR_MS, SECOND_MS};
use std::fmt;

/// One thing that is wrong, where, why, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecError {
    pub kind: SpecErrorKind,
    /// Dotted, such as `gang.gpus_per_node`. A missing value names where it belongs.
    pub path: String,
    pub what: String,
    pub why: String,
    pub hint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SpecErrorKind {
    Missing,
    Value,
    TooBig,
    /// Designed, and not built yet.
    NotThereYet,
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.path, self.what)
    }
}

impl std::error::Error for SpecError {}

/// Gathers errors, so that a user sees all of them at once.
#[derive(Debug, Default)]
pub(super) struct Errors(Vec<SpecError>);

/// More than a screenful helps nobody.
const ERRORS_MAX: usize = 20;

impl Errors {
    pub(super) fn add(&mut self, kind: SpecErrorKind, path: &str, what: impl Into<String>, why: impl Into<String>) {
        if self.0.len() < ERRORS_MAX {
            self.0.push(SpecError { kind, path: path.to_owned(), what: what.into(), why: why.into(), hint: None });
        }
    }

    pub(super) fn value(&mut self, path: &str, what: impl Into<String>, why: impl Into<String>) {
        self.add(SpecErrorKind::Value, path, what, why);
    }

    /// A hint for the error added last.
    pub(super) fn hint(&mut self, hint: impl Into<String>) {
        if let Some(last) = self.0.last_mut() {
            last.hint = Some(hint.into());
        }
    }

    /// Adds an error unless `value` is between both bounds, which are inclusive.
    pub(super) fn check_range(&mut self, path: &str, value: u64, min: u64, max: u64) {
        if !(min..=max).contains(&value) {
            self.value(path, format!("{value} is out of range"), format!("between {min} and {max} is possible"));
        }
    }

    /// Adds an error unless a duration is between both bounds, which are inclusive.
    pub(super) fn check_duration(&mut self, path: &str, given: &DurationText, min_ms: u64, max_ms: u64) {
        if !(min_ms..=max_ms).contains(&given.ms()) {
            let why = format!("between {} and {} is possible", shown(min_ms), shown(max_ms));
            self.value(path, format!("{given} is out of range"), why);
        }
    }

    pub(super) fn into_result<T>(self, value: Option<T>) -> Result<T, Vec<SpecError>> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(self.0),
        }
    }
}

/// A bound in the largest unit that divides it.
fn shown(ms: u64) -> String {
    match ms {
        _ if ms.is_multiple_of(DAY_MS) && ms > 0 => format!("{}d", ms / DAY_MS),
        _ if ms.is_multiple_of(HOUR_MS) && ms > 0 => format!("{}h", ms / HOUR_MS),
        _ => format!("{}s", ms / SECOND_MS),
    }
}
