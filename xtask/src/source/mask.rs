//! Blanks out comments and the insides of literals.

use super::is_word;

/// The source with every byte of comments, strings and character literals replaced by a space.
/// Newlines stay and so do the offsets, so that lines can be counted in the result.
pub fn mask(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(bytes, at).min(bytes.len());
        if end == at {
            // Words are skipped whole, so that the r of `for"` is never taken for a prefix.
            at += 1;
            while is_word(bytes[at - 1]) && at < bytes.len() && is_word(bytes[at]) {
                at += 1;
            }
            continue;
        }
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(out).expect("only whole literals are blanked, and by ASCII")
}

/// Where the comment or literal that starts at `at` ends; `at` itself if none does.
fn literal_end(bytes: &[u8], at: usize) -> usize {
    match bytes[at] {
        b'/' if bytes[at..].starts_with(b"//") => find(bytes, at, b"\n").unwrap_or(bytes.len()),
        b'/' if bytes[at..].starts_with(b"/*") => block_comment_end(bytes, at),
        b'"' => quoted_end(bytes, at + 1, b'"'),
        b'\'' => char_end(bytes, at),
        b'b' | b'c' | b'r' => prefixed_end(bytes, at),
        _ => at,
    }
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> Option<usize> {
    bytes[from..].windows(what.len()).position(|window| window == what).map(|found| from + found)
}

fn block_comment_end(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0usize;
    let mut at = start;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

/// The end of a literal with escapes whose first inner byte is at `at`.
fn quoted_end(bytes: &[u8], mut at: usize, quote: u8) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// A character literal ends after its one character; a lifetime is not a literal.
fn char_end(bytes: &[u8], at: usize) -> usize {
    if bytes.get(at + 1) == Some(&b'\\') {
        return quoted_end(bytes, at + 1, b'\'');
    }
    let Ok(rest) = std::str::from_utf8(&bytes[at + 1..]) else {
        return at;
    };
    let mut chars = rest.chars();
    match (chars.next(), chars.next()) {
        (Some(inner), Some('\'')) if inner != '\'' => at + 2 + inner.len_utf8(),
        _ => at,
    }
}

/// `b"..."`, `b'x'`, `c"..."`, `r#"..."#` and their mixtures; `r#name` is none of them.
fn prefixed_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let prefix = rest.iter().take_while(|byte| matches!(byte, b'b' | b'c' | b'r')).count();
    let hashes = rest[prefix..].iter().take_while(|byte| **byte == b'#').count();
    let raw = rest[prefix - 1] == b'r';
    match rest.get(prefix + hashes) {
        Some(b'"') if raw && prefix <= 2 => {
            let mut close = vec![b'"'];
            close.extend(std::iter::repeat_n(b'#', hashes));
            let inside = at + prefix + hashes + 1;
            find(bytes, inside, &close).map_or(bytes.len(), |found| found + close.len())
        }
        Some(b'"') if prefix == 1 && hashes == 0 => quoted_end(bytes, at + 2, b'"'),
        Some(b'\'') if prefix == 1 && hashes == 0 && rest[0] == b'b' => quoted_end(bytes, at + 2, b'\''),
        _ => at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn squeezed(text: &str) -> String {
        let masked = mask(text);
        assert_eq!(masked.len(), text.len());
        masked.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_go_and_code_stays() {
        assert_eq!(squeezed("a(); // { b\n/* { /* } */ { */ c();"), "a(); c();");
    }

    #[test]
    fn strings_of_every_kind_go() {
        assert_eq!(squeezed(r##"f("{ \" {", r#"{ " "#, b"\"{", br"\", c"{");"##), "f( , , , , );");
    }

    #[test]
    fn characters_go_and_lifetimes_stay() {
        assert_eq!(
            squeezed(r"fn f<'a>(x: &'a str) { g('{', '\'', b'{', '\u{7b}', 'é') }"),
            "fn f<'a>(x: &'a str) { g( , , , , ) }"
        );
    }

    #[test]
    fn raw_names_and_words_ending_in_a_prefix_are_code() {
        assert_eq!(squeezed("r#fn(); for x in attr {} vec![b]"), "r#fn(); for x in attr {} vec![b]");
    }

    #[test]
    fn an_unclosed_literal_ends_with_the_file() {
        assert_eq!(squeezed("a \"b"), "a");
        assert_eq!(squeezed("a /* b"), "a");
        assert_eq!(squeezed("a \"\\"), "a");
    }
}
