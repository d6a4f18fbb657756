//! What was declared as a whole, and which documents were in force after each declaration.

use crate::command::Principal;
use muster_common::Time;
use serde::{Deserialize, Serialize};

/// Declarations that are listed and can be gone back to.
pub const PAST_MAX: usize = 32;
/// Longest name of where a declaration comes from.
pub const SOURCE_BYTES_MAX: usize = 256;

/// One declaration, or the return to one. The documents are kept where their own versions are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// Of all of the configuration, after it.
    pub version: u32,
    pub at: Time,
    pub by: Principal,
    /// The folder or file, as whoever declared it named it.
    pub source: String,
    /// Version of the organisation in force after it; 0 = none yet.
    pub organisation: u32,
    /// Configuration version at which the policy in force after it was set; 0 = never.
    pub policy: u32,
}

/// The newest last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declarations(Vec<Declared>);

impl Declarations {
    pub fn past(&self) -> &[Declared] {
        &self.0
    }

    pub(crate) fn record(&mut self, declared: Declared) {
        if self.0.len() == PAST_MAX {
            self.0.remove(0);
        }
        self.0.push(declared);
    }

    /// The first broken invariant.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.0.len() > PAST_MAX || !self.0.is_sorted_by(|a, b| a.version < b.version) {
            return Err("declarations are not in order".into());
        }
        Ok(())
    }
}
