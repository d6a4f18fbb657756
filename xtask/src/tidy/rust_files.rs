//! The Rust files of a tree, read once for all checks.

use std::collections::BTreeSet;

use crate::source::{Name, TestLines, mask, names, test_lines, test_modules};
use crate::tree::Tree;

/// A Rust file with its comments and literals blanked.
pub struct RustFile<'a> {
    pub path: &'a str,
    pub code: String,
    pub names: Vec<Name>,
    test_lines: TestLines,
    /// Whether the whole file is test code.
    pub test: bool,
}

impl RustFile<'_> {
    /// Whether that 1-based line belongs to test code.
    pub fn is_test(&self, line: usize) -> bool {
        self.test || self.test_lines.contains(line)
    }

    pub fn is_under(&self, folder: &str) -> bool {
        self.path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
    }

    /// The names outside test code.
    pub fn shipped_names(&self) -> impl Iterator<Item = &Name> {
        self.names.iter().filter(|name| !self.is_test(name.line))
    }
}

pub fn rust_files(tree: &Tree) -> Vec<RustFile<'_>> {
    let mut files: Vec<RustFile> = tree
        .files
        .iter()
        .filter(|file| file.path.ends_with(".rs"))
        .map(|file| {
            let code = mask(&file.text);
            let (names, test_lines) = (names(&code), test_lines(&code));
            RustFile { path: &file.path, code, names, test_lines, test: has_test_path(&file.path) }
        })
        .collect();
    let modules: BTreeSet<String> = files.iter().flat_map(declared_test_modules).collect();
    for file in &mut files {
        let stem = file.path.trim_end_matches(".rs");
        file.test |= modules.iter().any(|module| stem == module || stem.starts_with(&format!("{module}/")));
    }
    files
}

fn has_test_path(path: &str) -> bool {
    path.split('/').any(|part| part == "tests" || part == "tests.rs")
}

/// Paths, without `.rs`, of the modules this file declares under `#[cfg(test)]`.
fn declared_test_modules(file: &RustFile) -> Vec<String> {
    let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", file.path));
    let own = match name {
        "mod.rs" | "lib.rs" | "main.rs" => folder.to_string(),
        _ => file.path.trim_end_matches(".rs").to_string(),
    };
    test_modules(&file.code).into_iter().map(|module| format!("{own}/{module}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::made_up;

    #[test]
    fn test_files_are_known_by_path_and_by_declaration() {
        let tree = made_up(&[
            ("a/src/lib.rs", "#[cfg(test)]\nmod naive;\nmod b;"),
            ("a/src/naive.rs", ""),
            ("a/src/naive/inner.rs", ""),
            ("a/src/b.rs", "#[cfg(test)]\nmod helper;"),
            ("a/src/b/helper.rs", ""),
            ("a/src/b/tests.rs", ""),
            ("a/tests/it.rs", ""),
            ("a/src/naive_not.rs", ""),
        ]);
        let shipped: Vec<&str> = rust_files(&tree).iter().filter(|file| !file.test).map(|file| file.path).collect();
        assert_eq!(shipped, ["a/src/b.rs", "a/src/lib.rs", "a/src/naive_not.rs"]);
    }
}
