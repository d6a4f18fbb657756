//! `muster sim explain`: why a job of a run waited.

use super::{Teller, failed, format_named, interrupts};
use crate::context::Context;
use crate::error::CliError;
use crate::output::human;
use crate::output::table::cell;
use clap::Args;
use muster_common::Time;
use muster_common::job::file::parse_duration_ms;
use muster_sim::explain::{Answer, ExplainArgs, Explained};
use muster_sim::trace::Format;
use serde_json::Value;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct SimExplainArgs {
    /// The folder of a run
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// The job, as the trace calls it
    #[arg(long, value_name = "ID")]
    pub job: String,
    /// The moment to tell everything about, on the trace's clock, such as 3d4h; the middle of its wait unless given
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub at: Option<Time>,
    /// The recorded work that the run played
    #[arg(long, value_name = "FILE")]
    pub trace: PathBuf,
    /// How the trace is written; told by its name and header unless given
    #[arg(long, value_parser = format_named)]
    pub format: Option<Format>,
    /// The table of throughputs that the run was made with, if it was
    #[arg(long, value_name = "FILE")]
    pub throughputs: Option<PathBuf>,
    /// The accounts and queues that the run was made with, if it was
    #[arg(long, value_name = "FILE")]
    pub organisation: Option<PathBuf>,
}

fn moment(text: &str) -> Result<Time, String> {
    parse_duration_ms(text).map(Time).map_err(|error| error.to_string())
}

pub fn run(context: &Context, args: SimExplainArgs) -> Result<u8, CliError> {
    let args = ExplainArgs {
        folder: args.folder,
        trace: args.trace,
        format: args.format,
        throughputs: args.throughputs,
        organisation: args.organisation,
        job: args.job,
        at: args.at,
    };
    let stop = interrupts()?;
    let mut teller = Teller::new(context);
    let explained =
        muster_sim::explain::explain(&args, &mut |progress| teller.ended(progress, &stop)).map_err(failed)?;
    context.printer.answer(|| document(&explained), || render(&explained))?;
    Ok(0)
}

fn span(seconds: f64) -> String {
    human::duration((seconds * 1000.0) as u64)
}

pub fn render(explained: &Explained) -> String {
    let start = explained.start_s.map_or_else(|| "never started".to_owned(), |at| format!("started at {}", span(at)));
    let mut text = format!(
        "{}: submitted at {}, {start}, waited {} in all; {}\n",
        cell(&explained.job_id),
        span(explained.submit_s),
        span(explained.wait_s),
        explained.state.word()
    );
    for share in &explained.shares {
        text.push_str(&format!(
            "  {:>8} {:>5.1} %  {:<14} {}\n",
            span(share.wait_s),
            share.percent,
            cell(&share.reason),
            cell(&share.text)
        ));
    }
    if let Some(answer) = &explained.answer {
        text.push_str(&at_a_moment(answer));
    }
    text
}

fn at_a_moment(answer: &Answer) -> String {
    let mut text = format!("At {}", span(answer.at_s));
    if !answer.waits {
        text.push_str(" it did not wait\n");
        return text;
    }
    if let (Some(position), Some(length)) = (answer.position, answer.queue_length) {
        text.push_str(&format!(", position {position} of {length}"));
    }
    if let Some(booked) = answer.booked_s {
        text.push_str(&format!(", a start booked at {}", span(booked)));
    }
    text.push_str(if answer.blockers.is_empty() { ": the next decision starts it\n" } else { ", blocked by\n" });
    for (number, blocker) in (1..).zip(&answer.blockers) {
        text.push_str(&format!("  {number}  {:<14} {}\n", cell(&blocker.reason), cell(&blocker.text)));
        if !blocker.who.is_empty() {
            text.push_str(&format!("     {:<14} {}\n", "", cell(&blocker.who.join(", "))));
        }
        if let Some(hint) = &blocker.hint {
            text.push_str(&format!("     {:<14} would have helped: {}\n", "", cell(hint)));
        }
    }
    text
}

pub fn document(explained: &Explained) -> Value {
    serde_json::to_value(explained).unwrap_or_default()
}
