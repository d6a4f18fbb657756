//! Text of others on a terminal.

/// Whether a character steers a terminal or hides what a text says: control characters, and the invisible ones that
/// turn its direction or take no room.
pub fn is_steering(c: char) -> bool {
    const INVISIBLE: &[(char, char)] = &[
        ('\u{ad}', '\u{ad}'),
        ('\u{61c}', '\u{61c}'),
        ('\u{180e}', '\u{180e}'),
        ('\u{200b}', '\u{200f}'),
        ('\u{2028}', '\u{202e}'),
        ('\u{2060}', '\u{206f}'),
        ('\u{feff}', '\u{feff}'),
        ('\u{fff9}', '\u{fffb}'),
        ('\u{e0000}', '\u{e007f}'),
    ];
    c.is_control() || INVISIBLE.iter().any(|(first, last)| (*first..=*last).contains(&c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_or_hides_is_told_from_what_is_seen() {
        for c in ['\u{1b}', '\n', '\u{7f}', '\u{9b}', '\u{202e}', '\u{2066}', '\u{200b}', '\u{feff}', '\u{e0041}'] {
            assert!(is_steering(c), "{c:?}");
        }
        for c in ['a', ' ', 'ä', '語', '–', '😀', '\u{301}'] {
            assert!(!is_steering(c), "{c:?}");
        }
    }
}
