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

/// Each line with its number, without its end, until one is refused.
pub(super) fn each_line(
    input: &mut dyn BufRead,
    mut line: impl FnMut(u64, Result<&str, String>) -> Result<(), String>,
) -> Result<(), String> {
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        if input.read_until(b'\n', &mut bytes).map_err(|error| format!("after line {}: {error}", number - 1))? == 0 {
            break;
        }
        line(number, std::str::from_utf8(&bytes).map(str::trim).map_err(|_| "it is not UTF-8 text".to_owned()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::cell::Cell;
    use std::io::Write;
    use std::rc::Rc;

    /// Little that unpacks to much, again and again.
    struct Again {
        packed: Vec<u8>,
        at: usize,
        given: Rc<Cell<u32>>,
    }

    impl Again {
        const TIMES_MAX: u32 = 2_000;
    }

    impl Read for Again {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.at == self.packed.len() {
                self.at = 0;
                self.given.set(self.given.get() + 1);
            }
            let rest = if self.given.get() == Self::TIMES_MAX { &[] } else { &self.packed[self.at..] };
            let read = rest.len().min(buffer.len());
            buffer[..read].copy_from_slice(&rest[..read]);
            self.at += read;
            Ok(read)
        }
    }

    #[test]
    fn a_line_that_unpacks_to_too_much_is_refused_before_it_is_held() {
        const UNPACKED_BYTES: usize = 1 << 16;
        let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
        packer.write_all(&[b'1'; UNPACKED_BYTES]).unwrap();
        let given = Rc::new(Cell::new(0));
        let again = Again { packed: packer.finish().unwrap(), at: 0, given: given.clone() };
        let mut input = limited(MultiGzDecoder::new(again));
        let told = each_line(&mut input, |_, _| panic!("there is no whole line")).unwrap_err();
        assert!(told.contains("line 1 is longer than"), "{told}");
        // What is packed is read in blocks, so more than one line's worth.
        assert!(given.get() < Again::TIMES_MAX / 2, "{}", given.get());
    }

    #[test]
    fn nothing_is_read_after_a_line_that_is_refused() {
        let mut input = limited(&b"1\n2\n3\n"[..]);
        let mut seen = Vec::new();
        let told = each_line(&mut input, |number, _| {
            seen.push(number);
            if number == 2 { Err("enough".to_owned()) } else { Ok(()) }
        });
        assert_eq!((told, seen), (Err("enough".to_owned()), vec![1, 2]));
    }
}
