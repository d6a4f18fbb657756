//! How answers look. Commands make text or a document from a message with pure functions; only
//! [`Printer`] writes.

pub mod human;
pub mod json;
pub mod table;

use crate::error::{CliError, printable};
use serde_json::Value;
use std::io::{self, IsTerminal, Write};

/// What a rendering may depend on.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    pub color: bool,
    /// Wall clock, for "5 m ago".
    pub now_ms: u64,
}

impl Style {
    /// Wraps a word in a colour of the terminal.
    pub fn paint(&self, sgr: &str, text: &str) -> String {
        if self.color { format!("\x1b[{sgr}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    /// A state in the colour of its meaning; the word itself says the same.
    pub fn state(&self, word: &str) -> String {
        let sgr = match word {
            "RUNNING" | "SUCCEEDED" | "UP" | "FREE" | "leader" => "32",
            "STARTING" | "STOPPING" | "SILENT" | "DRAINING" | "CORDONED" | "DRAINED" | "WAKING" | "FALLING_ASLEEP" => {
                "33"
            }
            "FAILED" | "TIMED_OUT" | "FENCED" | "UNKNOWN" | "QUARANTINED" | "unreachable" => "31",
            _ => return word.to_owned(),
        };
        self.paint(sgr, word)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
}

/// stdout is data, stderr is talk.
#[derive(Debug)]
pub struct Printer {
    pub json: bool,
    pub quiet: bool,
    color_out: bool,
    color_err: bool,
}

impl Printer {
    pub fn new(json: bool, quiet: bool, color: Color, no_color: bool) -> Self {
        let wanted = |terminal: bool| match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && !no_color,
        };
        Self {
            json,
            quiet,
            color_out: wanted(io::stdout().is_terminal()),
            color_err: wanted(io::stderr().is_terminal()),
        }
    }

    pub fn style(&self, now_ms: u64) -> Style {
        Style { color: self.color_out, now_ms }
    }

    /// The answer of a command: one document, or text.
    pub fn answer(&self, document: impl FnOnce() -> Value, text: impl FnOnce() -> String) -> Result<(), CliError> {
        if self.json { self.line(&document().to_string()) } else { self.raw(text().as_bytes()) }
    }

    /// The answers for those of several jobs that have one; nothing when none has, and no document either.
    pub fn answer_some<T>(
        &self,
        answers: &[T],
        document: impl FnOnce(&[T]) -> Value,
        text: impl FnOnce(&[T]) -> String,
    ) -> Result<(), CliError> {
        if answers.is_empty() { Ok(()) } else { self.answer(|| document(answers), || text(answers)) }
    }

    /// One line of data.
    pub fn line(&self, line: &str) -> Result<(), CliError> {
        self.raw(format!("{line}\n").as_bytes())
    }

    pub fn raw(&self, bytes: &[u8]) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        finish(out.write_all(bytes).and_then(|()| out.flush()))
    }

    /// Data of a job's standard error.
    pub fn raw_err(&self, bytes: &[u8]) -> Result<(), CliError> {
        let mut err = io::stderr().lock();
        finish(err.write_all(bytes).and_then(|()| err.flush()))
    }

    /// A remark for people.
    pub fn say(&self, text: &str) {
        if !self.quiet {
            talk(&format!("{}\n", printable(text)));
        }
    }

    pub fn warn(&self, text: &str) {
        let word = if self.color_err { "\x1b[1;33mwarning\x1b[0m" } else { "warning" };
        talk(&format!("{word}: {}\n", printable(text)));
    }

    pub fn fail(&self, error: &CliError) {
        talk(&if self.json { error.json() + "\n" } else { error.text(self.color_err) });
    }
}

/// To stderr. `eprint!` would end the program with 101 where nobody listens any more, whatever came of the command.
pub fn talk(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// A reader that has gone away (`muster ps | head -1`) ends the command quietly, as a signal would.
fn finish(written: io::Result<()>) -> Result<(), CliError> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(141),
        other => Ok(other?),
    }
}
