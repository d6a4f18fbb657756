//! Chunks of many ranks' logs into whole lines, each with the place from which the stream can be taken up again.

use super::Item;
use muster_proto::client::LogChunk;
use muster_proto::document;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A longer line is told in pieces.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Logs that one id can hold the places of: two of each rank.
const PLACES_MAX: usize = 32;

/// Whose log: rank, and whether it is stderr.
type Key = (u32, bool);

/// How far each log was told, in bytes since its rank began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    pub attempt: u32,
    told: BTreeMap<Key, u64>,
}

impl Place {
    /// Such as `2:0o118,0e0,1o64`: of attempt 2, 118 bytes of rank 0's stdout, and so on.
    pub fn read(id: &str) -> Option<Self> {
        let (attempt, rest) = id.split_once(':')?;
        let mut told = BTreeMap::new();
        for part in rest.split(',').filter(|part| !part.is_empty()) {
            let at = part.find(['o', 'e'])?;
            let key = (part[..at].parse().ok()?, part[at..].starts_with('e'));
            told.insert(key, part[at + 1..].parse().ok()?);
        }
        (told.len() <= PLACES_MAX).then_some(Self { attempt: attempt.parse().ok()?, told })
    }

    fn id(&self) -> Option<String> {
        if self.told.len() > PLACES_MAX {
            return None;
        }
        let part = |((rank, stderr), at): (&Key, &u64)| format!("{rank}{}{at}", if *stderr { 'e' } else { 'o' });
        let parts: Vec<String> = self.told.iter().map(part).collect();
        Some(format!("{}:{}", self.attempt, parts.join(",")))
    }
}

/// Puts lines together.
#[derive(Debug)]
pub struct Lines {
    place: Place,
    /// What came after the last whole line.
    partial: BTreeMap<Key, Vec<u8>>,
}

impl Lines {
    /// Tells nothing that lies before `from`.
    pub fn new(from: Place) -> Self {
        Self { place: from, partial: BTreeMap::new() }
    }

    pub fn take(&mut self, chunk: &LogChunk) -> Vec<Item> {
        self.place.attempt = chunk.attempt;
        let key = (chunk.rank, chunk.stream == "stderr");
        let mut items = Vec::new();
        if !chunk.error.is_empty() {
            items.push(self.notice(chunk, &chunk.error));
        }
        if chunk.dropped > 0 {
            items.push(self.notice(chunk, &format!("{} bytes were lost to the log limit", chunk.dropped)));
        }
        let data = self.fresh(key, chunk);
        self.partial.entry(key).or_default().extend_from_slice(data);
        while let Some(line) = self.cut(key, chunk.end) {
            let told = self.place.told.entry(key).or_default();
            *told += line.len() as u64;
            let document = document::log_line(chunk.rank, chunk.attempt, &chunk.stream, &line);
            items.push(Item { id: self.place.id(), document });
        }
        items
    }

    /// The part of the chunk that was not taken before. Where bytes are missing, what was begun is over.
    fn fresh<'a>(&mut self, key: Key, chunk: &'a LogChunk) -> &'a [u8] {
        let told = self.place.told.entry(key).or_default();
        let partial = self.partial.entry(key).or_default();
        let next = *told + partial.len() as u64;
        if chunk.offset > next {
            partial.clear();
            *told = chunk.offset;
            return &chunk.data;
        }
        let known = usize::try_from(next - chunk.offset).unwrap_or(usize::MAX);
        chunk.data.get(known..).unwrap_or_default()
    }

    /// The next line, a piece of an endless one, or at the end what has no line break.
    fn cut(&mut self, key: Key, end: bool) -> Option<Vec<u8>> {
        let partial = self.partial.entry(key).or_default();
        let whole = partial.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\n').map(|at| at + 1);
        let length = match whole {
            Some(length) => length,
            None if partial.len() >= LINE_BYTES_MAX => LINE_BYTES_MAX,
            None if end && !partial.is_empty() => partial.len(),
            None => return None,
        };
        let rest = partial.split_off(length);
        Some(std::mem::replace(partial, rest))
    }

    fn notice(&self, chunk: &LogChunk, text: &str) -> Item {
        let document: Value = json!({
            "schema": "muster.log_notice/1", "rank": chunk.rank, "attempt": chunk.attempt,
            "stream": chunk.stream, "notice": text,
        });
        Item { id: None, document }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(rank: u32, offset: u64, data: &'static str, end: bool) -> LogChunk {
        let data = data.as_bytes().into();
        LogChunk { rank, attempt: 2, stream: "stdout".into(), offset, data, end, ..LogChunk::default() }
    }

    fn told(items: Vec<Item>) -> Vec<(String, String)> {
        let line = |item: &Item| item.document["line"].as_str().unwrap_or("?").to_owned();
        items.iter().map(|item| (line(item), item.id.clone().unwrap_or_default())).collect()
    }

    fn pair(line: &str, id: &str) -> (String, String) {
        (line.to_owned(), id.to_owned())
    }

    #[test]
    fn a_stream_resumed_at_any_line_tells_the_rest_and_nothing_twice() {
        let chunks = || [chunk(0, 0, "one\ntw", false), chunk(1, 0, "b\n", true), chunk(0, 6, "o\nthree", true)];
        let mut lines = Lines::new(Place::default());
        let all: Vec<_> = chunks().iter().flat_map(|chunk| told(lines.take(chunk))).collect();
        let expected =
            [pair("one", "2:0o4"), pair("b", "2:0o4,1o2"), pair("two", "2:0o8,1o2"), pair("three", "2:0o13,1o2")];
        assert_eq!(all, expected);
        for (at, (_, id)) in all.iter().enumerate() {
            let mut lines = Lines::new(Place::read(id).expect("own id"));
            let rest: Vec<_> = chunks().iter().flat_map(|chunk| told(lines.take(chunk))).collect();
            assert_eq!(rest, all[at + 1..], "resumed after {id}");
        }
    }

    #[test]
    fn bytes_that_are_gone_and_endless_lines_are_told_as_they_are() {
        let mut lines = Lines::new(Place::default());
        assert!(lines.take(&chunk(0, 0, "begun", false)).is_empty());
        let mut later = chunk(0, 100, "on\n", false);
        later.dropped = 95;
        let items = lines.take(&later);
        assert_eq!(items[0].document["notice"], "95 bytes were lost to the log limit");
        assert_eq!(told(items)[1], pair("on", "2:0o103"));
        let long: &'static str = Box::leak("x".repeat(LINE_BYTES_MAX + 5).into_boxed_str());
        assert_eq!(lines.take(&chunk(0, 103, long, false)).len(), 1);
    }

    #[test]
    fn only_own_ids_are_read_and_too_many_logs_have_none() {
        for id in ["", "1", "x:0o1", "1:0x1", "1:o1", "1:0o", "1:0o-1"] {
            assert_eq!(Place::read(id), None, "{id:?}");
        }
        let mut lines = Lines::new(Place::default());
        let count = u32::try_from(PLACES_MAX).expect("few") + 1;
        let last = (0..count).flat_map(|rank| lines.take(&chunk(rank, 0, "x\n", false))).last();
        assert_eq!(last.expect("lines").id, None);
    }
}
