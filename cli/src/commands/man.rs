//! `muster man`: manual pages of every command, from the command line itself.

use crate::args::Cli;
use crate::context::Context;
use crate::error::CliError;
use crate::exit;
use clap::{Args, Command, CommandFactory, ValueHint};
use clap_mangen::Man;
use muster_proto::convert::error::ErrorCode;
use muster_runtime::durable::{create_folder, write_atomic};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct ManArgs {
    /// The command whose page is printed, such as `node drain`; `muster` itself unless given
    pub command: Vec<String>,
    /// Write the pages of all commands into this folder instead
    #[arg(long, value_name = "DIR", conflicts_with = "command", value_hint = ValueHint::DirPath)]
    pub output: Option<PathBuf>,
}

pub fn run(context: &Context, args: &ManArgs) -> Result<u8, CliError> {
    let pages = pages();
    let Some(folder) = &args.output else {
        let name =
            std::iter::once("muster").chain(args.command.iter().map(String::as_str)).collect::<Vec<_>>().join("-");
        let page = pages.iter().find(|(known, _)| *known == name).ok_or_else(|| {
            CliError::new(ErrorCode::Usage, format!("there is no command `{}`", args.command.join(" ")))
                .hint("`muster help` lists the commands")
        })?;
        context.printer.raw(&page.1)?;
        return Ok(0);
    };
    create_folder(folder)?;
    for (name, page) in &pages {
        write_atomic(&folder.join(format!("{name}.1")), page)?;
    }
    context.printer.say(&format!("{} pages in {}", pages.len(), folder.display()));
    Ok(0)
}

/// Name and page of every command that people see, `muster` first.
fn pages() -> Vec<(String, Vec<u8>)> {
    let mut whole = Cli::command();
    whole.build();
    let mut pages = Vec::new();
    walk(&whole, "muster", &mut pages);
    pages
}

fn walk(command: &Command, name: &str, pages: &mut Vec<(String, Vec<u8>)>) {
    let shown = command.clone().display_name(name.to_owned()).disable_help_subcommand(true);
    let mut page = Vec::new();
    // Only a full disk can make it fail, and this is memory.
    let _ = Man::new(shown).title(name.to_uppercase()).section("1").source("muster").render(&mut page);
    page.extend(after(name).bytes());
    pages.push((name.to_owned(), page));
    let subs = command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help");
    for sub in subs {
        walk(sub, &format!("{name}-{}", sub.get_name()), pages);
    }
}

/// What no flag tells: exit codes and settings on the first page, the way there on the others.
fn after(name: &str) -> String {
    if name != "muster" {
        return ".SH \"SEE ALSO\"\n\\fBmuster\\fR(1)\n".to_owned();
    }
    let mut text = ".SH \"EXIT STATUS\"\n".to_owned();
    for (code, meaning) in exit::CODES {
        text.push_str(&format!(".TP\n\\fB{code}\\fR\n{}\n", escaped(meaning)));
    }
    text.push_str(".SH ENVIRONMENT\n");
    for (variable, meaning) in [
        ("MUSTER_SERVER", "servers as HOST:PORT, joined by commas"),
        ("MUSTER_IDENTITY", "folder with the caller's certificate and key"),
        ("MUSTER_TIMEOUT", "how long to try, such as 30s"),
        ("MUSTER_CONFIG", "settings file, in place of all others"),
        ("NO_COLOR", "no colour, whatever the terminal"),
        ("VISUAL, EDITOR", "the editor that `muster edit` opens"),
    ] {
        text.push_str(&format!(".TP\n\\fB{variable}\\fR\n{}\n", escaped(meaning)));
    }
    text
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_name_and_synopsis() {
        let pages = pages();
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for name in ["muster", "muster-submit", "muster-node-drain", "muster-queue-ls", "muster-man"] {
            assert!(names.contains(&name), "{names:?}");
        }
        assert!(!names.contains(&"muster-shim") && !names.contains(&"muster-help"), "{names:?}");
        for (name, page) in &pages {
            let text = String::from_utf8_lossy(page);
            assert!(text.contains(".TH") && text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{name}");
            assert!(text.contains(&name.replace('-', "\\-")), "{name}");
        }
    }

    #[test]
    fn the_first_page_holds_every_exit_code() {
        let text = String::from_utf8(pages()[0].1.clone()).expect("text");
        for (code, _) in exit::CODES {
            assert!(text.contains(&format!("\\fB{code}\\fR")), "{code}");
        }
    }
}
