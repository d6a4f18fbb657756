//! `muster logs`: what the ranks have written.

use super::follow::{self, Streams};
use crate::context::Context;
use crate::error::CliError;
use clap::Args;
use muster_proto::client::{LogChunk, LogsRequest};
use muster_proto::convert::error::ErrorCode;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// A longer line is printed in pieces.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// What a line is taken to need when only the last ones are wanted.
const TAIL_LINE_BYTES: u64 = 512;
const TAIL_LINES_MAX: usize = 100_000;
/// With `--tail -f`, the backlog is over when nothing came for so long.
const BACKLOG_SILENCE: Duration = Duration::from_millis(400);
const COLORS: &[&str] = &["36", "33", "35", "32", "34", "96", "93", "95"];

#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Job: 4711, 4711_3, 4711@2, a name, or `-`
    pub job: String,
    /// Go on as more is written, over all attempts, until the job has ended
    #[arg(short, long)]
    pub follow: bool,
    /// Ranks, such as 0 or 0,3,last; `all` unless given
    #[arg(long, default_value = "all")]
    pub rank: String,
    /// Another attempt than the latest, counted from 1
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub attempt: Option<u32>,
    /// Only the last lines of each rank
    #[arg(long, value_name = "LINES")]
    pub tail: Option<usize>,
}

pub async fn run(context: &Context, args: LogsArgs) -> Result<u8, CliError> {
    let mut job = context.job(&args.job)?;
    if job.attempt.is_some() && args.attempt.is_some() {
        return Err(CliError::new(ErrorCode::Usage, format!("{} and --attempt: two attempts are named", args.job))
            .hint("leave out one of them"));
    }
    job.attempt = args.attempt.or(job.attempt);
    let (ranks, last_rank) = parse_ranks(&args.rank)?;
    let tail = args.tail.map(|lines| lines.min(TAIL_LINES_MAX));
    let client = context.client()?;
    let target = Target { tail, live: args.follow, ..Target::new(Streams::Together) };
    let all_attempts = job.attempt.is_none();
    let tail_bytes = tail.map_or(0, |lines| (lines as u64 + 1) * TAIL_LINE_BYTES);
    let request = LogsRequest { job: Some(job), ranks, last_rank, follow: args.follow, tail_bytes };
    if args.follow && all_attempts {
        follow::chosen_to_end(context, &client, request, target).await?;
        return Ok(0);
    }
    // What could be read was printed; nobody must take it for the whole.
    follow::stream(context, &client, request, target).await?.map_or(Ok(0), |unread| Err(not_read(&unread)))
}

/// Why a log could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    pub why: String,
    /// It can be read once its node's agent is back.
    pub agent_away: bool,
}

fn not_read(unread: &Unread) -> CliError {
    let code = if unread.agent_away { ErrorCode::AgentUnreachable } else { ErrorCode::FileUnusable };
    CliError::new(code, format!("not every log could be read: {}", unread.why))
        .hint("`muster node ls` shows whose agent is away; ask again once it is back")
}

/// `0,3,last` as ranks and whether the last one is meant too.
fn parse_ranks(text: &str) -> Result<(Vec<u32>, bool), CliError> {
    if text == "all" {
        return Ok((Vec::new(), false));
    }
    let (mut ranks, mut last) = (Vec::new(), false);
    for word in text.split(',').map(str::trim) {
        match (word, word.parse()) {
            ("last", _) => last = true,
            (_, Ok(rank)) => ranks.push(rank),
            _ => {
                let message = format!("--rank {text}: `{word}` is not a rank");
                return Err(
                    CliError::new(ErrorCode::Usage, message).hint("write for example --rank 0,3,last, or --rank all")
                );
            }
        }
    }
    Ok((ranks, last))
}

/// How log lines are shown.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub streams: Streams,
    /// Only so many of the last lines.
    pub tail: Option<usize>,
    /// More will come, so the backlog must not be kept back.
    pub live: bool,
}

impl Target {
    pub fn new(streams: Streams) -> Self {
        Self { streams, tail: None, live: true }
    }
}

/// Whose line it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    rank: u32,
    stream: String,
}

#[derive(Debug, Default)]
struct Log {
    /// Up to here everything was taken; a repeated stream begins before it.
    seen: u64,
    begun: bool,
    partial: Vec<u8>,
    held: VecDeque<Vec<u8>>,
}

/// Chunks of many ranks into whole lines, each with its rank.
#[derive(Debug)]
pub struct Assembler {
    target: Target,
    logs: BTreeMap<Key, Log>,
    backlog: bool,
    world_size: u32,
    attempt: u32,
    /// Of the last log that could not be read.
    pub unread: Option<Unread>,
}

/// A line ready to be shown.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    pub rank: u32,
    pub stderr: bool,
    pub bytes: Vec<u8>,
}

impl Assembler {
    pub fn new(target: Target) -> Self {
        let (logs, backlog) = (BTreeMap::new(), target.tail.is_some());
        Self { target, logs, backlog, world_size: 0, attempt: 0, unread: None }
    }

    /// How long to wait for another chunk before [`Assembler::pause`].
    pub fn patience(&self) -> Option<Duration> {
        (self.backlog && self.target.live && !self.logs.is_empty()).then_some(BACKLOG_SILENCE)
    }

    pub fn take(&mut self, context: &Context, chunk: LogChunk) -> Result<(), CliError> {
        if !chunk.error.is_empty() {
            context.printer.warn(&format!("rank {}: {}", chunk.rank, chunk.error));
            self.unread = Some(Unread { why: chunk.error.clone(), agent_away: chunk.agent_away });
        }
        if chunk.dropped > 0 {
            let message =
                format!("rank {} {}: {} bytes were lost to the log limit", chunk.rank, chunk.stream, chunk.dropped);
            context.printer.warn(&message);
        }
        self.attempt = chunk.attempt;
        self.world_size = self.world_size.max(chunk.world_size);
        let lines = self.lines(&chunk);
        self.print(context, lines)
    }

    /// The backlog is over: from here on lines are shown as they come.
    pub fn pause(&mut self, context: &Context) -> Result<(), CliError> {
        self.backlog = false;
        let held = self.release();
        self.print(context, held)
    }

    /// Also what has no line break at its end.
    pub fn finish(&mut self, context: &Context) -> Result<(), CliError> {
        let lines = self.rest();
        self.print(context, lines)
    }

    fn lines(&mut self, chunk: &LogChunk) -> Vec<Line> {
        let (tail, backlog) = (self.target.tail.unwrap_or(usize::MAX), self.backlog);
        let key = Key { rank: chunk.rank, stream: chunk.stream.clone() };
        let log = self.logs.entry(key).or_default();
        let repeated = if log.begun { log.seen.saturating_sub(chunk.offset) as usize } else { 0 };
        let data = chunk.data.get(repeated..).unwrap_or_default();
        log.seen = log.seen.max(chunk.offset + chunk.data.len() as u64);
        // A tail begins somewhere inside a line.
        let cut = !log.begun && backlog && chunk.offset > 0;
        log.begun = log.begun || !chunk.data.is_empty();
        let data = if cut {
            data.iter().position(|byte| *byte == b'\n').map_or(&data[..0], |at| &data[at + 1..])
        } else {
            data
        };
        log.partial.extend_from_slice(data);
        let mut whole = Vec::new();
        while let Some(end) = log.partial.iter().position(|byte| *byte == b'\n') {
            let rest = log.partial.split_off(end + 1);
            whole.push(std::mem::replace(&mut log.partial, rest));
        }
        if log.partial.len() > LINE_BYTES_MAX || (chunk.end && !log.partial.is_empty()) {
            let mut piece = std::mem::take(&mut log.partial);
            piece.push(b'\n');
            whole.push(piece);
        }
        if backlog {
            log.held.extend(whole);
            while log.held.len() > tail {
                log.held.pop_front();
            }
            return Vec::new();
        }
        let stderr = chunk.stream == "stderr";
        whole.into_iter().map(|bytes| Line { rank: chunk.rank, stderr, bytes }).collect()
    }

    fn release(&mut self) -> Vec<Line> {
        let mut lines = Vec::new();
        for (key, log) in &mut self.logs {
            let stderr = key.stream == "stderr";
            lines.extend(log.held.drain(..).map(|bytes| Line { rank: key.rank, stderr, bytes }));
        }
        lines
    }

    fn rest(&mut self) -> Vec<Line> {
        let mut lines = self.release();
        for (key, log) in self.logs.iter_mut().filter(|(_, log)| !log.partial.is_empty()) {
            let mut bytes = std::mem::take(&mut log.partial);
            bytes.push(b'\n');
            lines.push(Line { rank: key.rank, stderr: key.stream == "stderr", bytes });
        }
        lines
    }

    fn print(&self, context: &Context, lines: Vec<Line>) -> Result<(), CliError> {
        let style = context.style();
        for line in lines {
            if context.printer.json {
                context.printer.line(&document(&line, self.attempt).to_string())?;
                continue;
            }
            let shown = labelled(&line, self.world_size, |rank, label| {
                style.paint(COLORS[rank as usize % COLORS.len()], label)
            });
            if line.stderr && self.target.streams == Streams::Apart {
                context.printer.raw_err(&shown)?;
            } else {
                context.printer.raw(&shown)?;
            }
        }
        Ok(())
    }
}

/// `[3] line`; a gang of one rank needs no label.
pub fn labelled(line: &Line, world_size: u32, paint: impl Fn(u32, &str) -> String) -> Vec<u8> {
    if world_size <= 1 {
        return line.bytes.clone();
    }
    let width = (world_size - 1).to_string().len();
    let mut shown = paint(line.rank, &format!("[{:>width$}]", line.rank)).into_bytes();
    shown.push(b' ');
    shown.extend_from_slice(&line.bytes);
    shown
}

pub fn document(line: &Line, attempt: u32) -> serde_json::Value {
    let stream = if line.stderr { "stderr" } else { "stdout" };
    muster_proto::document::log_line(line.rank, attempt, stream, &line.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(rank: u32, offset: u64, data: &'static str) -> LogChunk {
        LogChunk {
            rank,
            stream: "stdout".into(),
            offset,
            data: data.as_bytes().into(),
            world_size: 12,
            ..LogChunk::default()
        }
    }

    fn texts(lines: Vec<Line>) -> Vec<String> {
        lines
            .iter()
            .map(|line| String::from_utf8_lossy(&labelled(line, 12, |_, label| label.to_owned())).into_owned())
            .collect()
    }

    #[test]
    fn lines_of_ranks_are_whole_and_labelled() {
        let mut logs = Assembler::new(Target::new(Streams::Together));
        assert!(logs.lines(&chunk(3, 0, "hel")).is_empty());
        assert_eq!(texts(logs.lines(&chunk(10, 0, "other\n"))), ["[10] other\n"]);
        assert_eq!(texts(logs.lines(&chunk(3, 3, "lo\nto"))), ["[ 3] hello\n"]);
        assert_eq!(texts(logs.rest()), ["[ 3] to\n"]);
    }

    #[test]
    fn a_stream_that_begins_again_repeats_nothing() {
        let mut logs = Assembler::new(Target::new(Streams::Together));
        assert_eq!(texts(logs.lines(&chunk(0, 0, "one\ntwo\nth"))), ["[ 0] one\n", "[ 0] two\n"]);
        assert_eq!(texts(logs.lines(&chunk(0, 0, "one\ntwo\nthree\n"))), ["[ 0] three\n"]);
        assert!(logs.lines(&chunk(0, 0, "one\n")).is_empty());
    }

    #[test]
    fn a_tail_keeps_the_last_whole_lines() {
        let mut logs = Assembler::new(Target { tail: Some(2), ..Target::new(Streams::Together) });
        assert!(logs.lines(&chunk(0, 90, "f a line\n1\n2\n3\n")).is_empty());
        assert_eq!(texts(logs.rest()), ["[ 0] 2\n", "[ 0] 3\n"]);
    }

    #[test]
    fn an_endless_line_is_printed_in_pieces() {
        let mut logs = Assembler::new(Target::new(Streams::Together));
        let long: &'static str = Box::leak("x".repeat(LINE_BYTES_MAX + 1).into_boxed_str());
        assert_eq!(logs.lines(&chunk(0, 0, long)).len(), 1);
    }

    #[test]
    fn ranks_are_numbers_last_or_all() {
        assert_eq!(parse_ranks("0,3,last").expect("read"), (vec![0, 3], true));
        assert_eq!(parse_ranks("all").expect("read"), (vec![], false));
        assert_eq!(parse_ranks("first").expect_err("no rank").code(), ErrorCode::Usage);
    }

    #[test]
    fn an_agent_is_away_when_the_server_says_so_and_not_by_words() {
        let code = |agent_away| not_read(&Unread { why: "its disk is not connected".into(), agent_away }).code();
        assert_eq!((code(true), code(false)), (ErrorCode::AgentUnreachable, ErrorCode::FileUnusable));
    }

    #[test]
    fn one_rank_needs_no_label() {
        let line = Line { rank: 0, stderr: false, bytes: b"x\n".to_vec() };
        assert_eq!(labelled(&line, 1, |_, _| unreachable!()), b"x\n");
    }
}
