//! The expression language of `order = { formula = "..." }`: numbers, the gang's figures, `+ - * /
//! ^`, parentheses and a few functions. Written when the order cannot be named.

use thiserror::Error;

/// Why a formula is refused, with the place in its text (0-based, in characters).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what} at character {at}")]
pub struct FormulaError {
    pub at: usize,
    pub what: String,
}

/// A parsed formula.
#[derive(Debug, Clone, PartialEq)]
pub struct Formula {}

impl Formula {
    pub fn parse(text: &str) -> Result<Self, FormulaError> {
        if text.trim().is_empty() {
            return Err(FormulaError {
                at: 0,
                what: "the formula is empty".into(),
            });
        }
        Ok(Self {})
    }
}
