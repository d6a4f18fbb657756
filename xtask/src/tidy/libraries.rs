//! Libraries that one folder wraps, so that replacing one is a change of that folder.

use super::{Finding, RustFile};

/// (library, folder or file that may name it).
const WRAPPED: &[(&str, &str)] = &[
    ("openraft", "scheduler/src/consensus"),
    ("sled", "scheduler/src/history"),
    ("nvml_wrapper", "agent/src/device"),
    ("quinn", "runtime/src/datagram"),
    ("parquet", "sim/src/columnar"),
];

pub fn check(files: &[RustFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (library, home) in WRAPPED {
        for file in files.iter().filter(|file| !is_at_home(file.path, home)) {
            // A first part only: a field or a module of that name is not the library.
            let uses = |part: &str| part == *library;
            let named = file.shipped_names().filter(|name| name.parts.len() > 1 && uses(&name.parts[0]));
            findings.extend(named.map(|name| {
                let what = format!("`{library}` outside {home}");
                let why = "a library behind one folder can be replaced, and its types stay out of the design";
                Finding::new(file.path, name.line, what, why, "use what that folder offers, or extend it")
            }));
        }
    }
    findings
}

fn is_at_home(path: &str, home: &str) -> bool {
    path.strip_prefix(home).is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::brief;
    use crate::tidy::rust_files::rust_files;
    use crate::tree::made_up;

    #[test]
    fn a_wrapped_library_is_named_only_at_home() {
        let tree = made_up(&[
            ("scheduler/src/consensus/mod.rs", "use openraft::Raft;"),
            ("scheduler/src/history.rs", "use sled::Db;"),
            ("scheduler/src/gateway/mod.rs", "use openraft::Raft;\nlet sled = self.sled;"),
            ("scheduler/tests/it.rs", "use openraft::Raft;"),
        ]);
        assert_eq!(
            brief(&check(&rust_files(&tree))),
            ["scheduler/src/gateway/mod.rs:1 `openraft` outside scheduler/src/consensus"]
        );
    }
}
