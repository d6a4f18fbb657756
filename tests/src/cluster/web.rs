//! Callers over HTTP: `curl` with a person's certificate, as the reference shows it.

use super::people::Person;
use super::wait::PATIENCE;
use serde_json::Value;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

impl Person {
    /// `curl` as this person.
    pub fn curl(&self, address: &str, target: &str) -> Command {
        let file = |name: &str| self.identity_dir.join(name);
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--no-buffer"]).arg("--cacert").arg(file("ca.crt"));
        command.arg("--cert").arg(file("identity.crt")).arg("--key").arg(file("identity.key"));
        command.arg(format!("https://{address}{target}")).kill_on_drop(true);
        command
    }

    /// The status and the document of an answer.
    ///
    /// # Panics
    /// When there is no answer, or it is not JSON.
    pub async fn web(&self, address: &str, target: &str, arguments: &[&str]) -> (u16, Value) {
        let mut command = self.curl(address, target);
        command.args(arguments).args(["--write-out", "%{http_code}"]);
        let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("an answer in time");
        let output = output.expect("curl is installed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let talk = String::from_utf8_lossy(&output.stderr);
        let (document, status) = text.split_at(text.len().saturating_sub(3));
        let status = status.parse().unwrap_or_else(|_| panic!("{target}: {text}{talk}"));
        let document = serde_json::from_str(document).unwrap_or_else(|_| Value::from(document.trim_end()));
        (status, document)
    }

    /// A stream of server-sent events; the server or the connection may die under it.
    pub fn listen(&self, address: &str, target: &str, last_id: Option<&str>) -> Heard {
        let mut command = self.curl(address, target);
        if let Some(id) = last_id {
            command.arg("--header").arg(format!("Last-Event-ID: {id}"));
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("curl is installed");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Heard { lines, _child: child }
    }
}

/// What a stream tells.
pub struct Heard {
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Heard {
    /// The next id and what came with it; `None` when the stream broke off or ended.
    ///
    /// # Panics
    /// When nothing comes in time.
    pub async fn next(&mut self) -> Option<(String, Value)> {
        let mut id = String::new();
        loop {
            let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await.expect("news in time");
            let line = line.ok().flatten()?;
            if let Some(found) = line.strip_prefix("id: ") {
                id = found.to_owned();
            }
            if let Some(data) = line.strip_prefix("data: ") {
                // What was cut in the middle was not told.
                let data = serde_json::from_str(data).ok()?;
                return (!id.is_empty()).then_some((id, data));
            }
        }
    }
}
