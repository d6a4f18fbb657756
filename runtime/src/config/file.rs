//! One TOML file into one type, and complaints that point at the line.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::durable::{DurableError, read_limited};

/// The largest settings file that is read.
pub const FILE_LIMIT_BYTES: u64 = 1 << 20;

/// Why settings could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no such file.
    #[error("settings file {} does not exist; check the path", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file is there but cannot be read.
    #[error("cannot read settings file {}: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The file is far larger than settings are.
    #[error("settings file {} is larger than {limit_bytes} bytes; is it the right file?", path.display())]
    TooBig {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit_bytes: u64,
    },
    /// The file is not TOML, or not what the program expects.
    #[error("{0}")]
    Mistake(Box<Mistake>),
    /// A setting that does not exist was named outside a file.
    #[error("unknown setting `{key}`{}", hint.as_ref().map(|h| format!("; did you mean `{h}`?")).unwrap_or_default())]
    UnknownKey {
        /// The name given.
        key: String,
        /// The nearest name that exists.
        hint: Option<String>,
    },
}

/// What is wrong in a file, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The file as the user named it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Characters to underline, at least 1.
    pub width: usize,
    /// The whole line.
    pub source_line: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        writeln!(f, "{}", self.message)?;
        writeln!(f, "{margin}--> {}:{}:{}", self.file, self.line, self.column)?;
        writeln!(f, "{margin} |")?;
        writeln!(f, "{number} | {}", self.source_line)?;
        write!(f, "{margin} | {}{}", " ".repeat(self.column - 1), "^".repeat(self.width))?;
        match &self.hint {
            Some(hint) => write!(f, "\nhelp: {hint}"),
            None => Ok(()),
        }
    }
}

/// Reads a TOML file into a type. Give the type `#[serde(deny_unknown_fields)]`, so that a misspelt key is an error with a hint.
///
/// # Errors
/// A file that is missing, unreadable or too big, or a [`Mistake`] with its line.
pub fn load_file<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    parse(&path.display().to_string(), &read_text(path)?)
}

/// Like [`load_file`] for text that is there already; `file` is how it is called in errors.
///
/// # Errors
/// A [`Mistake`] with its line.
pub fn parse<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| mistake(file, text, error.message(), error.span()))
}

/// The known word nearest to `word`, if one is near enough to be meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let bound = (word.chars().count() / 3).max(1);
    let near = known.into_iter().map(|candidate| (strsim::osa_distance(word, candidate), candidate));
    near.filter(|(distance, _)| *distance <= bound).min().map(|(_, candidate)| candidate)
}

pub(super) fn read_text(path: &Path) -> Result<String, ConfigError> {
    let bytes = read_limited(path, FILE_LIMIT_BYTES).map_err(|error| match error {
        DurableError::Missing { path } => ConfigError::Missing { path },
        DurableError::TooBig { path, limit_bytes } => ConfigError::TooBig { path, limit_bytes },
        DurableError::Denied { path, .. } => {
            ConfigError::Unreadable { path, cause: io::ErrorKind::PermissionDenied.into() }
        }
        DurableError::Io { path, cause, .. } => ConfigError::Unreadable { path, cause },
        other => ConfigError::Unreadable { path: path.to_owned(), cause: io::Error::other(other.to_string()) },
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let cause = io::Error::new(io::ErrorKind::InvalidData, format!("it is not UTF-8 text: {error}"));
        ConfigError::Unreadable { path: path.to_owned(), cause }
    })
}

pub(super) fn mistake(file: &str, text: &str, message: &str, span: Option<Range<usize>>) -> ConfigError {
    let span = span.unwrap_or(0..0);
    let start = floor_to_char(text, span.start);
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let source_line = text[line_start..].lines().next().unwrap_or_default();
    let column = text[line_start..start].chars().count() + 1;
    let spanned = text[start..floor_to_char(text, span.end).max(start)].lines().next().unwrap_or_default();
    ConfigError::Mistake(Box::new(Mistake {
        file: file.to_owned(),
        line: text[..line_start].matches('\n').count() + 1,
        column,
        width: spanned.chars().count().max(1),
        source_line: source_line.to_owned(),
        hint: hint(message),
        message: message.trim_end().to_owned(),
    }))
}

fn floor_to_char(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Serde says "unknown field `x`, expected one of `a`, `b`": the first quoted word is the wrong one, the rest are right.
fn hint(message: &str) -> Option<String> {
    if !message.starts_with("unknown ") {
        return None;
    }
    let mut quoted = message.split('`').skip(1).step_by(2);
    let wrong = quoted.next()?;
    let meant = nearest(wrong, quoted)?;
    Some(format!("did you mean `{meant}`?"))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[expect(dead_code, reason = "only its presence matters")]
        link: Inner,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[expect(dead_code, reason = "only its presence matters")]
        lease_ms: u64,
        #[expect(dead_code, reason = "only its presence matters")]
        retry_ms: Option<u64>,
    }

    fn refused(text: &str) -> Mistake {
        match parse::<Outer>("agent.toml", text).expect_err("must be refused") {
            ConfigError::Mistake(mistake) => *mistake,
            other => panic!("not a mistake in the text: {other}"),
        }
    }

    #[test]
    fn an_unknown_key_names_its_line_and_the_key_that_was_meant() {
        let seen = refused("# settings\n[link]\nlease_ms = 5\nretry_sm = 9\n");
        assert_eq!((seen.line, seen.column, seen.width), (4, 1, 8));
        assert_eq!(seen.hint.as_deref(), Some("did you mean `retry_ms`?"));
        let shown = seen.to_string();
        assert!(shown.contains("--> agent.toml:4:1"), "{shown}");
        assert!(shown.ends_with("4 | retry_sm = 9\n  | ^^^^^^^^\nhelp: did you mean `retry_ms`?"), "{shown}");
    }

    #[test]
    fn a_far_key_gets_no_hint_and_a_wrong_type_points_at_its_value() {
        assert_eq!(refused("[link]\nlease_ms = 5\ncolour = 1\n").hint, None);
        let seen = refused("[link]\nlease_ms = \"five\"\n");
        assert_eq!((seen.line, seen.column, seen.width), (2, 12, 6));
        assert_eq!(refused("[link\n").line, 1);
        assert!(refused("").message.contains("link"));
    }

    #[test]
    fn multibyte_text_before_the_mistake_does_not_move_it() {
        let seen = refused("[link]\nlease_ms = 5 # größe\n\"größe\" = 1\n");
        assert_eq!((seen.line, seen.column, seen.width), (3, 1, 7));
    }

    #[test]
    fn files_that_cannot_be_read_say_why() {
        let folder = tempfile::tempdir().expect("a temp folder");
        let path = folder.path().join("agent.toml");
        assert!(matches!(load_file::<Outer>(&path), Err(ConfigError::Missing { .. })));
        std::fs::write(&path, [0xff, 0xfe]).expect("written");
        let error = load_file::<Outer>(&path).expect_err("not text").to_string();
        assert!(error.contains("not UTF-8"), "{error}");
        std::fs::write(&path, vec![b'#'; FILE_LIMIT_BYTES as usize + 1]).expect("written");
        assert!(matches!(load_file::<Outer>(&path), Err(ConfigError::TooBig { .. })));
        std::fs::write(&path, "[link]\nlease_ms = 5\n").expect("written");
        load_file::<Outer>(&path).expect("good");
    }
}
