//! `muster reservation delete`.

use crate::context::{Context, request_id};
use crate::error::CliError;
use crate::output::table::cell;
use crate::output::{Style, human, json};
use clap::Args;
use muster_proto::client::{EndReservationReply, EndReservationRequest, Reservation};
use serde_json::Value;

#[derive(Debug, Args)]
pub struct DeleteArgs {
    pub name: String,
}

pub async fn run(context: &Context, args: DeleteArgs) -> Result<u8, CliError> {
    let request = EndReservationRequest { request_id: request_id(), name: args.name };
    let client = context.client()?;
    let reply = client.call(async |mut api| api.end_reservation(request.clone()).await).await?;
    let style = context.style();
    context.printer.answer(|| document(&reply), || render(&reply, &style))?;
    Ok(0)
}

pub fn render(reply: &EndReservationReply, style: &Style) -> String {
    let empty = Reservation::default();
    let reservation = reply.reservation.as_ref().unwrap_or(&empty);
    let name = style.bold(&cell(&reservation.name));
    format!("reservation {name} of {} is ended\n", human::count(reservation.nodes_total.into(), "node"))
}

pub fn document(reply: &EndReservationReply) -> Value {
    json::document("muster.reservation_ended/1", reply)
}
