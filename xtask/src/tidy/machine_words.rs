//! The project stands alone: no path of the machine somebody wrote it on.

use super::Finding;
use crate::tree::Tree;

/// Starts of paths, cut in two so that this file does not find itself.
const PLACES: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/tmp/ba", "sh_jobs"),
    concat!("/ro", "ot/"),
    concat!("../sha", "red/"),
    concat!("../refe", "rence/"),
];

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.files {
        for (number, line) in file.text.lines().enumerate() {
            for place in PLACES.iter().filter(|place| names_place(line, place)) {
                findings.push(Finding::new(
                    &file.path,
                    number + 1,
                    format!("the path `{place}` of some machine"),
                    "it does not exist where the project is used",
                    "make it relative to the project, configurable, or a temporary folder",
                ));
            }
        }
    }
    findings
}

/// Whether the line holds the path from its root, not as the middle of another one.
fn names_place(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        place.starts_with("..") || !before.is_some_and(|c| c.is_alphanumeric() || "._-~}$/".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::brief;
    use crate::tree::made_up;

    #[test]
    fn a_place_counts_only_from_its_root() {
        let place = PLACES[0];
        let text = format!("a {place}x\n\"{place}\"\ndocs{place}x\n~{place}\n$HOME{place}\n");
        let what = format!("the path `{place}` of some machine");
        let expected = [format!("a.md:1 {what}"), format!("a.md:2 {what}")];
        assert_eq!(brief(&check(&made_up(&[("a.md", &text)]))), expected);
    }

    #[test]
    fn a_neighbour_of_the_checkout_is_no_part_of_the_project() {
        let text = format!("include_str!(\"../../{}x\")", PLACES[3]);
        assert_eq!(check(&made_up(&[("a.rs", &text)])).len(), 1);
    }
}
