//! Every relative link of a Markdown page leads to a file of the project.

use super::Finding;
use crate::tree::Tree;

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|file| file.path.ends_with(".md")) {
        for (line, target) in links(&file.text) {
            let broken = match resolve(&file.path, &target) {
                Some(path) => !path.is_empty() && !tree.contains(&path),
                None => true,
            };
            if broken {
                findings.push(Finding::new(
                    &file.path,
                    line,
                    format!("the link to `{target}` leads nowhere"),
                    "a reader who follows it is lost",
                    "correct the path, or write the page",
                ));
            }
        }
    }
    findings
}

/// (line, target) of each relative link outside code; fragments and titles are cut off.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            let line = without_code(line);
            let inline = line.match_indices("](").filter_map(|(at, _)| line[at + 2..].split(')').next());
            let reference = line.strip_prefix('[').and_then(|rest| rest.split_once("]: ")).map(|(_, target)| target);
            found.extend(inline.chain(reference).filter_map(relative).map(|target| (number + 1, target)));
        }
    }
    found
}

/// The line with `code spans` blanked.
fn without_code(line: &str) -> String {
    let mut parts = line.split('`');
    let mut out = parts.next().unwrap_or_default().to_string();
    while let Some(code) = parts.next() {
        match parts.next() {
            Some(rest) => out.push_str(rest),
            None => out.push_str(code),
        }
    }
    out
}

fn relative(target: &str) -> Option<String> {
    let target = target.split_whitespace().next()?.trim_matches(['<', '>']);
    let path = target.split('#').next()?;
    let absolute = path.split('/').next()?.contains(':');
    (!absolute && !path.is_empty()).then(|| path.to_string())
}

/// The target's path from the root; none if it leaves the project.
fn resolve(page: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    if target.starts_with('/') {
        parts.clear();
    }
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::brief;
    use crate::tree::made_up;

    #[test]
    fn broken_links_are_found_where_they_stand() {
        let page = "[a](../README.md#top) [b](gone.md)\n![c](adr/) [d](https://x.y/z) [e](#here)\n[f]: other.md \"title\"\n[g](../../outside.md)\n";
        let tree = made_up(&[("docs/a.md", page), ("README.md", ""), ("docs/adr/0001.md", "")]);
        assert_eq!(
            brief(&check(&tree)),
            [
                "docs/a.md:1 the link to `gone.md` leads nowhere",
                "docs/a.md:3 the link to `other.md` leads nowhere",
                "docs/a.md:4 the link to `../../outside.md` leads nowhere",
            ]
        );
    }

    #[test]
    fn code_is_not_a_link() {
        let tree = made_up(&[("a.md", "`[a](b.md)` and `x`\n```\n[c](d.md)\n```\n[root](/a.md) [dir](.)\n")]);
        assert_eq!(brief(&check(&tree)), [""; 0]);
    }
}
