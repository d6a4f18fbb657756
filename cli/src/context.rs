//! What every command is given: settings, the printer, the terminal.

use crate::client::Client;
use crate::error::CliError;
use crate::output::{Printer, Style, talk};
use crate::refs::{self, LastJob};
use crate::settings::{self, Flags};
use muster_proto::client::JobRef;
use muster_proto::convert::error::ErrorCode;
use muster_runtime::clock::{Clock, SystemClock};
use std::io::IsTerminal;
use uuid::Uuid;

#[derive(Debug)]
pub struct Context {
    pub printer: Printer,
    pub flags: Flags,
    pub env: Vec<(String, String)>,
    pub yes: bool,
    pub verbose: u8,
}

impl Context {
    pub fn client(&self) -> Result<Client, CliError> {
        Client::open(&settings::load(&self.flags, &self.env)?)
    }

    pub fn variable(&self, name: &str) -> Option<String> {
        self.env.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    }

    pub fn now_ms(&self) -> u64 {
        SystemClock.wall_ms()
    }

    pub fn style(&self) -> Style {
        self.printer.style(self.now_ms())
    }

    pub fn last_job(&self) -> LastJob {
        LastJob::of_this_shell(|name| self.variable(name))
    }

    pub fn job(&self, text: &str) -> Result<JobRef, CliError> {
        refs::parse(text, || self.last_job().get())
    }

    /// Asks before something dangerous. Without a terminal there is no question: `--yes` is wanted.
    pub fn confirm(&self, what: &str) -> Result<(), CliError> {
        if self.yes {
            return Ok(());
        }
        if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            return Err(CliError::new(ErrorCode::Usage, format!("{what}: not done without being asked"))
                .hint("add --yes to do it without a question"));
        }
        talk(&format!("{what}. Continue? [y/N] "));
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        match answer.trim() {
            "y" | "Y" | "yes" => Ok(()),
            _ => Err(CliError::new(ErrorCode::Interrupted, "nothing was done")),
        }
    }
}

/// For a call that changes something: the same call repeated carries the same id.
pub fn request_id() -> String {
    Uuid::now_v7().to_string()
}
