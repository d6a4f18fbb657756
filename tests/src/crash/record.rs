//! Reading a record; its format is in `crash-recorder/src/lib.rs`.

use anyhow::{Context, Result, bail, ensure};

/// One event; paths are relative to the watched folder, ids are the recorder's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Known {
        id: u64,
        path: String,
    },
    Created {
        id: u64,
        path: String,
    },
    Folder {
        id: u64,
        path: String,
    },
    Written {
        id: u64,
        offset: u64,
        bytes: Vec<u8>,
    },
    Length {
        id: u64,
        length: u64,
    },
    Renamed {
        from: String,
        to: String,
    },
    Removed {
        path: String,
    },
    Linked {
        from: String,
        to: String,
    },
    /// No id: everything.
    SyncBegan {
        token: u64,
        id: Option<u64>,
    },
    SyncEnded {
        token: u64,
        good: bool,
    },
    Mark(Vec<u8>),
    /// Something the record cannot hold.
    Unseen(String),
}

/// All events in order.
pub fn parse(bytes: &[u8]) -> Result<Vec<Event>> {
    let mut rest = Bytes(bytes);
    let mut events = Vec::new();
    while !rest.0.is_empty() {
        let at = bytes.len() - rest.0.len();
        let event = next(&mut rest).with_context(|| format!("the record is not whole at byte {at}"))?;
        if let Event::Unseen(what) = &event {
            bail!("the recorded process did what a record cannot hold: {what}");
        }
        events.push(event);
    }
    Ok(events)
}

fn next(rest: &mut Bytes<'_>) -> Result<Event> {
    let kind = rest.take(1)?[0];
    let length = rest.u32()?;
    let mut body = Bytes(rest.take(length as usize)?);
    Ok(match kind {
        1 => Event::Known { id: body.u64()?, path: body.text()? },
        2 => Event::Created { id: body.u64()?, path: body.text()? },
        3 => Event::Folder { id: body.u64()?, path: body.text()? },
        4 => Event::Written { id: body.u64()?, offset: body.u64()?, bytes: body.0.to_vec() },
        5 => Event::Length { id: body.u64()?, length: body.u64()? },
        6 | 8 => {
            let length = body.u32()?;
            let (from, to) = (Bytes(body.take(length as usize)?).text()?, body.text()?);
            if kind == 6 { Event::Renamed { from, to } } else { Event::Linked { from, to } }
        }
        7 => Event::Removed { path: body.text()? },
        9 => {
            let (token, id) = (body.u64()?, body.u64()?);
            Event::SyncBegan { token, id: (id != u64::MAX).then_some(id) }
        }
        10 => Event::SyncEnded { token: body.u64()?, good: body.take(1)?[0] == 1 },
        11 => Event::Mark(body.0.to_vec()),
        12 => Event::Unseen(body.text()?),
        other => bail!("{other} is no kind of event"),
    })
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        ensure!(count <= self.0.len(), "it ends early");
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into()?))
    }

    fn text(&mut self) -> Result<String> {
        Ok(std::str::from_utf8(self.0)?.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_is_cut_short_or_says_that_it_is_not_whole_is_refused() {
        let mark = [11, 2, 0, 0, 0, b'h', b'i'];
        assert_eq!(parse(&mark).expect("a whole record"), [Event::Mark(b"hi".to_vec())]);
        for cut in 1..mark.len() {
            assert!(parse(&mark[..cut]).is_err(), "cut at {cut}");
        }
        let error = parse(&[12, 4, 0, 0, 0, b'm', b'm', b'a', b'p']).expect_err("a hole").to_string();
        assert!(error.contains("mmap"), "{error}");
    }
}
