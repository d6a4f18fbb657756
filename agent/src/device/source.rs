//! Where the devices of this node come from: the text of `--devices`.

use super::fixture::Fixture;
use super::{NoDevices, NvmlProbe, Probe, ProbeError, SimulatedProbe};
use muster_runtime::config::nearest;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A parsed `--devices`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DeviceSource {
    /// NVML where the driver's library is, else none.
    #[default]
    Auto,
    /// NVML, and it must be there.
    Nvml { library: Option<PathBuf> },
    /// A machine of `fixtures/`; `tray` chooses one of a rack, counted from 1.
    Simulated { fixture: String, tray: Option<u16> },
    /// A CPU-only node.
    None,
}

impl DeviceSource {
    /// Opens the probe. `node` makes simulated devices differ between nodes; `sysfs_root` is where
    /// `auto` looks for NVIDIA hardware (`/sys`).
    ///
    /// Errors: with `auto`, a missing library is a CPU-only node, but a library that does not start on
    /// a machine that has NVIDIA hardware is an error, as such a node is broken and not CPU-only.
    pub fn open(&self, node: &str, sysfs_root: &Path) -> Result<Box<dyn Probe>, ProbeError> {
        match self {
            DeviceSource::None => Ok(Box::new(NoDevices::new("as configured"))),
            DeviceSource::Simulated { fixture, tray } => Ok(Box::new(SimulatedProbe::new(fixture, *tray, node)?)),
            DeviceSource::Nvml { library } => Ok(Box::new(NvmlProbe::open(library.as_deref())?)),
            DeviceSource::Auto => open_auto(None, sysfs_root),
        }
    }

    pub fn is_simulated(&self) -> bool {
        matches!(self, DeviceSource::Simulated { .. })
    }
}

/// What `auto` does, with another library than the driver's own if one is given.
pub fn open_auto(library: Option<&Path>, sysfs_root: &Path) -> Result<Box<dyn Probe>, ProbeError> {
    match NvmlProbe::open(library) {
        Ok(probe) => Ok(Box::new(probe)),
        Err(ProbeError::LibraryMissing { cause, .. }) => {
            if has_nvidia_hardware(sysfs_root) {
                tracing::warn!(%cause, "this machine has NVIDIA hardware but no driver library; joining without devices");
            }
            Ok(Box::new(NoDevices::new("no NVIDIA driver library")))
        }
        Err(ProbeError::Init { cause, .. }) if !has_nvidia_hardware(sysfs_root) => {
            Ok(Box::new(NoDevices::new(format!("no NVIDIA hardware; the driver says: {cause}"))))
        }
        Err(error) => Err(error),
    }
}

/// True when the PCI bus shows an NVIDIA display or 3D controller.
fn has_nvidia_hardware(sysfs_root: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(sysfs_root.join("bus/pci/devices")) else {
        return false;
    };
    let is =
        |path: PathBuf, start: &str| std::fs::read_to_string(path).is_ok_and(|text| text.trim().starts_with(start));
    entries.flatten().any(|entry| is(entry.path().join("vendor"), "0x10de") && is(entry.path().join("class"), "0x03"))
}

impl FromStr for DeviceSource {
    type Err = ProbeError;

    fn from_str(text: &str) -> Result<Self, ProbeError> {
        let (kind, rest) = match text.split_once(':') {
            Some((kind, rest)) => (kind, Some(rest)),
            None => (text, None),
        };
        match (kind, rest) {
            ("auto", None) => Ok(DeviceSource::Auto),
            ("none", None) => Ok(DeviceSource::None),
            ("nvml", None) => Ok(DeviceSource::Nvml { library: None }),
            ("nvml", Some(path)) if Path::new(path).is_absolute() => {
                Ok(DeviceSource::Nvml { library: Some(PathBuf::from(path)) })
            }
            ("nvml", Some(path)) => Err(ProbeError::RelativeLibrary { path: PathBuf::from(path) }),
            ("simulated", Some(name)) => parse_simulated(name),
            _ => {
                let hint = match nearest(kind, ["auto", "nvml", "none", "simulated"]) {
                    Some("simulated") => "; name a fixture, such as `simulated:dgx-h100`".to_owned(),
                    Some(near) => format!("; did you mean `{near}`?"),
                    None => String::new(),
                };
                Err(ProbeError::UnknownSource { text: text.escape_debug().to_string(), hint })
            }
        }
    }
}

fn parse_simulated(name: &str) -> Result<DeviceSource, ProbeError> {
    let (fixture, tray) = match name.split_once('/') {
        None => (name, None),
        Some((fixture, number)) => {
            let unknown = || ProbeError::UnknownSource {
                text: format!("simulated:{}", name.escape_debug()),
                hint: format!("; `{}` is not the number of a tray", number.escape_debug()),
            };
            (fixture, Some(number.parse::<u16>().map_err(|_| unknown())?))
        }
    };
    Fixture::load(fixture, tray)?;
    Ok(DeviceSource::Simulated { fixture: fixture.to_owned(), tray })
}

impl fmt::Display for DeviceSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceSource::Auto => f.write_str("auto"),
            DeviceSource::None => f.write_str("none"),
            DeviceSource::Nvml { library: None } => f.write_str("nvml"),
            DeviceSource::Nvml { library: Some(path) } => write!(f, "nvml:{}", path.display()),
            DeviceSource::Simulated { fixture, tray: None } => write!(f, "simulated:{fixture}"),
            DeviceSource::Simulated { fixture, tray: Some(tray) } => write!(f, "simulated:{fixture}/{tray}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_the_flag_parses_and_prints_back() {
        for text in
            ["auto", "none", "nvml", "nvml:/opt/lib/libnvidia-ml.so.1", "simulated:dgx-h100", "simulated:gb200-nvl72/3"]
        {
            let source: DeviceSource = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(source.to_string(), text);
        }
    }

    #[test]
    fn an_unknown_fixture_names_the_nearest_and_all_known_ones() {
        let error = "simulated:dgx-h10".parse::<DeviceSource>().unwrap_err().to_string();
        assert!(error.contains("did you mean `dgx-h100`?"), "{error}");
        assert!(error.contains("gb200-nvl72") && error.contains("pcie-8x"), "{error}");
    }

    #[test]
    fn wrong_sources_are_refused_with_a_hint() {
        let cases = [
            ("nvm", "did you mean `nvml`?"),
            ("simulated", "name a fixture"),
            ("", "is not a source"),
            ("auto:x", "is not a source"),
            ("nvml:lib.so", "not an absolute path"),
            ("simulated:gb200-nvl72/19", "its trays are 1 to 18"),
            ("simulated:gb200-nvl72/0", "its trays are 1 to 18"),
            ("simulated:gb200-nvl72/x", "not the number of a tray"),
            ("simulated:dgx-h100/1", "it is one machine"),
            ("\u{1b}[2J", "\\u{1b}"),
        ];
        for (text, part) in cases {
            let error = text.parse::<DeviceSource>().unwrap_err().to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }

    #[test]
    fn auto_without_a_library_is_a_node_without_devices() {
        let folder = tempfile::tempdir().unwrap();
        let mut probe = open_auto(Some(Path::new("/nonexistent/libnvidia-ml.so.1")), folder.path()).unwrap();
        assert!(probe.devices().unwrap().devices.is_empty());
        assert!(probe.describe().starts_with("none"), "{}", probe.describe());
    }
}
