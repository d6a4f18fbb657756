//! Failures as people see them: what, where, why, and the next command; and as programs see them.

use muster_common::text::is_steering;
use muster_proto::convert::error::{ErrorCode, ErrorInfo};
use muster_runtime::config::{ConfigError, Mistake};
use muster_runtime::durable::DurableError;
use muster_runtime::identity::IdentityError;
use serde_json::json;
use std::fmt::Write as _;

/// One or more things that ended a command.
#[derive(Debug)]
pub struct CliError(Vec<Report>);

#[derive(Debug)]
pub struct Report {
    pub info: ErrorInfo,
    pub place: Option<Place>,
}

/// A span in a file of the user's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub file: String,
    /// From 1, in characters.
    pub line: usize,
    pub column: usize,
    pub width: usize,
    pub source_line: String,
    /// Written beside the carets.
    pub label: String,
}

/// Characters of a line that are shown; a longer one is cut around the place.
const LINE_SHOWN: usize = 160;
/// Characters before the place that are kept of a longer line.
const BEFORE_SHOWN: usize = 60;

impl Place {
    /// The line as it is shown, with the column and the width of the place in it.
    fn shown(&self) -> (String, usize, usize) {
        let length = self.source_line.chars().count();
        if length <= LINE_SHOWN {
            return (self.source_line.clone(), self.column, self.width.max(1));
        }
        let from = (self.column - 1).saturating_sub(BEFORE_SHOWN);
        let part: String = self.source_line.chars().skip(from).take(LINE_SHOWN).collect();
        let (before, after) = (if from > 0 { "…" } else { "" }, if from + LINE_SHOWN < length { "…" } else { "" });
        let column = self.column - from;
        let width = self.width.clamp(1, (LINE_SHOWN + 1).saturating_sub(column).max(1));
        (format!("{before}{part}{after}"), column + before.chars().count(), width)
    }
}

impl CliError {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::from(ErrorInfo::new(code, message))
    }

    /// The next step, for the last of its reports.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Some(report) = self.0.last_mut() {
            report.info.hint = Some(hint.into());
        }
        self
    }

    /// `None` when there is nothing to report.
    pub fn gather(reports: Vec<Report>) -> Option<Self> {
        (!reports.is_empty()).then_some(Self(reports))
    }

    pub fn info(&self) -> &ErrorInfo {
        &self.0[0].info
    }

    pub fn into_reports(self) -> Vec<Report> {
        self.0
    }

    pub fn reports_mut(&mut self) -> &mut [Report] {
        &mut self.0
    }

    pub fn code(&self) -> ErrorCode {
        self.info().code
    }

    pub fn exit_code(&self) -> u8 {
        self.info().exit_code
    }

    /// For a terminal or a log, ending with a line break.
    pub fn text(&self, color: bool) -> String {
        let mut text = String::new();
        for report in &self.0 {
            report.write(&mut text, color);
        }
        text
    }

    /// One line for programs.
    pub fn json(&self) -> String {
        let of = |report: &Report| {
            let mut error = muster_proto::document::error(&report.info);
            if let Some(place) = &report.place {
                error["file"] = json!(place.file);
                error["line"] = json!(place.line);
                error["column"] = json!(place.column);
            }
            error
        };
        let mut document = json!({"schema": "muster.error/1", "error": of(&self.0[0]), "exit_code": self.exit_code()});
        if self.0.len() > 1 {
            document["others"] = self.0[1..].iter().map(of).collect();
        }
        document.to_string()
    }
}

impl Report {
    fn write(&self, text: &mut String, color: bool) {
        let (red, blue, bold, off) =
            if color { ("\x1b[1;31m", "\x1b[1;34m", "\x1b[1m", "\x1b[0m") } else { ("", "", "", "") };
        let info = &self.info;
        let _ = writeln!(text, "{red}error[{}]{off}{bold}: {}{off}", info.code, printable(&info.message));
        if let Some(place) = &self.place {
            let number = place.line.to_string();
            let margin = " ".repeat(number.len());
            let _ = writeln!(text, "{blue}{margin}-->{off} {}:{}:{}", place.file, place.line, place.column);
            let _ = writeln!(text, "{blue}{margin} |{off}");
            let (line, column, width) = place.shown();
            let _ = writeln!(text, "{blue}{number} |{off} {}", printable(&line));
            let (indent, carets) = (" ".repeat(column - 1), "^".repeat(width));
            let marked = format!("{indent}{red}{carets} {}", printable(&place.label));
            let _ = writeln!(text, "{blue}{margin} |{off} {}{off}", marked.trim_end());
        }
        if let Some(hint) = &info.hint {
            let _ = writeln!(text, "{blue}help{off}: {}", printable(hint).replace('\n', "\n      "));
        }
    }
}

/// Text of others without what could steer a terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if is_steering(c) && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

impl From<ErrorInfo> for CliError {
    fn from(info: ErrorInfo) -> Self {
        Self(vec![Report { info, place: None }])
    }
}

impl From<DurableError> for CliError {
    fn from(error: DurableError) -> Self {
        let code = match &error {
            DurableError::Missing { .. } => ErrorCode::FileNotFound,
            DurableError::Denied { .. } => ErrorCode::FileDenied,
            DurableError::TooBig { .. } => ErrorCode::SpecTooBig,
            _ => ErrorCode::FileUnusable,
        };
        Self::new(code, error.to_string())
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::Mistake(mistake) => mistaken(ErrorCode::ConfigInvalid, *mistake),
            ConfigError::Missing { .. } => Self::new(ErrorCode::ConfigMissing, error.to_string()),
            ConfigError::Unreadable { ref cause, .. } if cause.kind() == std::io::ErrorKind::PermissionDenied => {
                Self::new(ErrorCode::FileDenied, error.to_string())
            }
            other => Self::new(ErrorCode::ConfigInvalid, other.to_string()),
        }
    }
}

fn mistaken(code: ErrorCode, mistake: Mistake) -> CliError {
    let mut info = ErrorInfo::new(code, mistake.message);
    info.hint = mistake.hint;
    let place = Place {
        file: mistake.file,
        line: mistake.line,
        column: mistake.column,
        width: mistake.width,
        source_line: mistake.source_line,
        label: String::new(),
    };
    CliError(vec![Report { info, place: Some(place) }])
}

impl From<IdentityError> for CliError {
    fn from(error: IdentityError) -> Self {
        let code = match &error {
            IdentityError::Expired { .. } => ErrorCode::CertificateExpired,
            IdentityError::BadAddress(_) | IdentityError::BadWord { .. } | IdentityError::BadUri(_) => ErrorCode::Usage,
            IdentityError::File { cause: DurableError::Denied { .. }, .. } => ErrorCode::FileDenied,
            IdentityError::Crypto { .. } => ErrorCode::Internal,
            _ => ErrorCode::NotLoggedIn,
        };
        Self::new(code, error.to_string())
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorCode::FileNotFound,
            std::io::ErrorKind::PermissionDenied => ErrorCode::FileDenied,
            _ => ErrorCode::FileUnusable,
        };
        Self::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> CliError {
        let place = Place {
            file: "train.toml".into(),
            line: 12,
            column: 17,
            width: 2,
            source_line: "gpus_per_node = 64".into(),
            label: "8 is the most any node has".into(),
        };
        let info = ErrorInfo::new(ErrorCode::NeverFits, "job can never start: asks for 64 GPUs per node")
            .hint("write `nodes = 8`\nmuster submit train.toml --set gang.nodes=8");
        CliError(vec![Report { info, place: Some(place) }])
    }

    #[test]
    fn an_error_shows_what_where_why_and_what_next() {
        insta::assert_snapshot!(report().text(false));
    }

    #[test]
    fn a_line_of_any_length_is_shown_around_the_place() {
        let mut error = report();
        let place = error.0[0].place.as_mut().expect("it has a place");
        place.source_line = "a".repeat(5000) + &"b".repeat(900) + &"c".repeat(5000);
        (place.column, place.width) = (5001, 900);
        let text = error.text(false);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.iter().all(|line| line.chars().count() < 220), "{text}");
        let (shown, marks) = (lines[3], lines[4]);
        assert_eq!(shown.find('b').map(|at| shown[..at].chars().count()), marks.find('^'), "{text}");
        assert_eq!(shown.matches('b').count(), marks.matches('^').count(), "{text}");
    }

    #[test]
    fn an_error_is_one_line_of_json() {
        insta::assert_snapshot!(report().json());
    }

    #[test]
    fn words_of_others_cannot_steer_a_terminal() {
        let text = CliError::new(ErrorCode::Internal, "a\x1b[2Jb").text(false);
        assert!(!text.contains('\x1b'), "{text:?}");
    }
}
