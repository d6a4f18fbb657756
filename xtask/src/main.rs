//! The chores that keep the house. `cargo xtask tidy` checks what the compiler cannot;
//! `cargo xtask mutate` removes the safety rules one by one and shows the test that notices;
//! `cargo xtask deb` builds the Debian package; `cargo xtask fuzz` throws bytes at every decoder;
//! `cargo xtask man` writes man pages and completions.

mod deb;
mod fuzz;
mod man;
mod mutate;
mod source;
mod tidy;
mod tree;

use std::process::ExitCode;

const HELP: &str = "\
Usage: cargo xtask <COMMAND>

Commands:
  tidy                                             check the house rules
  man                                              write man pages and completions into target/man
  mutate [--only ID] [--model|--code] [--list]     remove each safety rule, name the test that fails
         [--limit-s SECONDS]
  deb    [--profile NAME | --binary FILE]          build the Debian package into target/debian; needs cargo-deb
  fuzz [--seconds 60] [--seed N] [TARGET...]       attack every decoder, following coverage
       [--list] [--minimise]                       name the targets; rewrite fuzz/corpus from what was found
";

/// Findings and survivors end with 1, a command line that cannot be read with 2.
fn main() -> ExitCode {
    if let Some(code) = fuzz::compile_in_place() {
        return code;
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.split_first() {
        Some((command, [])) if command == "tidy" => tidy::run(),
        Some((command, [])) if command == "man" => man::run(),
        Some((command, rest)) if command == "mutate" => match mutate::Options::parse(rest) {
            Ok(options) => mutate::run(&options),
            Err(problem) => return usage(&problem),
        },
        Some((command, rest)) if command == "deb" => match deb::Options::parse(rest) {
            Ok(options) => deb::run(&options),
            Err(problem) => return usage(&problem),
        },
        Some((command, rest)) if command == "fuzz" => match fuzz::Options::parse(rest) {
            Ok(options) => fuzz::run(&options),
            Err(problem) => return usage(&problem),
        },
        Some((command, [])) if matches!(command.as_str(), "help" | "--help" | "-h") => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Some((command, _)) => return usage(&format!("cannot read the command line at `{command}`")),
        None => return usage("no command given"),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn usage(problem: &str) -> ExitCode {
    eprintln!("xtask: {problem}\n\n{HELP}");
    ExitCode::from(2)
}
