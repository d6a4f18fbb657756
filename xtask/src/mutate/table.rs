//! The table of mutations of the code, `xtask/mutations.toml`.

use std::path::Path;

use anyhow::{Context, Result, bail};
use toml::{Table, Value};

pub const PATH: &str = "xtask/mutations.toml";

/// One rule taken out of the code.
#[derive(Debug, PartialEq, Eq)]
pub struct Mutation {
    /// The rule's number in the design and a letter, such as `4.6a`.
    pub id: String,
    pub rule: String,
    pub edits: Vec<Edit>,
    pub package: String,
    /// A package whose binary the test starts, built before it; may be empty.
    pub build: String,
    /// `lib`, or the name of an integration test; empty runs all the package's targets.
    pub suite: String,
    /// The filter given to the test binary.
    pub test: String,
}

/// One replacement; `find` occurs exactly once in the file.
#[derive(Debug, PartialEq, Eq)]
pub struct Edit {
    pub file: String,
    pub find: String,
    pub replace: String,
}

impl Edit {
    /// The file's text with the replacement made, or why it cannot be made.
    pub fn apply(&self, text: &str) -> Result<String, String> {
        match text.matches(&self.find).count() {
            1 => Ok(text.replacen(&self.find, &self.replace, 1)),
            0 => Err(format!("the text to find is not in {}", self.file)),
            count => Err(format!("the text to find is {count} times in {}, not once", self.file)),
        }
    }
}

pub fn read(root: &Path) -> Result<Vec<Mutation>> {
    let text = std::fs::read_to_string(root.join(PATH)).with_context(|| format!("cannot read {PATH}"))?;
    parse(&text).with_context(|| format!("{PATH} is not a table of mutations"))
}

fn parse(text: &str) -> Result<Vec<Mutation>> {
    let table: Table = text.parse()?;
    allow_keys(&table, &["mutation"])?;
    let mut mutations: Vec<Mutation> = Vec::new();
    for row in rows(&table, "mutation")? {
        let mutation = parse_row(row).with_context(|| format!("in the row of id {:?}", row.get("id")))?;
        if mutations.iter().any(|other| other.id == mutation.id) {
            bail!("two rows have the id `{}`", mutation.id);
        }
        mutations.push(mutation);
    }
    Ok(mutations)
}

fn parse_row(row: &Table) -> Result<Mutation> {
    allow_keys(row, &["id", "rule", "file", "find", "replace", "package", "build", "suite", "test", "also"])?;
    let mut edits = vec![parse_edit(row)?];
    for also in rows(row, "also")? {
        allow_keys(also, &["file", "find", "replace"])?;
        edits.push(parse_edit(also)?);
    }
    let optional = |key| {
        if row.contains_key(key) { string(row, key) } else { Ok(String::new()) }
    };
    Ok(Mutation {
        id: filled(row, "id")?,
        rule: filled(row, "rule")?,
        edits,
        package: filled(row, "package")?,
        build: optional("build")?,
        suite: optional("suite")?,
        test: filled(row, "test")?,
    })
}

fn parse_edit(row: &Table) -> Result<Edit> {
    let edit = Edit { file: filled(row, "file")?, find: filled(row, "find")?, replace: string(row, "replace")? };
    let inside = Path::new(&edit.file).components().all(|part| matches!(part, std::path::Component::Normal(_)));
    if !inside {
        bail!("`file` must be a path inside the project, not `{}`", edit.file);
    }
    if edit.find == edit.replace {
        bail!("`find` and `replace` are equal");
    }
    Ok(edit)
}

fn rows<'a>(table: &'a Table, key: &str) -> Result<Vec<&'a Table>> {
    let Some(value) = table.get(key) else {
        return Ok(Vec::new());
    };
    let array = value.as_array().with_context(|| format!("`{key}` must be written as [[{key}]]"))?;
    array.iter().map(|row| row.as_table().with_context(|| format!("`{key}` must hold tables"))).collect()
}

fn allow_keys(table: &Table, known: &[&str]) -> Result<()> {
    match table.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => bail!("unknown key `{key}`; known are {}", known.join(", ")),
        None => Ok(()),
    }
}

fn string(table: &Table, key: &str) -> Result<String> {
    let value = table.get(key).with_context(|| format!("`{key}` is missing"))?;
    value
        .as_str()
        .map(String::from)
        .with_context(|| format!("`{key}` must be a {}", Value::String(String::new()).type_str()))
}

fn filled(table: &Table, key: &str) -> Result<String> {
    let value = string(table, key)?;
    if value.is_empty() {
        bail!("`{key}` is empty");
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str = r#"
[[mutation]]
id = "4.3a"
rule = "a lower token is refused"
file = "agent/src/store.rs"
find = "token < highest"
replace = "false"
package = "muster-agent"
build = "muster-cli"
suite = "lib"
test = "store::"
"#;

    #[test]
    fn a_row_is_read_with_its_further_edits() {
        let also = "[[mutation.also]]\nfile = \"a.rs\"\nfind = \"x\"\nreplace = \"\"\n";
        let mutations = parse(&format!("{ROW}{also}")).expect("the row is complete");
        assert_eq!(mutations.len(), 1);
        assert_eq!(mutations[0].edits.len(), 2);
        assert_eq!(mutations[0].edits[1].replace, "");
        assert_eq!((mutations[0].suite.as_str(), mutations[0].build.as_str()), ("lib", "muster-cli"));
    }

    #[test]
    fn the_table_of_the_project_can_be_read() {
        read(&crate::tree::root()).expect("the committed table is valid");
    }

    #[test]
    fn wrong_rows_are_refused_with_the_reason() {
        let cases = [
            (ROW.replace("suite", "suit"), "unknown key `suit`"),
            (ROW.replace("test = \"store::\"", ""), "`test` is missing"),
            (ROW.replace("\"false\"", "1"), "`replace` must be a string"),
            (ROW.replace("\"4.3a\"", "\"\""), "`id` is empty"),
            (ROW.replace("agent/src", "../src"), "inside the project"),
            (ROW.replace("\"false\"", "\"token < highest\""), "are equal"),
            (format!("{ROW}{ROW}"), "two rows have the id `4.3a`"),
            ("[mutation]\n".to_string(), "must be written as [[mutation]]"),
        ];
        for (text, expected) in cases {
            let error = parse(&text).expect_err(expected);
            assert!(format!("{error:#}").contains(expected), "{error:#}");
        }
    }

    #[test]
    fn an_edit_applies_to_exactly_one_place() {
        let edit = Edit { file: "a.rs".into(), find: "b".into(), replace: "c".into() };
        assert_eq!(edit.apply("abd"), Ok("acd".to_string()));
        assert!(edit.apply("abb").expect_err("twice").contains("2 times"));
        assert!(edit.apply("a").expect_err("never").contains("not in a.rs"));
    }
}
