//! `muster reservation create`.

use super::nodes::expanded;
use super::show::{crossing_lines, summary};
use crate::context::{Context, request_id};
use crate::error::CliError;
use crate::output::table::cell;
use crate::output::{Style, json};
use clap::{ArgGroup, Args};
use muster_common::job::file::{parse_duration_ms, parse_moment_ms};
use muster_proto::client::{MakeReservationReply, MakeReservationRequest, Reservation};
use muster_proto::convert::error::ErrorCode;
use serde_json::{Value, json as value};

pub const EXAMPLES: &str = "\
Examples:
  muster reservation create firmware --start 2026-12-01T06:00:00Z --duration 4h --domain pod-1 --reason firmware
  muster reservation create nips --account nlp --start +2h --duration 3d --count 8 --model H100 --within leaf
  muster reservation create demo --job 4711 --start now --duration 2h --nodes n[001-004]
Nobody is stopped for a reservation. Whose time limit reaches beyond its start is listed.";

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("which").required(true).args(["nodes", "domain", "all_nodes", "count"])))]
#[command(group(ArgGroup::new("until").required(true).args(["end", "duration"])))]
pub struct CreateArgs {
    /// What it is called
    pub name: String,
    /// `now`, from now on such as +2h, or a moment such as 2026-12-01T06:00:00Z
    #[arg(long, default_value = "now", value_name = "MOMENT", allow_hyphen_values = true)]
    pub start: String,
    /// A moment, as for --start
    #[arg(long, value_name = "MOMENT")]
    pub end: Option<String>,
    /// How long it lasts, such as 4h
    #[arg(long, value_name = "DURATION")]
    pub duration: Option<String>,
    /// These nodes, such as n001,n[003-016]
    #[arg(long, value_name = "NODES")]
    pub nodes: Option<String>,
    /// All nodes of a domain of the fabric, such as leaf-3, or pod-1/leaf-3 where that is not the only one
    #[arg(long, value_name = "PATH")]
    pub domain: Option<String>,
    /// Every node there is
    #[arg(long)]
    pub all_nodes: bool,
    /// So many open nodes, chosen now, where the fewest jobs would run into it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub count: Option<u32>,
    /// With --count: only nodes with this GPU model
    #[arg(long, requires = "count")]
    pub model: Option<String>,
    /// With --count: all in one domain of this level
    #[arg(long, value_name = "LEVEL", requires = "count")]
    pub within: Option<String>,
    /// Jobs of this account, and of those below it, may run there; without it and --job, nobody's
    #[arg(long, conflicts_with = "job")]
    pub account: Option<String>,
    /// This job may run there; may be given several times
    #[arg(long, value_name = "JOB")]
    pub job: Vec<u64>,
    /// Why; kept with it
    #[arg(long, default_value = "")]
    pub reason: String,
    /// Only tell which nodes it would be, and who would run on into it
    #[arg(long)]
    pub dry_run: bool,
}

pub async fn run(context: &Context, args: CreateArgs) -> Result<u8, CliError> {
    let dry_run = args.dry_run;
    let request = request(args, context.now_ms())?;
    let client = context.client()?;
    let reply = client.call(async |mut api| api.make_reservation(request.clone()).await).await?;
    let style = context.style();
    context.printer.answer(|| document(&reply, dry_run), || render(&reply, dry_run, &style))?;
    Ok(0)
}

/// What is sent. A distance from now is counted here, so that a repeated call means the same moment.
pub fn request(args: CreateArgs, now_ms: u64) -> Result<MakeReservationRequest, CliError> {
    // Clap asks for no `--count` where another way to say the nodes excludes it.
    if args.count.is_none() && (args.model.is_some() || args.within.is_some()) {
        let error = CliError::new(ErrorCode::Usage, "--model and --within are for so many nodes of a kind");
        return Err(error.hint("give --count, or leave them out"));
    }
    let start_at_ms = moment("--start", &args.start, now_ms)?;
    let end_at_ms = args.end.as_deref().map(|end| moment("--end", end, now_ms)).transpose()?;
    let end_at_ms = end_at_ms.map(|end| end.unwrap_or(now_ms));
    let duration_ms = args.duration.as_deref().map(|text| length("--duration", text)).transpose()?;
    let (end_at_ms, duration_ms) = match (start_at_ms, duration_ms) {
        (None, Some(ms)) => (Some(now_ms.saturating_add(ms)), None),
        _ => (end_at_ms, duration_ms),
    };
    Ok(MakeReservationRequest {
        request_id: request_id(),
        name: args.name,
        start_at_ms,
        end_at_ms,
        duration_ms,
        nodes: args.nodes.as_deref().map(expanded).transpose()?.unwrap_or_default(),
        domain: args.domain.unwrap_or_default(),
        all_nodes: args.all_nodes,
        count: args.count.unwrap_or(0),
        model: args.model.unwrap_or_default(),
        within: args.within.unwrap_or_default(),
        account: args.account.unwrap_or_default(),
        jobs: args.job,
        reason: args.reason,
        plan_only: args.dry_run,
    })
}

/// `None` = now, as the cluster counts it.
fn moment(flag: &str, text: &str, now_ms: u64) -> Result<Option<u64>, CliError> {
    if text == "now" {
        return Ok(None);
    }
    if let Some(later) = text.strip_prefix('+') {
        return Ok(Some(now_ms.saturating_add(length(flag, later)?)));
    }
    let parsed = parse_moment_ms(text).map_err(|error| CliError::new(ErrorCode::Usage, format!("{flag}: {error}")));
    parsed.map(Some).map_err(|error| error.hint("`now`, `+2h`, or a moment with its offset from UTC"))
}

fn length(flag: &str, text: &str) -> Result<u64, CliError> {
    parse_duration_ms(text).map_err(|error| CliError::new(ErrorCode::Usage, format!("{flag}: {error}")))
}

pub fn render(reply: &MakeReservationReply, dry_run: bool, style: &Style) -> String {
    let empty = Reservation::default();
    let reservation = reply.reservation.as_ref().unwrap_or(&empty);
    let done = match (dry_run, reply.changed) {
        (true, true) => "would be made",
        (false, true) => "is made",
        (_, false) => "is there already, and just so",
    };
    let name = style.bold(&cell(&reservation.name));
    let mut text = format!("reservation {name} {done}: {}\n", summary(reservation, style));
    text.push_str(&crossing_lines(reservation, style));
    text
}

pub fn document(reply: &MakeReservationReply, dry_run: bool) -> Value {
    let mut document = json::document("muster.reservation_change/1", reply);
    document["dry_run"] = value!(dry_run);
    document
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use crate::commands::reservation::ReservationCommand;
    use clap::Parser;

    fn asked(line: &str) -> Result<MakeReservationRequest, String> {
        let words = ["muster", "reservation", "create"].into_iter().chain(line.split(' '));
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        let Command::Reservation(ReservationCommand::Create(args)) = cli.command else { panic!("{line}") };
        request(*args, 1_000_000).map_err(|error| error.text(false))
    }

    #[test]
    fn moments_are_now_from_now_on_or_absolute() {
        let at = |start: &str| asked(&format!("w --start {start} --duration 1h --all-nodes")).map(|r| r.start_at_ms);
        assert_eq!(at("now"), Ok(None));
        assert_eq!(at("+1m"), Ok(Some(1_060_000)));
        assert_eq!(at("1970-01-02T00:00:00Z"), Ok(Some(86_400_000)));
        assert!(at("tomorrow").unwrap_err().contains("--start"));
        // Sent twice, it ends at the same moment.
        let lasting = asked("w --duration 1h --all-nodes").unwrap();
        assert_eq!((lasting.end_at_ms, lasting.duration_ms), (Some(4_600_000), None));
        let later = asked("w --start +1m --duration 1h --all-nodes").unwrap();
        assert_eq!((later.end_at_ms, later.duration_ms), (None, Some(3_600_000)));
        let end = asked("w --end +1h --nodes n[1-2]").unwrap();
        assert_eq!(
            (end.end_at_ms, end.duration_ms, end.nodes),
            (Some(4_600_000), None, vec!["n1".into(), "n2".into()])
        );
    }

    #[test]
    fn nodes_and_an_end_are_said_in_one_way() {
        for wrong in [
            "w --duration 1h",
            "w --all-nodes",
            "w --duration 1h --end +2h --all-nodes",
            "w --duration 1h --all-nodes --count 2",
            "w --duration 1h --all-nodes --model H100",
            "w --duration 1h --all-nodes --account a --job 7",
        ] {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
    }
}
