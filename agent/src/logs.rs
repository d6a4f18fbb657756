//! Streams ranks' output to whoever asked, as it was written, and as it is being written.

use crate::assignment::Key;
use crate::core::Live;
use crate::paths::Paths;
use crate::shim::pump::stream_file;
use crate::store::rank_logs::{newest_attempt, ranks_in, read_at, tail_offset};
use muster_common::{AttemptNo, GangId};
use muster_proto::agent::{LogChunk, LogRequest};
use muster_runtime::clock::Clock;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// Most bytes of one chunk.
const CHUNK_BYTES: u64 = 64 * 1024;
/// Between two looks for more of a log that is followed.
const LOOK_AGAIN_MS: u64 = 200;
/// Streams of a rank: number on the wire, ending of the file.
const STREAMS: [(u32, &str); 2] = [(1, "out"), (2, "err")];

/// Answers one request. Ends with a chunk that says so, or when nobody takes the chunks any more.
pub struct Streamer {
    pub paths: Paths,
    pub live: watch::Receiver<Live>,
    pub clock: Arc<dyn Clock>,
    pub chunks: mpsc::Sender<LogChunk>,
}

impl Streamer {
    pub async fn serve(self, request: LogRequest) {
        let error = match self.stream(&request).await {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        };
        let last = LogChunk { request: request.request, end: true, error, ..LogChunk::default() };
        // Nobody listens any more; that is an end as well.
        let _ = self.chunks.send(last).await;
    }

    async fn stream(&self, request: &LogRequest) -> io::Result<()> {
        let gang = GangId::from(request.gang.unwrap_or_default());
        let attempt = AttemptNo(request.attempt);
        let absent = || {
            let why = format!("this node has no logs of attempt {attempt} of {gang}; they may have been removed");
            io::Error::new(io::ErrorKind::NotFound, why)
        };
        let key = self.named(request, gang, attempt).ok_or_else(absent)?;
        let folder = self.paths.logs(&key);
        let mut offsets: BTreeMap<(u32, u32), u64> = BTreeMap::new();
        loop {
            // Looked at before reading: what was written by the end is then read by the end.
            let live = self.live.borrow().contains(&key);
            let mut ranks = ranks_in(&folder);
            if !request.ranks.is_empty() {
                ranks.retain(|rank| request.ranks.contains(rank));
            }
            if ranks.is_empty() && !live {
                return Err(absent());
            }
            let mut more = false;
            for rank in ranks {
                for (number, ending) in STREAMS {
                    let stream = stream_file(&folder, rank, ending);
                    more |= self.send_next(request, rank, number, &stream, &mut offsets).await?;
                }
            }
            if more {
                continue;
            }
            if !request.follow || !live {
                return Ok(());
            }
            self.clock.sleep_ms(LOOK_AGAIN_MS).await;
        }
    }

    /// The attempt that is asked for; without a token it is the newest with the number.
    fn named(&self, request: &LogRequest, gang: GangId, attempt: AttemptNo) -> Option<Key> {
        if let Some(token) = request.token {
            return Some(Key { gang, attempt, token: token.into() });
        }
        let live = self.live.borrow().iter().filter(|key| (key.gang, key.attempt) == (gang, attempt)).max().copied();
        live.max(newest_attempt(self.paths.log_root(), gang, attempt))
    }

    /// False when there is nothing new.
    async fn send_next(
        &self,
        request: &LogRequest,
        rank: u32,
        number: u32,
        stream: &Path,
        offsets: &mut BTreeMap<(u32, u32), u64>,
    ) -> io::Result<bool> {
        let read = || {
            let offset = match offsets.get(&(rank, number)) {
                Some(&offset) => offset,
                None if request.tail_bytes > 0 => tail_offset(stream, request.tail_bytes)?,
                None => 0,
            };
            read_at(stream, offset, CHUNK_BYTES)
        };
        let piece = match read() {
            Ok(piece) => piece,
            // Made a moment after its twin.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        offsets.insert((rank, number), piece.offset + piece.data.len() as u64);
        if piece.data.is_empty() {
            return Ok(false);
        }
        let chunk = LogChunk {
            request: request.request,
            rank,
            stream: number,
            offset: piece.offset,
            data: piece.data.into(),
            dropped: piece.dropped,
            ..LogChunk::default()
        };
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "nobody takes the log any more");
        self.chunks.send(chunk).await.map_err(gone)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::shim::pump::StreamWriter;
    use muster_common::job::LogLimits;
    use muster_common::{JobId, Name, Token};
    use muster_proto::agent::Gang;
    use muster_runtime::clock::SystemClock;
    use std::collections::BTreeSet;
    use std::fs;

    fn streamer(state_dir: &Path, live: Live) -> (Streamer, mpsc::Receiver<LogChunk>, watch::Sender<Live>) {
        let config = Config::new(vec!["a:1".to_owned()], Name::literal("n"), state_dir.to_owned());
        let (chunks, receiver) = mpsc::channel(1);
        let (sender, live) = watch::channel(live);
        (Streamer { paths: Paths::of(&config), live, clock: Arc::new(SystemClock), chunks }, receiver, sender)
    }

    fn request(follow: bool) -> LogRequest {
        LogRequest { request: 5, gang: Some(Gang { job: 1, ordinal: 0 }), attempt: 2, follow, ..LogRequest::default() }
    }

    fn key(generation: u32) -> Key {
        Key { gang: GangId::new(JobId(1), 0), attempt: AttemptNo(2), token: Token { generation, index: 50 } }
    }

    #[tokio::test]
    async fn a_number_that_restored_servers_gave_again_does_not_mix_two_attempts_logs() {
        let folder = tempfile::tempdir().expect("a temp folder");
        for (generation, text) in [(2, "second"), (1, "first")] {
            let logs = streamer(folder.path(), Live::default()).0.paths.logs(&key(generation));
            fs::create_dir_all(&logs).expect("made");
            let out = StreamWriter::create(stream_file(&logs, 0, "out"), LogLimits::default());
            out.expect("it is not the other's").write(text.as_bytes());
        }
        for (token, text) in [(Some(1), "first"), (Some(2), "second"), (None, "second")] {
            let token = token.map(|generation| key(generation).token.into());
            let (streamer, mut chunks, _live) = streamer(folder.path(), Live::default());
            tokio::spawn(streamer.serve(LogRequest { token, ..request(false) }));
            assert_eq!(chunks.recv().await.expect("a chunk").data, text);
        }
    }

    #[tokio::test]
    async fn a_followed_log_ends_when_the_attempt_is_gone_and_has_all_of_it() {
        let folder = tempfile::tempdir().expect("a temp folder");
        let (streamer, mut chunks, live) = streamer(folder.path(), Arc::new(BTreeSet::from([key(1)])));
        let logs = streamer.paths.logs(&key(1));
        fs::create_dir_all(&logs).expect("made");
        let limits = LogLimits::default();
        let mut out = StreamWriter::create(stream_file(&logs, 0, "out"), limits).expect("made");
        let mut err = StreamWriter::create(stream_file(&logs, 0, "err"), limits).expect("made");
        let task = tokio::spawn(streamer.serve(request(true)));
        out.write(b"one");
        assert_eq!(chunks.recv().await.expect("a chunk").data, "one");
        err.write(b"two");
        let chunk = chunks.recv().await.expect("a chunk");
        assert_eq!((&chunk.data[..], chunk.stream, chunk.end), (&b"two"[..], 2, false));
        out.write(b"three");
        live.send_replace(Live::default());
        let chunk = chunks.recv().await.expect("a chunk");
        assert_eq!((&chunk.data[..], chunk.offset), (&b"three"[..], 3));
        let chunk = chunks.recv().await.expect("the end");
        assert_eq!((chunk.end, chunk.error.as_str(), chunk.request), (true, "", 5));
        task.await.expect("it ended");
    }

    #[tokio::test]
    async fn an_attempt_that_never_was_here_is_said_so() {
        let folder = tempfile::tempdir().expect("a temp folder");
        let (streamer, mut chunks, _live) = streamer(folder.path(), Live::default());
        tokio::spawn(streamer.serve(request(false)));
        let chunk = chunks.recv().await.expect("the end");
        assert!(chunk.end && chunk.error.contains("attempt 2 of 1_0"), "{chunk:?}");
    }
}
