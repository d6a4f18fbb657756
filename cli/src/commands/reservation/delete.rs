//! `muster reservation delete`.

use crate::context::{Context, request_id};
use crate::error::CliError;
use crate::output::table::cell;
use crate::output::{Style, human, json};
use clap::Args;
use muster_proto::client::{EndReservationReply, EndReservationRequest, Reservation};
use muster_proto::convert::error::{ErrorCode, decode};
use serde_json::Value;
use std::cell::Cell;

#[derive(Debug, Args)]
pub struct DeleteArgs {
    pub name: String,
}

pub async fn run(context: &Context, args: DeleteArgs) -> Result<u8, CliError> {
    let request = EndReservationRequest { request_id: request_id(), name: args.name };
    let client = context.client()?;
    let maybe_done = Cell::new(false);
    let ended = client
        .call(async |mut api| {
            let before = maybe_done.replace(true);
            let reply = api.end_reservation(request.clone()).await;
            let untouched = |status| {
                let code = decode(status).map(|info| info.code);
                matches!(code, Some(ErrorCode::NotLeader | ErrorCode::ReservationNotFound))
            };
            maybe_done.set(before || !reply.as_ref().err().is_some_and(untouched));
            reply
        })
        .await;
    let reply = ended.or_else(|error| match error.code() {
        // An earlier try of this call has ended it, and its answer was lost.
        ErrorCode::ReservationNotFound if maybe_done.get() => Ok(done(&request.name)),
        _ => Err(error),
    })?;
    let style = context.style();
    context.printer.answer(|| document(&reply), || render(&reply, &style))?;
    Ok(0)
}

fn done(name: &str) -> EndReservationReply {
    EndReservationReply { reservation: Some(Reservation { name: name.to_owned(), ..Reservation::default() }) }
}

pub fn render(reply: &EndReservationReply, style: &Style) -> String {
    let empty = Reservation::default();
    let reservation = reply.reservation.as_ref().unwrap_or(&empty);
    let name = style.bold(&cell(&reservation.name));
    match reservation.nodes_total {
        // Told by a later try: how many they were is not known any more.
        0 => format!("reservation {name} is ended\n"),
        nodes => format!("reservation {name} of {} is ended\n", human::count(nodes.into(), "node")),
    }
}

pub fn document(reply: &EndReservationReply) -> Value {
    json::document("muster.reservation_ended/1", reply)
}
