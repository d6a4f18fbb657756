//! A second copy of the project to cut into, kept between runs so that cargo rebuilds little.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};

/// Makes `to` hold exactly the named files of `from`; a file that is equal already keeps its time.
/// Returns how many files were written or removed.
pub fn sync(from: &Path, to: &Path, paths: &[String]) -> Result<usize> {
    let mut changed = 0;
    for path in paths {
        changed += usize::from(copy(&from.join(path), &to.join(path))?);
    }
    let wanted: BTreeSet<&str> = paths.iter().map(String::as_str).collect();
    for stale in files_below(to, "")?.iter().filter(|path| !wanted.contains(path.as_str())) {
        std::fs::remove_file(to.join(stale)).with_context(|| format!("cannot remove {stale}"))?;
        changed += 1;
    }
    Ok(changed)
}

fn copy(from: &Path, to: &Path) -> Result<bool> {
    let wanted = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if std::fs::read(to).is_ok_and(|present| present == wanted) {
        return Ok(false);
    }
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    std::fs::write(to, wanted).with_context(|| format!("cannot write {}", to.display()))?;
    let permissions = std::fs::metadata(from)?.permissions();
    std::fs::set_permissions(to, permissions)?;
    Ok(true)
}

/// Relative paths of all files below a folder; none if the folder does not exist.
fn files_below(root: &Path, below: &str) -> Result<Vec<String>> {
    let folder = root.join(below);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        if entry.file_type()?.is_dir() {
            found.extend(files_below(root, &path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_follows_the_project_and_keeps_what_is_equal() {
        let base = std::env::temp_dir().join(format!("xtask-copy-{}", std::process::id()));
        let (from, to) = (base.join("from"), base.join("to"));
        std::fs::create_dir_all(from.join("a")).expect("the temporary folder can be written");
        std::fs::write(from.join("a/b.rs"), "one").expect("the file can be written");
        std::fs::write(from.join("c.rs"), "two").expect("the file can be written");
        let paths = ["a/b.rs".to_string(), "c.rs".to_string()];
        assert_eq!(sync(&from, &to, &paths).expect("first copy"), 2);
        let time = |path: &str| std::fs::metadata(to.join(path)).and_then(|data| data.modified()).expect("it exists");
        let before = time("a/b.rs");
        std::fs::write(from.join("a/b.rs"), "one").expect("the file can be written");
        assert_eq!(sync(&from, &to, &paths).expect("nothing to do"), 0);
        assert_eq!(time("a/b.rs"), before);
        std::fs::write(to.join("c.rs"), "mutated").expect("the file can be written");
        assert_eq!(sync(&from, &to, &paths[1..]).expect("restores one, removes one"), 2);
        assert_eq!(std::fs::read_to_string(to.join("c.rs")).expect("it exists"), "two");
        assert!(!to.join("a/b.rs").exists());
        std::fs::remove_dir_all(&base).expect("the temporary folder can be removed");
    }
}
