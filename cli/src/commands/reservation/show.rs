//! `muster reservation show`.

use crate::context::Context;
use crate::error::CliError;
use crate::output::table::cell;
use crate::output::{Style, human, json};
use clap::Args;
use muster_proto::client::{Reservation, ShowReservationRequest};
use serde_json::Value;
use std::fmt::Write as _;

/// Jobs that one line names.
const NAMED_MAX: usize = 5;

#[derive(Debug, Args)]
pub struct ShowArgs {
    pub name: String,
}

pub async fn run(context: &Context, args: ShowArgs) -> Result<u8, CliError> {
    let request = ShowReservationRequest { name: args.name };
    let client = context.client()?;
    let reply = client.call(async |mut api| api.show_reservation(request.clone()).await).await?;
    let style = context.style();
    context.printer.answer(|| document(&reply), || render(&reply, &style))?;
    Ok(0)
}

/// For whom its nodes are kept, in one word or two.
pub fn holders(reservation: &Reservation) -> String {
    match reservation.holders.as_str() {
        "account" => format!("account {}", cell(&reservation.account)),
        "jobs" => {
            let jobs: Vec<String> = reservation.jobs.iter().take(NAMED_MAX).map(ToString::to_string).collect();
            let more = match reservation.jobs.len() - jobs.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            format!("{} {}{more}", if jobs.len() == 1 { "job" } else { "jobs" }, jobs.join(", "))
        }
        _ => "nobody".to_owned(),
    }
}

/// Nodes, time and holders, on one line.
pub fn summary(reservation: &Reservation, style: &Style) -> String {
    let Reservation { start_at_ms, end_at_ms, .. } = *reservation;
    let begins = if start_at_ms <= style.now_ms { "since" } else { "from" };
    format!(
        "{} with {}, {begins} {} for {}, for {}",
        human::count(reservation.nodes_total.into(), "node"),
        human::count(reservation.gpus.into(), "GPU"),
        human::moment_and_distance(start_at_ms, style.now_ms),
        human::duration(end_at_ms.saturating_sub(start_at_ms)),
        holders(reservation),
    )
}

/// Who may hold its nodes beyond its start.
pub fn crossing_lines(reservation: &Reservation, style: &Style) -> String {
    let mut text = String::new();
    for known in &reservation.crossing {
        let (gang, name, user) = (cell(&known.gang), cell(&known.name), cell(&known.user));
        let _ = write!(
            text,
            "  {gang} {name} ({}, {user}) {}",
            human::count(known.nodes.into(), "node"),
            cell(&known.text)
        );
        if let Some(end) = known.expected_end_at_ms {
            let _ = write!(text, ", until {} at the latest", human::moment_and_distance(end, style.now_ms));
        }
        text.push('\n');
    }
    let more = (reservation.crossing_total as usize).saturating_sub(reservation.crossing.len());
    if more > 0 {
        let _ = writeln!(text, "  and {more} more");
    }
    if !text.is_empty() {
        text.push_str("  nobody is stopped for it; `muster node drain` or `muster cancel` does that\n");
    }
    text
}

pub fn render(reservation: &Reservation, style: &Style) -> String {
    let mut text = format!("{} {}\n", style.bold(&cell(&reservation.name)), style.state(&cell(&reservation.state)));
    let mut line = |what: &str, value: String| {
        let _ = writeln!(text, "  {what:<9}{value}");
    };
    line("start", human::moment_and_distance(reservation.start_at_ms, style.now_ms));
    line("end", human::moment_and_distance(reservation.end_at_ms, style.now_ms));
    line("for", holders(reservation));
    let more = if reservation.nodes_total as usize > reservation.nodes.len() { ", ..." } else { "" };
    let nodes = human::count(reservation.nodes_total.into(), "node");
    let gpus = human::count(reservation.gpus.into(), "GPU");
    line("nodes", format!("{}{more} ({nodes}, {gpus})", cell(&human::node_set(&reservation.nodes))));
    let made = human::moment_and_distance(reservation.made_at_ms, style.now_ms);
    line("made", format!("by {} at {made}", cell(&reservation.by)));
    if !reservation.reason.is_empty() {
        line("reason", cell(&reservation.reason));
    }
    text + &crossing_lines(reservation, style)
}

pub fn document(reservation: &Reservation) -> Value {
    json::document("muster.reservation/1", reservation)
}
