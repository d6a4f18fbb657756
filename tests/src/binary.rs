//! The real `muster` binary, built once for the tests that start it.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// Path of the binary, beside this test's own folder in the target directory. Built with the
/// profile of the test when it is missing or older than its sources: cargo knows.
pub fn muster() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let test = std::env::current_exe().expect("a test knows its own path");
        let folder = test.parent().expect("a file lies in a folder");
        // Tests lie in <target>/<profile>/deps, other programs one folder above.
        let profile = if folder.ends_with("deps") { folder.parent().expect("deps has a parent") } else { folder };
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--locked", "--package", "muster-cli", "--bin", "muster"]);
        build.arg("--target-dir").arg(profile.parent().expect("a profile lies in the target folder"));
        match profile.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => {}
            Some(name) => {
                build.args(["--profile", name]);
            }
        }
        let status = build.status().expect("cargo starts");
        assert!(status.success(), "the binary under test does not build: {status}");
        profile.join(format!("muster{}", std::env::consts::EXE_SUFFIX))
    })
}
