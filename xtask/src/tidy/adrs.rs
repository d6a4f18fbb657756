//! Every decision record is listed on the records' own page.

use super::Finding;
use crate::tree::Tree;

const FOLDER: &str = "docs/adr";

pub fn check(tree: &Tree) -> Vec<Finding> {
    let list = tree.get("docs/adr/README.md").map_or("", |file| file.text.as_str());
    let mut findings = Vec::new();
    for file in tree.under(FOLDER) {
        let name = file.path.rsplit('/').next().unwrap_or(&file.path);
        if name != "README.md" && !list.contains(&format!("]({name})")) {
            findings.push(Finding::new(
                &file.path,
                0,
                format!("`{name}` is not listed in docs/adr/README.md"),
                "a record nobody finds is decided again",
                "add a line with a link to it",
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
    fn a_record_without_a_line_is_found() {
        let tree = made_up(&[
            ("docs/adr/README.md", "- [One](0001-one.md)\n- 0002-two.md\n"),
            ("docs/adr/0001-one.md", ""),
            ("docs/adr/0002-two.md", ""),
        ]);
        assert_eq!(brief(&check(&tree)), ["docs/adr/0002-two.md:0 `0002-two.md` is not listed in docs/adr/README.md"]);
    }
}
