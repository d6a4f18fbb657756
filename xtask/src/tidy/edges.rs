//! The edges between crates: the table of docs/ARCHITECTURE.md, section 2, as data.

use super::Finding;
use super::manifests::{Dependency, Kind, manifests};
use crate::tree::Tree;
use External::{AllBut, Only};

enum External {
    /// Nothing else: the purity of the crate hangs on it.
    Only(&'static [&'static str]),
    /// Anything that does not belong to another crate's concern.
    AllBut(&'static [&'static str]),
}

struct Edges {
    folder: &'static str,
    /// Crates of this workspace, without the `muster-`.
    ours: &'static [&'static str],
    external: External,
}

/// The consensus library and its stores stay in the scheduler.
const STORES: &[&str] = &["openraft", "sled"];
/// What may not come near the simulator: it has a virtual clock and no outside but files.
const RUNTIMES: &[&str] = &["openraft", "sled", "tokio", "tokio-util", "tokio-stream", "tonic", "quinn"];

const ALL: &[Edges] = &[
    Edges { folder: "common", ours: &[], external: Only(&["serde", "thiserror"]) },
    Edges { folder: "engine", ours: &["common"], external: Only(&["serde", "thiserror", "libm", "postcard", "sha2"]) },
    Edges { folder: "proto", ours: &["common"], external: AllBut(STORES) },
    Edges { folder: "runtime", ours: &[], external: AllBut(STORES) },
    Edges { folder: "scheduler", ours: &["common", "engine", "proto", "runtime"], external: AllBut(&[]) },
    Edges { folder: "agent", ours: &["common", "proto", "runtime"], external: AllBut(STORES) },
    Edges { folder: "sim", ours: &["common", "engine"], external: AllBut(RUNTIMES) },
    Edges {
        folder: "cli",
        ours: &["common", "engine", "proto", "runtime", "scheduler", "agent", "sim"],
        external: AllBut(STORES),
    },
    Edges {
        folder: "tests",
        ours: &["common", "engine", "proto", "runtime", "scheduler", "agent", "sim", "cli", "fake-nvml"],
        external: AllBut(STORES),
    },
    Edges {
        folder: "fuzz",
        ours: &["common", "engine", "proto", "runtime", "scheduler", "agent", "sim"],
        external: AllBut(STORES),
    },
    Edges { folder: "fake-nvml", ours: &[], external: Only(&["nvml-wrapper-sys", "serde", "serde_json", "libc"]) },
    Edges { folder: "crash-recorder", ours: &[], external: Only(&["libc"]) },
    Edges { folder: "xtask", ours: &[], external: Only(&["anyhow", "toml"]) },
];

/// (crate's folder, dependency refused even for its tests, why).
const REFUSED_IN_TESTS: &[(&str, &str)] = &[("engine", "tokio")];

const WHY: &str = "a crate boundary exists only to forbid a dependency (docs/ARCHITECTURE.md, section 2)";
const FIX: &str = "move the code to a crate that may depend on it; a new edge needs a decision record first";

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for manifest in manifests(tree) {
        let Some(edges) = ALL.iter().find(|edges| edges.folder == manifest.folder) else {
            let what = format!("the crate `{}` is not in the table of edges", manifest.folder);
            findings.push(Finding::new(&manifest.path, 0, what, WHY, "add it to xtask/src/tidy/edges.rs"));
            continue;
        };
        for dependency in manifest.dependencies.iter().filter(|dependency| !is_allowed(edges, dependency)) {
            let what = format!("`{}` may not depend on `{}`", edges.folder, dependency.name);
            findings.push(Finding::new(&manifest.path, dependency.line, what, WHY, FIX));
        }
    }
    findings
}

fn is_allowed(edges: &Edges, dependency: &Dependency) -> bool {
    let name = dependency.name.as_str();
    match (dependency.kind, name.strip_prefix("muster-")) {
        (Kind::Dev, _) => !REFUSED_IN_TESTS.contains(&(edges.folder, name)),
        (_, Some(ours)) => edges.ours.contains(&ours),
        // What runs at build time can do nothing at run time; only our own crates are held apart.
        (Kind::Build, None) => true,
        (Kind::Normal, None) => match edges.external {
            Only(allowed) => allowed.contains(&name),
            AllBut(refused) => !refused.contains(&name),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::brief;
    use crate::tree::made_up;

    fn found(path: &str, dependencies: &str) -> Vec<String> {
        let text = format!("[package]\nname = \"x\"\n[lints]\nworkspace = true\n{dependencies}");
        brief(&check(&made_up(&[(path, &text)])))
    }

    #[test]
    fn an_edge_that_the_table_lacks_is_found_at_its_line() {
        assert_eq!(
            found("engine/Cargo.toml", "[dependencies]\nserde.workspace = true\nmuster-proto.workspace = true\n"),
            ["engine/Cargo.toml:7 `engine` may not depend on `muster-proto`"]
        );
        assert_eq!(
            found("common/Cargo.toml", "[dependencies]\nrand = { workspace = true }\n"),
            ["common/Cargo.toml:6 `common` may not depend on `rand`"]
        );
    }

    #[test]
    fn renamed_and_target_dependencies_count() {
        assert_eq!(
            found(
                "agent/Cargo.toml",
                "[target.'cfg(unix)'.dependencies]\ndb = { package = \"sled\", version = \"0.34\" }\n"
            ),
            ["agent/Cargo.toml:6 `agent` may not depend on `sled`"]
        );
    }

    #[test]
    fn tests_are_free_but_for_the_engine_and_tokio() {
        assert_eq!(found("engine/Cargo.toml", "[dev-dependencies]\nproptest.workspace = true\n"), [""; 0]);
        assert_eq!(found("engine/Cargo.toml", "[dev-dependencies]\ntokio.workspace = true\n").len(), 1);
    }

    #[test]
    fn build_scripts_may_use_tools_but_not_our_crates() {
        assert_eq!(found("proto/Cargo.toml", "[build-dependencies]\nprotox.workspace = true\n"), [""; 0]);
        assert_eq!(found("proto/Cargo.toml", "[build-dependencies]\nmuster-engine.workspace = true\n").len(), 1);
    }

    #[test]
    fn a_crate_nobody_placed_is_found() {
        assert_eq!(found("web/Cargo.toml", ""), ["web/Cargo.toml:0 the crate `web` is not in the table of edges"]);
    }
}
