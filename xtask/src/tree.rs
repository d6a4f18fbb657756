//! The files of the working tree that belong to the project: tracked, or new and not ignored.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A text file with its path relative to the root, `/` between the parts.
pub struct TextFile {
    pub path: String,
    pub text: String,
}

/// The text files of a project, ordered by path. Checks see nothing else, so tests can make one up.
#[derive(Default)]
pub struct Tree {
    pub files: Vec<TextFile>,
    /// Paths of the files that are not text.
    pub others: Vec<String>,
}

impl Tree {
    /// Reads the project's text files; of a file that is not UTF-8 only the path is kept.
    pub fn read(root: &Path) -> Result<Tree> {
        let mut files = Vec::new();
        let mut others = Vec::new();
        for path in list(root)? {
            let bytes = std::fs::read(root.join(&path)).with_context(|| format!("cannot read {path}"))?;
            match String::from_utf8(bytes) {
                Ok(text) => files.push(TextFile { path, text }),
                Err(_) => others.push(path),
            }
        }
        Ok(Tree { files, others })
    }

    pub fn get(&self, path: &str) -> Option<&TextFile> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Files below `folder`, which is given without the closing slash.
    pub fn under<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = &'a TextFile> {
        self.files.iter().filter(move |file| file.path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')))
    }

    /// Whether a file or folder of that path is part of the project.
    pub fn contains(&self, path: &str) -> bool {
        self.get(path).is_some() || self.under(path).next().is_some() || self.others.iter().any(|other| other == path)
    }
}

/// The root of the workspace: the parent of this package's folder.
pub fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().expect("xtask lies one folder below the root").to_path_buf()
}

/// Paths of the project's files, sorted; a tracked file that was deleted is not among them.
pub fn list(root: &Path) -> Result<Vec<String>> {
    // A clone made by another user is fine to read, so git's owner check is told so.
    let output = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("cannot start git, which names the project's files; install git and try again")?;
    if !output.status.success() {
        bail!(
            "git cannot list the files of {}: {}; xtask needs a git checkout",
            root.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let listed = String::from_utf8(output.stdout).context("a path is not UTF-8; rename the file")?;
    let mut paths: Vec<String> =
        listed.split('\0').filter(|path| !path.is_empty() && root.join(path).is_file()).map(String::from).collect();
    paths.sort();
    paths.dedup();
    Ok(paths)
}

#[cfg(test)]
pub fn made_up(files: &[(&str, &str)]) -> Tree {
    let mut files: Vec<TextFile> =
        files.iter().map(|(path, text)| TextFile { path: path.to_string(), text: text.to_string() }).collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Tree { files, others: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_not_the_prefix_of_its_neighbour() {
        let tree = made_up(&[("sim/src/lib.rs", ""), ("simple/a.rs", "")]);
        assert_eq!(tree.under("sim").count(), 1);
        assert!(tree.contains("sim/src"));
        assert!(!tree.contains("simp"));
    }

    #[test]
    fn the_project_lists_its_own_manifest() {
        let paths = list(&root()).expect("the tests run in a git checkout");
        assert!(paths.iter().any(|path| path == "xtask/Cargo.toml"));
        assert!(!paths.iter().any(|path| path.starts_with("target/")));
    }
}
