//! The one binary, `muster`: for users, operators and the daemons themselves.

mod args;
mod client;
mod commands;
mod context;
mod error;
mod exit;
mod jobfile;
mod layout;
mod output;
mod refs;
mod settings;

use clap::Parser;
use context::Context;
use error::CliError;
use muster_proto::convert::error::ErrorCode;
use output::Printer;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return unparsed(&error),
    };
    if let args::Command::Shim(args) = &cli.command {
        return commands::shim::main(args);
    }
    let env: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let no_color = env.iter().any(|(key, value)| key == "NO_COLOR" && !value.is_empty());
    let global = cli.global;
    let printer = Printer::new(global.json, global.quiet, global.color, no_color);
    let flags = settings::Flags {
        server: global.server,
        identity: global.identity,
        timeout: global.timeout,
        config: global.config,
    };
    let context = Context { printer, flags, env, yes: global.yes, verbose: global.verbose };
    match run(&context, cli.command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            context.printer.fail(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// Help and versions for those who ask; for programs, a mistake in the line as a document like any other.
fn unparsed(error: &clap::Error) -> ExitCode {
    let own = std::env::args_os().take_while(|arg| arg != "--").any(|arg| arg == "--json");
    if !error.use_stderr() || !own {
        error.exit();
    }
    let text = error.to_string();
    let words = |text: &str, between: &str| {
        text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(between)
    };
    // What is wrong stands in the first paragraph, what is possible in those after it.
    let (wrong, rest) = text.split_once("\n\n").unwrap_or((&text, ""));
    let message = words(wrong.strip_prefix("error: ").unwrap_or(wrong), " ");
    let error = CliError::new(ErrorCode::Usage, message).hint(words(rest, "\n"));
    output::talk(&(error.json() + "\n"));
    ExitCode::from(error.exit_code())
}

fn run(context: &Context, command: args::Command) -> Result<u8, CliError> {
    commands::dispatch(context, command)
}
