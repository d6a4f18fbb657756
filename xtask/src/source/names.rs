//! Lists every name that code mentions, with `use` trees spelled out, so that a ban on
//! `std::fs` also meets `use std::{fs, io}`.

use super::{is_word, line_of};

/// A path or a lone identifier; a macro's last part keeps its `!`.
#[derive(Debug, PartialEq, Eq)]
pub struct Name {
    pub line: usize,
    pub parts: Vec<String>,
    /// Whether it comes from a `use` declaration.
    pub imported: bool,
}

impl Name {
    /// Whether `path` (parts joined by `::`) occurs in this name; a glob import stands for any last part.
    pub fn mentions(&self, path: &str) -> bool {
        let wanted: Vec<&str> = path.split("::").collect();
        self.parts.windows(wanted.len()).any(|window| {
            let (last, before) = window.split_last().expect("a path has a part");
            let (wanted_last, wanted_before) = wanted.split_last().expect("a path has a part");
            before.iter().zip(wanted_before).all(|(part, want)| part == want)
                && (last == wanted_last || last == "*" && wanted.len() > 1)
        })
    }
}

/// All names of masked code, in order.
pub fn names(code: &str) -> Vec<Name> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let line = |index: usize| line_of(code, tokens[index].0);
        if tokens[at].1 == "use" {
            at += 1;
            let mut prefix = Vec::new();
            at = read_tree(&tokens, at, &mut prefix, &mut |index, parts| {
                found.push(Name { line: line(index), parts, imported: true });
            });
        } else if starts_name(tokens[at].1) {
            let start = at;
            let mut parts = vec![tokens[at].1.to_string()];
            at += 1;
            while at + 1 < tokens.len() && tokens[at].1 == "::" && starts_name(tokens[at + 1].1) {
                parts.push(tokens[at + 1].1.to_string());
                at += 2;
            }
            if at < tokens.len() && tokens[at].1 == "!" && tokens.get(at + 1).is_some_and(|t| t.1 != "=") {
                parts.last_mut().expect("a name has a part").push('!');
            }
            found.push(Name { line: line(start), parts, imported: false });
        } else {
            at += 1;
        }
    }
    found
}

fn starts_name(token: &str) -> bool {
    token.bytes().next().is_some_and(|first| is_word(first) && !first.is_ascii_digit())
}

/// Reads one branch of a `use` tree and returns the index of the token after it.
fn read_tree(
    tokens: &[(usize, &str)],
    mut at: usize,
    prefix: &mut Vec<String>,
    emit: &mut impl FnMut(usize, Vec<String>),
) -> usize {
    let depth = prefix.len();
    let mut last = at;
    while at < tokens.len() {
        match tokens[at].1 {
            "::" => at += 1,
            "{" => {
                at += 1;
                while at < tokens.len() && tokens[at].1 != "}" {
                    at = read_tree(tokens, at, prefix, emit);
                    at += usize::from(tokens.get(at).is_some_and(|token| token.1 == ","));
                }
                prefix.truncate(depth);
                return at + 1;
            }
            "as" => at += 2,
            "self" if !prefix.is_empty() => at += 1,
            token if starts_name(token) || token == "*" => {
                prefix.push(token.to_string());
                last = at;
                at += 1;
            }
            _ => break,
        }
    }
    if !prefix.is_empty() {
        emit(last, prefix.clone());
    }
    prefix.truncate(depth);
    // A token that cannot be part of a tree is stepped over, or a broken file would never end.
    if at == last && at < tokens.len() && tokens[at].1 != "}" { at + 1 } else { at }
}

/// Words, `::` and single bytes of anything else, with their offsets.
fn tokens(code: &str) -> Vec<(usize, &str)> {
    let bytes = code.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        if bytes[at].is_ascii_whitespace() {
            at += 1;
            continue;
        }
        if is_word(bytes[at]) {
            while at < bytes.len() && is_word(bytes[at]) {
                at += 1;
            }
        } else {
            at += if bytes[at..].starts_with(b"::") { 2 } else { 1 };
        }
        found.push((start, &code[start..at]));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(code: &str) -> Vec<String> {
        names(code).into_iter().map(|name| format!("{}:{}", name.line, name.parts.join("::"))).collect()
    }

    #[test]
    fn use_trees_are_spelled_out() {
        assert_eq!(
            listed("use std::{\n fs::{self, File},\n io as stdio,\n env,\n};\nuse a::*;"),
            ["2:std::fs", "2:std::fs::File", "3:std::io", "4:std::env", "6:a::*"]
        );
    }

    #[test]
    fn paths_and_macros_are_named() {
        assert_eq!(
            listed("std::thread::spawn(f); dbg!(x != y);"),
            ["1:std::thread::spawn", "1:f", "1:dbg!", "1:x", "1:y"]
        );
    }

    #[test]
    fn a_name_mentions_a_run_of_its_parts() {
        let name =
            |parts: &str| Name { line: 1, parts: parts.split("::").map(String::from).collect(), imported: false };
        assert!(name("std::fs::read").mentions("std::fs"));
        assert!(name("tokio::time::Instant::now").mentions("Instant::now"));
        assert!(name("std::*").mentions("std::fs"));
        assert!(!name("my::fs").mentions("std::fs"));
        assert!(!name("a::*").mentions("HashMap"));
        assert!(!name("HashMapLike").mentions("HashMap"));
    }

    #[test]
    fn broken_code_ends() {
        for code in ["use", "use {", "use a::{b", "use }", "use a::{,,", "use a::{+}", "use ="] {
            names(code);
        }
    }
}
