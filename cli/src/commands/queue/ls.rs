//! `muster queue ls`.

use super::{budgets, cells, milli};
use crate::context::Context;
use crate::error::CliError;
use crate::output::human::{self, NONE};
use crate::output::table::{Align, Table, cell};
use crate::output::{Style, json};
use clap::Args;
use muster_proto::client::{ListQueuesReply, ListQueuesRequest, Queue};
use serde_json::Value;

pub const COLUMNS: &str = "\
Columns:
  JOBS     live jobs, an array counts once
  USERS    how many people have them
  RUNNING  gangs that hold devices, and the GPUs of those
  WAITING  gangs that wait, and the GPUs they ask for
  HELD     gangs of held jobs; not counted as waiting
  OLDEST   for how long the gang that waits longest has waited
A queue is there as long as a live job names it.

Below, where accounts own cells (quota with a shape):
  CELLS       what one of them is
  OWNED       how many the account owns
  IN USE      with work of its own in them that cannot be stopped in time
  OBTAINABLE  free, or held by what can be stopped in time
  LOST        not to be had: hardware is gone, out of order or not there yet
  WITHIN      the time in which the account has them back

And where they have budgets, of each with all accounts below it:
  SPENT      in this period, for what has ended
  SET ASIDE  for what runs, until its time limits
  LEFT       for what starts until the period ends";

#[derive(Debug, Args)]
pub struct LsArgs {}

pub async fn run(context: &Context, _args: LsArgs) -> Result<u8, CliError> {
    let client = context.client()?;
    let reply = client.call(async |mut api| api.list_queues(ListQueuesRequest {}).await).await?;
    let style = context.style();
    context.printer.answer(|| document(&reply), || render(&reply, &style))?;
    if reply.queues.is_empty() {
        context.printer.say("no live jobs, so no queues; a queue is there as soon as a job names it");
    }
    Ok(0)
}

pub fn render(reply: &ListQueuesReply, style: &Style) -> String {
    if reply.queues.is_empty() {
        return below(reply, style);
    }
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("QUEUE", Left),
        ("JOBS", Right),
        ("USERS", Right),
        ("RUNNING", Right),
        ("GPUS", Right),
        ("WAITING", Right),
        ("GPUS", Right),
        ("HELD", Right),
        ("OLDEST", Right),
    ]);
    for queue in &reply.queues {
        table.row(row(queue, style));
    }
    table.text() + &below(reply, style)
}

fn below(reply: &ListQueuesReply, style: &Style) -> String {
    cells::render(&reply.cells) + &budgets::render(&reply.budgets, style)
}

fn row(queue: &Queue, style: &Style) -> [String; 9] {
    let oldest = queue.oldest_wait_since_at_ms.map(|since| style.now_ms.saturating_sub(since));
    [
        cell(&queue.name),
        queue.jobs.to_string(),
        queue.users.to_string(),
        queue.gangs_active.to_string(),
        human::gpus(milli(queue.gpus_active_milli, queue.gpus_active)),
        queue.gangs_waiting.to_string(),
        human::gpus(milli(queue.gpus_waiting_milli, queue.gpus_waiting)),
        queue.gangs_held.to_string(),
        oldest.map_or_else(|| NONE.to_owned(), human::duration),
    ]
}

pub fn document(reply: &ListQueuesReply) -> Value {
    json::document("muster.queues/1", reply)
}
