//! What a page of the documentation tells its reader to type, and what it says will be seen.
//!
//! A fence ` ```console ` is a terminal: lines after `$ ` are commands, a command ends where its line
//! does not end in `\`, and what follows is its output. ` ```console NAME ` is another terminal, in
//! which the last command of a fence may go on running; `^C` interrupts it. ` ```toml FILE ` is a
//! file to save. In output, a line `...` stands for any lines, `...` in a line for any text, and a
//! run of blanks for any other. `# exits with N` after a command says that it does not end with 0.
//! A command that only looks is repeated for a while until it shows what the page says.

use std::iter::Peekable;

/// One thing that a reader does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// In the page, from 1.
    pub line: usize,
    pub deed: Deed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    Save {
        file: String,
        text: String,
    },
    Type {
        /// Empty for the first terminal.
        terminal: String,
        command: String,
        output: Vec<String>,
        exit_code: i32,
        /// The terminal may be left with this command running.
        may_stay: bool,
    },
    Interrupt {
        terminal: String,
        output: Vec<String>,
    },
}

/// # Panics
/// When a fence is not of that form.
pub fn steps(page: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = (1..).zip(page.lines()).peekable();
    while let Some((number, line)) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let body: Vec<(usize, &str)> = lines.by_ref().take_while(|(_, line)| *line != "```").collect();
        match info.split_once(' ').unwrap_or((info, "")) {
            ("console", terminal) => steps.extend(typed(terminal, body)),
            ("toml", file) if !file.is_empty() => {
                let text = body.iter().map(|(_, line)| format!("{line}\n")).collect();
                steps.push(Step { line: number, deed: Deed::Save { file: file.to_owned(), text } });
            }
            _ => {}
        }
    }
    steps
}

fn typed(terminal: &str, body: Vec<(usize, &str)>) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = body.into_iter().peekable();
    while let Some((line, text)) = lines.next() {
        let deed = if text == "^C" {
            Deed::Interrupt { terminal: terminal.to_owned(), output: output(&mut lines) }
        } else {
            let first = text.strip_prefix("$ ");
            let mut command = first.unwrap_or_else(|| panic!("line {line}: `{text}` follows no command")).to_owned();
            while command.ends_with('\\') {
                let (_, more) = lines.next().unwrap_or_else(|| panic!("line {line}: the command goes on nowhere"));
                command = format!("{command}\n{more}");
            }
            let output = output(&mut lines);
            let exit_code = command.rsplit_once("# exits with ").map_or(0, |(_, code)| {
                code.trim().parse().unwrap_or_else(|_| panic!("line {line}: `{code}` is no exit code"))
            });
            let may_stay = !terminal.is_empty() && lines.peek().is_none_or(|(_, next)| *next == "^C");
            Deed::Type { terminal: terminal.to_owned(), command, output, exit_code, may_stay }
        };
        steps.push(Step { line, deed });
    }
    steps
}

fn output<'a>(lines: &mut Peekable<impl Iterator<Item = (usize, &'a str)>>) -> Vec<String> {
    let mut output = Vec::new();
    while let Some((_, line)) = lines.next_if(|(_, line)| !line.starts_with("$ ") && *line != "^C") {
        output.push(line.to_owned());
    }
    output
}

/// Commands that change nothing: who sees too early what they show looks again.
const LOOKS: &[&str] =
    &["muster ps", "muster show", "muster why", "muster logs", "muster node ls", "muster cluster status"];

pub fn only_looks(command: &str) -> bool {
    LOOKS.iter().any(|look| command.strip_prefix(look).is_some_and(|rest| rest.is_empty() || rest.starts_with(' ')))
}

/// Whether the lines are what the page says.
pub fn matches(expected: &[String], actual: &[&str]) -> bool {
    match expected.split_first() {
        None => actual.is_empty(),
        Some((first, rest)) if first == "..." => (0..=actual.len()).any(|skipped| matches(rest, &actual[skipped..])),
        Some((first, rest)) => actual
            .split_first()
            .is_some_and(|(line, others)| line_matches(&blanks(first), &blanks(line)) && matches(rest, others)),
    }
}

fn blanks(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn line_matches(expected: &str, actual: &str) -> bool {
    let parts: Vec<&str> = expected.split("...").map(str::trim).collect();
    let [first, middle @ .., last] = parts.as_slice() else { return expected == actual };
    let Some(mut rest) = actual.strip_prefix(first) else { return false };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_as_what_its_reader_does() {
        let page = "Save:\n```toml a.toml\nx = 1\n```\n```console\n$ one \\\n  two\nout\n...\n$ three    # exits with 6\n```\n\
                    ```sh\nnot this\n```\n```console b\n$ stays\nup\n```\n```console b\n^C\ndown\n```\n";
        let deeds: Vec<(usize, Deed)> = steps(page).into_iter().map(|step| (step.line, step.deed)).collect();
        let typed = |terminal: &str, command: &str, output: &[&str], exit_code, may_stay| Deed::Type {
            terminal: terminal.to_owned(),
            command: command.to_owned(),
            output: output.iter().map(|line| (*line).to_owned()).collect(),
            exit_code,
            may_stay,
        };
        assert_eq!(
            deeds,
            [
                (2, Deed::Save { file: "a.toml".to_owned(), text: "x = 1\n".to_owned() }),
                (6, typed("", "one \\\n  two", &["out", "..."], 0, false)),
                (10, typed("", "three    # exits with 6", &[], 6, false)),
                (16, typed("b", "stays", &["up"], 0, true)),
                (20, Deed::Interrupt { terminal: "b".to_owned(), output: vec!["down".to_owned()] }),
            ]
        );
    }

    #[test]
    fn only_looks_are_repeated() {
        assert!(only_looks("muster ps") && only_looks("muster logs -"));
        assert!(!only_looks("muster psst") && !only_looks("muster submit a.toml") && !only_looks("ls; muster ps"));
    }

    #[test]
    fn dots_stand_for_text_and_for_lines_and_for_nothing_else() {
        let says = |expected: &str, actual: &str| {
            let expected: Vec<String> = expected.lines().map(str::to_owned).collect();
            matches(&expected, &actual.lines().collect::<Vec<_>>())
        };
        assert!(says("Submitted job ...  hello", "Submitted job 9   hello"));
        assert!(says("a\n...\nd", "a\nb\nc\nd") && says("...", "") && says("a\n...", "a"));
        assert!(says("in ... (...)", "in /x/y (3 s)"));
        assert!(!says("Submitted job ...  hello", "Submitted job 9  bye"));
        assert!(!says("a\nd", "a\nb\nd") && !says("a", "a\nb") && !says("", "a"));
        assert!(!says("a\n...\nd", "a\nb\nc"));
    }
}
