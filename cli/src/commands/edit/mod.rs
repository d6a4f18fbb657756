//! `muster edit`: another revision of a job, by flags, from a file or in an editor.

mod editor;

use crate::client::Client;
use crate::context::{Context, request_id};
use crate::error::CliError;
use crate::jobfile::{self, Loaded};
use crate::output::table::cell;
use crate::output::{Style, json};
use clap::{Args, ValueHint};
use muster_proto::client::{Change, EditJobReply, EditJobRequest, Job, JobRef, ShowJobRequest};
use muster_proto::convert::error::ErrorCode;
use serde_json::Value;
use std::fmt::Write as _;

/// Flags say what shall be, so somebody else's edit in between is no reason to give up at once.
const TRIES: u32 = 3;
/// What `--time-limit` takes to have none.
const NO_LIMIT: &str = "none";

#[derive(Debug, Args)]
pub struct EditArgs {
    /// Job: 4711, a name, or `-`
    pub job: String,
    /// Another name
    #[arg(long)]
    pub name: Option<String>,
    /// Another priority class
    #[arg(long)]
    pub priority: Option<String>,
    /// Another hard stop, such as 4h, or `none`
    #[arg(long, value_name = "DURATION")]
    pub time_limit: Option<String>,
    /// Wait in another queue
    #[arg(long)]
    pub queue: Option<String>,
    /// Charge another account
    #[arg(long)]
    pub account: Option<String>,
    /// Set any value of the job file, such as gang.nodes=8 (may be repeated)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Take this job file in place of the present one
    #[arg(long, value_name = "FILE", conflicts_with_all = ["name", "priority", "time_limit", "queue", "account", "sets"],
          value_hint = ValueHint::FilePath)]
    pub file: Option<String>,
    /// Only tell what would change
    #[arg(long)]
    pub dry_run: bool,
}

impl EditArgs {
    /// What the flags ask for, as `--set` would.
    fn wishes(&self) -> Vec<String> {
        let quoted = |key: &str, value: &String| format!("{key}={}", Value::from(value.as_str()));
        let named = [
            ("name", &self.name),
            ("priority", &self.priority),
            ("queue", &self.queue),
            ("account", &self.account),
            ("limits.time", &self.time_limit),
        ];
        let wishes = named.into_iter().filter_map(|(key, value)| Some(quoted(key, value.as_ref()?)));
        wishes.chain(self.sets.iter().cloned()).collect()
    }
}

pub async fn run(context: &Context, args: EditArgs) -> Result<u8, CliError> {
    let job = context.job(&args.job)?;
    // What is sent names the job alone: an element would be taken for the whole array.
    if job.ordinal.is_some() || job.attempt.is_some() {
        return Err(CliError::new(ErrorCode::Usage, "edit is for whole jobs")
            .hint("leave out the element and the attempt; elements that wait take the edit of their job"));
    }
    let wishes = args.wishes();
    let by_editor = wishes.is_empty() && args.file.is_none();
    if by_editor {
        editor::check_terminal()?;
    }
    let client = context.client()?;
    let reply = match &args.file {
        Some(file) => {
            let loaded = jobfile::load(file, &[])?;
            let shown = show(&client, &job).await?;
            send(&client, &shown, &loaded, args.dry_run).await?
        }
        None if by_editor => {
            let shown = show(&client, &job).await?;
            let Some(edited) = editor::edit(context, &shown)? else {
                context.printer.say("nothing was changed");
                return Ok(0);
            };
            let sent = match edited.load() {
                Ok(loaded) => send(&client, &shown, &loaded, args.dry_run).await,
                Err(error) => Err(error),
            };
            sent.map_err(|error| edited.keep(shown.id, error))?
        }
        None => by_flags(&client, &job, &wishes, args.dry_run).await?,
    };
    let style = context.style();
    context.printer.answer(|| document(&reply, args.dry_run), || render(&reply, args.dry_run, &style))?;
    for note in &reply.notes {
        context.printer.warn(note);
    }
    Ok(0)
}

async fn by_flags(client: &Client, job: &JobRef, wishes: &[String], dry_run: bool) -> Result<EditJobReply, CliError> {
    let mut tries = 0;
    let mut job = job.clone();
    loop {
        tries += 1;
        let shown = show(client, &job).await?;
        // Another look is at the same job, whoever takes its name meanwhile.
        job = JobRef { id: shown.id, ..JobRef::default() };
        let loaded = wished(&shown, wishes)?;
        let error = match send(client, &shown, &loaded, dry_run).await {
            Err(error) if error.code() == ErrorCode::Conflict && tries < TRIES => error,
            sent => return sent,
        };
        // Worth another look only when somebody else was faster.
        if show(client, &job).await?.revision == shown.revision {
            return Err(error);
        }
    }
}

/// The present job file with the wishes in it.
fn wished(shown: &Job, wishes: &[String]) -> Result<Loaded, CliError> {
    let mut file: Value = serde_json::from_str(&shown.file_json).map_err(|error| unreadable(&error.to_string()))?;
    for wish in wishes {
        if *wish == format!("limits.time=\"{NO_LIMIT}\"") {
            file["limits"].as_object_mut().and_then(|limits| limits.remove("time"));
        } else {
            jobfile::apply_set(&mut file, wish)?;
        }
    }
    jobfile::from_value(&format!("job {}", shown.id), file)
}

fn unreadable(why: &str) -> CliError {
    CliError::new(ErrorCode::VersionMismatch, format!("the server's job file cannot be read: {why}"))
        .hint("use the `muster` of the servers' version")
}

async fn show(client: &Client, job: &JobRef) -> Result<Job, CliError> {
    let request = ShowJobRequest { job: Some(job.clone()) };
    client.call(async |mut api| api.show_job(request.clone()).await).await
}

async fn send(client: &Client, shown: &Job, loaded: &Loaded, dry_run: bool) -> Result<EditJobReply, CliError> {
    let request = EditJobRequest {
        request_id: request_id(),
        job: Some(JobRef { id: shown.id, ..JobRef::default() }),
        revision: shown.revision,
        spec_json: loaded.spec_json.clone(),
        plan_only: dry_run,
    };
    let sent = client.call(async |mut api| api.edit_job(request.clone()).await).await;
    sent.map_err(|error| jobfile::place_server_error(error, &loaded.source))
}

pub fn render(reply: &EditJobReply, dry_run: bool, style: &Style) -> String {
    let empty = Job::default();
    let job = reply.job.as_ref().unwrap_or(&empty);
    let name = format!("{} {}", style.bold(&job.id.to_string()), cell(&job.name));
    let mut text = match (dry_run, reply.unchanged) {
        (true, _) if reply.changes.is_empty() => format!("{name}: nothing would change\n"),
        (true, _) => format!("{name}: would change\n"),
        (false, true) => format!("{name} is unchanged, at revision {}\n", job.revision),
        (false, false) => format!("{name} is at revision {}\n", job.revision),
    };
    if dry_run || !reply.unchanged {
        reply.changes.iter().for_each(|change| text.push_str(&changed(change, "  ")));
    }
    text
}

/// `limits.time: 1h → 3h`.
pub fn changed(change: &Change, indent: &str) -> String {
    let shown = |text: &str| if text.is_empty() { "(none)".to_owned() } else { cell(text) };
    let mut text = String::new();
    let _ = match (change.before.as_str(), change.after.as_str()) {
        ("", "changed") => writeln!(text, "{indent}{}: changed", cell(&change.path)),
        (before, after) => writeln!(text, "{indent}{}: {} → {}", cell(&change.path), shown(before), shown(after)),
    };
    text
}

pub fn document(reply: &EditJobReply, dry_run: bool) -> Value {
    let mut document = json::document("muster.edited/1", reply);
    document["dry_run"] = Value::from(dry_run);
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown() -> Job {
        let file = r#"{"name":"train","gang":{"nodes":2,"run":"x"},"limits":{"time":"1h"},"env":{"A":"1"}}"#;
        Job { id: 4711, revision: 2, file_json: file.into(), ..Job::default() }
    }

    fn args(flags: &[&str]) -> EditArgs {
        use clap::Parser;
        #[derive(Debug, Parser)]
        struct Line {
            #[command(flatten)]
            edit: EditArgs,
        }
        Line::parse_from(["edit", "4711"].iter().chain(flags)).edit
    }

    #[test]
    fn flags_change_what_they_name_and_nothing_else() {
        let wishes = args(&["--priority", "high", "--time-limit", "3h", "--set", "gang.nodes=4"]).wishes();
        let loaded = wished(&shown(), &wishes).expect("sound");
        let file: Value = serde_json::from_str(&loaded.spec_json).expect("JSON");
        assert_eq!((&file["priority"], &file["limits"]["time"]), (&"high".into(), &"3h".into()));
        assert_eq!(
            (&file["gang"]["nodes"], &file["gang"]["run"], &file["env"]["A"]),
            (&4.into(), &"x".into(), &"1".into())
        );
    }

    #[test]
    fn none_takes_the_time_limit_away() {
        let loaded = wished(&shown(), &args(&["--time-limit", "none"]).wishes()).expect("sound");
        let file: Value = serde_json::from_str(&loaded.spec_json).expect("JSON");
        assert_eq!(file["limits"].get("time"), None);
    }

    #[test]
    fn a_wrong_value_is_refused_before_anything_is_sent() {
        for (flags, code) in [
            (&["--time-limit", "soon"][..], ErrorCode::SpecValue),
            (&["--name", "4711"], ErrorCode::SpecValue),
            (&["--name", "a b"], ErrorCode::SpecValue),
            (&["--set", "gang.nodez=1"], ErrorCode::SpecUnknownKey),
        ] {
            let error = wished(&shown(), &args(flags).wishes()).expect_err("it is wrong");
            assert_eq!((error.code(), error.exit_code()), (code, 2), "{}", error.text(false));
        }
    }
}
