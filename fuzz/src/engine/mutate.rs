//! Changes to inputs: a few small ones at a time, some guided by what the target compared.

use super::coverage;
use super::random::Random;

const NUMBERS: &[u64] = &[
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
];
/// Most changes at once.
const CHANGES_MAX: usize = 6;
const STRETCH_MAX: usize = 64;

/// What inputs are made from.
pub struct Mutator<'a> {
    pub random: &'a mut Random,
    pub words: &'a [&'a [u8]],
    pub length_max: usize,
}

impl Mutator<'_> {
    /// A changed copy of `input`; `other` lends pieces.
    pub fn mutate(&mut self, input: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = input.to_vec();
        for _ in 0..1 + self.random.below(CHANGES_MAX) {
            self.change(&mut bytes, other);
        }
        bytes.truncate(self.length_max);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let at = self.random.below(bytes.len());
        match self.random.below(12) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << self.random.below(8),
            1 if !bytes.is_empty() => bytes[at] = self.random.word() as u8,
            2 if !bytes.is_empty() => {
                let by = 1 + self.random.below(16) as u8;
                bytes[at] = if self.random.one_in(2) { bytes[at].wrapping_add(by) } else { bytes[at].wrapping_sub(by) };
            }
            3 => drop(self.cut(bytes)),
            4 => {
                let piece = self.stretch(bytes);
                self.insert(bytes, &piece);
            }
            5 => {
                let piece: Vec<u8> = (0..1 + self.random.below(8)).map(|_| self.random.word() as u8).collect();
                self.insert(bytes, &piece);
            }
            6 | 7 => self.write_number(bytes),
            8 => {
                let piece = self.stretch(other);
                self.insert(bytes, &piece);
            }
            9 => {
                let keep = self.random.below(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[keep..]);
            }
            10 => match self.random.pick(self.words) {
                Some(word) => {
                    let word = word.to_vec();
                    self.insert(bytes, &word);
                }
                None => self.write_number(bytes),
            },
            _ => self.satisfy_a_comparison(bytes),
        }
    }

    fn stretch(&mut self, from: &[u8]) -> Vec<u8> {
        let start = self.random.below(from.len());
        let length = self.random.below(STRETCH_MAX.min(from.len() - start + 1));
        from[start..start + length].to_vec()
    }

    fn cut(&mut self, bytes: &mut Vec<u8>) -> Vec<u8> {
        let start = self.random.below(bytes.len());
        let most = if self.random.one_in(8) { bytes.len() } else { STRETCH_MAX };
        let length = self.random.below((bytes.len() - start + 1).min(most + 1));
        bytes.drain(start..start + length).collect()
    }

    fn insert(&mut self, bytes: &mut Vec<u8>, piece: &[u8]) {
        let at = self.random.below(bytes.len() + 1);
        if self.random.one_in(2) {
            let end = (at + piece.len()).min(bytes.len());
            bytes.splice(at..end, piece.iter().copied());
        } else if bytes.len() + piece.len() <= self.length_max {
            bytes.splice(at..at, piece.iter().copied());
        }
    }

    /// A telling number in one of the ways numbers are written.
    fn write_number(&mut self, bytes: &mut Vec<u8>) {
        let number = *self.random.pick(NUMBERS).expect("there are some");
        let written = match self.random.below(6) {
            0 => number.to_le_bytes()[..4].to_vec(),
            1 => number.to_le_bytes().to_vec(),
            2 => number.to_be_bytes().to_vec(),
            3 => number.to_string().into_bytes(),
            4 => (number as i64).wrapping_neg().to_string().into_bytes(),
            _ => varint(number),
        };
        self.insert(bytes, &written);
    }

    /// Writes the other operand where one of them stands.
    fn satisfy_a_comparison(&mut self, bytes: &mut [u8]) {
        let (left, right) = coverage::compared(self.random.below(usize::MAX));
        let (from, to) = if self.random.one_in(2) { (left, right) } else { (right, left) };
        for width in [8, 4, 2] {
            for big in [false, true] {
                let at = |number: u64| if big { number.swap_bytes() >> (64 - 8 * width) } else { number };
                let wanted = at(from).to_le_bytes();
                let places: Vec<usize> =
                    bytes.windows(width).enumerate().filter(|(_, w)| *w == &wanted[..width]).map(|(i, _)| i).collect();
                if let Some(place) = self.random.pick(&places) {
                    bytes[*place..*place + width].copy_from_slice(&at(to).to_le_bytes()[..width]);
                    return;
                }
            }
        }
    }
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut written = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        written.push(if number == 0 { low } else { low | 0x80 });
        if number == 0 {
            return written;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutants_differ_and_stay_within_their_length() {
        let mut random = Random::new(7);
        let mut mutator = Mutator { random: &mut random, words: &[b"word"], length_max: 100 };
        let mut changed = 0;
        let mut worded = false;
        let input: Vec<u8> = (0..90).collect();
        for _ in 0..10_000 {
            let mutant = mutator.mutate(&input, b"another input");
            assert!(mutant.len() <= 100);
            changed += usize::from(mutant != input);
            worded |= mutant.windows(4).any(|window| window == b"word");
            assert!(mutator.mutate(b"", b"").len() <= 100);
        }
        assert!(changed > 9_000 && worded, "{changed}");
    }

    #[test]
    fn numbers_are_written_as_the_log_writes_them() {
        for number in [0, 127, 128, 300, u64::MAX] {
            assert_eq!(varint(number), postcard::to_stdvec(&number).expect("a number"));
        }
    }
}
