//! Logging to stderr: stdout belongs to data.

use std::io::IsTerminal;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;

/// The environment variable that overrides the default filter, such as `info,muster_agent=debug`.
pub const FILTER_VARIABLE: &str = "MUSTER_LOG";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for log collectors.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// A filter that is not in the syntax `target=level,...`.
    #[error(
        "the log filter `{filter}` (from {origin}) is not valid: {cause}; write for example `info,muster_agent=debug`"
    )]
    Filter {
        /// The filter as given.
        filter: String,
        /// Where it came from.
        origin: &'static str,
        /// What the parser said.
        cause: String,
    },
    /// An unknown format name.
    #[error("unknown log format `{0}`; use `text` or `json`")]
    Format(String),
    /// Something in this process has set up logging before.
    #[error("logging is already set up in this process: {0}")]
    Already(String),
}

impl FromStr for Format {
    type Err = TelemetryError;

    fn from_str(text: &str) -> Result<Self, TelemetryError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(TelemetryError::Format(other.to_owned())),
        }
    }
}

/// Sets up logging once for this process; `MUSTER_LOG`, when set and not empty, replaces `default_filter`.
///
/// # Errors
/// An invalid filter, or logging that was set up before.
pub fn init(format: Format, default_filter: &str) -> Result<(), TelemetryError> {
    let given = std::env::var(FILTER_VARIABLE).ok().filter(|text| !text.is_empty());
    let (filter, origin) = match &given {
        Some(text) => (text.as_str(), FILTER_VARIABLE),
        None => (default_filter, "the program"),
    };
    let filter = parse_filter(filter, origin)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        Format::Text => {
            let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            builder.with_ansi(colour).try_init()
        }
        Format::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(|error| TelemetryError::Already(error.to_string()))
}

fn parse_filter(filter: &str, origin: &'static str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::builder().parse(filter).map_err(|error| TelemetryError::Filter {
        filter: filter.to_owned(),
        origin,
        cause: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_and_filters_are_checked() {
        assert_eq!("json".parse::<Format>().expect("known"), Format::Json);
        assert!("yaml".parse::<Format>().expect_err("unknown").to_string().contains("`text` or `json`"));
        parse_filter("info,muster_agent=debug", "the test").expect("valid");
        let refused = parse_filter("muster=loudest", "the test").expect_err("no such level");
        assert!(refused.to_string().contains("`muster=loudest` (from the test)"), "{refused}");
    }
}
