//! `muster reservation ls`.

use super::show::holders;
use crate::context::Context;
use crate::error::CliError;
use crate::output::table::{Align, Table, cell};
use crate::output::{Style, human, json};
use clap::Args;
use muster_proto::client::{ListReservationsReply, ListReservationsRequest, Reservation};
use serde_json::Value;

pub const COLUMNS: &str = "\
Columns:
  STATE   ACTIVE: it has begun; UPCOMING: what would run into it does not start on its nodes
  START   when it begins, or began
  LASTS   from its start to its end
  FOR     whose jobs may run there";

#[derive(Debug, Args)]
pub struct LsArgs {}

pub async fn run(context: &Context, _args: LsArgs) -> Result<u8, CliError> {
    let client = context.client()?;
    let reply = client.call(async |mut api| api.list_reservations(ListReservationsRequest {}).await).await?;
    let style = context.style();
    context.printer.answer(|| document(&reply), || render(&reply, &style))?;
    if reply.reservations.is_empty() {
        context.printer.say("no reservations; `muster reservation create` makes one");
    }
    Ok(0)
}

pub fn render(reply: &ListReservationsReply, style: &Style) -> String {
    if reply.reservations.is_empty() {
        return String::new();
    }
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("NAME", Left),
        ("STATE", Left),
        ("START", Left),
        ("LASTS", Right),
        ("NODES", Right),
        ("GPUS", Right),
        ("FOR", Left),
        ("REASON", Left),
    ]);
    for reservation in &reply.reservations {
        table.row(row(reservation, style));
    }
    table.text()
}

fn row(reservation: &Reservation, style: &Style) -> [String; 8] {
    let Reservation { start_at_ms, end_at_ms, .. } = *reservation;
    [
        cell(&reservation.name),
        style.state(&cell(&reservation.state)),
        human::moment_and_distance(start_at_ms, style.now_ms),
        human::duration(end_at_ms.saturating_sub(start_at_ms)),
        reservation.nodes_total.to_string(),
        reservation.gpus.to_string(),
        holders(reservation),
        cell(&reservation.reason),
    ]
}

pub fn document(reply: &ListReservationsReply) -> Value {
    json::document("muster.reservations/1", reply)
}
