//! Reads the crates' manifests, and holds them to the one table of dependencies and lints.

use super::Finding;
use crate::tree::{TextFile, Tree};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Normal,
    Build,
    Dev,
}

pub struct Dependency {
    /// The package's name, also where the dependency is renamed.
    pub name: String,
    pub kind: Kind,
    pub line: usize,
    from_workspace: bool,
}

pub struct Manifest {
    pub path: String,
    /// The crate's folder.
    pub folder: String,
    pub dependencies: Vec<Dependency>,
    lints_from_workspace: bool,
}

const KINDS: &[(&str, Kind)] =
    &[("dependencies", Kind::Normal), ("build-dependencies", Kind::Build), ("dev-dependencies", Kind::Dev)];

/// The manifests of crates; one that is not TOML is left to cargo, which says so better.
pub fn manifests(tree: &Tree) -> Vec<Manifest> {
    tree.files.iter().filter_map(read).collect()
}

fn read(file: &TextFile) -> Option<Manifest> {
    let folder = file.path.strip_suffix("/Cargo.toml")?.to_string();
    let table: toml::Table = file.text.parse().ok()?;
    table.get("package")?;
    let targets = table.get("target").and_then(toml::Value::as_table);
    let target_tables = targets.into_iter().flat_map(|targets| targets.values()).filter_map(toml::Value::as_table);
    let mut dependencies = Vec::new();
    for holder in std::iter::once(&table).chain(target_tables) {
        for (section, kind) in KINDS {
            let section = holder.get(*section).and_then(toml::Value::as_table);
            for (key, value) in section.into_iter().flatten() {
                dependencies.push(dependency(file, key, value, *kind));
            }
        }
    }
    let lints_from_workspace = table.get("lints").is_some_and(is_from_workspace);
    Some(Manifest { path: file.path.clone(), folder, dependencies, lints_from_workspace })
}

fn dependency(file: &TextFile, key: &str, value: &toml::Value, kind: Kind) -> Dependency {
    let name = value.get("package").and_then(toml::Value::as_str).unwrap_or(key).to_string();
    let names_key = |line: &str| {
        let rest = line.trim_start().strip_prefix(key);
        let in_header = line.trim_end().ends_with(&format!("dependencies.{key}]"));
        in_header || rest.is_some_and(|rest| rest.trim_start().starts_with(['=', '.']))
    };
    let line = file.text.lines().position(names_key).map_or(0, |index| index + 1);
    Dependency { name, kind, line, from_workspace: is_from_workspace(value) }
}

fn is_from_workspace(value: &toml::Value) -> bool {
    value.get("workspace").and_then(toml::Value::as_bool) == Some(true)
}

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for manifest in manifests(tree) {
        for dependency in manifest.dependencies.iter().filter(|dependency| !dependency.from_workspace) {
            findings.push(Finding::new(
                &manifest.path,
                dependency.line,
                format!("`{}` does not come from the workspace's table", dependency.name),
                "one table fixes versions and features, so that no build of one crate rebuilds the rest",
                "name it in [workspace.dependencies] and write `workspace = true` here",
            ));
        }
        if !manifest.lints_from_workspace {
            findings.push(Finding::new(
                &manifest.path,
                0,
                "the crate does not take the workspace's lints".to_string(),
                "the lints hold everywhere or nowhere",
                "add `[lints]` with `workspace = true`",
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::brief;
    use crate::tree::made_up;

    #[test]
    fn every_crate_uses_the_shared_tables() {
        let tree = made_up(&[
            ("Cargo.toml", "[workspace]\nmembers = [\"a\"]\n"),
            ("a/Cargo.toml", "[package]\nname = \"a\"\n[dependencies]\nserde-x = \"1\"\nserde = \"1\"\n"),
            (
                "b/Cargo.toml",
                "[package]\nname = \"b\"\n[lints]\nworkspace = true\n[dependencies]\nserde.workspace = true\n",
            ),
        ]);
        assert_eq!(
            brief(&check(&tree)),
            [
                "a/Cargo.toml:5 `serde` does not come from the workspace's table",
                "a/Cargo.toml:4 `serde-x` does not come from the workspace's table",
                "a/Cargo.toml:0 the crate does not take the workspace's lints",
            ]
        );
    }
}
