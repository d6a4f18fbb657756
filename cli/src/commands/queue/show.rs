//! `muster queue show`.

use super::{budgets, cells, milli};
use crate::context::Context;
use crate::error::CliError;
use crate::output::human::{self, NONE};
use crate::output::table::{Align, Table, cell};
use crate::output::{Style, json};
use clap::Args;
use muster_proto::client::{Queue, QueueEntry, ShowQueueReply, ShowQueueRequest};
use serde_json::Value;

pub const COLUMNS: &str = "\
Columns:
  POS    place in the order over all queues, as the policy gives it
  JOB    a job, an element queued again (4713_3), or the elements of an array that never ran (4713_*)
  GANGS  gangs that wait there
  GPUS   of one gang
  START  when it starts if everything ends as expected; `now` = with the next cycle,
         `coarse` = reckoned from the work ahead, which is too much to play forward
  WHY    what decides; `muster why JOB` tells the rest
Below, the cells of the accounts it charges; `muster queue ls --help` tells what they say.";

#[derive(Debug, Args)]
pub struct ShowArgs {
    pub name: String,
    /// At most so many entries
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
}

pub async fn run(context: &Context, args: ShowArgs) -> Result<u8, CliError> {
    let request = ShowQueueRequest { name: args.name, limit: args.limit };
    let client = context.client()?;
    let reply = client.call(async |mut api| api.show_queue(request.clone()).await).await?;
    let style = context.style();
    context.printer.answer(|| document(&reply), || render(&reply, &style))?;
    let more = (reply.entries_total as usize).saturating_sub(reply.entries.len());
    if more > 0 {
        context.printer.say(&format!("{more} more; --limit shows up to 1000"));
    }
    Ok(0)
}

pub fn render(reply: &ShowQueueReply, style: &Style) -> String {
    let empty = Queue::default();
    let queue = reply.queue.as_ref().unwrap_or(&empty);
    let mut text = format!(
        "{}: {} running on {}, {} waiting for {}, {} held; policy {}\n",
        style.bold(&cell(&queue.name)),
        human::count(queue.gangs_active, "gang"),
        gpus(milli(queue.gpus_active_milli, queue.gpus_active)),
        queue.gangs_waiting,
        gpus(milli(queue.gpus_waiting_milli, queue.gpus_waiting)),
        queue.gangs_held,
        cell(&reply.policy),
    );
    let owned = cells::render(&reply.cells) + &budgets::render(&reply.budgets, style);
    if reply.entries.is_empty() {
        text.push_str("nothing waits\n");
        return text + &owned;
    }
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("POS", Right),
        ("JOB", Left),
        ("NAME", Left),
        ("USER", Left),
        ("PRIORITY", Left),
        ("GANGS", Right),
        ("GPUS", Right),
        ("WAITED", Right),
        ("START", Left),
        ("WHY", Left),
    ]);
    for entry in &reply.entries {
        table.row(row(entry, reply.looked_at_ms, style));
    }
    text + &table.text() + &owned
}

/// `1 GPU`, `0.25 GPUs`.
fn gpus(milli: u64) -> String {
    let unit = if milli == 1000 { "GPU" } else { "GPUs" };
    format!("{} {unit}", human::gpus(milli))
}

fn row(entry: &QueueEntry, looked_at_ms: u64, style: &Style) -> [String; 10] {
    let job = match (entry.array, entry.gangs) {
        (true, 2..) => format!("{}_*", entry.job),
        (true, _) => format!("{}_{}", entry.job, entry.ordinal),
        (false, _) => entry.job.to_string(),
    };
    let start = match entry.start_estimate_at_ms {
        // Without a reason it may also be that none was seen.
        Some(at) if entry.reason.is_empty() && at <= looked_at_ms => "now".to_owned(),
        Some(at) => {
            let (about, coarse) = if entry.start_estimate_coarse { ("about ", " (coarse)") } else { ("", "") };
            format!("in {about}{}{coarse}", human::duration(at.saturating_sub(style.now_ms)))
        }
        None => NONE.to_owned(),
    };
    let why = if entry.reason_text.is_empty() { &entry.reason } else { &entry.reason_text };
    [
        entry.position.to_string(),
        job,
        cell(&entry.name),
        cell(&entry.user),
        cell(&entry.priority),
        entry.gangs.to_string(),
        entry.gpus.to_string(),
        human::duration(style.now_ms.saturating_sub(entry.queued_at_ms)),
        start,
        cell(why),
    ]
}

pub fn document(reply: &ShowQueueReply) -> Value {
    json::document("muster.queue/1", reply)
}
