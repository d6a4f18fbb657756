//! Puts a node's log streams together across reconnections: every byte once, gaps told, ends told once.

use crate::gateway::render::words::plain;
use muster_proto::agent as wire;
use muster_proto::client as pb;
use std::collections::{BTreeMap, BTreeSet};

const STREAMS: [(u32, &str); 2] = [(1, "stdout"), (2, "stderr")];

/// Where each stream of the asked ranks is.
pub struct Splice {
    /// The offset that comes next, once one is known.
    next: BTreeMap<(u32, u32), u64>,
    open: BTreeSet<(u32, u32)>,
    taken: u64,
}

impl Splice {
    pub fn new(ranks: &[u32]) -> Self {
        let open = ranks.iter().flat_map(|rank| STREAMS.map(|(stream, _)| (*rank, stream))).collect();
        Self { next: BTreeMap::new(), open, taken: 0 }
    }

    /// Chunks that told something new, so far.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    pub fn is_finished(&self) -> bool {
        self.open.is_empty()
    }

    /// Rank and stream of what has not ended.
    pub fn unfinished(&self) -> Vec<(u32, &'static str)> {
        self.open.iter().map(|(rank, stream)| (*rank, word(*stream))).collect()
    }

    /// What a chunk adds for the reader. One without a stream is the agent's last: it speaks of all
    /// that are still open.
    pub fn take(&mut self, chunk: wire::LogChunk, blank: &pb::LogChunk) -> Vec<pb::LogChunk> {
        if chunk.stream == 0 {
            let open: Vec<(u32, u32)> = self.open.iter().copied().collect();
            let all = open.into_iter().map(|(rank, stream)| wire::LogChunk { rank, stream, ..chunk.clone() });
            return all.filter_map(|chunk| self.take_one(chunk, blank)).collect();
        }
        self.take_one(chunk, blank).into_iter().collect()
    }

    fn take_one(&mut self, chunk: wire::LogChunk, blank: &pb::LogChunk) -> Option<pb::LogChunk> {
        let at = (chunk.rank, chunk.stream);
        if !self.open.contains(&at) {
            return None;
        }
        let next = self.next.get(&at).copied();
        let end_of_data = chunk.offset + chunk.data.len() as u64;
        let again = next.map_or(0, |next| next.saturating_sub(chunk.offset)).min(chunk.data.len() as u64);
        let data = chunk.data.slice(again as usize..);
        let gap = next.map_or(0, |next| chunk.offset.saturating_sub(next));
        // The agent's count is from the start of the stream on a new request; ours is from what was read.
        let dropped = if next.is_some() { gap } else { chunk.dropped };
        // Without data the offset says nothing that is new.
        if !chunk.data.is_empty() || next.is_none() {
            self.next.insert(at, end_of_data.max(next.unwrap_or(0)));
        }
        let ends = chunk.end || !chunk.error.is_empty();
        if data.is_empty() && !ends && dropped == 0 {
            return None;
        }
        if ends {
            self.open.remove(&at);
        }
        self.taken += 1;
        Some(pb::LogChunk {
            rank: chunk.rank,
            stream: word(chunk.stream).into(),
            offset: chunk.offset + again,
            data,
            dropped,
            end: ends,
            error: plain(&chunk.error),
            ..blank.clone()
        })
    }
}

fn word(stream: u32) -> &'static str {
    STREAMS.iter().find(|(number, _)| *number == stream).map_or("", |(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(rank: u32, stream: u32, offset: u64, data: &'static str) -> wire::LogChunk {
        wire::LogChunk { rank, stream, offset, data: data.into(), ..Default::default() }
    }

    fn read(splice: &mut Splice, chunk: wire::LogChunk) -> Vec<(u64, String, u64, bool)> {
        let told = splice.take(chunk, &pb::LogChunk::default());
        let text = |data: &[u8]| String::from_utf8(data.to_vec()).unwrap();
        told.into_iter().map(|chunk| (chunk.offset, text(&chunk.data), chunk.dropped, chunk.end)).collect()
    }

    #[test]
    fn a_second_request_repeats_nothing_and_leaves_nothing_out() {
        let mut splice = Splice::new(&[3]);
        assert_eq!(read(&mut splice, chunk(3, 1, 0, "hello ")), [(0, "hello ".into(), 0, false)]);
        // The agent was away; it begins again at the start.
        assert_eq!(read(&mut splice, chunk(3, 1, 0, "hel")), []);
        assert_eq!(read(&mut splice, chunk(3, 1, 3, "lo world")), [(6, "world".into(), 0, false)]);
        assert_eq!(read(&mut splice, chunk(3, 1, 11, "!")), [(11, "!".into(), 0, false)]);
    }

    #[test]
    fn what_rotation_took_between_two_requests_is_told() {
        let mut splice = Splice::new(&[0]);
        read(&mut splice, chunk(0, 2, 0, "abc"));
        assert_eq!(read(&mut splice, chunk(0, 2, 10, "k")), [(10, "k".into(), 7, false)]);
    }

    #[test]
    fn each_stream_ends_once_and_the_agents_last_chunk_ends_all() {
        let mut splice = Splice::new(&[0, 1]);
        let end = wire::LogChunk { end: true, ..chunk(0, 1, 0, "") };
        assert_eq!(read(&mut splice, end.clone()), [(0, String::new(), 0, true)]);
        assert_eq!(read(&mut splice, end), []);
        assert_eq!(splice.unfinished(), [(0, "stderr"), (1, "stdout"), (1, "stderr")]);
        let error = wire::LogChunk { error: "gone".into(), end: true, ..chunk(0, 0, 0, "") };
        assert_eq!(read(&mut splice, error).len(), 3);
        assert!(splice.is_finished());
    }

    /// Whatever its words are, it has answered.
    #[test]
    fn an_agent_that_tells_why_a_log_cannot_be_read_is_not_away() {
        let error = wire::LogChunk { error: "its disk is not connected".into(), ..chunk(0, 1, 0, "") };
        let told = Splice::new(&[0]).take(error, &pb::LogChunk::default());
        assert_eq!(told.len(), 1);
        assert!(told[0].end && !told[0].agent_away && told[0].error == "its disk is not connected");
    }

    #[test]
    fn ranks_nobody_asked_for_are_not_told() {
        assert_eq!(read(&mut Splice::new(&[0]), chunk(7, 1, 0, "x")), []);
    }
}
