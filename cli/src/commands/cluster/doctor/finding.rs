//! What was found, in a form for people and for programs.

use crate::output::Style;
use crate::output::table::cell;
use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    Warning,
    Bad,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check.
    pub check: &'static str,
    pub level: Level,
    /// A server, a node, `cluster` or `here`.
    #[serde(rename = "where")]
    pub place: String,
    pub what: String,
    /// What it leads to; empty when all is well.
    pub why: String,
    /// What to do next; empty when all is well.
    pub next: String,
}

impl Finding {
    pub fn ok(check: &'static str, place: impl Into<String>, what: impl Into<String>) -> Self {
        let (place, what) = (place.into(), what.into());
        Self { check, level: Level::Ok, place, what, why: String::new(), next: String::new() }
    }

    pub fn warning(check: &'static str, place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { level: Level::Warning, ..Self::ok(check, place, what) }
    }

    pub fn bad(check: &'static str, place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { level: Level::Bad, ..Self::ok(check, place, what) }
    }

    pub fn because(self, why: &str, next: impl Into<String>) -> Self {
        Self { why: why.to_owned(), next: next.into(), ..self }
    }

    pub fn text(&self, style: &Style) -> String {
        let (word, sgr) = match self.level {
            Level::Ok => ("ok   ", "32"),
            Level::Warning => ("look ", "33"),
            Level::Bad => ("WRONG", "31"),
        };
        let mut text =
            format!("{}  {:<11}  {}: {}\n", style.paint(sgr, word), self.check, cell(&self.place), cell(&self.what));
        if self.level > Level::Ok {
            text.push_str(&format!("         why   {}\n         next  {}\n", cell(&self.why), cell(&self.next)));
        }
        text
    }
}
