//! The text of a job file, and where in it a value stands.

use crate::error::Place;
use muster_common::job::file::JobFile;
use serde_json::Value;
use std::ops::Range;
use toml::de::{DeArray, DeTable, DeValue};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Toml,
    Json,
    /// Not from a text: made from a command line.
    None,
}

#[derive(Debug, Clone)]
pub struct Source {
    name: String,
    text: String,
    format: Format,
}

/// A complaint of a parser.
#[derive(Debug, Clone)]
pub struct Fault {
    pub message: String,
    pub span: Option<Range<usize>>,
    /// The text is not TOML or JSON at all.
    pub syntax: bool,
}

impl Fault {
    pub fn without_place(message: String) -> Self {
        Self { message, span: None, syntax: false }
    }
}

impl Source {
    pub fn new(name: &str, text: String) -> Self {
        let json = name.ends_with(".json") || text.trim_start().starts_with('{');
        Self { name: name.to_owned(), text, format: if json { Format::Json } else { Format::Toml } }
    }

    /// For a job that no file describes.
    pub fn none(name: &str) -> Self {
        Self { name: name.to_owned(), text: String::new(), format: Format::None }
    }

    /// Is there a text, or was it made from a command line?
    pub fn is_text(&self) -> bool {
        self.format != Format::None
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The job file in it.
    pub fn whole(&self) -> Result<JobFile, Fault> {
        match self.format {
            Format::Json => serde_json::from_str(&self.text).map_err(|error| self.json_fault(&error)),
            _ => {
                self.table()?;
                toml::from_str(&self.text).map_err(|error| fault(&error, false))
            }
        }
    }

    /// As a tree of values, for overrides.
    pub fn value(&self) -> Result<Value, Fault> {
        match self.format {
            Format::Json => serde_json::from_str(&self.text).map_err(|error| self.json_fault(&error)),
            _ => {
                let table: toml::Table = toml::from_str(&self.text).map_err(|error| fault(&error, true))?;
                serde_json::to_value(table).map_err(|error| Fault::without_place(error.to_string()))
            }
        }
    }

    fn table(&self) -> Result<toml::Spanned<DeTable<'_>>, Fault> {
        DeTable::parse(&self.text).map_err(|error| fault(&error, true))
    }

    fn json_fault(&self, error: &serde_json::Error) -> Fault {
        let syntax = error.is_syntax() || error.is_eof();
        let start: usize = self.text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
        let at = (start + error.column().saturating_sub(1)).min(self.text.len());
        // The place is shown as such; it need not be in the words too.
        let whole = error.to_string();
        let message = whole.rsplit_once(" at line ").map_or(whole.clone(), |(message, _)| message.to_owned());
        Fault { message, span: Some(at..at + 1), syntax }
    }

    /// Where the value at a dotted path stands; where its nearest parent does when it is not there.
    /// `None` when the text does not name it at all.
    pub fn place(&self, path: &str, label: &str) -> Option<Place> {
        if self.format != Format::Toml {
            return None;
        }
        let table = self.table().ok()?;
        let span = span_of(table.get_ref(), path)?;
        Some(self.at(span, label))
    }

    /// A span of the text as lines and columns.
    pub fn at(&self, span: Range<usize>, label: &str) -> Place {
        let floor =
            |at: usize| (0..=at.min(self.text.len())).rev().find(|at| self.text.is_char_boundary(*at)).unwrap_or(0);
        let (start, end) = (floor(span.start), floor(span.end));
        let line_start = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let marked = self.text[start..end.max(start)].lines().next().unwrap_or_default();
        Place {
            file: self.name.clone(),
            line: self.text[..line_start].matches('\n').count() + 1,
            column: self.text[line_start..start].chars().count() + 1,
            width: marked.chars().count().max(1),
            source_line: self.text[line_start..].lines().next().unwrap_or_default().to_owned(),
            label: label.to_owned(),
        }
    }
}

fn fault(error: &toml::de::Error, syntax: bool) -> Fault {
    Fault { message: error.message().trim_end().to_owned(), span: error.span(), syntax }
}

/// `0.nodes`: the item of that number, or its part.
fn span_in(items: &DeArray<'_>, path: &str) -> Option<Range<usize>> {
    let (number, rest) = path.split_once('.').unwrap_or((path, ""));
    let item = items.get(number.parse::<usize>().ok()?)?;
    let inside = match item.get_ref() {
        DeValue::Table(table) => span_of(table, rest),
        _ => None,
    };
    inside.or_else(|| Some(item.span()))
}

fn span_of(table: &DeTable<'_>, path: &str) -> Option<Range<usize>> {
    let (first, rest) = match path.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (path, None),
    };
    let (key, value) = table.iter().find(|(key, _)| key.get_ref().as_ref() == first)?;
    let inside = match (rest, value.get_ref()) {
        (Some(rest), DeValue::Table(table)) => span_of(table, rest),
        (Some(rest), DeValue::Array(items)) => span_in(items, rest),
        (None, DeValue::Table(_) | DeValue::Array(_)) => None,
        _ => Some(value.span()),
    };
    inside.or_else(|| Some(key.span()))
}
