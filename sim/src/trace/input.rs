//! Files as streams of lines: unpacked on the way, never held whole, with a limit on a line.

use super::LINE_BYTES_MAX;
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

pub(super) fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    let file = File::open(path)?;
    Ok(if packed(path) { limited(MultiGzDecoder::new(BufReader::new(file))) } else { limited(file) })
}

fn packed(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gz"))
}

pub(super) fn limited(read: impl Read + 'static) -> Box<dyn BufRead> {
    Box::new(BufReader::with_capacity(1 << 16, ShortLines { read, line: 1, bytes: 0 }))
}

/// Refuses a line that is too long, so that no parser has to hold one.
struct ShortLines<R> {
    read: R,
    line: u64,
    bytes: usize,
}

impl<R: Read> Read for ShortLines<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.read.read(buffer)?;
        for piece in buffer[..read].split_inclusive(|byte| *byte == b'\n') {
            self.bytes += piece.len();
            if self.bytes > LINE_BYTES_MAX {
                let why = format!("line {} is longer than {LINE_BYTES_MAX} bytes", self.line);
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            if piece.ends_with(b"\n") {
                self.line += 1;
                self.bytes = 0;
            }
        }
        Ok(read)
    }
}

/// Each line with its number, without its end.
pub(super) fn each_line(
    input: &mut dyn BufRead,
    mut line: impl FnMut(u64, Result<&str, String>),
) -> Result<(), String> {
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        if input.read_until(b'\n', &mut bytes).map_err(|error| format!("after line {}: {error}", number - 1))? == 0 {
            break;
        }
        line(number, std::str::from_utf8(&bytes).map(str::trim).map_err(|_| "it is not UTF-8 text".to_owned()));
    }
    Ok(())
}
