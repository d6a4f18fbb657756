//! The stand-in library: built when missing or stale, copied so that every test has a machine of its own.

use libloading::{Library, Symbol};
use muster_agent::device::NvmlProbe;
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;
use tempfile::TempDir;

pub const NO_INSTANCE: u32 = u32::MAX;

/// One machine, and the switches to make it fail.
pub struct FakeNvml {
    library: Library,
    path: PathBuf,
    _folder: TempDir,
}

impl FakeNvml {
    /// The library with no machine loaded: a driver that is installed and not running.
    pub fn idle() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Another file is another library to the loader, with its own statics.
        let path = folder.path().join("libfake_nvml.so");
        std::fs::copy(built(), &path).unwrap();
        // SAFETY: our own library, whose initialisation does nothing.
        let library = unsafe { Library::new(&path) }.unwrap();
        Self { library, path, _folder: folder }
    }

    pub fn playing(fixture: &str) -> Self {
        let fake = Self::idle();
        let path = CString::new(fixture_path(fixture).to_str().unwrap()).unwrap();
        // SAFETY: the function's signature, as the library exports it.
        let load: Symbol<unsafe extern "C" fn(*const std::ffi::c_char) -> u32> =
            unsafe { fake.library.get(b"fake_load\0") }.unwrap();
        // SAFETY: a C string that lives through the call.
        assert_eq!(unsafe { load(path.as_ptr()) }, 0, "the fixture {fixture} did not load");
        fake
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn probe(&self) -> NvmlProbe {
        NvmlProbe::open(Some(&self.path)).unwrap()
    }

    pub fn inject_xid(&self, gpu: u32, xid: u64) {
        // SAFETY: the function's signature, as the library exports it.
        let call: Symbol<unsafe extern "C" fn(u32, u64) -> u32> =
            unsafe { self.library.get(b"fake_inject_xid\0") }.unwrap();
        // SAFETY: takes numbers only.
        assert_eq!(unsafe { call(gpu, xid) }, 0);
    }

    /// Calls `fake_<name>` with so many numbers, one to three.
    pub fn set<const N: usize>(&self, name: &str, arguments: [u32; N]) {
        let symbol = CString::new(format!("fake_{name}")).unwrap();
        let symbol = symbol.as_bytes_with_nul();
        // SAFETY: the tests name a control function together with its number of arguments; all of them
        // take C `unsigned int` and return one.
        let code = unsafe {
            match arguments.as_slice() {
                [a] => self.library.get::<unsafe extern "C" fn(u32) -> u32>(symbol).unwrap()(*a),
                [a, b] => self.library.get::<unsafe extern "C" fn(u32, u32) -> u32>(symbol).unwrap()(*a, *b),
                [a, b, c] => {
                    self.library.get::<unsafe extern "C" fn(u32, u32, u32) -> u32>(symbol).unwrap()(*a, *b, *c)
                }
                _ => panic!("{name} takes one to three numbers"),
            }
        };
        assert_eq!(code, 0, "{name} {arguments:?}");
    }
}

pub fn fixture_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(format!("{name}.json"))
}

/// The built library, beside this test's own program.
pub fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let exe = std::env::current_exe().unwrap();
        let profile_folder = exe.parent().and_then(Path::parent).expect("tests live in <target>/<profile>/deps");
        let library = profile_folder.join("libfake_nvml.so");
        if is_stale(&library) {
            build(profile_folder);
        }
        assert!(library.exists(), "no library at {}", library.display());
        library
    })
}

fn build(profile_folder: &Path) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "-p", "muster-fake-nvml", "--target-dir"]).arg(profile_folder.parent().unwrap());
    match profile_folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => {}
        Some(profile) => drop(command.args(["--profile", profile])),
    }
    let status = command.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap();
    assert!(status.success(), "building the stand-in library failed: {status}");
}

fn is_stale(library: &Path) -> bool {
    let changed = |path: &Path| path.metadata().and_then(|meta| meta.modified()).ok();
    let Some(built) = changed(library) else {
        return true;
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fake-nvml");
    let sources = std::fs::read_dir(folder.join("src")).unwrap().map(|entry| entry.unwrap().path());
    let newest: Option<SystemTime> = sources.chain([folder.join("Cargo.toml")]).filter_map(|path| changed(&path)).max();
    newest.is_none_or(|newest| newest > built)
}
