//! Just enough reading of Rust source for the checks: what is code, what is test code, which
//! functions there are and which paths are named. No full parser: a check must also read code
//! that does not compile yet, and a build of xtask must stay short.

mod functions;
mod mask;
mod names;
mod test_regions;

pub use functions::functions;
pub use mask::mask;
pub use names::{Name, names};
pub use test_regions::{TestLines, test_lines, test_modules};

/// The 1-based line of a byte offset.
pub fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// The offset just past the bracket that closes the one at `open`, in masked code.
pub fn after_matching(code: &[u8], open: usize) -> usize {
    let mut depth = 0usize;
    for (offset, byte) in code.iter().enumerate().skip(open) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return offset + 1;
                }
            }
            _ => {}
        }
    }
    code.len()
}

pub fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}
