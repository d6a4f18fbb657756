//! Man pages and shell completions, as a package holds them: written by the program itself.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;
use std::process::Command;

const FOLDER: &str = "target/man";
/// Shell, and the name its completions are installed under.
const SHELLS: &[(&str, &str)] = &[("bash", "muster"), ("zsh", "_muster"), ("fish", "muster.fish")];

/// Builds the program and lets it write.
pub fn run() -> Result<bool> {
    let pages = Path::new(FOLDER);
    let scripts = pages.join("completions");
    fs::create_dir_all(&scripts).with_context(|| format!("making {}", scripts.display()))?;
    muster(&["man", "--output", FOLDER])?;
    for (shell, name) in SHELLS {
        let file = scripts.join(name);
        fs::write(&file, muster(&["completion", shell])?).with_context(|| format!("writing {}", file.display()))?;
    }
    println!("man pages in {FOLDER}, completions in {}", scripts.display());
    Ok(true)
}

fn muster(args: &[&str]) -> Result<Vec<u8>> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let run = command.args(["run", "--quiet", "--package", "muster-cli", "--bin", "muster", "--"]).args(args);
    let output = run.output().context("starting cargo")?;
    ensure!(output.status.success(), "muster {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}
