//! The real `muster` binary, built once for the tests that start it.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// Set by who measures: what lies there is used as it is, since a build would disturb what is measured.
const BUILT: &str = "MUSTER_TEST_BUILT";

/// Path of the binary, beside this test's own folder in the target directory.
pub fn muster() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        // The agent looks for the small shim beside itself.
        let folder =
            build(&["--package", "muster-cli", "--bin", "muster", "--package", "muster-agent", "--bin", "muster-shim"]);
        folder.join(format!("muster{}", std::env::consts::EXE_SUFFIX))
    })
}

/// Builds with the profile of this program what is missing or older than its sources: cargo knows. Returns the folder it
/// lies in.
pub fn build(what: &[&str]) -> PathBuf {
    let program = std::env::current_exe().expect("a program knows its own path");
    let folder = program.parent().expect("a file lies in a folder");
    // Tests lie in <target>/<profile>/deps, other programs one folder above.
    let profile = if folder.ends_with("deps") { folder.parent().expect("deps has a parent") } else { folder };
    if std::env::var_os(BUILT).is_some() {
        return profile.to_owned();
    }
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--locked"]).args(what).current_dir(env!("CARGO_MANIFEST_DIR"));
    build.arg("--target-dir").arg(profile.parent().expect("a profile lies in the target folder"));
    match profile.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => {}
        Some(name) => {
            build.args(["--profile", name]);
        }
    }
    let status = build.status().expect("cargo starts");
    assert!(status.success(), "{what:?} does not build: {status}");
    profile.to_owned()
}
