//! Finds functions and their lengths.

use super::{after_matching, is_word, line_of};

/// A function with a body; lines are 1-based and inclusive, from `fn` to the closing brace.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    pub first_line: usize,
    pub last_line: usize,
}

impl Function {
    pub fn lines(&self) -> usize {
        self.last_line - self.first_line + 1
    }
}

/// Every function with a body in masked code, nested ones included.
pub fn functions(code: &str) -> Vec<Function> {
    let bytes = code.as_bytes();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn") {
        let starts = at == 0 || !is_word(bytes[at - 1]) && bytes[at - 1] != b'#';
        let Some(rest) = code[at + 2..].strip_prefix(|next: char| next.is_whitespace()) else {
            continue;
        };
        if !starts {
            continue;
        }
        let name: String =
            rest.trim_start().bytes().take_while(|byte| is_word(*byte) || *byte == b'$').map(char::from).collect();
        if name.is_empty() {
            continue;
        }
        if let Some(end) = body_end(bytes, at) {
            found.push(Function { name, first_line: line_of(code, at), last_line: line_of(code, end - 1) });
        }
    }
    found
}

/// The end of the body; none for a declaration that ends with a semicolon.
fn body_end(code: &[u8], mut at: usize) -> Option<usize> {
    while at < code.len() {
        match code[at] {
            b'{' => return Some(after_matching(code, at)),
            b';' | b'}' => return None,
            b'(' | b'[' => at = after_matching(code, at),
            _ => at += 1,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_measured_and_declarations_are_not() {
        let code =
            "trait T {\n fn a(&self);\n fn b(\n  x: [u8; 2],\n ) -> u8\n where\n  Self: Sized,\n {\n  1\n }\n}\n";
        let found = functions(code);
        assert_eq!(found, [Function { name: "b".into(), first_line: 3, last_line: 10 }]);
        assert_eq!(found[0].lines(), 8);
    }

    #[test]
    fn function_types_and_words_with_fn_are_not_functions() {
        assert_eq!(functions("type F = fn (u8) -> u8; let my_fn = 1; let fn_ = r#fn ; {}"), []);
    }

    #[test]
    fn nested_functions_are_found_too() {
        let names: Vec<String> = functions("fn a() { fn b() {} }").into_iter().map(|f| f.name).collect();
        assert_eq!(names, ["a", "b"]);
    }
}
