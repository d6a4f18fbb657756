//! `muster completion`: what a shell needs to complete commands, flags and files.

use crate::args::Cli;
use crate::context::Context;
use crate::error::CliError;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

pub const INSTALL: &str = "\
Install it:
  bash  muster completion bash > ~/.local/share/bash-completion/completions/muster
  zsh   muster completion zsh > \"${fpath[1]}/_muster\"
  fish  muster completion fish > ~/.config/fish/completions/muster.fish
Job numbers are not completed: asking the cluster at every key would make the shell wait for it.";

#[derive(Debug, Args)]
pub struct CompletionArgs {
    pub shell: Shell,
}

pub fn run(context: &Context, args: &CompletionArgs) -> Result<u8, CliError> {
    context.printer.raw(&script(args.shell))?;
    Ok(0)
}

fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "muster", &mut script);
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_learns_every_command() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let text = String::from_utf8(script(shell)).expect("text");
            for word in ["submit", "plan", "queue", "completion", "dry-run"] {
                assert!(text.contains(word), "{shell} does not know {word}");
            }
        }
    }
}
