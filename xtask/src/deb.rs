//! `cargo xtask deb`: builds the program, stages what belongs in the package, and lets cargo-deb pack it.
//! What goes where stands in cli/Cargo.toml.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::tree::root;

/// What the command line asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    program: Program,
}

#[derive(Debug, PartialEq, Eq)]
enum Program {
    /// Built with this profile.
    Profile(String),
    /// `muster`, built before, with `muster-shim` beside it: a package for a check, packed fast rather than small.
    File(PathBuf),
}

impl Options {
    /// Reads the arguments after `deb`; the error says what is wrong with them.
    pub fn parse(args: &[String]) -> Result<Options, String> {
        let program = match args {
            [] => Program::Profile("dist".to_string()),
            [flag, name] if flag == "--profile" => Program::Profile(name.clone()),
            [flag, file] if flag == "--binary" => Program::File(PathBuf::from(file)),
            _ => return Err("deb takes --profile NAME or --binary FILE".to_string()),
        };
        Ok(Options { program })
    }
}

/// Prints the path of the package.
pub fn run(options: &Options) -> Result<bool> {
    let root = root();
    let staged = root.join("target/deb");
    if staged.exists() {
        std::fs::remove_dir_all(&staged).with_context(|| format!("cannot clear {}", staged.display()))?;
    }
    std::fs::create_dir_all(&staged)?;
    let built = match &options.program {
        Program::Profile(profile) => build(&root, profile)?,
        Program::File(file) => file.clone(),
    };
    for name in ["muster", "muster-shim"] {
        // Both come from one build, so that they speak one version of the shim's protocol.
        let (built, program) = (built.with_file_name(name), staged.join(name));
        std::fs::copy(&built, &program).with_context(|| format!("cannot copy {}", built.display()))?;
        done(Command::new("strip").arg(&program), "strip, of binutils")?;
    }
    let output = root.join("target/debian");
    let mut pack = Command::new("cargo");
    pack.current_dir(&root).args(["deb", "--no-build", "--no-strip", "--package", "muster-cli", "--quiet"]);
    if matches!(options.program, Program::File(_)) {
        pack.arg("--fast");
    }
    done(pack.arg("--output").arg(&output), "cargo-deb; install it with `cargo install cargo-deb`")?;
    Ok(true)
}

/// The path of the program.
fn build(root: &Path, profile: &str) -> Result<PathBuf> {
    let mut build = Command::new("cargo");
    build.current_dir(root).args(["build", "--locked", "--package", "muster-cli", "--bin", "muster"]);
    build.args(["--package", "muster-agent", "--bin", "muster-shim", "--profile"]);
    done(build.arg(profile), "cargo")?;
    // Cargo's name of the folder differs for this one.
    let folder = if profile == "dev" { "debug" } else { profile };
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join(folder).join("muster"))
}

/// Runs it to its end; `name` is what is missing when it does not start.
fn done(command: &mut Command, name: &str) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {name}"))?;
    if !status.success() {
        bail!("{command:?} failed: {status}; if there is no such command, get {name}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(&line.split_whitespace().map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn a_program_is_built_for_distribution_unless_said_otherwise() {
        assert_eq!(parse("").map(|options| options.program), Ok(Program::Profile("dist".to_string())));
        assert_eq!(parse("--binary a/b").map(|options| options.program), Ok(Program::File(PathBuf::from("a/b"))));
        assert!(parse("--profile").is_err() && parse("dist").is_err());
    }
}
