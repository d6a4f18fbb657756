//! Names that people choose: short, printable, safe in a path, a log line and a terminal.

use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use thiserror::Error;

/// A name of at most 63 characters from `A-Z a-z 0-9 . _ -`, not starting with `.` or `-`.
///
/// The character set rules out control characters, spaces and separators, so a name can stand in
/// a file path, a URI, a metric label and a terminal without escaping.
///
/// A clone is cheap: names are keys of tables that are copied with every view of the cluster's state.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Name(Arc<str>);

/// Why a text is not a [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    #[error("a name must not be empty")]
    Empty,
    #[error("the name is {length} characters long; at most 63 are allowed")]
    TooLong { length: usize },
    #[error("the name contains {character:?} at position {position}; use letters, digits, `.`, `_` and `-`")]
    Character { character: char, position: usize },
    #[error("a name must not start with `{0}`")]
    Start(char),
}

impl Name {
    pub const LENGTH_MAX: usize = 63;

    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        let Some(first) = text.chars().next() else {
            return Err(NameError::Empty);
        };
        for (position, character) in text.chars().enumerate() {
            if !(character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-')) {
                return Err(NameError::Character { character, position });
            }
        }
        if text.len() > Self::LENGTH_MAX {
            return Err(NameError::TooLong { length: text.len() });
        }
        if matches!(first, '.' | '-') {
            return Err(NameError::Start(first));
        }
        Ok(Self(text.into()))
    }

    /// For names written in the source. Panics on a text that is not a name.
    pub fn literal(text: &'static str) -> Self {
        Self::new(text).expect("a name written in the source is valid")
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Name {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_separators_are_refused() {
        for text in ["", "a\x1b[31m", "a b", "../x", "-x", "a/b", "é"] {
            assert!(Name::new(text).is_err(), "{text:?} was accepted");
        }
        assert!(Name::new("a".repeat(64)).is_err());
        assert!(Name::new("llama-sft_7.b").is_ok());
    }
}
